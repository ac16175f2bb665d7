//! Sequences: one context each.

use std::ffi::c_char;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use herald_api::abi::HeraldError;

use super::HeraldEngine;
use super::arguments::Handle;
use super::contexts::HeraldMemoryUsage;
use super::status::{Failure, Outcome, free};

use herald_engine::threads::locked;
use herald_engine::{Capacity, MemoryOptions, NeuroEngine, Sequence, Stop};

/// One context: its tokens, and the layers' state for them (KV cache and recurrent states).
pub struct HeraldEngineSequence {
    // Before the engine whose memory it uses, so that it is dropped first.
    sequence: Mutex<Sequence>,
    engine: Arc<NeuroEngine>,
    stop: Stop,
    deadline: Mutex<Option<Instant>>,
}

impl Handle for HeraldEngineSequence {
    fn engine(&self) -> &NeuroEngine {
        &self.engine
    }
}

/// Why work was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was not, or by a callback.
    No,
    /// By herald_sequence_cancel, which is used up.
    Cancelled,
    /// By a deadline.
    Late,
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
        let mut sequence = self.lock()?;
        sequence.set_stop(Some(self.stop.until(*locked(&self.deadline))));
        Ok(sequence)
    }

    /// Whether herald_sequence_cancel was called, and no call has reported it yet.
    pub(super) fn is_cancelled(&self) -> bool {
        self.stop.is_set()
    }

    /// Why work that was cancelled ended, which uses a cancel up. `deadline` is the work's own, beside the sequence's.
    pub(super) fn ended(&self, deadline: Option<Instant>) -> Ended {
        if self.stop.reset() {
            Ended::Cancelled
        } else if self.stop.until(*locked(&self.deadline)).or_at(deadline).is_late() {
            Ended::Late
        } else {
            Ended::No
        }
    }

    /// A call's result, in which a deadline has its own status.
    pub(super) fn outcome<T>(&self, done: herald_engine::Result<T>) -> Outcome<T> {
        match done {
            Err(herald_engine::Error::Cancelled) if self.ended(None) == Ended::Late => Err(Failure::late()),
            done => Ok(done?),
        }
    }

    fn new(engine: &Arc<NeuroEngine>, sequence: Sequence) -> Self {
        let (stop, deadline) = Default::default();
        Self { sequence: Mutex::new(sequence), engine: Arc::clone(engine), stop, deadline }
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
            let HeraldEngine { engine, .. } = call.handle(engine, "engine")?;
            Ok(HeraldEngineSequence::new(engine, engine.sequence()?))
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
        let sequence = call.handle(sequence, "sequence")?.lock()?;
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
        let sequence = call.handle(sequence, "sequence")?.lock()?;
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
        let mut sequence = call.handle(sequence, "sequence")?.lock()?;
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

/// Creates a copy of a sequence, which goes on by itself, and writes it to *out; the caller frees it with herald_sequence_free.
/// On failure *out is null. The two share pages until one of them writes, so a copy costs little; recurrent states are copied.
/// It begins without a cancel and a deadline. Any thread, one call at a time on a sequence. Statuses: OK; INVALID_ARGUMENT;
/// OUT_OF_MEMORY; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_fork(
    sequence: *const HeraldEngineSequence,
    out: *mut *mut HeraldEngineSequence,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        call.write_handle(out, || {
            let sequence = call.handle(sequence, "sequence")?;
            let copy = sequence.engine.fork(&*sequence.lock()?)?;
            Ok(HeraldEngineSequence::new(&sequence.engine, copy))
        })
    })
}

/// Has a sequence computed with these adapters, and with no others: n_loras indices into HeraldEngineOptions.loras, each with what its
/// updates are multiplied by; a scale of 0 turns one off. A sequence begins with all, at the scales of the options. Once it has tokens,
/// which were computed with some, only the same are accepted: truncate it to 0 first. Any thread, one call at a time on a sequence.
/// Statuses: OK; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_set_loras(
    sequence: *mut HeraldEngineSequence,
    loras: *const u32,
    scales: *const f32,
    n_loras: usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let HeraldEngineSequence { engine, .. } = call.handle(sequence, "sequence")?;
        let loras = super::generate::loras(call, loras, scales, n_loras)?;
        Ok(engine.set_loras(&mut *call.handle(sequence, "sequence")?.lock()?, &loras)?)
    })
}

/// Saves a sequence to a file (NUL-terminated path), for herald_sequence_load in this or another process. An earlier file of
/// that name is replaced as a whole, or stays where this fails. Any thread, one call at a time on a sequence. Statuses: OK;
/// INVALID_ARGUMENT; NOT_FOUND (the path's folder); IO; OUT_OF_MEMORY; CORRUPT (an archived page is damaged); INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_save(
    sequence: *const HeraldEngineSequence,
    path: *const c_char,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let sequence = call.handle(sequence, "sequence")?;
        let path = call.path(path, "path")?;
        Ok(sequence.engine.save(&*sequence.lock()?, &[], &path)?)
    })
}

