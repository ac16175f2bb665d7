//! Falcon's splitting, and the one that GGUF calls `default`: punctuation is cut out first, what is left is split as
//! GPT-2's, and of that again numbers (in `default` alone) and groups of three digits are cut out. Each step cuts the
//! pieces of the one before: `[\p{P}$+<=>^~|]+` (in Falcon with the backtick), GPT-2's, `\p{N}+`, `[0-9][0-9][0-9]`.

use super::classes::{NUMBER, PUNCTUATION, at, run};
use super::gpt2;

/// Calls `word` on each word of `text`.
pub(super) fn split<'t>(text: &'t str, backtick: bool, numbers_alone: bool, word: &mut impl FnMut(&'t str)) {
    let is_mark = |position: usize| {
        let byte = text.as_bytes()[position];
        let listed = matches!(byte, b'$' | b'+' | b'<' | b'=' | b'>' | b'^' | b'~' | b'|');
        listed || (backtick && byte == b'`') || at(text, position).0 & PUNCTUATION != 0
    };
    let mut start = 0;
    while start < text.len() {
        let marks = is_mark(start);
        let mut end = start;
        while end < text.len() && is_mark(end) == marks {
            end += at(text, end).1;
        }
        let part = &text[start..end];
        if marks {
            word(part);
        } else {
            super::each(
                part,
                |from| gpt2::word_end(part, from, gpt2::Digits::Together),
                |piece| {
                    if numbers_alone { numbers(piece, word) } else { thousands(piece, word) }
                },
            );
        }
        start = end;
    }
}

/// Cuts out `\p{N}+`, and from what it is and isn't the groups of three digits.
fn numbers<'t>(text: &'t str, word: &mut impl FnMut(&'t str)) {
    let mut start = 0;
    while start < text.len() {
        let number = at(text, start).0 & NUMBER;
        let end = run(text, start, |class| class & NUMBER == number);
        thousands(&text[start..end], word);
        start = end;
    }
}

/// Cuts out `[0-9][0-9][0-9]`.
fn thousands<'t>(text: &'t str, word: &mut impl FnMut(&'t str)) {
    let bytes = text.as_bytes();
    let (mut start, mut position) = (0, 0);
    while position + 3 <= bytes.len() {
        if bytes[position..position + 3].iter().all(u8::is_ascii_digit) {
            if position > start {
                word(&text[start..position]);
            }
            word(&text[position..position + 3]);
            position += 3;
            start = position;
        } else {
            position += 1;
        }
    }
    if start < text.len() {
        word(&text[start..]);
    }
}
