//! Runs tokens: prefill, decode, logits.

use std::ffi::c_void;

use herald_api::abi::HeraldError;

use super::arguments::check_answer;
use super::sequence::Ended;
use super::status::{Failure, Outcome};
use super::{HeraldEngine, HeraldEngineSequence};

/// A callback's answer: continue.
pub const HERALD_GO_ON: i32 = 0;
/// A callback's answer: stop. Any value but HERALD_GO_ON means the same.
pub const HERALD_STOP: i32 = 1;

const LOGITS_BUFFER: &str = "the buffer for the logits";

/// Checks a buffer for logits before they are computed; null: the caller doesn't want them.
fn check_logits(logits: *mut f32, capacity: usize, needed: usize) -> Outcome {
    if logits.is_null() {
        return Ok(());
    }
    if capacity < needed {
        return Err(Failure::too_small(LOGITS_BUFFER, capacity, needed));
    }
    check_answer(logits, LOGITS_BUFFER).map(drop)
}

/// Appends n_ids ids to the sequence and runs them, and writes the last one's logits (vocabulary floats) to logits, which
/// has room for capacity; null if they are not wanted. On failure the sequence holds the pieces (of
/// HeraldEngineOptions.max_batch ids) that were run. Any thread, many at once on one engine, one at a time on a sequence.
/// Statuses: OK; INVALID_ARGUMENT (no ids, an unknown id); CONTEXT_FULL and BUFFER_TOO_SMALL, with nothing run;
/// CANCELLED and DEADLINE (see herald_sequence_cancel); OUT_OF_MEMORY; IO (the archive's disk is full); INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_prefill(
    engine: *const HeraldEngine,
    sequence: *mut HeraldEngineSequence,
    ids: *const u32,
    n_ids: usize,
    logits: *mut f32,
    capacity: usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let handle = call.handle(engine, "engine")?;
        let engine = &handle.engine;
        let ids = call.slice(ids, n_ids, "ids")?;
        check_logits(logits, capacity, engine.plan().vocabulary)?;
        let sequence = call.handle(sequence, "sequence")?;
        let mut locked = sequence.begin(handle)?;
        let answer = sequence.outcome(engine.prefill(&mut locked, ids))?;
        if logits.is_null() { Ok(()) } else { call.copy(&answer, logits, capacity, LOGITS_BUFFER) }
    })
}

/// Appends one token to each of n sequences, and runs them all in one pass. Writes the logits [n, vocabulary] to logits,
/// which has room for capacity floats; null if they are not wanted. The sequences must differ. On failure no sequence has
/// its token; if it was a plugin's while it computed, sequences of a model with recurrent states can only be truncated to 0. Any thread, many at once on one engine, one at a time on a sequence.
/// Statuses: OK; INVALID_ARGUMENT (an unknown id, more sequences than max_batch); CONTEXT_FULL; BUFFER_TOO_SMALL;
/// CANCELLED and DEADLINE (of any of the sequences); OUT_OF_MEMORY; IO; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_decode(
    engine: *const HeraldEngine,
    sequences: *const *mut HeraldEngineSequence,
    tokens: *const u32,
    n: usize,
    logits: *mut f32,
    capacity: usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let handle = call.handle(engine, "engine")?;
        let engine = &handle.engine;
        let sequences = call.slice(sequences, n, "sequences")?;
        let tokens = call.slice(tokens, n, "tokens")?;
        if n == 0 {
            return Err(Failure::invalid("there are 0 sequences, where at least one was expected"));
        }
        check_logits(logits, capacity, n.saturating_mul(engine.plan().vocabulary))?;
        let mut locked = Vec::with_capacity(n);
        let mut handles = Vec::with_capacity(n);
        for (index, sequence) in sequences.iter().enumerate() {
            handles.push(call.handle(*sequence, &format!("sequences[{index}]"))?);
        }
        for sequence in &handles {
            locked.push(sequence.begin(handle)?);
        }
        let mut batch: Vec<_> =
            locked.iter_mut().map(|locked| &mut **locked).zip(tokens.iter().copied()).collect();
        let answer = match engine.decode(&mut batch) {
            Err(herald_engine::Error::Cancelled) => {
                // All cancels are used up by this one answer.
                let ended: Vec<Ended> = handles.iter().map(|sequence| sequence.ended(None)).collect();
                let cancelled = ended.contains(&Ended::Cancelled) || !ended.contains(&Ended::Late);
                let why = if cancelled { herald_engine::Error::Cancelled.into() } else { Failure::late() };
                return Err(why);
            }
            answer => answer?,
        };
        if logits.is_null() { Ok(()) } else { call.copy(&answer, logits, capacity, LOGITS_BUFFER) }
    })
}

/// Appends n_ids ids to the sequence and runs them, and passes each one's logits to each, in order: index counts from 0, and
/// the n_logits (vocabulary) floats at logits are valid during that call. each returns HERALD_GO_ON, or HERALD_STOP to end
/// the work; it gets user_data, runs on the calling thread, must not throw or longjmp, and may call anything that doesn't
/// use the sequence. Any thread, many at once on one engine, one at a time on a sequence. Statuses: those of herald_prefill;
/// CANCELLED also if each stopped the work: the sequence then holds the pieces that were run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_logits(
    engine: *const HeraldEngine,
    sequence: *mut HeraldEngineSequence,
    ids: *const u32,
    n_ids: usize,
    each: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            index: usize,
            logits: *const f32,
            n_logits: usize,
        ) -> i32,
    >,
    user_data: *mut c_void,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let handle = call.handle(engine, "engine")?;
        let ids = call.slice(ids, n_ids, "ids")?;
        let each = each.ok_or_else(|| Failure::invalid("each is null, where a function was expected"))?;
        let sequence = call.handle(sequence, "sequence")?;
        let mut locked = sequence.begin(handle)?;
        let mut index = 0;
        let mut stopped = false;
        let done = handle.engine.logits_while(&mut locked, ids, &mut |row| {
            // SAFETY: `each` is a function with herald.h's contract; the row outlives the call.
            let answer = unsafe { each(user_data, index, row.as_ptr(), row.len()) };
            index += 1;
            stopped = answer != HERALD_GO_ON;
            !stopped && !sequence.is_cancelled()
        });
        if stopped { Ok(done?) } else { sequence.outcome(done) }
    })
}
