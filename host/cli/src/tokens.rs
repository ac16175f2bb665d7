//! Token texts for tables and JSON.

use herald::AscTokenizer;

use super::failure::Failure;

/// A token's text. An incomplete character shows as U+FFFD.
pub(super) fn text(tokenizer: &AscTokenizer, token: u32) -> Result<String, Failure> {
    Ok(String::from_utf8_lossy(&tokenizer.token_bytes(token, true)?).into_owned())
}

/// A token's text in quotes, with invisible characters escaped.
pub(super) fn quoted(tokenizer: &AscTokenizer, token: u32) -> Result<String, Failure> {
    let bytes = tokenizer.token_bytes(token, true)?;
    Ok(match str::from_utf8(&bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("\"{}\"", bytes.escape_ascii()),
    })
}
