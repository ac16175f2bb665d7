//! Cutting text into the words that byte-level BPE merges one by one, as GGUF's `tokenizer.ggml.pre` names it.
//!
//! Each model family published its splitting as a regular expression with a look-ahead. Here each is a hand-written
//! scanner that takes time linear in the text, whatever the text; the tests hold them to the expressions themselves.

mod alphabets;
mod cased;
mod classes;
mod gpt2;
mod llama3;
mod names;
mod punctuated;
mod stages;
#[cfg(test)]
mod tests;

use herald_api::{Error, Result};
use names::KNOWN;

/// A way of cutting text into words, and whether a word that is a token as a whole needs no merges.
#[derive(Clone, Copy)]
pub(crate) struct PreTokenizer {
    splitter: Splitter,
    /// A word that is in the vocabulary becomes that token, whatever the merges would make of it.
    pub(crate) whole_words: bool,
}

/// The published expressions, by what sets them apart.
#[derive(Clone, Copy)]
enum Splitter {
    Gpt2(gpt2::Digits),
    Llama3(llama3::Rules),
    Cased(cased::Rules),
    Punctuated {
        backtick: bool,
        numbers_alone: bool,
    },
    Stages(&'static [stages::Stage]),
    /// For merges of characters: lines, cut from the runs of line breaks between them.
    Lines,
    /// For merges of characters: what lies between white space, which is dropped.
    Spaces,
}

impl PreTokenizer {
    /// The pre-tokenizer of this name; no name at all means `default`.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let wanted = if name.is_empty() { "default" } else { name };
        KNOWN
            .iter()
            .find(|known| known.names.contains(&wanted))
            .map(|known| Self { splitter: known.splitter, whole_words: known.whole_words })
            .ok_or_else(|| {
                let known: Vec<&str> = KNOWN.iter().flat_map(|known| known.names.iter().copied()).collect();
                Error::unsupported(format!(
                    "the pre-tokenizer is \"{name}\", and the known ones are {}",
                    known.join(", ")
                ))
            })
    }

    /// Whether merges begin with characters, and not with bytes.
    pub(crate) fn characters(&self) -> bool {
        matches!(self.splitter, Splitter::Lines | Splitter::Spaces)
    }

    /// Calls `word` on each word of `text` in order; together they are the text, but for white space that is dropped.
    pub(crate) fn split<'t>(self, text: &'t str, mut word: impl FnMut(&'t str)) {
        match self.splitter {
            Splitter::Gpt2(digits) => each(text, |from| gpt2::word_end(text, from, digits), word),
            Splitter::Llama3(rules) => each(text, |from| llama3::word_end(text, from, rules), word),
            Splitter::Cased(rules) => each(text, |from| cased::word_end(text, from, rules), word),
            Splitter::Punctuated { backtick, numbers_alone } => {
                punctuated::split(text, backtick, numbers_alone, &mut word);
            }
            Splitter::Stages(stages) => stages::split(text, stages, &mut word),
            Splitter::Lines => stages::lines(text, &mut word),
            Splitter::Spaces => text.split_whitespace().for_each(word),
        }
    }
}

/// Calls `word` on each word of `text`, where `word_end` says where the word ends that begins at a position.
#[inline]
fn each<'t>(text: &'t str, word_end: impl Fn(usize) -> usize, mut word: impl FnMut(&'t str)) {
    let mut start = 0;
    while start < text.len() {
        let end = word_end(start);
        word(&text[start..end]);
        start = end;
    }
}
