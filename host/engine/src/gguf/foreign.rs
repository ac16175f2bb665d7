//! What else is given for a model, told by how it begins: what was downloaded instead of a model, and models of other formats.

use super::error::GgufError;

/// Bytes at the start of a file that are looked at.
const SHOWN: usize = 1 << 10;

const CONVERT: &str = "look for the model as GGUF, or make that of its folder with `host convert` or llama.cpp's convert_hf_to_gguf.py";
const UNPACK: &str = "unpack it first";
const AGAIN: &str = "download it again, from the link to the file itself";
const OLD: &str = "HERALD reads GGUF, which came after it in August 2023: look for the model as GGUF";

/// Beginnings of files, what such files are, and what to do.
const KNOWN: [(&[u8], &str, &str); 17] = [
    (b"lmgg", "an old GGML file", OLD),
    (b"ggml", "an old GGML file", OLD),
    (b"fmgg", "an old GGML file (GGMF)", OLD),
    (b"ggmf", "an old GGML file (GGMF)", OLD),
    (b"tjgg", "an old GGML file (GGJT)", OLD),
    (b"ggjt", "an old GGML file (GGJT)", OLD),
    (b"algg", "an old GGML adapter (GGLA)", "HERALD reads whole models as GGUF"),
    (b"ggla", "an old GGML adapter (GGLA)", "HERALD reads whole models as GGUF"),
    (
        b"PK\x03\x04",
        "a zip archive, as PyTorch's checkpoints are too",
        "unpack it if a GGUF file is in it; of a checkpoint, make one with llama.cpp's convert_hf_to_gguf.py",
    ),
    (b"\x1f\x8b", "a file compressed by gzip", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a file compressed by zstd", UNPACK),
    (b"\xfd7zXZ", "a file compressed by xz", UNPACK),
    (b"BZh", "a file compressed by bzip2", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
    (b"\x80\x02", "a Python pickle, as old checkpoints of PyTorch are", CONVERT),
    (b"\x89HDF", "an HDF5 file, as Keras writes", CONVERT),
    (b"\x7fELF", "a program or a library", "name the model's file"),
];

/// The error for a file that doesn't begin as GGUF does, where it is known what it is.
pub(super) fn told(bytes: &[u8]) -> Option<GgufError> {
    let (held, advice) = what(bytes)?;
    Some(GgufError::Foreign { path: None, held, advice })
}

fn what(bytes: &[u8]) -> Option<(String, &'static str)> {
    let start = bytes.get(..SHOWN).unwrap_or(bytes);
    if bytes.is_empty() {
        return Some(("empty".to_owned(), AGAIN));
    }
    if let Some(rest) = start.strip_prefix(b"version https://git-lfs") {
        let text = String::from_utf8_lossy(rest);
        let size = text.lines().find_map(|line| line.strip_prefix("size ")?.trim().parse::<u64>().ok());
        let of = size.map_or(String::new(), |size| format!(" to a file of {size} bytes"));
        return Some((
            format!("a Git LFS pointer{of}, not the file itself"),
            "fetch that with `git lfs pull`, or download it from its page",
        ));
    }
    if let Some((_, held, advice)) = KNOWN.iter().find(|(begin, ..)| start.starts_with(begin)) {
        return Some(((*held).to_owned(), advice));
    }
    if is_safetensors(bytes) {
        return Some(("a safetensors file".to_owned(), CONVERT));
    }
    if start.iter().all(|byte| *byte == 0) {
        return Some(("zeros from the start on, as a download leaves that never ended".to_owned(), AGAIN));
    }
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let begins = |word: &[u8]| text.get(..word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word));
    if [&b"<!doctype"[..], b"<html", b"<head", b"<?xml", b"<!--"].iter().any(|word| begins(word)) {
        return Some((
            "a web page".to_owned(),
            "download the file itself: a link to it has /resolve/ where the link to its page has /blob/",
        ));
    }
    let is_plain = || !text.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace());
    if (begins(b"{") || begins(b"[")) && is_plain() {
        return Some(("JSON, a text".to_owned(), "name the file with the weights"));
    }
    None
}

/// A length of 64 bits, and a JSON object as long.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((len, rest)) = bytes.split_first_chunk::<8>() else { return false };
    let len = u64::from_le_bytes(*len);
    (2..100_000_000).contains(&len) && rest.starts_with(b"{\"")
}
