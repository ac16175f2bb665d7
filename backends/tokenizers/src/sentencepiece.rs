//! SentencePiece's BPE (Kudo and Richardson, 2018): the characters of the text merge into the tokens of best score, and
//! a character that the vocabulary lacks falls back to its bytes.
//!
//! SentencePiece writes a space as U+2581 (`▁`) and takes that character in a text for a space too. Here both are
//! spaces throughout: the tokens are turned around once, when the vocabulary is read.

use crate::merge::{Merger, NEVER, Symbol, check_size};
use crate::pieces::{Index, NO_TOKEN, Pieces, corrupt, parse_byte};
use crate::specials::{Part, Specials};
use crate::whole_words::WholeWords;
use hashbrown::HashSet;
use herald_api::{DecodeOptions, EncodeOptions, Error, Result, TokenType, Tokenizer, Vocabulary};
use std::borrow::Cow;

/// How SentencePiece writes a space.
const SPACE: char = '\u{2581}';

/// [`SPACE`] in UTF-8.
const SPACE_BYTES: &[u8] = "\u{2581}".as_bytes();

/// A SentencePiece vocabulary, ready to encode and decode.
pub(crate) struct SentencePiece {
    pieces: Pieces,
    index: Index,
    specials: Specials,
    /// The priority of merging into each token: the better its score the smaller.
    priorities: Vec<u32>,
    /// The token of each byte, where the vocabulary has all 256.
    bytes: Option<Box<[u32; 256]>>,
    whole: WholeWords,
    unknown: Option<u32>,
    /// The characters before a space inside some token; after any other, no token holds the space too.
    before_space: HashSet<char>,
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
        let mut before_space = HashSet::new();
        let inside = |piece: &[u8]| piece.iter().skip(1).any(|&byte| byte == b' ');
        for (_, _, piece) in
            pieces.iter().filter(|(_, kind, piece)| *kind == TokenType::Normal && inside(piece))
        {
            let text = String::from_utf8_lossy(piece);
            before_space.extend(
                text.chars().zip(text.chars().skip(1)).filter(|pair| pair.1 == ' ').map(|pair| pair.0),
            );
        }
        Ok(Self {
            specials: Specials::new(&pieces)?,
            priorities: vocabulary.scores.iter().map(|&score| priority(score)).collect(),
            bytes: byte_tokens(&pieces)?,
            whole: WholeWords::new(pieces.len()),
            unknown: vocabulary.unknown,
            add_space_prefix: vocabulary.add_space_prefix,
            remove_extra_whitespace: vocabulary.remove_extra_whitespace,
            before_space,
            index,
            pieces,
        })
    }

    /// Appends the tokens of a stretch of plain text, in which spaces are spaces.
    fn encode_text(&self, text: &str, merger: &mut Merger, ids: &mut Vec<u32>) -> Result<()> {
        let mut start = 0;
        let first = ids.len();
        for (space, _) in text.match_indices(' ') {
            if let Some(before) = text[start..space].chars().next_back()
                && !self.before_space.contains(&before)
            {
                self.encode_word(&text[start..space], first, merger, ids)?;
                start = space;
            }
        }
        self.encode_word(&text[start..], first, merger, ids)
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
            match (&self.bytes, self.unknown) {
                (Some(bytes), _) => ids.extend(lacking.bytes().map(|byte| bytes[usize::from(byte)])),
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

/// Appends a token's bytes with each [`SPACE`] a space.
fn unescape(token: &[u8], bytes: &mut Vec<u8>) {
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

/// The token of each byte, where the vocabulary has them.
fn byte_tokens(pieces: &Pieces) -> Result<Option<Box<[u32; 256]>>> {
    let mut tokens = Box::new([NO_TOKEN; 256]);
    for (id, _, piece) in pieces.iter().filter(|(_, kind, _)| *kind == TokenType::Byte) {
        if let &[byte] = piece
            && tokens[usize::from(byte)] == NO_TOKEN
        {
            tokens[usize::from(byte)] = id;
        }
    }
    match tokens.iter().filter(|&&id| id != NO_TOKEN).count() {
        0 => Ok(None),
        256 => Ok(Some(tokens)),
        some => Err(corrupt(format!(
            "the vocabulary has tokens for {some} bytes, and all 256 or none were expected"
        ))),
    }
}
