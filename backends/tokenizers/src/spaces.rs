//! How SentencePiece writes spaces, and where a text may be cut at them.

use crate::pieces::Pieces;
use hashbrown::HashSet;
use herald_api::{Result, TokenType};

/// How SentencePiece writes a space.
pub(crate) const SPACE: char = '\u{2581}';

/// [`SPACE`] in UTF-8.
const SPACE_BYTES: &[u8] = "\u{2581}".as_bytes();

/// Appends a token's bytes with each [`SPACE`] a space.
pub(crate) fn unescape(token: &[u8], bytes: &mut Vec<u8>) {
    let mut rest = token;
    while let Some((&byte, after)) = rest.split_first() {
        match rest.strip_prefix(SPACE_BYTES) {
            Some(after) => {
                bytes.push(b' ');
                rest = after;
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
}

/// The characters before a space inside some token; after any other, no token holds the space too.
pub(crate) struct BeforeSpace(HashSet<char>);

impl BeforeSpace {
    /// Looks through the normal tokens, in which spaces are spaces.
    pub(crate) fn new(pieces: &Pieces) -> Self {
        let mut before = HashSet::new();
        let inside = |piece: &[u8]| piece.iter().skip(1).any(|&byte| byte == b' ');
        for (_, _, piece) in
            pieces.iter().filter(|(_, kind, piece)| *kind == TokenType::Normal && inside(piece))
        {
            let text = String::from_utf8_lossy(piece);
            before.extend(
                text.chars().zip(text.chars().skip(1)).filter(|pair| pair.1 == ' ').map(|pair| pair.0),
            );
        }
        Self(before)
    }

    /// Calls `word` on the words of a text, each with the space before it: what no token straddles. The last one may be
    /// empty.
    #[inline]
    pub(crate) fn split<'t>(&self, text: &'t str, mut word: impl FnMut(&'t str) -> Result<()>) -> Result<()> {
        let mut start = 0;
        for (space, _) in text.match_indices(' ') {
            if let Some(before) = text[start..space].chars().next_back()
                && !self.0.contains(&before)
            {
                word(&text[start..space])?;
                start = space;
            }
        }
        word(&text[start..])
    }
}
