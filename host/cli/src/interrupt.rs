//! Ctrl-C: long work is told to stop, so that it can end cleanly; everything else just ends.
//!
//! Work stops between a backend's calls. Where a call takes long, or never returns, the user reads after a moment what the
//! program waits for, and the next interruption ends it at once.

use std::process;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{LazyLock, Once};
use std::time::Duration;

use super::output;
use super::system::end_at_once;

use herald::Stop;

/// No work watches for interruptions: one ends the program.
const IDLE: u8 = 0;
/// Work watches for an interruption.
const WORKING: u8 = 1;
/// The work has been told to stop.
const STOPPING: u8 = 2;
/// Work watches for an interruption, and the program continues after it.
const PATIENT: u8 = 3;
/// Such work has been told to stop.
const PATIENT_STOPPING: u8 = 4;
/// The work has been told to stop, and the user that the program waits for it.
const WAITING: u8 = 5;

/// Set when the work is told to stop, for an engine that is in the middle of it.
static STOP: LazyLock<Stop> = LazyLock::new(Stop::default);

static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// Which work is watched: later work is not to be blamed for an earlier interruption.
static TURN: AtomicUsize = AtomicUsize::new(0);

/// How long work may take to stop before the user is told.
const MOMENT: Duration = Duration::from_millis(400);

/// How long a call may go on after that: a program that only SIGTERM reaches would wait for a plugin that hangs for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// Watches for interruptions for as long as it lives.
#[derive(Debug)]
pub(super) struct Lookout(());

impl Lookout {
    /// Starts watching. A second interruption before the work has stopped ends the program.
    pub(super) fn begin() -> Self {
        Self::begin_as(WORKING)
    }

    /// Like [`Lookout::begin`], but only an interruption after the user was told that the program waits ends the program.
    pub(super) fn begin_patiently() -> Self {
        Self::begin_as(PATIENT)
    }

    fn begin_as(state: u8) -> Self {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            // Without a handler, an interruption ends the program as usual.
            if let Err(error) = ctrlc::set_handler(interrupted) {
                tracing::debug!("no handler for Ctrl-C: {error}");
            }
        });
        STOP.reset();
        TURN.fetch_add(1, Ordering::Relaxed);
        STATE.store(state, Ordering::Relaxed);
        Self(())
    }

    /// What an interruption sets: tie it to a sequence, and a prompt ends after the running layer.
    pub(super) fn stop(&self) -> Stop {
        STOP.clone()
    }

    /// Whether the work should go on.
    pub(super) fn go_on(&self) -> bool {
        !matches!(STATE.load(Ordering::Relaxed), STOPPING | PATIENT_STOPPING | WAITING)
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        STATE.store(IDLE, Ordering::Relaxed);
    }
}

/// Runs on a thread of its own, once for each interruption, one after the other.
fn interrupted() {
    let updated = STATE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| match state {
        WORKING => Some(STOPPING),
        PATIENT | PATIENT_STOPPING => Some(PATIENT_STOPPING),
        _ => None,
    });
    match updated {
        Ok(WORKING | PATIENT) => {
            let turn = TURN.load(Ordering::Relaxed);
            // Where there is no thread for it, nothing is said.
            let _ = std::thread::Builder::new().spawn(move || say_what_it_waits_for(turn));
        }
        Ok(_) => {}
        Err(IDLE) => process::exit(1),
        Err(_) => end_at_once(),
    }
    STOP.set();
}

fn say_what_it_waits_for(turn: usize) {
    std::thread::sleep(MOMENT);
    let waits = STATE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| match state {
        STOPPING | PATIENT_STOPPING if TURN.load(Ordering::Relaxed) == turn => Some(WAITING),
        _ => None,
    });
    if waits.is_err() {
        return;
    }
    output::note(format_args!(
        "\nwaiting for the running call to end, {} s at most; Ctrl-C once more ends the program at once",
        PATIENCE.as_secs()
    ));
    std::thread::sleep(PATIENCE);
    if TURN.load(Ordering::Relaxed) == turn && STATE.load(Ordering::Relaxed) == WAITING {
        end_at_once();
    }
}
