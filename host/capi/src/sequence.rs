//! Sequences: one context each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use herald_api::abi::HeraldError;

use super::HeraldEngine;
use super::arguments;
use super::status::{Failure, Outcome, free, guard};
use herald_engine::{NeuroEngine, Sequence};

/// One context: the tokens that it has seen, and what the layers keep of them.
pub struct HeraldEngineSequence {
    // The sequence comes before the engine whose memory it uses, so that it goes first.
    sequence: Mutex<Sequence>,
    engine: Arc<NeuroEngine>,
    cancelled: AtomicBool,
}

impl HeraldEngineSequence {
    /// The sequence, for one call. That two calls never run on one is the caller's part, and checked all the same.
    pub(super) fn lock(&self) -> Outcome<MutexGuard<'_, Sequence>> {
        match self.sequence.try_lock() {
            Ok(sequence) => Ok(sequence),
            Err(TryLockError::WouldBlock) => Err(Failure::invalid(
                "the sequence is in use, by another call or twice in this one, where one call at a time was expected",
            )),
            Err(TryLockError::Poisoned(_)) => {
                Err(Failure::internal("an earlier call on the sequence panicked: it can only be freed"))
            }
        }
    }

    /// As [`HeraldEngineSequence::lock`], for work on this engine, which herald_sequence_cancel can end from now on.
    pub(super) fn begin(&self, engine: &HeraldEngine) -> Outcome<MutexGuard<'_, Sequence>> {
        if !Arc::ptr_eq(&self.engine, &engine.engine) {
            return Err(Failure::invalid("the sequence belongs to another engine"));
        }
        let sequence = self.lock()?;
        self.cancelled.store(false, Ordering::Relaxed);
        Ok(sequence)
    }

    /// Whether herald_sequence_cancel was called since the work began.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Opens an empty sequence on an engine and puts it in *out, for the caller to give to herald_sequence_free; on failure
/// *out becomes null. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT; OUT_OF_MEMORY; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_new(
    engine: *const HeraldEngine,
    out: *mut *mut HeraldEngineSequence,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let out = arguments::place(out, "out")?;
            out.write(std::ptr::null_mut());
            let HeraldEngine { engine, .. } = arguments::value(engine, "engine")?;
            let sequence = HeraldEngineSequence {
                sequence: Mutex::new(engine.sequence()?),
                engine: Arc::clone(engine),
                cancelled: AtomicBool::new(false),
            };
            out.write(Box::into_raw(Box::new(sequence)));
            Ok(())
        })
    }
}

/// Frees a sequence that no call is running on. Any thread. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_free(sequence: *mut HeraldEngineSequence) {
    // SAFETY: the caller keeps to the header's rules.
    unsafe { free(sequence) };
}

/// Writes the tokens that the sequence has seen to ids, which has room for capacity, and their number to *n_ids.
/// Any thread, one call at a time on a sequence. Statuses: OK; BUFFER_TOO_SMALL, with *n_ids the number;
/// INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_tokens(
    sequence: *const HeraldEngineSequence,
    ids: *mut u32,
    capacity: usize,
    n_ids: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let sequence = arguments::value(sequence, "sequence")?.lock()?;
            arguments::answer(sequence.tokens(), ids, capacity, n_ids, "tokens")
        })
    }
}

/// Puts the number of tokens that the sequence has seen in *len. Any thread, one call at a time on a sequence.
/// Statuses: OK; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_len(
    sequence: *const HeraldEngineSequence,
    len: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let sequence = arguments::value(sequence, "sequence")?.lock()?;
            arguments::place(len, "len")?.write(sequence.tokens().len());
            Ok(())
        })
    }
}

/// Forgets the tokens from the len-th on; a len past the end changes nothing. Any thread, one call at a time on a
/// sequence. Statuses: OK; UNSUPPORTED, with nothing forgotten, where the model keeps recurrent states, which can go back
/// to nothing but 0; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_truncate(
    sequence: *mut HeraldEngineSequence,
    len: usize,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let mut sequence = arguments::value(sequence, "sequence")?.lock()?;
            let tokens = sequence.tokens().len();
            if sequence.truncate(len) {
                return Ok(());
            }
            Err(Failure::unsupported(format!(
                "the sequence of {tokens} tokens can't go back to {len}: its model keeps recurrent states, which go back to \
                 0 alone"
            )))
        })
    }
}

/// Ends the call that is running on the sequence soon: herald_generate* with HERALD_FINISH_CANCELLED, herald_prefill and
/// herald_logits with the status CANCELLED. Does nothing where none is running. Any thread, at any time until the
/// sequence is freed; also from a signal handler. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_cancel(sequence: *const HeraldEngineSequence) {
    // SAFETY: the caller keeps to the header's rules.
    if let Some(sequence) = unsafe { sequence.as_ref() } {
        sequence.cancelled.store(true, Ordering::Relaxed);
    }
}
