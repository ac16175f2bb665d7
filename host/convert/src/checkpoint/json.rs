//! JSON files as Python writes them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use super::error::{CheckpointError, Result, bad_file};

/// The most bytes of a file beside the weights. The largest vocabularies take some tens of millions.
const MAX_BYTES: u64 = 1 << 28;

/// The file's bytes, if there is such a file.
pub(super) fn bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    let read = |source| CheckpointError::Read { path: path.to_owned(), source };
    match path.metadata() {
        Ok(facts) if facts.is_file() => {}
        Ok(_) => return Err(bad_file(path, "it is a folder or a device, where a file was expected")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    }
    let file = File::open(path).map_err(read)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(bad_file(path, format!("it has over {MAX_BYTES} bytes, where less was expected")));
    }
    Ok(Some(bytes))
}

/// The file's text, if there is such a file.
pub(super) fn text(path: &Path) -> Result<Option<String>> {
    let utf8 = |bytes| String::from_utf8(bytes).map_err(|error| bad_file(path, format!("no UTF-8: {error}")));
    bytes(path)?.map(utf8).transpose()
}

/// The file's value, if there is such a file.
pub(super) fn value(path: &Path) -> Result<Option<Value>> {
    let Some(bytes) = bytes(path)? else { return Ok(None) };
    let parsed = serde_json::from_slice(&quoted(&bytes));
    parsed.map(Some).map_err(|error| bad_file(path, format!("no JSON: {error}")))
}

/// The file's object, if there is such a file.
pub(super) fn object(path: &Path) -> Result<Option<Map<String, Value>>> {
    match value(path)? {
        None => Ok(None),
        Some(Value::Object(object)) => Ok(Some(object)),
        Some(other) => {
            Err(bad_file(path, format!("it holds {}, where an object was expected", shown(&other))))
        }
    }
}

/// A value as a message shows it: long ones are cut.
pub(super) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// The text with quotes around Python's NaN and infinities, which aren't JSON.
fn quoted(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let mut in_string = false;
    while let Some((&byte, after)) = rest.split_first() {
        if in_string {
            out.push(byte);
            rest = after;
            match (byte, after.split_first()) {
                (b'\\', Some((&escaped, after))) => {
                    out.push(escaped);
                    rest = after;
                }
                (b'"', _) => in_string = false,
                _ => {}
            }
            continue;
        }
        let word =
            ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| rest.starts_with(word.as_bytes()));
        if let Some(word) = word {
            out.extend(format!("\"{word}\"").bytes());
            rest = rest.get(word.len()..).unwrap_or_default();
            continue;
        }
        in_string = byte == b'"';
        out.push(byte);
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_numbers_become_texts() {
        let text = br#"{"a": NaN, "b": [-Infinity, Infinity, "NaN \" NaN"], "c\\": NaN}"#;
        let value: Value = serde_json::from_slice(&quoted(text)).unwrap();
        assert_eq!(value.to_string(), r#"{"a":"NaN","b":["-Infinity","Infinity","NaN \" NaN"],"c\\":"NaN"}"#);
    }
}
