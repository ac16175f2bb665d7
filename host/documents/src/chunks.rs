//! Cuts a text's tokens into overlapping chunks.

use std::ops::Range;

use herald::AscTokenizer;
use herald::Result;

/// A chunk's location in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Its range of the document's tokens.
    pub(super) tokens: Range<usize>,
    /// Its range of the text's bytes: whole characters.
    pub(super) bytes: Range<usize>,
}

/// The token ranges of chunks of `size` tokens that overlap by `overlap`.
pub(super) fn ranges(n_tokens: usize, size: usize, overlap: usize) -> Vec<Range<usize>> {
    let step = size - overlap.min(size - 1);
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < n_tokens {
        let end = (start + size).min(n_tokens);
        ranges.push(start..end);
        if end == n_tokens {
            break;
        }
        start += step;
    }
    ranges
}

/// A text's tokens and their offsets.
pub(super) struct Tokens {
    pub(super) ids: Vec<u32>,
    /// The text that the offsets refer to: the original if the tokens spell exactly that.
    pub(super) text: String,
    /// The byte offset of each token, and of the text's end.
    starts: Vec<usize>,
}

impl Tokens {
    pub(super) fn of(tokenizer: &AscTokenizer, text: &str) -> Result<Self> {
        let ids = tokenizer.encode(text, false)?;
        let mut bytes = Vec::with_capacity(text.len());
        let mut starts = Vec::with_capacity(ids.len() + 1);
        for id in &ids {
            starts.push(bytes.len());
            bytes.extend(tokenizer.token_bytes(*id, false)?);
        }
        starts.push(bytes.len());
        // Undo a tokenizer's leading space. If it changes the text in other ways, keep the changed text.
        if bytes.strip_prefix(b" ") == Some(text.as_bytes()) {
            starts.iter_mut().for_each(|start| *start = start.saturating_sub(1));
            bytes.remove(0);
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                // U+FFFD may be longer than the bytes it replaces, so compute the offsets again.
                let bytes = error.into_bytes();
                let ends = |end: &usize| String::from_utf8_lossy(&bytes[..*end]).len();
                starts = starts.iter().map(ends).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
        };
        Ok(Self { ids, text, starts })
    }

    /// The chunks. A character that a boundary cuts is left out there; an overlapping neighbour has all of it.
    pub(super) fn chunks(&self, size: usize, overlap: usize) -> Vec<Chunk> {
        let chunk = |tokens: Range<usize>| {
            let start = self.text.ceil_char_boundary(self.starts[tokens.start]);
            let end = self.text.floor_char_boundary(self.starts[tokens.end]);
            Chunk { tokens, bytes: start..end.max(start) }
        };
        ranges(self.ids.len(), size, overlap).into_iter().map(chunk).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_overlap_and_cover_everything() {
        assert!(ranges(0, 10, 2).is_empty());
        assert_eq!(ranges(10, 10, 2).as_slice(), std::slice::from_ref(&(0..10)));
        assert_eq!(ranges(11, 10, 2), [0..10, 8..11]);
        assert_eq!(ranges(26, 10, 2), [0..10, 8..18, 16..26]);
        assert_eq!(ranges(3, 1, 5), [0..1, 1..2, 2..3], "an overlap that leaves no step");
        for n in 1..200 {
            let ranges = ranges(n, 16, 5);
            assert!(
                ranges.windows(2).all(|pair| pair[0].end - pair[1].start == 5 && pair[1].end > pair[0].end)
            );
            assert_eq!((ranges[0].start, ranges.last().map(|last| last.end)), (0, Some(n)));
        }
    }
}
