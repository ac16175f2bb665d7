//! Ctrl-C: long work is asked to stop, so that it can end cleanly; everything else just ends.

use std::process;
use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering};

/// Nothing looks out for an interruption: one ends the program.
const IDLE: u8 = 0;
/// Work looks out for an interruption.
const WORKING: u8 = 1;
/// The work has been asked to stop.
const ASKED: u8 = 2;
/// Work looks out for an interruption, and the program is to go on after it.
const PATIENT: u8 = 3;
/// Such work has been asked to stop.
const PATIENT_ASKED: u8 = 4;

static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// Work that looks out for interruptions for as long as this lives.
#[derive(Debug)]
pub(super) struct Lookout(());

impl Lookout {
    /// Begins to look out. A second interruption, before the work has heeded the first, ends the program.
    pub(super) fn begin() -> Self {
        Self::begin_as(WORKING)
    }

    /// As [`Lookout::begin`]; but however often the work is interrupted, the program goes on.
    pub(super) fn begin_patiently() -> Self {
        Self::begin_as(PATIENT)
    }

    fn begin_as(state: u8) -> Self {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            // Without a handler, an interruption ends the program as it does any other.
            if let Err(error) = ctrlc::set_handler(interrupted) {
                tracing::debug!("no handler for Ctrl-C: {error}");
            }
        });
        STATE.store(state, Ordering::Relaxed);
        Self(())
    }

    /// Whether the work should go on.
    pub(super) fn go_on(&self) -> bool {
        !matches!(STATE.load(Ordering::Relaxed), ASKED | PATIENT_ASKED)
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        STATE.store(IDLE, Ordering::Relaxed);
    }
}

fn interrupted() {
    let asked = STATE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| match state {
        WORKING => Some(ASKED),
        PATIENT | PATIENT_ASKED => Some(PATIENT_ASKED),
        _ => None,
    });
    if asked.is_err() {
        process::exit(1);
    }
}
