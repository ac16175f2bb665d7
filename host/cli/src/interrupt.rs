//! Ctrl-C: long work is told to stop, so that it can end cleanly; everything else just ends.

use std::process;
use std::sync::{LazyLock, Once};
use std::sync::atomic::{AtomicU8, Ordering};

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

/// Set when the work is told to stop, for an engine that is in the middle of it.
static STOP: LazyLock<Stop> = LazyLock::new(Stop::default);

static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// Watches for interruptions for as long as it lives.
#[derive(Debug)]
pub(super) struct Lookout(());

impl Lookout {
    /// Starts watching. A second interruption before the work has stopped ends the program.
    pub(super) fn begin() -> Self {
        Self::begin_as(WORKING)
    }

    /// Like [`Lookout::begin`], but no number of interruptions ends the program.
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
        STATE.store(state, Ordering::Relaxed);
        Self(())
    }

    /// What an interruption sets: tie it to a sequence, and a prompt ends after the running layer.
    pub(super) fn stop(&self) -> Stop {
        STOP.clone()
    }

    /// Whether the work should go on.
    pub(super) fn go_on(&self) -> bool {
        !matches!(STATE.load(Ordering::Relaxed), STOPPING | PATIENT_STOPPING)
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        STATE.store(IDLE, Ordering::Relaxed);
    }
}

fn interrupted() {
    let updated = STATE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| match state {
        WORKING => Some(STOPPING),
        PATIENT | PATIENT_STOPPING => Some(PATIENT_STOPPING),
        _ => None,
    });
    if updated.is_err() {
        process::exit(1);
    }
    STOP.set();
}
