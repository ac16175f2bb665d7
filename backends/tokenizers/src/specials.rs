//! Tokens that are found whole in a text before any splitting: user-defined ones always, special ones when asked for.

use crate::pieces::{Pieces, corrupt};
use aho_corasick::{AhoCorasick, MatchKind};
use herald_api::{Result, STRIP_LEFT, STRIP_RIGHT, TokenType};
use std::ops::Range;

/// A part of a text, as [`Specials::partition`] takes it apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'t> {
    /// Plain text between such tokens, not empty.
    Text(&'t str),
    /// A token spelt out in the text.
    Token(u32),
}

/// Finds the tokens of one vocabulary that are matched whole.
pub(crate) struct Specials {
    user_defined: Matcher,
    all: Matcher,
    /// For each token, which white space beside it it takes with it; empty where none does.
    strips: Vec<u8>,
}

impl Specials {
    /// Prepares both searches: for user-defined tokens alone, and for these with the special ones.
    /// `strips`: as `Vocabulary::strips`.
    pub(crate) fn new(pieces: &Pieces, strips: &[u8]) -> Result<Self> {
        let is_special = |kind| matches!(kind, TokenType::Control | TokenType::Unknown);
        Ok(Self {
            user_defined: Matcher::new(pieces, |kind| kind == TokenType::UserDefined)?,
            all: Matcher::new(pieces, |kind| kind == TokenType::UserDefined || is_special(kind))?,
            strips: strips.to_vec(),
        })
    }

    /// Calls `part` on each part of `text` in order. Where tokens overlap the one that starts first wins, and of those
    /// that start together the longest. Takes time linear in the text.
    pub(crate) fn partition<'t>(
        &self,
        text: &'t str,
        special: bool,
        mut part: impl FnMut(Part<'t>) -> Result<()>,
    ) -> Result<()> {
        let matcher = if special { &self.all } else { &self.user_defined };
        let mut done = 0;
        for (id, found) in matcher.find_all(text) {
            // A token that isn't UTF-8 may be found inside a character, where text can't be cut.
            let Some(before) = text.get(done..found.start).filter(|_| text.is_char_boundary(found.end))
            else {
                continue;
            };
            let strips = self.strips.get(id as usize).copied().unwrap_or(0);
            let before = if strips & STRIP_LEFT != 0 { before.trim_end() } else { before };
            if !before.is_empty() {
                part(Part::Text(before))?;
            }
            part(Part::Token(id))?;
            done = found.end;
            if strips & STRIP_RIGHT != 0 {
                let after = &text[done..];
                done += after.len() - after.trim_start().len();
            }
        }
        match text.get(done..) {
            None | Some("") => Ok(()),
            Some(rest) => part(Part::Text(rest)),
        }
    }
}

/// A set of tokens to find; `automaton` is `None` where the set is empty.
struct Matcher {
    automaton: Option<AhoCorasick>,
    ids: Vec<u32>,
}

impl Matcher {
    fn new(pieces: &Pieces, wanted: impl Fn(TokenType) -> bool) -> Result<Self> {
        let (ids, spellings): (Vec<u32>, Vec<&[u8]>) = pieces
            .iter()
            .filter(|(_, kind, piece)| wanted(*kind) && !piece.is_empty())
            .map(|(id, _, piece)| (id, piece))
            .unzip();
        if ids.is_empty() {
            return Ok(Self { automaton: None, ids });
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(spellings)
            .map_err(|error| {
                corrupt(format!(
                    "the vocabulary's {} special and user-defined tokens are too much to search for: {error}",
                    ids.len()
                ))
            })?;
        Ok(Self { automaton: Some(automaton), ids })
    }

    fn find_all<'m>(&'m self, text: &'m str) -> impl Iterator<Item = (u32, Range<usize>)> + 'm {
        self.automaton
            .iter()
            .flat_map(move |automaton| automaton.find_iter(text))
            .map(|found| (self.ids[found.pattern().as_usize()], found.range()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use herald_api::Vocabulary;

    fn specials(tokens: &[(&'static str, TokenType)]) -> Specials {
        stripping(tokens, &[])
    }

    fn stripping(tokens: &[(&'static str, TokenType)], strips: &[u8]) -> Specials {
        let types: Vec<u32> = tokens.iter().map(|(_, kind)| *kind as u32).collect();
        let tokens = tokens.iter().map(|(text, _)| text.as_bytes()).collect();
        let vocabulary = Vocabulary { tokens, types: &types, ..Vocabulary::default() };
        let pieces = Pieces::new(&vocabulary, |token, _, bytes| bytes.extend_from_slice(token)).unwrap();
        Specials::new(&pieces, strips).unwrap()
    }

    fn partition(specials: &Specials, text: &str, special: bool) -> Vec<String> {
        let mut parts = Vec::new();
        specials
            .partition(text, special, |part| {
                parts.push(match part {
                    Part::Text(text) => text.to_owned(),
                    Part::Token(id) => format!("#{id}"),
                });
                Ok(())
            })
            .unwrap();
        parts
    }

    #[test]
    fn special_tokens_only_when_asked() {
        let specials = specials(&[
            ("<s>", TokenType::Control),
            ("<u>", TokenType::UserDefined),
            ("<unk>", TokenType::Unknown),
            ("plain", TokenType::Normal),
        ]);
        let text = "<s>a<u><u> plain<unk>";
        assert_eq!(partition(&specials, text, false), ["<s>a", "#1", "#1", " plain<unk>"]);
        assert_eq!(partition(&specials, text, true), ["#0", "a", "#1", "#1", " plain", "#2"]);
        assert!(partition(&specials, "", true).is_empty());
    }

    #[test]
    fn the_longest_of_those_that_start_together() {
        let kind = TokenType::UserDefined;
        let specials = specials(&[("  ", kind), ("    ", kind), ("   ", kind), ("", kind)]);
        assert_eq!(partition(&specials, "a       b ", false), ["a", "#1", "#2", "b "]);
    }

    #[test]
    fn white_space_goes_with_the_token() {
        let tokens = [("<l>", TokenType::Control), ("<r>", TokenType::Control), ("<b>", TokenType::Control)];
        let specials = stripping(&tokens, &[STRIP_LEFT, STRIP_RIGHT, STRIP_LEFT | STRIP_RIGHT]);
        assert_eq!(partition(&specials, "a \n<l> b", true), ["a", "#0", " b"]);
        assert_eq!(partition(&specials, "a <r>\u{3000}\n b", true), ["a ", "#1", "b"]);
        assert_eq!(partition(&specials, " <b> <r> <l> ", true), ["#2", "#1", "#0", " "]);
        assert_eq!(partition(&specials, "a <b> b", false), ["a <b> b"]);
    }

    #[test]
    fn no_character_is_cut() {
        let bytes: [&[u8]; 2] = [&[0xA9], &[0xC3]];
        let vocabulary = Vocabulary { tokens: bytes.to_vec(), types: &[4, 4], ..Vocabulary::default() };
        let pieces = Pieces::new(&vocabulary, |token, _, bytes| bytes.extend_from_slice(token)).unwrap();
        assert_eq!(partition(&Specials::new(&pieces, &[]).unwrap(), "aéb", false), ["aéb"]);
    }
}
