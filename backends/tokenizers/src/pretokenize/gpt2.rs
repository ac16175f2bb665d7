//! GPT-2's splitting: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
//! (Radford et al., 2019), by itself or after every digit was cut out (`\p{N}`).

use super::classes::{LETTER, NUMBER, SPACE, at, contraction, run, space_end};

/// What becomes of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Digits {
    /// A run of them is one word, with the space before it.
    Together,
    /// Each is a word of its own, cut out first: the text before it ends there.
    Alone,
}

/// Where the word ends that begins at `start`, inside the text.
#[inline]
pub(super) fn word_end(text: &str, start: usize, digits: Digits) -> usize {
    let contraction = contraction(text, start, false);
    if contraction > 0 {
        return start + contraction;
    }
    let after_space = start + usize::from(text.as_bytes()[start] == b' ');
    let (class, length) = at(text, after_space);
    if class & LETTER != 0 {
        return run(text, after_space + length, |class| class & LETTER != 0);
    }
    if class & NUMBER != 0 {
        return match digits {
            Digits::Together => run(text, after_space + length, |class| class & NUMBER != 0),
            Digits::Alone if after_space > start => after_space,
            Digits::Alone => start + length,
        };
    }
    if length > 0 && class & SPACE == 0 {
        return run(text, after_space + length, |class| class & (SPACE | LETTER | NUMBER) == 0);
    }
    let end = run(text, start, |class| class & SPACE != 0);
    let (next, length) = at(text, end);
    space_end(text, start, end, length == 0 || (digits == Digits::Alone && next & NUMBER != 0))
}
