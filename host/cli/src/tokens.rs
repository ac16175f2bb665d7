//! Tokens for people and for JSON.

use herald::AscTokenizer;

use super::failure::Failure;

/// A token's text. Part of a character shows as U+FFFD.
pub(super) fn text(tokenizer: &AscTokenizer, token: u32) -> Result<String, Failure> {
    Ok(String::from_utf8_lossy(&tokenizer.token_bytes(token, true)?).into_owned())
}

/// A token's text in quotes, with everything that isn't plainly visible escaped.
pub(super) fn quoted(tokenizer: &AscTokenizer, token: u32) -> Result<String, Failure> {
    let bytes = tokenizer.token_bytes(token, true)?;
    Ok(match str::from_utf8(&bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("\"{}\"", bytes.escape_ascii()),
    })
}
