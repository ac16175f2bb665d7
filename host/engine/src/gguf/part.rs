//! The structure of one GGUF file: header, metadata, list of tensors, and where the data begins.
//!
//! It works on bytes alone, and reads none of the data: a model opens in milliseconds however large it is.

use super::cursor::Cursor;
use super::error::{GgufError, Quoted};
use super::foreign;
use super::metadata::{Entry, LEAST_ENTRY_BYTES, read_entries};
use super::tensor::{LEAST_INFO_BYTES, TensorInfo, locate, read_list};
use super::value::FromValue;

/// The first four bytes of every GGUF file.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";

/// The metadata key that says to what each tensor's data is aligned.
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";

/// The alignment of a file that gives none, in bytes.
pub(super) const DEFAULT_ALIGNMENT: u32 = 32;

/// What a file holds besides data.
pub(super) struct Part {
    pub(super) version: u32,
    pub(super) entries: Vec<Entry>,
    pub(super) tensors: Vec<TensorInfo>,
}

impl Part {
    /// Reads a whole file's structure and checks all of it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, GgufError> {
        if !bytes.starts_with(&MAGIC)
            && let Some(error) = foreign::told(bytes)
        {
            return Err(error);
        }
        let mut cursor = Cursor::new(bytes);
        let magic: [u8; 4] = cursor.array(format_args!("the magic number"))?;
        if magic != MAGIC {
            let held = Quoted(&magic).to_string();
            return Err(GgufError::field(format_args!("the magic number"), 0, held, "\"GGUF\""));
        }
        let version = read_version(&mut cursor)?;
        let tensor_count = cursor.count(LEAST_INFO_BYTES, format_args!("the number of tensors"))?;
        let entry_count = cursor.count(LEAST_ENTRY_BYTES, format_args!("the number of metadata entries"))?;
        let entries = read_entries(&mut cursor, entry_count)?;
        let alignment = alignment(&entries, bytes)?;
        let list = read_list(&mut cursor, tensor_count)?;
        let tensors = locate(list, cursor.offset(), alignment, bytes.len())?;
        Ok(Self { version, entries, tensors })
    }
}

/// Reads the version, which also tells a file of the other byte order.
fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, GgufError> {
    let at = cursor.offset();
    let field = format_args!("the version");
    let version = cursor.u32(field)?;
    match version {
        2 | 3 => Ok(version),
        // No version is near 65536, so low halves of zero mean that the bytes run the other way.
        swapped if swapped != 0 && swapped.trailing_zeros() >= 16 => {
            let held = format!("{}, in big-endian order", swapped.swap_bytes());
            Err(GgufError::field(field, at, held, "a little-endian file of version 2 or 3"))
        }
        other => Err(GgufError::field(field, at, other.to_string(), "2 or 3")),
    }
}

/// The alignment of tensors' data: what the metadata says, or GGUF's default.
fn alignment(entries: &[Entry], file: &[u8]) -> Result<usize, GgufError> {
    let Some(entry) = entries.iter().find(|entry| entry.key() == ALIGNMENT_KEY) else {
        return Ok(DEFAULT_ALIGNMENT as usize);
    };
    let value = entry.value(file);
    u32::from_value(value)
        .ok()
        .filter(|&alignment| is_alignment(alignment))
        .map(|alignment| alignment as usize)
        .ok_or_else(|| entry.fault(value.to_string(), ALIGNMENT_EXPECTED.to_owned()))
}

/// What an alignment must be, in words.
pub(super) const ALIGNMENT_EXPECTED: &str = "a power of two that is a multiple of 8";

/// GGUF asks for a multiple of 8, and every reader and writer of it for a power of two.
pub(super) fn is_alignment(alignment: u32) -> bool {
    alignment.is_power_of_two() && alignment.is_multiple_of(8)
}
