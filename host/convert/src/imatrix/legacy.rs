//! The format of importance matrices before GGUF: int32 numbers and float32, little-endian.
//!
//! ```text
//! entries, then for each: bytes of its name, the name, calls, numbers, the numbers (means of squares, times calls)
//! then perhaps: calls, bytes of the text's name, the name
//! ```

use std::path::Path;

use super::{Entry, ImatrixError, ImportanceMatrix, damaged, floats};

/// What is left of a file.
struct Rest<'a> {
    bytes: &'a [u8],
    path: &'a Path,
}

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], ImatrixError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(len) else {
            let held = format!("{what} is cut off {} bytes before the file's end", self.bytes.len());
            return Err(damaged(self.path, held, format!("{len} bytes")));
        };
        self.bytes = rest;
        Ok(taken)
    }

    /// A number that isn't negative.
    fn number(&mut self, what: &str) -> Result<usize, ImatrixError> {
        let mut number = [0; 4];
        number.copy_from_slice(self.take(4, what)?);
        let number = i32::from_le_bytes(number);
        usize::try_from(number)
            .map_err(|_| damaged(self.path, format!("{what} is {number}"), "a number that isn't negative"))
    }

    fn name(&mut self, what: &str) -> Result<String, ImatrixError> {
        let len = self.number(what)?;
        let name = self.take(len, what)?;
        Ok(String::from_utf8_lossy(name).into_owned())
    }
}

/// Reads a file's bytes.
pub(super) fn read(bytes: &[u8], path: &Path) -> Result<ImportanceMatrix, ImatrixError> {
    let mut rest = Rest { bytes, path };
    let mut matrix = ImportanceMatrix::default();
    let entries = rest.number("the number of entries")?;
    if entries == 0 {
        return Err(damaged(path, "it has no entries".to_owned(), "an importance matrix"));
    }
    for _ in 0..entries {
        let name = rest.name("an entry's name")?;
        let calls = rest.number("an entry's number of calls")?;
        let count = rest.number("an entry's number of columns")?;
        let sums: Vec<f64> = floats(rest.take(count.saturating_mul(4), &format!("{name:?}"))?).collect();
        if sums.is_empty() {
            return Err(damaged(path, format!("{name:?} has no columns"), "at least one"));
        }
        matrix.entries.insert(name, Entry { sums, counts: vec![calls as f64] });
    }
    if !rest.bytes.is_empty() {
        let calls = rest.number("the number of calls")?;
        matrix.chunk_count = u32::try_from(calls).unwrap_or_default();
        matrix.datasets = vec![rest.name("the text's name")?];
    }
    Ok(matrix)
}
