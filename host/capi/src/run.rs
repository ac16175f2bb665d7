//! Running tokens: prefill, decode, logits.

use std::ffi::c_void;

use herald_api::abi::HeraldError;

use super::arguments;
use super::status::{Failure, Outcome, guard};
use super::{HeraldEngine, HeraldEngineSequence};

/// A callback's answer: go on.
pub const HERALD_GO_ON: i32 = 0;
/// A callback's answer: stop. Any other than HERALD_GO_ON does the same.
pub const HERALD_STOP: i32 = 1;

/// A place for logits, or `None` for null: the caller doesn't want them.
fn place(logits: *mut f32, capacity: usize, needed: usize) -> Outcome<Option<*mut f32>> {
    if logits.is_null() {
        return Ok(None);
    }
    if capacity < needed {
        return Err(Failure::too_small("the buffer for the logits", capacity, needed));
    }
    arguments::place(logits, "the buffer for the logits").map(Some)
}

/// Runs n_ids ids after what the sequence has seen, and writes the last one's logits (vocabulary floats) to logits,
/// which has room for capacity; null where they are not wanted. On failure the sequence holds the pieces (of
/// HeraldEngineOptions.max_batch ids) that were run. Any thread, many at once on one engine, one at a time on a sequence.
/// Statuses: OK; INVALID_ARGUMENT (no ids, an unknown id); CONTEXT_FULL and BUFFER_TOO_SMALL, with nothing run;
/// CANCELLED; OUT_OF_MEMORY; INTERNAL.
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
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let handle = arguments::value(engine, "engine")?;
            let engine = &handle.engine;
            let ids = arguments::slice(ids, n_ids, "ids")?;
            let place = place(logits, capacity, engine.plan().vocabulary)?;
            let sequence = arguments::value(sequence, "sequence")?;
            let mut locked = sequence.begin(handle)?;
            let answer = engine.prefill_while(&mut locked, ids, &mut |_| !sequence.is_cancelled())?;
            if let Some(place) = place {
                place.copy_from_nonoverlapping(answer.as_ptr(), answer.len());
            }
            Ok(())
        })
    }
}

/// Runs one token after each sequence's others, all in one pass: n tokens for n sequences. Writes the
/// logits [n, vocabulary] to logits, which has room for capacity floats; null where they are not wanted. No sequence
/// twice. On failure no sequence has its token. Any thread, many at once on one engine, one at a time on a sequence.
/// Statuses: OK; INVALID_ARGUMENT (an unknown id, more sequences than max_batch); CONTEXT_FULL; BUFFER_TOO_SMALL;
/// OUT_OF_MEMORY; INTERNAL.
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
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let handle = arguments::value(engine, "engine")?;
            let engine = &handle.engine;
            let sequences = arguments::slice(sequences, n, "sequences")?;
            let tokens = arguments::slice(tokens, n, "tokens")?;
            if n == 0 {
                return Err(Failure::invalid("there are 0 sequences, where at least one was expected"));
            }
            let place = place(logits, capacity, n.saturating_mul(engine.plan().vocabulary))?;
            let mut locked = Vec::with_capacity(n);
            for (index, sequence) in sequences.iter().enumerate() {
                locked.push(arguments::value(*sequence, &format!("sequences[{index}]"))?.begin(handle)?);
            }
            let mut batch: Vec<_> =
                locked.iter_mut().map(|locked| &mut **locked).zip(tokens.iter().copied()).collect();
            let answer = engine.decode(&mut batch)?;
            if let Some(place) = place {
                place.copy_from_nonoverlapping(answer.as_ptr(), answer.len());
            }
            Ok(())
        })
    }
}

/// Runs n_ids ids after what the sequence has seen, and hands each one's logits to each, in order: index counts from 0,
/// and the n_logits (vocabulary) floats at logits are valid during that call. each returns HERALD_GO_ON, or HERALD_STOP
/// to end the work; it runs on the calling thread, must not throw or longjmp, and may call anything but what uses the
/// sequence. user_data is handed to it. Any thread, many at once on one engine, one at a time on a sequence.
/// Statuses: OK; as herald_prefill's; CANCELLED also where each stopped the work: the sequence then holds the pieces
/// that were run.
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
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let handle = arguments::value(engine, "engine")?;
            let ids = arguments::slice(ids, n_ids, "ids")?;
            let each = each.ok_or_else(|| Failure::invalid("each is null, where a function was expected"))?;
            let sequence = arguments::value(sequence, "sequence")?;
            let mut locked = sequence.begin(handle)?;
            let mut index = 0;
            handle.engine.logits_while(&mut locked, ids, &mut |row| {
                let answer = each(user_data, index, row.as_ptr(), row.len());
                index += 1;
                answer == HERALD_GO_ON && !sequence.is_cancelled()
            })?;
            Ok(())
        })
    }
}
