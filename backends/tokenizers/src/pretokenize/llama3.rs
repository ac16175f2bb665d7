//! The splitting of cl100k's descendants, which Llama 3 and Qwen 2 share but for how many digits go together:
//! `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`.
//! SEED-Coder takes no line breaks after punctuation, and Ufakzeka has no contractions. Qwen 3.5 counts combining marks as part of words: `[\p{L}\p{M}]+` for `\p{L}+`, and no mark among punctuation.

use super::classes::{Class, LETTER, MARK, NUMBER, SPACE, at, contraction, run, space_end};

/// In what these families differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// How many digits go together.
    pub(super) most_digits: usize,
    /// Marks are part of words.
    pub(super) marks: bool,
    /// English contractions are words.
    pub(super) contractions: bool,
    /// Line breaks go with the punctuation before them.
    pub(super) line_breaks: bool,
}

/// Llama 3's own.
pub(super) const LLAMA3: Rules =
    Rules { most_digits: 3, marks: false, contractions: true, line_breaks: true };

/// Qwen 2's.
pub(super) const QWEN2: Rules = Rules { most_digits: 1, ..LLAMA3 };

/// Where the word ends that begins at `start`, inside the text.
#[inline]
pub(super) fn word_end(text: &str, start: usize, rules: Rules) -> usize {
    part_end(text, start, rules).unwrap_or_else(|| white_space_end(text, start))
}

/// Where the word ends that begins at `start`, or nothing where that is white space.
#[inline]
pub(super) fn part_end(text: &str, start: usize, rules: Rules) -> Option<usize> {
    let contraction = if rules.contractions { contraction(text, start, true) } else { 0 };
    if contraction > 0 {
        return Some(start + contraction);
    }
    let wordy = if rules.marks { LETTER | MARK } else { LETTER };
    let (class, length) = at(text, start);
    if class & wordy != 0 {
        return Some(run(text, start + length, |class| class & wordy != 0));
    }
    if class & NUMBER != 0 {
        return Some(number_end(text, start, rules.most_digits));
    }
    if !is_newline(text, start) {
        let (next, next_length) = at(text, start + length);
        if next & wordy != 0 {
            return Some(run(text, start + length + next_length, |class| class & wordy != 0));
        }
    }
    let follows = |byte| rules.line_breaks && matches!(byte, b'\r' | b'\n');
    punctuation_end(text, start, SPACE | NUMBER | wordy, follows)
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
