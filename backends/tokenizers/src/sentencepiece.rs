//! SentencePiece's BPE (Kudo and Richardson, 2018): the characters of the text merge into the tokens of best score, and
//! a character that the vocabulary lacks falls back to its bytes.
//!
//! SentencePiece writes a space as U+2581 (`▁`) and takes that character in a text for a space too. Here both are
//! spaces throughout: the tokens are turned around once, when the vocabulary is read.

use crate::merge::{Merger, NEVER, Symbol, check_size};
use crate::pieces::{ByteTokens, Index, NO_TOKEN, Pieces, corrupt, parse_byte};
use crate::spaces::{BeforeSpace, SPACE, unescape};
use crate::specials::{Part, Specials};
use crate::whole_words::WholeWords;
use herald_api::{DecodeOptions, EncodeOptions, Error, Result, TokenType, Tokenizer, Vocabulary};
use std::borrow::Cow;

/// A SentencePiece vocabulary, ready to encode and decode.
pub(crate) struct SentencePiece {
    pieces: Pieces,
    index: Index,
    specials: Specials,
    /// The priority of merging into each token: the better its score the smaller.
    priorities: Vec<u32>,
    bytes: ByteTokens,
    whole: WholeWords,
    unknown: Option<u32>,
    before_space: BeforeSpace,
    add_space_prefix: bool,
    remove_extra_whitespace: bool,
}

impl SentencePiece {
    pub(crate) fn new(vocabulary: &Vocabulary<'_>) -> Result<Self> {
        let pieces = Pieces::new(vocabulary, |token, kind, bytes| match (parse_byte(token), kind) {
            (Some(byte), TokenType::Byte) => bytes.push(byte),
            (_, TokenType::Control | TokenType::Unknown) => bytes.extend_from_slice(token),
            _ => unescape(token, bytes),
        })?;
        if vocabulary.scores.is_empty() {
            return Err(corrupt(format!(
                "the vocabulary has no scores, and one for each of its {} tokens was expected",
                pieces.len()
            )));
        }
        let index = Index::new(&pieces);
        Ok(Self {
            specials: Specials::new(&pieces, vocabulary.strips)?,
            priorities: vocabulary.scores.iter().map(|&score| priority(score)).collect(),
            bytes: ByteTokens::new(&pieces),
            whole: WholeWords::new(pieces.len()),
            unknown: vocabulary.unknown,
            add_space_prefix: vocabulary.add_space_prefix,
            remove_extra_whitespace: vocabulary.remove_extra_whitespace,
            before_space: BeforeSpace::new(&pieces),
            index,
            pieces,
        })
    }

    /// Appends the tokens of a stretch of plain text, in which spaces are spaces.
    fn encode_text(&self, text: &str, merger: &mut Merger, ids: &mut Vec<u32>) -> Result<()> {
        let first = ids.len();
        self.before_space.split(text, |word| self.encode_word(word, first, merger, ids))
    }

    /// Appends the tokens of a word, which no token straddles. `first`: where in `ids` the stretch of text begins.
    #[inline]
    fn encode_word(&self, word: &str, first: usize, merger: &mut Merger, ids: &mut Vec<u32>) -> Result<()> {
        let whole = self.index.get(&self.pieces, word.as_bytes());
        match whole.map(|id| (id, self.whole.get(id))) {
            Some((id, Some(true))) => {
                ids.push(id);
                Ok(())
            }
            Some((id, None)) => {
                let before = ids.len();
                self.merge_word(word, first, merger, ids)?;
                self.whole.set(id, ids[before..] == [id]);
                Ok(())
            }
            _ => self.merge_word(word, first, merger, ids),
        }
    }

    /// Appends the tokens of a word by merging its characters.
    fn merge_word(&self, word: &str, first: usize, merger: &mut Merger, ids: &mut Vec<u32>) -> Result<()> {
        merger.clear();
        for (start, character) in word.char_indices() {
            let end = start + character.len_utf8();
            let token = self.index.get(&self.pieces, &word.as_bytes()[start..end]).unwrap_or(NO_TOKEN);
            merger.push(Symbol { start: start as u32, end: end as u32, token });
        }
        merger.merge(|left, right| {
            let whole = &word.as_bytes()[left.start as usize..right.end as usize];
            match self.index.get(&self.pieces, whole) {
                Some(token) => (self.priorities[token as usize], token),
                None => (NEVER, NO_TOKEN),
            }
        });
        for symbol in merger.symbols() {
            if symbol.token != NO_TOKEN {
                ids.push(symbol.token);
                continue;
            }
            let lacking = &word[symbol.start as usize..symbol.end as usize];
            match (self.bytes.spell(lacking.as_bytes()), self.unknown) {
                (Some(bytes), _) => ids.extend(bytes),
                // A run of unknown characters is one unknown token.
                (None, Some(unknown)) if ids[first..].last() == Some(&unknown) => {}
                (None, Some(unknown)) => ids.push(unknown),
                (None, None) => {
                    return Err(Error::unsupported(format!(
                        "the vocabulary has no token for \"{}\", no byte tokens to spell it, and no unknown token to stand \
                         for it",
                        lacking.escape_debug()
                    )));
                }
            }
        }
        Ok(())
    }
}

impl Tokenizer for SentencePiece {
    fn encode(&self, text: &str, options: EncodeOptions, ids: &mut Vec<u32>) -> Result<()> {
        check_size(text)?;
        let mut text = text;
        if self.remove_extra_whitespace {
            text = text.trim_end_matches([' ', SPACE]);
            if !options.continues {
                text = text.trim_start_matches(' ');
            }
        }
        let mut merger = Merger::default();
        // GGUF's practice: the prefix goes before the text and again after each token that was found whole.
        let mut prefix = self.add_space_prefix && !options.continues;
        self.specials.partition(text, options.special, |part| match part {
            Part::Token(id) => {
                prefix = self.add_space_prefix;
                ids.push(id);
                Ok(())
            }
            Part::Text(text) => {
                let text = normalise(text, std::mem::take(&mut prefix), self.remove_extra_whitespace);
                self.encode_text(&text, &mut merger, ids)
            }
        })
    }

    fn decode(&self, ids: &[u32], options: DecodeOptions, bytes: &mut Vec<u8>) -> Result<()> {
        self.pieces.decode(ids, options, self.add_space_prefix, bytes)
    }
}

/// A text as the tokens spell it: with a space before it where `prefix` says so, each [`SPACE`] a space, and where
/// `collapse` says so one space for each run.
fn normalise(text: &str, prefix: bool, collapse: bool) -> Cow<'_, str> {
    if !prefix && !collapse && !text.contains(SPACE) {
        return Cow::Borrowed(text);
    }
    let mut normal = String::with_capacity(text.len() + 1);
    if prefix {
        normal.push(' ');
    }
    // SentencePiece collapses spaces alone, not the character that it takes for one.
    let mut after_space = prefix;
    for character in text.chars() {
        let space = character == ' ';
        if !(space && after_space && collapse) {
            normal.push(if character == SPACE { ' ' } else { character });
        }
        after_space = space;
    }
    Cow::Owned(normal)
}

/// The priority of a score: the higher the score the smaller, equal for equal scores; what is no number comes last.
fn priority(score: f32) -> u32 {
    if score.is_nan() {
        return NEVER - 1;
    }
    // The bits of a float order as it does, once those of the negative ones are turned over. Adding 0 makes -0 one of 0.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | (1 << 31) };
    !ascending
}
