//! Sequences: one context each.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use herald_api::abi::HeraldError;

use super::HeraldEngine;
use super::status::{Failure, Outcome, free};

use herald_engine::{NeuroEngine, Sequence};

/// One context: its tokens, and the layers' state for them (KV cache and recurrent states).
pub struct HeraldEngineSequence {
    // Before the engine whose memory it uses, so that it is dropped first.
    sequence: Mutex<Sequence>,
    engine: Arc<NeuroEngine>,
    cancelled: AtomicBool,
}

impl HeraldEngineSequence {
    /// Locks the sequence for one call. Two calls at once are the caller's error, but are checked.
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

    /// Like [`HeraldEngineSequence::lock`], for work on this engine that herald_sequence_cancel can end from now on.
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

/// Creates an empty sequence on an engine and writes it to *out; the caller frees it with herald_sequence_free. On failure
/// *out is null. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT; OUT_OF_MEMORY; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_new(
    engine: *const HeraldEngine,
    out: *mut *mut HeraldEngineSequence,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        call.write_handle(out, || {
            let HeraldEngine { engine, .. } = call.value(engine, "engine")?;
            let sequence = HeraldEngineSequence {
                sequence: Mutex::new(engine.sequence()?),
                engine: Arc::clone(engine),
                cancelled: AtomicBool::new(false),
            };
            Ok(sequence)
        })
    })
}

/// Frees a sequence. No call may be running on it. Any thread. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_free(sequence: *mut HeraldEngineSequence) {
    // SAFETY: by herald.h's rules it is null or came from `herald_sequence_new`, and the caller doesn't use it again.
    unsafe { free(sequence) };
}

/// Writes the sequence's tokens to ids, which has room for capacity, and their number to *n_ids. Any thread, one call at a
/// time on a sequence. Statuses: OK; BUFFER_TOO_SMALL, with *n_ids the number; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_tokens(
    sequence: *const HeraldEngineSequence,
    ids: *mut u32,
    capacity: usize,
    n_ids: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let sequence = call.value(sequence, "sequence")?.lock()?;
        call.write_array(sequence.tokens(), ids, capacity, n_ids, "tokens")
    })
}

/// Writes the sequence's number of tokens to *len. Any thread, one call at a time on a sequence. Statuses: OK;
/// INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_len(
    sequence: *const HeraldEngineSequence,
    len: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let sequence = call.value(sequence, "sequence")?.lock()?;
        call.write(len, sequence.tokens().len(), "len")
    })
}

/// Removes the tokens from index len; a len past the end changes nothing. Any thread, one call at a time on a sequence.
/// Statuses: OK; UNSUPPORTED, with nothing removed, if the model has recurrent states, which can only go back to 0;
/// INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_truncate(
    sequence: *mut HeraldEngineSequence,
    len: usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let mut sequence = call.value(sequence, "sequence")?.lock()?;
        let tokens = sequence.tokens().len();
        if sequence.truncate(len) {
            return Ok(());
        }
        Err(Failure::unsupported(format!(
            "the sequence of {tokens} tokens can't go back to {len}: its model has recurrent states, which can only go \
                 back to 0"
        )))
    })
}

/// Ends the call that is running on the sequence soon: herald_generate* with HERALD_FINISH_CANCELLED, herald_prefill and
/// herald_logits with the status CANCELLED. Does nothing if no call is running. Any thread, at any time until the sequence
/// is freed; also from a signal handler. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_cancel(sequence: *const HeraldEngineSequence) {
    // SAFETY: by herald.h's rules the sequence is null, or a handle that the caller has not freed.
    if let Some(sequence) = unsafe { sequence.as_ref() } {
        sequence.cancelled.store(true, Ordering::Relaxed);
    }
}
