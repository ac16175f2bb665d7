//! The splitting of o200k and Tekken, which cut words where lower case turns to upper:
//! `P?[U]*[W]+C?|P?[U]+[W]*C?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
//! where P is `[^\r\n\p{L}\p{N}]`, U is `\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}`, W is `\p{Ll}\p{Lm}\p{Lo}\p{M}` and C is
//! `(?i:'s|'t|'re|'ve|'m|'ll|'d)`. Tekken has no C and takes single digits.

use super::classes::{LETTER, LOWER, NUMBER, SPACE, UPPER, at, contraction, run};
use super::llama3::{is_newline, number_end, punctuation_end, white_space_end};

/// Where the word ends that begins at `start`, inside the text.
#[inline]
pub(super) fn word_end(text: &str, start: usize, most_digits: usize, contractions: bool) -> usize {
    let (class, length) = at(text, start);
    if class & NUMBER != 0 {
        return number_end(text, start, most_digits);
    }
    let prefix = if class & LETTER == 0 && !is_newline(text, start) { length } else { 0 };
    if let Some(end) = letters_end(text, start, prefix) {
        return if contractions { end + contraction(text, end, true) } else { end };
    }
    punctuation_end(text, start, SPACE | LETTER | NUMBER, |byte| matches!(byte, b'\r' | b'\n' | b'/'))
        .unwrap_or_else(|| white_space_end(text, start))
}

/// The two alternatives for letters: each is tried after the character in front that may precede a word (`prefix`
/// bytes), then without it, which makes a difference where that character is a mark.
#[inline]
fn letters_end(text: &str, start: usize, prefix: usize) -> Option<usize> {
    let with = start + prefix;
    let lower = lower_ended(text, with).or_else(|| if prefix > 0 { lower_ended(text, start) } else { None });
    lower
        .or_else(|| upper_begun(text, with))
        .or_else(|| if prefix > 0 { upper_begun(text, start) } else { None })
}

/// `[U]*[W]+`
#[inline]
fn lower_ended(text: &str, start: usize) -> Option<usize> {
    // How far back [U]* must give way for [W]+ to take a character: to the last one that is in both.
    let (mut position, mut last_in_both) = (start, None);
    loop {
        let (class, length) = at(text, position);
        if class & UPPER == 0 {
            break;
        }
        position += length;
        if class & LOWER != 0 {
            last_in_both = Some(position);
        }
    }
    let end = run(text, position, |class| class & LOWER != 0);
    if end > position { Some(end) } else { last_in_both }
}

/// `[U]+[W]*`
#[inline]
fn upper_begun(text: &str, start: usize) -> Option<usize> {
    let upper = run(text, start, |class| class & UPPER != 0);
    (upper > start).then(|| run(text, upper, |class| class & LOWER != 0))
}
