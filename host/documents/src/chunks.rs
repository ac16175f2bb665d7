//! A text's tokens, cut into chunks that overlap.

use std::ops::Range;

use herald::AscTokenizer;
use herald::Result;

/// A chunk: where it lies in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Among the document's tokens.
    pub(super) tokens: Range<usize>,
    /// Among the bytes of its text: whole characters.
    pub(super) bytes: Range<usize>,
}

/// The token ranges of chunks of `size` tokens, each of which begins `overlap` before the end of the one before.
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

/// A text as a tokenizer reads it: its tokens, and where each begins in the text.
pub(super) struct Tokens {
    pub(super) ids: Vec<u32>,
    /// The text that the offsets are of: as it was given, where the tokens spell exactly that.
    pub(super) text: String,
    /// Where each token begins, and the text's end.
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
        // Some tokenizers put a space before the text; those that change it in other ways have it kept as they read it.
        if bytes.strip_prefix(b" ") == Some(text.as_bytes()) {
            starts.iter_mut().for_each(|start| *start = start.saturating_sub(1));
            bytes.remove(0);
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                // U+FFFD may be longer than what it stands for: offsets are found anew.
                let bytes = error.into_bytes();
                let ends = |end: &usize| String::from_utf8_lossy(&bytes[..*end]).len();
                starts = starts.iter().map(ends).collect();
                String::from_utf8_lossy(&bytes).into_owned()
            }
        };
        Ok(Self { ids, text, starts })
    }

    /// Chunks; a character that is cut in two belongs to neither, and whole to a neighbour with which they overlap.
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
