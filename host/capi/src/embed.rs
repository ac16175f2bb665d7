//! Embeddings and hidden states: what the model makes of a text inside.

use std::ffi::{c_char, c_void};

use herald_api::abi::HeraldError;

use super::HeraldEngine;
use super::arguments;
use super::run::HERALD_GO_ON;
use super::sequence::deadline_in;
use super::status::{Failure, Outcome};
use herald_engine::model::Pooling;
use herald_engine::{EmbedOptions, Error, NeuroEngine, Stop};

/// Scale an embedding to length 1.
pub const HERALD_EMBED_NORMALIZE: u32 = 1 << 0;
/// The hidden state of the last token, not the mean over all tokens.
pub const HERALD_EMBED_LAST: u32 = 1 << 1;

/// The hidden state of the first token, as BERT's are pooled.
pub const HERALD_EMBED_FIRST: u32 = 1 << 2;
/// The mean over all tokens, whatever the model says.
pub const HERALD_EMBED_MEAN: u32 = 1 << 3;

/// Hidden states are between blocks; this many blocks are all of any model.
pub const HERALD_ALL_BLOCKS: u32 = 0xffff_ffff;

/// Writes a text's embedding to embedding, which has room for capacity floats, and their number to *n: hidden of them (see
/// HeraldEngineInfo), or of EmbeddingGemma as many as its last matrix has rows. A model that is made for it (MiniLM, EmbeddingGemma)
/// says how embeddings are pooled. Others give the mean of the text's tokens after the last block, before the final norm; a token
/// that the model puts before every text (BOS) is run and left out. flags: HERALD_EMBED_*, at most one of them a pooling. A language
/// model that was not trained to embed gives vectors that differ less than its texts do: compare them after you have subtracted the
/// mean of many. deadline_ms: milliseconds from now; 0: none. The prefix cache plays no part. Any thread, many at once. Statuses: OK;
/// INVALID_ARGUMENT (an empty text, not UTF-8); BUFFER_TOO_SMALL, with *n the number; UNSUPPORTED; CONTEXT_FULL; DEADLINE;
/// OUT_OF_MEMORY; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_embed(
    engine: *const HeraldEngine,
    text: *const c_char,
    text_len: usize,
    flags: u32,
    deadline_ms: u64,
    embedding: *mut f32,
    capacity: usize,
    n: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let HeraldEngine { engine, .. } = call.handle(engine, "engine")?;
        let pooling = pooling(flags)?;
        let text = call.text(text, text_len, "text")?;
        let len = engine.embedding_len();
        if capacity < len {
            call.write(n, len, "the number of floats")?;
            return Err(Failure::too_small("the buffer for the embedding", capacity, len));
        }
        call.write_array(
            &embed(engine, text, pooling, flags & HERALD_EMBED_NORMALIZE != 0, deadline_ms)?,
            embedding,
            capacity,
            n,
            "floats",
        )
    })
}

/// The pooling that flags ask for.
fn pooling(flags: u32) -> Outcome<Option<Pooling>> {
    let poolings = HERALD_EMBED_LAST | HERALD_EMBED_FIRST | HERALD_EMBED_MEAN;
    arguments::flags(flags, HERALD_EMBED_NORMALIZE | poolings)?;
    Ok(match flags & poolings {
        0 => None,
        HERALD_EMBED_LAST => Some(Pooling::Last),
        HERALD_EMBED_FIRST => Some(Pooling::Cls),
        HERALD_EMBED_MEAN => Some(Pooling::Mean),
        _ => return Err(Failure::invalid("flags ask for two poolings, where at most one was expected")),
    })
}

fn embed(
    engine: &NeuroEngine,
    text: &str,
    pooling: Option<Pooling>,
    normalize: bool,
    deadline_ms: u64,
) -> Outcome<Vec<f32>> {
    let stop = Stop::default().until(deadline_in(deadline_ms));
    let options = EmbedOptions { pooling, normalize, stop: Some(stop.clone()) };
    match engine.embed_texts(&[text], &options) {
        Err(Error::Cancelled) if stop.is_late() => Err(Failure::late()),
        done => Ok(done?.pop().unwrap_or_default()),
    }
}

fn states(
    engine: &NeuroEngine,
    ids: &[u32],
    blocks: usize,
    deadline_ms: u64,
    each: &mut dyn FnMut(&[f32]) -> bool,
) -> Outcome {
    let stop = Stop::default().until(deadline_in(deadline_ms));
    match engine.hidden_states_while(ids, blocks, Some(stop.clone()), each) {
        Err(Error::Cancelled) if stop.is_late() => Err(Failure::late()),
        done => Ok(done?),
    }
}

/// Runs n_ids ids as a text of their own through the embedding and the first blocks blocks (HERALD_ALL_BLOCKS: all of them), and
/// passes each token's hidden state to each, in order: index counts from 0, and the n_state (hidden) floats at state, as the
/// next block would read them, are valid during that call. each returns HERALD_GO_ON, or HERALD_STOP to end the work; it gets
/// user_data, runs on the calling thread and must not throw or longjmp. deadline_ms: milliseconds from now; 0: none. Any
/// thread, many at once. Statuses: OK; INVALID_ARGUMENT (no ids, an unknown id); CONTEXT_FULL; CANCELLED (each stopped it);
/// DEADLINE; OUT_OF_MEMORY; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_hidden_states(
    engine: *const HeraldEngine,
    ids: *const u32,
    n_ids: usize,
    blocks: u32,
    deadline_ms: u64,
    each: Option<
        unsafe extern "C" fn(user_data: *mut c_void, index: usize, state: *const f32, n_state: usize) -> i32,
    >,
    user_data: *mut c_void,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let HeraldEngine { engine, .. } = call.handle(engine, "engine")?;
        let ids = call.slice(ids, n_ids, "ids")?;
        let each = each.ok_or_else(|| Failure::invalid("each is null, where a function was expected"))?;
        let mut index = 0;
        states(engine, ids, blocks as usize, deadline_ms, &mut |row| {
            // SAFETY: `each` is a function with herald.h's contract; the row outlives the call.
            let answer = unsafe { each(user_data, index, row.as_ptr(), row.len()) };
            index += 1;
            answer == HERALD_GO_ON
        })
    })
}
