//! Cutting text into the words that byte-level BPE merges one by one, as GGUF's `tokenizer.ggml.pre` names it.
//!
//! Each model family published its splitting as a regular expression with a look-ahead. Here each is a hand-written
//! scanner that takes time linear in the text, whatever the text; the tests hold them to the expressions themselves.

mod cased;
mod classes;
mod gpt2;
mod llama3;
mod punctuated;
#[cfg(test)]
mod tests;

use herald_api::{Error, Result};

/// A way of cutting text into words, and whether a word that is a token as a whole needs no merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PreTokenizer {
    splitter: Splitter,
    /// A word that is in the vocabulary becomes that token, whatever the merges would make of it.
    pub(crate) whole_words: bool,
}

/// The published expressions, by what sets them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Splitter {
    Gpt2(gpt2::Digits),
    Llama3 { most_digits: usize, marks: bool },
    Cased { most_digits: usize, contractions: bool },
    Punctuated { backtick: bool, numbers_alone: bool },
}

const LLAMA3: Splitter = Splitter::Llama3 { most_digits: 3, marks: false };
const QWEN2: Splitter = Splitter::Llama3 { most_digits: 1, marks: false };
const O200K: Splitter = Splitter::Cased { most_digits: 3, contractions: true };

/// Every known pre-tokenizer: its names in GGUF files, its splitting, and whether whole words skip the merges.
const KNOWN: [(&[&str], Splitter, bool); 10] = [
    (&["default"], Splitter::Punctuated { backtick: false, numbers_alone: true }, false),
    (
        &[
            "gpt-2",
            "phi-2",
            "a.x-4.0",
            "exaone4",
            "gigachat",
            "granite-docling",
            "jais",
            "jina-de",
            "jina-es",
            "jina-v1-en",
            "jina-v2-code",
            "jina-v2-de",
            "jina-v2-es",
            "mellum",
            "modern-bert",
            "mpt",
            "olmo",
            "roberta-bpe",
            "trillion",
        ],
        Splitter::Gpt2(gpt2::Digits::Together),
        false,
    ),
    (
        &["smollm", "codeshell", "command-r", "exaone", "minerva-7b", "refact", "starcoder"],
        Splitter::Gpt2(gpt2::Digits::Alone),
        false,
    ),
    (
        &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "lfm2", "midm-2.0", "pixtral"],
        LLAMA3,
        true,
    ),
    (&["chatglm-bpe", "dbrx", "glm4", "smaug-bpe"], LLAMA3, false),
    (
        &["qwen2", "deepseek-r1-qwen", "grok-2", "hunyuan", "kormo", "megrez", "solar-open", "stablelm2"],
        QWEN2,
        false,
    ),
    (&["qwen35"], Splitter::Llama3 { most_digits: 1, marks: true }, false),
    (&["gpt-4o", "kanana2", "llama4", "minimax-m2"], O200K, false),
    (&["tekken"], Splitter::Cased { most_digits: 1, contractions: false }, true),
    (&["falcon"], Splitter::Punctuated { backtick: true, numbers_alone: false }, false),
];

impl PreTokenizer {
    /// The pre-tokenizer of this name; no name at all means `default`.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let wanted = if name.is_empty() { "default" } else { name };
        KNOWN
            .iter()
            .find(|(names, ..)| names.contains(&wanted))
            .map(|&(_, splitter, whole_words)| Self { splitter, whole_words })
            .ok_or_else(|| {
                let known: Vec<&str> = KNOWN.iter().flat_map(|(names, ..)| names.iter().copied()).collect();
                Error::unsupported(format!(
                    "the pre-tokenizer is \"{name}\", and the known ones are {}",
                    known.join(", ")
                ))
            })
    }

    /// Calls `word` on each word of `text` in order; together they are the text.
    pub(crate) fn split<'t>(self, text: &'t str, mut word: impl FnMut(&'t str)) {
        match self.splitter {
            Splitter::Gpt2(digits) => each(text, |from| gpt2::word_end(text, from, digits), word),
            Splitter::Llama3 { most_digits, marks } => {
                each(text, |from| llama3::word_end(text, from, most_digits, marks), word);
            }
            Splitter::Cased { most_digits, contractions } => {
                each(text, |from| cased::word_end(text, from, most_digits, contractions), word);
            }
            Splitter::Punctuated { backtick, numbers_alone } => {
                punctuated::split(text, backtick, numbers_alone, &mut word);
            }
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