/// Loads a sequence that herald_sequence_save or the program host saved (NUL-terminated path), and writes it to *out; the
/// caller frees it with herald_sequence_free. On failure *out is null. Its pages go to the tiers that they were in. A token
/// that the program had chosen and not run is run. Any thread, many at once. Statuses: OK; NOT_FOUND; IO; CORRUPT (a damaged
/// file, or one of something else); INVALID_ARGUMENT (also a file of another model or of an earlier version, or recurrent states
/// of another backend); CONTEXT_FULL; OUT_OF_MEMORY; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_load(
    engine: *const HeraldEngine,
    path: *const c_char,
    out: *mut *mut HeraldEngineSequence,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        call.write_handle(out, || {
            let HeraldEngine { engine, .. } = call.handle(engine, "engine")?;
            let path = call.path(path, "path")?;
            let mut loaded = engine.restore(&path)?;
            if !loaded.pending.is_empty() {
                engine.prefill(&mut loaded.sequence, &loaded.pending)?;
            }
            Ok(HeraldEngineSequence::new(engine, loaded.sequence))
        })
    })
}

/// Fills usage, whose struct_size the caller must set, with what the tiers hold of a sequence; pages that it shares with others
/// count whole. Any thread, one call at a time on a sequence. Statuses: OK; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_usage(
    sequence: *const HeraldEngineSequence,
    usage: *mut HeraldMemoryUsage,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let sequence = call.handle(sequence, "sequence")?.lock()?;
        call.fill(usage, &HeraldMemoryUsage::of(&sequence.memory_usage(), 0))
    })
}

/// Moves a sequence's pages that are older than its latest keep_tokens tokens, except the first, to the compressed tier now, and
/// what has no room there to the archived one. Writes the number of moves to *moved_pages, unless moved_pages is null. Any
/// thread, one call at a time on a sequence. Statuses: OK; INVALID_ARGUMENT; OUT_OF_MEMORY; IO; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_compress(
    sequence: *mut HeraldEngineSequence,
    keep_tokens: usize,
    moved_pages: *mut u64,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let HeraldEngineSequence { engine, .. } = call.handle(sequence, "sequence")?;
        let mut sequence = call.handle(sequence, "sequence")?.lock()?;
        let options =
            MemoryOptions { active: Capacity::Tokens(keep_tokens), ..engine.memory_options().clone() };
        let before = sequence.memory_usage();
        engine.demote(&mut sequence, &options)?;
        let after = sequence.memory_usage();
        let compressed = before.active.pages.saturating_sub(after.active.pages);
        let archived = after.archived.pages.saturating_sub(before.archived.pages);
        call.write_if_wanted(moved_pages, compressed + archived, "moved_pages")
    })
}

/// Ends work on the sequence: the call that runs now, or else the next one, which then does nothing. A cancel stays set until a
/// call has reported it (herald_generate* with HERALD_FINISH_CANCELLED; herald_prefill, herald_decode and herald_logits with
/// the status CANCELLED) or herald_sequence_reset_cancel has cleared it. So none is lost that comes a moment too early; one
/// that comes a moment too late ends the next call, unless you reset it first.
///
/// A prompt ends after the layer that is running, a tenth of a second even for models of billions of parameters. The
/// sequence then holds the pieces (of HeraldEngineOptions.max_batch ids) that were run to their end, and the next call goes
/// on from there: nothing of the unfinished piece is left, neither keys and values nor recurrent states.
///
/// Any thread, at any time until the sequence is freed; also from a signal handler. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_cancel(sequence: *const HeraldEngineSequence) {
    // SAFETY: by herald.h's rules the sequence is null, or a handle that the caller has not freed.
    if let Some(sequence) = unsafe { sequence.as_ref() } {
        sequence.stop.set();
    }
}

/// Clears a cancel that no call has reported. Returns 1 if there was one, otherwise 0. Any thread, at any time until the
/// sequence is freed; also from a signal handler. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_reset_cancel(sequence: *const HeraldEngineSequence) -> u32 {
    // SAFETY: by herald.h's rules the sequence is null, or a handle that the caller has not freed.
    unsafe { sequence.as_ref() }.map_or(0, |sequence| u32::from(sequence.stop.reset()))
}

/// Sets when work on the sequence ends at the latest: milliseconds from now, for all calls that begin afterwards; 0: never. They
/// end as if cancelled, herald_generate* with HERALD_FINISH_DEADLINE, the others with the status DEADLINE. Any thread, at any
/// time. Statuses: OK; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_sequence_set_deadline(
    sequence: *const HeraldEngineSequence,
    milliseconds: u64,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        *locked(&call.handle(sequence, "sequence")?.deadline) = deadline_in(milliseconds);
        Ok(())
    })
}

/// The time in so many milliseconds; `None` for 0, and for times too far away to matter.
pub(super) fn deadline_in(milliseconds: u64) -> Option<Instant> {
    let time = Instant::now().checked_add(Duration::from_millis(milliseconds));
    time.filter(|_| milliseconds > 0)
}
