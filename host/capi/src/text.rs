//! Text to tokens and back.

use std::ffi::c_char;

use herald_api::abi::{HERALD_TEXT_CONTINUES, HERALD_TEXT_SPECIAL, HeraldError};

use super::HeraldEngine;
use super::arguments;
use super::status::{Failure, Outcome};
use herald_engine::NeuroEngine;

/// The text begins a sequence: the model's BOS and EOS tokens are added if it wants them; a BOS in the text is not repeated.
pub const HERALD_TEXT_PROMPT: u32 = 1 << 16;

/// The ids of a text.
pub(super) fn encode(engine: &NeuroEngine, text: &str, flags: u32) -> Outcome<Vec<u32>> {
    arguments::flags(flags, HERALD_TEXT_SPECIAL | HERALD_TEXT_PROMPT)?;
    let special = flags & HERALD_TEXT_SPECIAL != 0;
    let tokenizer = engine.tokenizer();
    Ok(if flags & HERALD_TEXT_PROMPT == 0 {
        tokenizer.encode(text, special)?
    } else {
        tokenizer.encode_prompt(text, special)?
    })
}

/// The bytes of a token that continues a text.
fn token_bytes(engine: &NeuroEngine, id: u32, special: bool) -> Outcome<Vec<u8>> {
    let vocabulary = engine.plan().vocabulary;
    if id as usize >= vocabulary {
        return Err(Failure::invalid(format!("the id is {id}, where one below {vocabulary} was expected")));
    }
    Ok(engine.tokenizer().token_bytes(id, special)?)
}

/// Writes the token ids of text (UTF-8, text_len bytes) to ids, which has room for capacity, and their number to *n_ids.
/// flags: HERALD_TEXT_SPECIAL, HERALD_TEXT_PROMPT. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *n_ids
/// the number needed; INVALID_ARGUMENT (not UTF-8); UNSUPPORTED (text that the vocabulary can't express).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_tokenize(
    engine: *const HeraldEngine,
    text: *const c_char,
    text_len: usize,
    flags: u32,
    ids: *mut u32,
    capacity: usize,
    n_ids: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let HeraldEngine { engine, .. } = call.handle(engine, "engine")?;
        let text = call.text(text, text_len, "text")?;
        call.write_array(&encode(engine, text, flags)?, ids, capacity, n_ids, "ids")
    })
}

/// Writes the text of n_ids ids, NUL-terminated, to text, and its length without the NUL to *len; invalid UTF-8 becomes
/// U+FFFD. capacity: size of text in bytes, which must be greater than *len. flags: HERALD_TEXT_SPECIAL,
/// HERALD_TEXT_CONTINUES. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *len the length;
/// INVALID_ARGUMENT (an id outside the vocabulary).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_detokenize(
    engine: *const HeraldEngine,
    ids: *const u32,
    n_ids: usize,
    flags: u32,
    text: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let HeraldEngine { engine, .. } = call.handle(engine, "engine")?;
        let ids = call.slice(ids, n_ids, "ids")?;
        arguments::flags(flags, HERALD_TEXT_SPECIAL | HERALD_TEXT_CONTINUES)?;
        let special = flags & HERALD_TEXT_SPECIAL != 0;
        let decoded = if flags & HERALD_TEXT_CONTINUES == 0 {
            engine.tokenizer().decode(ids, special)?
        } else {
            let mut bytes = Vec::new();
            for id in ids {
                bytes.extend(token_bytes(engine, *id, special)?);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        };
        call.write_text(decoded.as_bytes(), text, capacity, len)
    })
}

/// Writes the bytes that one token adds to a text that it continues, followed by a NUL, to bytes, and their number without
/// the NUL to *len. They may be part of a UTF-8 character. capacity: size of bytes, which must be greater than *len. flags:
/// HERALD_TEXT_SPECIAL. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *len the number; INVALID_ARGUMENT
/// (an id outside the vocabulary).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_token_bytes(
    engine: *const HeraldEngine,
    id: u32,
    flags: u32,
    bytes: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let HeraldEngine { engine, .. } = call.handle(engine, "engine")?;
        arguments::flags(flags, HERALD_TEXT_SPECIAL)?;
        let decoded = token_bytes(engine, id, flags & HERALD_TEXT_SPECIAL != 0)?;
        call.write_text(&decoded, bytes, capacity, len)
    })
}

/// 1 if this token ends a generation (the end of the text or of a turn), otherwise 0. Any thread, many at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_token_ends(engine: *const HeraldEngine, id: u32) -> u32 {
    // SAFETY: by herald.h's rules the engine is null, or a handle that the caller has not freed.
    unsafe { engine.as_ref() }
        .map_or(0, |HeraldEngine { engine, .. }| u32::from(engine.tokenizer().ends_generation(id)))
}
