//! The splitting of o200k and Tekken, which cut words where lower case turns to upper:
//! `P?[U]*[W]+C?|P?[U]+[W]*C?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
//! where P is `[^\r\n\p{L}\p{N}]`, U is `\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}`, W is `\p{Ll}\p{Lm}\p{Lo}\p{M}` and C is
//! `(?i:'s|'t|'re|'ve|'m|'ll|'d)`. Tekken has no C and takes single digits. Kimi K2 cuts out `\p{Han}+` first, has no Han
//! in U and W, and no slash after punctuation.

use super::classes::{Class, HAN, LETTER, LOWER, NUMBER, SPACE, UPPER, at, contraction, run};
use super::llama3::{is_newline, number_end, punctuation_end, white_space_end};

/// In what these families differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// How many digits go together.
    pub(super) most_digits: usize,
    /// English contractions go with the word before them.
    pub(super) contractions: bool,
    /// Han characters are words of their own.
    pub(super) han: bool,
}

/// The splitting of GPT-4o.
pub(super) const O200K: Rules = Rules { most_digits: 3, contractions: true, han: false };

/// Where the word ends that begins at `start`, inside the text.
#[inline]
pub(super) fn word_end(text: &str, start: usize, rules: Rules) -> usize {
    let (class, length) = at(text, start);
    if rules.han && class & HAN != 0 {
        return run(text, start, |class| class & HAN != 0);
    }
    if class & NUMBER != 0 {
        return number_end(text, start, rules.most_digits);
    }
    let prefix = if class & LETTER == 0 && !is_newline(text, start) { length } else { 0 };
    if let Some(end) = letters_end(text, start, prefix, if rules.han { HAN } else { 0 }) {
        return if rules.contractions { end + contraction(text, end, true) } else { end };
    }
    punctuation_end(text, start, SPACE | LETTER | NUMBER, |byte| {
        matches!(byte, b'\r' | b'\n') || (byte == b'/' && !rules.han)
    })
    .unwrap_or_else(|| white_space_end(text, start))
}

/// The two alternatives for letters (of which none is in the class `without`): each is tried after the character in front that may precede a word (`prefix`
/// bytes), then without it, which makes a difference where that character is a mark.
#[inline]
fn letters_end(text: &str, start: usize, prefix: usize, without: Class) -> Option<usize> {
    let with = start + prefix;
    let lower = lower_ended(text, with, without)
        .or_else(|| if prefix > 0 { lower_ended(text, start, without) } else { None });
    lower
        .or_else(|| upper_begun(text, with, without))
        .or_else(|| if prefix > 0 { upper_begun(text, start, without) } else { None })
}

/// `[U]*[W]+`
#[inline]
fn lower_ended(text: &str, start: usize, without: Class) -> Option<usize> {
    // How far back [U]* must give way for [W]+ to take a character: to the last one that is in both.
    let (mut position, mut last_in_both) = (start, None);
    loop {
        let (class, length) = at(text, position);
        if class & UPPER == 0 || class & without != 0 {
            break;
        }
        position += length;
        if class & LOWER != 0 {
            last_in_both = Some(position);
        }
    }
    let end = run(text, position, |class| class & LOWER != 0 && class & without == 0);
    if end > position { Some(end) } else { last_in_both }
}

/// `[U]+[W]*`
#[inline]
fn upper_begun(text: &str, start: usize, without: Class) -> Option<usize> {
    let upper = run(text, start, |class| class & UPPER != 0 && class & without == 0);
    (upper > start).then(|| run(text, upper, |class| class & LOWER != 0 && class & without == 0))
}
