//! UGM: a unigram language model (Kudo, "Subword Regularization", 2018). Each token has a log-probability, and a text
//! becomes the tokens whose sum is best, found by Viterbi's algorithm in one pass.
//!
//! As SentencePiece has it: the text is normalised by rules of the vocabulary's, a space is `▁`, a character that no
//! token covers costs ten more than the worst token and becomes the unknown token, or its bytes where the vocabulary has
//! tokens for them.

use crate::charsmap::Charsmap;
use crate::merge::check_size;
use crate::pieces::{ByteTokens, NO_TOKEN, Pieces, corrupt, parse_byte};
use crate::spaces::{BeforeSpace, SPACE, unescape};
use crate::specials::{Part, Specials};
use crate::trie::Trie;
use herald_api::{DecodeOptions, EncodeOptions, Error, Result, TokenType, Tokenizer, Vocabulary};

/// What an unknown character costs beyond the worst token, in natural logarithms.
const UNKNOWN_PENALTY: f64 = 10.0;

/// A unigram vocabulary, ready to encode and decode.
pub(crate) struct Unigram {
    pieces: Pieces,
    tokens: Trie,
    specials: Specials,
    scores: Vec<f32>,
    unknown_score: f64,
    unknown: Option<u32>,
    bytes: ByteTokens,
    charsmap: Charsmap,
    before_space: BeforeSpace,
    add_space_prefix: bool,
    remove_extra_whitespace: bool,
}

/// The best way to a position: its score, and the token that ends there ([`NO_TOKEN`]: an unknown character) with its
/// length.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    token: u32,
    length: u32,
}

const UNREACHED: Best = Best { score: f64::NEG_INFINITY, token: NO_TOKEN, length: 0 };

impl Unigram {
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
        let normal = || pieces.iter().filter(|(_, kind, _)| *kind == TokenType::Normal);
        if let Some((id, ..)) = normal().find(|(id, ..)| !vocabulary.scores[*id as usize].is_finite()) {
            return Err(corrupt(format!(
                "the score of token {id} of the vocabulary is {}, where a finite number was expected",
                vocabulary.scores[id as usize]
            )));
        }
        let worst = normal().map(|(id, ..)| vocabulary.scores[id as usize]).fold(0.0, f32::min);
        Ok(Self {
            tokens: Trie::new(normal().map(|(id, _, piece)| (piece, id))),
            specials: Specials::new(&pieces, vocabulary.strips)?,
            scores: vocabulary.scores.to_vec(),
            unknown_score: f64::from(worst) - UNKNOWN_PENALTY,
            unknown: vocabulary.unknown,
            bytes: ByteTokens::new(&pieces),
            charsmap: Charsmap::new(vocabulary.charsmap)?,
            before_space: BeforeSpace::new(&pieces),
            add_space_prefix: vocabulary.add_space_prefix,
            remove_extra_whitespace: vocabulary.remove_extra_whitespace,
            pieces,
        })
    }

    /// A stretch of text as the tokens spell it, with spaces as spaces; nothing where there is nothing but spaces that are
    /// taken away. `prefix`: with a space before it.
    fn normalise(&self, text: &str, prefix: bool) -> String {
        let mut normal = String::with_capacity(text.len() + 1);
        let collapse = self.remove_extra_whitespace;
        let (mut rest, mut after_space) = (text, collapse);
        while !rest.is_empty() {
            let (piece, length) = self.charsmap.replace(rest);
            rest = &rest[length..];
            let piece = if after_space { piece.trim_start_matches(' ') } else { piece };
            if piece.is_empty() {
                continue;
            }
            if prefix && normal.is_empty() {
                normal.push(' ');
            }
            normal.extend(piece.chars().map(|character| if character == SPACE { ' ' } else { character }));
            // SentencePiece collapses spaces alone, not the character that it takes for one.
            after_space = collapse && piece.ends_with(' ');
        }
        if collapse {
            normal.truncate(normal.trim_end_matches(' ').len());
        }
        normal
    }

    /// Appends the tokens of a word, which no token straddles. `first`: where in `ids` the stretch of text begins.
    fn encode_word(&self, word: &str, first: usize, best: &mut Vec<Best>, ids: &mut Vec<u32>) -> Result<()> {
        best.clear();
        best.resize(word.len() + 1, UNREACHED);
        best[0].score = 0.0;
        for (start, character) in word.char_indices() {
            let score = best[start].score;
            let mut alone = false;
            let mut reach = |length: usize, token: u32, gain: f64| {
                let end = &mut best[start + length];
                if score + gain > end.score {
                    *end = Best { score: score + gain, token, length: length as u32 };
                }
            };
            for (length, token) in self.tokens.prefixes(&word.as_bytes()[start..]) {
                // A token that isn't UTF-8 may end inside a character, where no way goes on.
                if word.is_char_boundary(start + length) {
                    alone |= length == character.len_utf8();
                    reach(length, token, f64::from(self.scores[token as usize]));
                }
            }
            if !alone {
                reach(character.len_utf8(), NO_TOKEN, self.unknown_score);
            }
        }
        let before = ids.len();
        let mut end = word.len();
        while end > 0 {
            let step = best[end];
            let start = end - step.length as usize;
            if step.token == NO_TOKEN {
                self.push_unknown(&word[start..end], ids)?;
            } else {
                ids.push(step.token);
            }
            end = start;
        }
        ids[before..].reverse();
        self.join_unknown(before.max(first + 1), ids);
        Ok(())
    }

    /// Appends what stands for a character that no token covers, last byte first.
    fn push_unknown(&self, lacking: &str, ids: &mut Vec<u32>) -> Result<()> {
        let start = ids.len();
        match (self.bytes.spell(lacking.as_bytes()), self.unknown) {
            (Some(bytes), _) => ids.extend(bytes),
            (None, Some(unknown)) => ids.push(unknown),
            (None, None) => {
                return Err(Error::unsupported(format!(
                    "the vocabulary has no token for \"{}\", no byte tokens to spell it, and no unknown token to stand \
                     for it",
                    lacking.escape_debug()
                )));
            }
        }
        ids[start..].reverse();
        Ok(())
    }

    /// Makes one unknown token of each run of them, of those from the position `from` and the one before it.
    fn join_unknown(&self, from: usize, ids: &mut Vec<u32>) {
        let mut kept = from;
        for at in from..ids.len() {
            if Some(ids[at]) != self.unknown || ids[kept - 1] != ids[at] {
                ids[kept] = ids[at];
                kept += 1;
            }
        }
        ids.truncate(kept.min(ids.len()));
    }
}

impl Tokenizer for Unigram {
    fn encode(&self, text: &str, options: EncodeOptions, ids: &mut Vec<u32>) -> Result<()> {
        check_size(text)?;
        let mut best = Vec::new();
        // As in SentencePiece's BPE: the prefix goes before the text and again after each token that was found whole.
        let mut prefix = self.add_space_prefix && !options.continues;
        self.specials.partition(text, options.special, |part| match part {
            Part::Token(id) => {
                prefix = self.add_space_prefix;
                ids.push(id);
                Ok(())
            }
            Part::Text(text) => {
                let text = self.normalise(text, std::mem::take(&mut prefix));
                let first = ids.len();
                self.before_space.split(&text, |word| self.encode_word(word, first, &mut best, ids))
            }
        })
    }

    fn decode(&self, ids: &[u32], options: DecodeOptions, bytes: &mut Vec<u8>) -> Result<()> {
        self.pieces.decode(ids, options, self.add_space_prefix, bytes)
    }
}
