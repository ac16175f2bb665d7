//! Reads GGUF's primitives from untrusted bytes: every length is checked against the bytes that are there before it is used, so
//! no length that a file claims can cause a panic or a large allocation.

use std::fmt;

use super::error::{GgufError, Quoted};

type Result<T> = std::result::Result<T, GgufError>;

/// A position in a file's bytes, which advances past what is read. Each read is told the name of its field, which is
/// formatted only for an error.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes from the start of the file to the next read.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    /// Bytes that were not read yet.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// What was read from `start` up to here.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    pub(super) fn take(&mut self, len: usize, field: fmt::Arguments<'_>) -> Result<&'a [u8]> {
        let Some((taken, _)) = self.bytes.get(self.at..).and_then(|left| left.split_at_checked(len)) else {
            return Err(cut_off(field, self.at, self.bytes.len(), len));
        };
        self.at += len;
        Ok(taken)
    }

    /// `N` bytes, for `from_le_bytes`.
    pub(super) fn array<const N: usize>(&mut self, field: fmt::Arguments<'_>) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, field)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, field: fmt::Arguments<'_>) -> Result<u32> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: fmt::Arguments<'_>) -> Result<u64> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A 64-bit number of items that take at least `item_bytes` each: no more than the rest of the file can hold.
    pub(super) fn count(&mut self, item_bytes: usize, field: fmt::Arguments<'_>) -> Result<usize> {
        let at = self.at;
        let count = self.u64(field)?;
        let most = self.left() / item_bytes;
        usize::try_from(count).ok().filter(|&count| count <= most).ok_or_else(|| {
            let expected = format!("at most {most}, all that the {} bytes after it can hold", self.left());
            GgufError::field(field, at, count.to_string(), expected)
        })
    }

    /// A string as its bytes: a 64-bit length, and that many bytes.
    pub(super) fn string(&mut self, what: fmt::Arguments<'_>) -> Result<&'a [u8]> {
        let len = self.count(1, format_args!("the length of {what}"))?;
        self.take(len, what)
    }

    /// A string that must be UTF-8.
    pub(super) fn utf8(&mut self, what: fmt::Arguments<'_>) -> Result<&'a str> {
        let bytes = self.string(what)?;
        str::from_utf8(bytes).map_err(|error| {
            let held = format!("{}, which is no UTF-8 from its byte {}", Quoted(bytes), error.valid_up_to());
            GgufError::field(what, self.at - bytes.len(), held, "UTF-8")
        })
    }
}

/// A field at `at` that needs `len` bytes of a file that has only `end` in all.
pub(super) fn cut_off(field: fmt::Arguments<'_>, at: usize, end: usize, len: usize) -> GgufError {
    let held = format!("cut off by the end of the file at byte {end}");
    GgufError::field(field, at, held, format!("{len} bytes"))
}
