//! The splitting of cl100k's descendants, which Llama 3 and Qwen 2 share but for how many digits go together:
//! `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`.
//! Qwen 3.5 counts combining marks as part of words: `[\p{L}\p{M}]+` for `\p{L}+`, and no mark among punctuation.

use super::classes::{Class, LETTER, MARK, NUMBER, SPACE, at, contraction, run, space_end};

/// Where the word ends that begins at `start`, inside the text.
#[inline]
pub(super) fn word_end(text: &str, start: usize, most_digits: usize, marks: bool) -> usize {
    let contraction = contraction(text, start, true);
    if contraction > 0 {
        return start + contraction;
    }
    let wordy = if marks { LETTER | MARK } else { LETTER };
    let (class, length) = at(text, start);
    if class & wordy != 0 {
        return run(text, start + length, |class| class & wordy != 0);
    }
    if class & NUMBER != 0 {
        return number_end(text, start, most_digits);
    }
    if !is_newline(text, start) {
        let (next, next_length) = at(text, start + length);
        if next & wordy != 0 {
            return run(text, start + length + next_length, |class| class & wordy != 0);
        }
    }
    punctuation_end(text, start, SPACE | NUMBER | wordy, |byte| matches!(byte, b'\r' | b'\n'))
        .unwrap_or_else(|| white_space_end(text, start))
}

/// `\p{N}{1,most}`, at a number.
#[inline]
pub(super) fn number_end(text: &str, start: usize, most: usize) -> usize {
    let mut end = start;
    for _ in 0..most {
        let (class, length) = at(text, end);
        if class & NUMBER == 0 {
            break;
        }
        end += length;
    }
    end
}

/// ` ?[^...]+` followed by any of the bytes that `follows` takes, where `outside` is what the brackets exclude.
#[inline]
pub(super) fn punctuation_end(
    text: &str,
    start: usize,
    outside: Class,
    follows: impl Fn(u8) -> bool,
) -> Option<usize> {
    let bytes = text.as_bytes();
    let after_space = start + usize::from(bytes[start] == b' ');
    let end = run(text, after_space, |class| class & outside == 0);
    if end == after_space {
        return None;
    }
    let trailing = bytes[end..].iter().take_while(|&&byte| follows(byte)).count();
    Some(end + trailing)
}

/// `\s*[\r\n]+|\s+(?!\S)|\s+`, at white space: up to the last line break of the run where it has one.
#[inline]
pub(super) fn white_space_end(text: &str, start: usize) -> usize {
    let end = run(text, start, |class| class & SPACE != 0);
    match text.as_bytes()[start..end].iter().rposition(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(newline) => start + newline + 1,
        None => space_end(text, start, end, end == text.len()),
    }
}

/// Whether a line break, which no word begins with, stands at a position.
#[inline]
pub(super) fn is_newline(text: &str, position: usize) -> bool {
    matches!(text.as_bytes().get(position), Some(b'\r' | b'\n'))
}
