//! WPM: WordPiece as BERT has it (Devlin et al., 2018). The text is put into a plain form and cut at white space,
//! punctuation and Chinese characters; each word becomes the longest token that it begins with, then the longest that
//! what is left begins with, and so on.
//!
//! GGUF files spell a token that begins a word with `▁` before it, and one that goes on plainly (`##ing` is `ing`).

use crate::pieces::{Index, Pieces};
use crate::spaces::unescape;
use crate::specials::{Part, Specials};
use herald_api::{DecodeOptions, EncodeOptions, Error, Result, TokenType, Tokenizer, Vocabulary};
use unicode_general_category::{GeneralCategory as Category, get_general_category};
use unicode_normalization::UnicodeNormalization;

/// Characters of the longest word that is taken apart; a longer one is unknown. It also bounds the time.
const LONGEST_WORD: usize = 100;

/// A WordPiece vocabulary, ready to encode and decode.
pub(crate) struct WordPiece {
    pieces: Pieces,
    index: Index,
    specials: Specials,
    unknown: Option<u32>,
    lowercase: bool,
    strip_accents: bool,
}

impl WordPiece {
    pub(crate) fn new(vocabulary: &Vocabulary<'_>) -> Result<Self> {
        let pieces = Pieces::new(vocabulary, |token, kind, bytes| match kind {
            TokenType::Normal | TokenType::Unused => unescape(token, bytes),
            _ => bytes.extend_from_slice(token),
        })?;
        Ok(Self {
            index: Index::new(&pieces),
            specials: Specials::new(&pieces, vocabulary.strips)?,
            unknown: vocabulary.unknown,
            lowercase: vocabulary.lowercase,
            strip_accents: vocabulary.strip_accents,
            pieces,
        })
    }

    /// Appends the tokens of a word, if there is one, and clears it. `word` begins with a space.
    fn encode_word(&self, word: &mut String, ids: &mut Vec<u32>) -> Result<()> {
        if word.len() > 1 {
            let first = ids.len();
            if word.chars().count() > 1 + LONGEST_WORD || !self.take_apart(word, ids) {
                ids.truncate(first);
                ids.push(self.unknown.ok_or_else(|| {
                    Error::unsupported(format!(
                        "the vocabulary can't express \"{}\", and has no unknown token to stand for it",
                        word[1..].chars().take(40).collect::<String>().escape_debug()
                    ))
                })?);
            }
        }
        word.truncate(1);
        Ok(())
    }

    /// Appends the tokens of a word; false where some part of it has none.
    fn take_apart(&self, word: &str, ids: &mut Vec<u32>) -> bool {
        let mut start = 0;
        while start < word.len() {
            let mut ends = word[start..].char_indices().rev().map(|(at, last)| start + at + last.len_utf8());
            // The space in front is no token of the word's.
            let found = ends
                .find_map(|end| Some((self.index.get(&self.pieces, &word.as_bytes()[start..end])?, end)))
                .filter(|&(_, end)| end > 1);
            let Some((token, end)) = found else { return false };
            ids.push(token);
            start = end;
        }
        true
    }

    /// Appends the tokens of a stretch of plain text.
    fn encode_text(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let mut word = " ".to_owned();
        let mut each = |character: char| {
            if character.is_whitespace() {
                return self.encode_word(&mut word, ids);
            }
            if stands_alone(character) {
                self.encode_word(&mut word, ids)?;
                word.push(character);
                return self.encode_word(&mut word, ids);
            }
            word.push(character);
            Ok(())
        };
        let clean = text.chars().filter(|&character| !is_left_out(character));
        if self.strip_accents {
            let is_accent = |character: &char| get_general_category(*character) == Category::NonspacingMark;
            clean
                .nfd()
                .filter(|character| !is_accent(character))
                .flat_map(|character| self.cased(character))
                .try_for_each(&mut each)?;
        } else {
            clean.flat_map(|character| self.cased(character)).try_for_each(&mut each)?;
        }
        self.encode_word(&mut word, ids)
    }

    /// A character in the case that the vocabulary is in.
    fn cased(&self, character: char) -> impl Iterator<Item = char> {
        let lower = self.lowercase.then(|| character.to_lowercase());
        let same = (!self.lowercase).then_some(character);
        lower.into_iter().flatten().chain(same)
    }
}

impl Tokenizer for WordPiece {
    fn encode(&self, text: &str, options: EncodeOptions, ids: &mut Vec<u32>) -> Result<()> {
        self.specials.partition(text, options.special, |part| match part {
            Part::Token(id) => {
                ids.push(id);
                Ok(())
            }
            Part::Text(text) => self.encode_text(text, ids),
        })
    }

    fn decode(&self, ids: &[u32], options: DecodeOptions, bytes: &mut Vec<u8>) -> Result<()> {
        self.pieces.decode(ids, options, true, bytes)
    }
}

/// Control characters, which BERT takes out of a text; of those tabs and line breaks are white space.
fn is_left_out(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' => false,
        '\0' | '\u{FFFD}' => true,
        _ => matches!(
            get_general_category(character),
            Category::Control | Category::Format | Category::PrivateUse
        ),
    }
}

/// Characters that are words of their own: punctuation, ASCII's symbols, and Chinese characters as BERT lists them.
fn stands_alone(character: char) -> bool {
    character.is_ascii_punctuation()
        || matches!(
            character,
            '\u{3400}'..='\u{4DBF}'
                | '\u{4E00}'..='\u{9FFF}'
                | '\u{F900}'..='\u{FAFF}'
                | '\u{20000}'..='\u{2A6DF}'
                | '\u{2A700}'..='\u{2B81F}'
                // BERT's list begins at U+2B820; the library that models are used with begins here.
                | '\u{2B920}'..='\u{2CEAF}'
                | '\u{2F800}'..='\u{2FA1F}'
        )
        || matches!(
            get_general_category(character),
            Category::ConnectorPunctuation
                | Category::DashPunctuation
                | Category::OpenPunctuation
                | Category::ClosePunctuation
                | Category::InitialPunctuation
                | Category::FinalPunctuation
                | Category::OtherPunctuation
        )
}
