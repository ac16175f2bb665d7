//! Splittings in several steps: each step cuts its matches out of the pieces that the one before left.

use super::cased;
use super::classes::{DIGIT, LETTER, MARK, NUMBER, PUNCTUATION, SPACE, SYMBOL, WORD, at, run, space_end};
use super::gpt2::{self, Digits};
use super::llama3::{self, QWEN2, is_newline, number_end, white_space_end};

/// A step: calls the function on each piece of the text in order; together they are the text.
pub(super) type Stage = for<'t> fn(&'t str, &mut dyn FnMut(&'t str));

/// Calls `word` on each piece that the stages leave of `text`.
pub(super) fn split<'t>(text: &'t str, stages: &[Stage], word: &mut dyn FnMut(&'t str)) {
    match stages.split_first() {
        None => word(text),
        Some((stage, rest)) => stage(text, &mut |piece| split(piece, rest, word)),
    }
}

/// Cuts out what `match_end` matches: it says where the match ends that begins at a position, or the position itself
/// where none does. What lies between matches stays whole.
#[inline]
fn cut<'t>(text: &'t str, match_end: impl Fn(usize) -> usize, piece: &mut dyn FnMut(&'t str)) {
    let (mut done, mut position) = (0, 0);
    while position < text.len() {
        let end = match_end(position);
        if end > position {
            if position > done {
                piece(&text[done..position]);
            }
            piece(&text[position..end]);
            (done, position) = (end, end);
        } else {
            position += at(text, position).1;
        }
    }
    if done < text.len() {
        piece(&text[done..]);
    }
}

/// Where the run of the listed characters that begins at `start` ends.
#[inline]
fn listed(text: &str, start: usize, belongs: impl Fn(char) -> bool) -> usize {
    let rest = &text[start..];
    start + rest.find(|character| !belongs(character)).unwrap_or(rest.len())
}

/// `\p{N}`
pub(super) fn each_number<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    cut(text, |start| number_end(text, start, 1), piece);
}

/// `\p{N}{1,3}`
pub(super) fn threes<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    cut(text, |start| number_end(text, start, 3), piece);
}

/// `[\r\n]`
pub(super) fn each_line_break<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    cut(text, |start| start + usize::from(is_newline(text, start)), piece);
}

/// `[^\n]+|[\n]+`
pub(super) fn lines<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    cut(text, |start| listed(text, start, |character| character == '\n'), piece);
}

/// `[一-龥぀-ゟ゠-ヿ]+`
pub(super) fn chinese_and_kana<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let belongs = |character| matches!(character, '\u{4E00}'..='\u{9FA5}' | '\u{3040}'..='\u{30FF}');
    cut(text, |start| listed(text, start, belongs), piece);
}

/// `[一-龥ࠀ-一가-퟿]+`
pub(super) fn asian<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let belongs = |character| matches!(character, '\u{800}'..='\u{9FA5}' | '\u{AC00}'..='\u{D7FF}');
    cut(text, |start| listed(text, start, belongs), piece);
}

/// Where a match ends that may begin with one character of white space, and goes on as `rest` says.
#[inline]
fn spaced(text: &str, start: usize, rest: impl Fn(usize) -> usize) -> usize {
    let (class, length) = at(text, start);
    let from = if class & SPACE != 0 { start + length } else { start };
    let end = rest(from);
    if end > from { end } else { start }
}

/// DeepSeek Coder's `\s?\p{L}+`
pub(super) fn spaced_letters<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let rest = |from| run(text, from, |class| class & LETTER != 0);
    cut(text, |start| spaced(text, start, rest), piece);
}

/// DeepSeek Coder's `\s?\p{P}+`
pub(super) fn spaced_punctuation<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let rest = |from| run(text, from, |class| class & PUNCTUATION != 0);
    cut(text, |start| spaced(text, start, rest), piece);
}

/// DeepSeek LLM's `\s?[A-Za-zµÀ-ÖØ-öø-ƺ...]+`
pub(super) fn spaced_alphabets<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let rest = |from| listed(text, from, super::alphabets::has_case);
    cut(text, |start| spaced(text, start, rest), piece);
}

/// DeepSeek LLM's `\s?[!-/:-~！-／：-～‘-‟　-。]+`
pub(super) fn spaced_marks<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let belongs = |character| {
        matches!(
            character,
            '!'..='/'
                | ':'..='~'
                | '\u{FF01}'..='\u{FF0F}'
                | '\u{FF1A}'..='\u{FF5E}'
                | '\u{2018}'..='\u{201F}'
                | '\u{3000}'..='\u{3002}'
        )
    };
    let rest = |from| listed(text, from, belongs);
    // U+3000 is white space and one of the marks: it may be all that there is.
    let end = |start| match spaced(text, start, rest) {
        end if end > start => end,
        _ => rest(start),
    };
    cut(text, end, piece);
}

/// `\s+$`
pub(super) fn last_space<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let end = text.trim_end().len();
    [&text[..end], &text[end..]].into_iter().filter(|part| !part.is_empty()).for_each(piece);
}

/// DeepSeek V3's words: `[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|
/// ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
pub(super) fn deepseek_words<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let line_breaks = |from| listed(text, from, |character| matches!(character, '\r' | '\n'));
    cut(
        text,
        |start| {
            deepseek_word(text, start, line_breaks).unwrap_or_else(|| {
                if at(text, start).0 & SPACE != 0 { white_space_end(text, start) } else { start }
            })
        },
        piece,
    );
}

/// Spark's, which leave line breaks alone: `...| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+`
pub(super) fn spark_words<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    cut(
        text,
        |start| {
            deepseek_word(text, start, |from| from).unwrap_or_else(|| {
                if is_newline(text, start) {
                    return start + 1;
                }
                let end = run(text, start, |class| class & SPACE != 0);
                if end > start { space_end(text, start, end, end == text.len()) } else { start }
            })
        },
        piece,
    );
}

/// The alternatives that are no white space; `follows` says where what goes with punctuation ends.
#[inline]
fn deepseek_word(text: &str, start: usize, follows: impl Fn(usize) -> usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let letters = |from| listed(text, from, |character| character.is_ascii_alphabetic());
    if bytes[start].is_ascii_punctuation() && letters(start + 1) > start + 1 {
        return Some(letters(start + 1));
    }
    let wordy = |from| run(text, from, |class| class & (LETTER | MARK) != 0);
    let (class, length) = at(text, start);
    let may_precede = class & (LETTER | PUNCTUATION | SYMBOL) == 0 && !is_newline(text, start);
    if may_precede && wordy(start + length) > start + length {
        return Some(wordy(start + length));
    }
    if wordy(start) > start {
        return Some(wordy(start));
    }
    let from = start + usize::from(bytes[start] == b' ');
    let end = run(text, from, |class| class & (PUNCTUATION | SYMBOL) != 0);
    (end > from).then(|| follows(end))
}

/// Youtu's first step: `[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+`
pub(super) fn youtu_scripts<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let script = |character| match character {
        '\u{AC00}'..='\u{D7A3}' | '\u{3131}'..='\u{318E}' => 1,
        '\u{FF01}'
        | '\u{FF0C}'
        | '\u{FF1A}'
        | '\u{FF1B}'
        | '\u{2014}'
        | '\u{2018}'
        | '\u{2019}'
        | '\u{201C}'
        | '\u{201D}'
        | '\u{2026}'
        | '\u{3001}'..='\u{303F}'
        | '\u{FE30}'..='\u{FE4F}' => 2,
        '\u{3105}'..='\u{312F}' => 3,
        '\u{4E00}'..='\u{9FA5}' | '\u{3040}'..='\u{30FF}' => 4,
        _ => 0,
    };
    let end = |start: usize| match text[start..].chars().next().map_or(0, script) {
        0 => start,
        first => listed(text, start, |character| script(character) == first),
    };
    cut(text, end, piece);
}

/// Youtu's second step: o200k's words with single digits.
pub(super) fn youtu_words<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let rules = cased::Rules { most_digits: 1, ..cased::O200K };
    cut(text, |start| cased::word_end(text, start, rules), piece);
}

/// The words of o200k.
pub(super) fn o200k_words<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    cut(text, |start| cased::word_end(text, start, cased::O200K), piece);
}

/// The words of Llama 3.
pub(super) fn llama3_words<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    cut(text, |start| llama3::word_end(text, start, llama3::LLAMA3), piece);
}

/// The words of Qwen 2.
pub(super) fn qwen2_words<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    cut(text, |start| llama3::word_end(text, start, QWEN2), piece);
}

/// The words of GPT-2.
pub(super) fn gpt2_words<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    cut(text, |start| gpt2::word_end(text, start, Digits::Together), piece);
}

/// BLOOM's ` ?[^(\s|.,!?…。，、।۔،)]+`
pub(super) fn bloom_words<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let belongs = |character: char| {
        !character.is_whitespace()
            && !matches!(
                character,
                '(' | ')' | '|' | '.' | ',' | '!' | '?' | '…' | '。' | '，' | '、' | '।' | '۔' | '،'
            )
    };
    let end = |start: usize| {
        let from = start + usize::from(text.as_bytes()[start] == b' ');
        let end = listed(text, from, belongs);
        if end > from { end } else { start }
    };
    cut(text, end, piece);
}

/// `\d{1,3}(?=(?:\d{3})*\b)`: the digits of a number that ends a word, in threes from the right.
pub(super) fn thousands_of_words<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let mut start = 0;
    while start < text.len() {
        let digit = at(text, start).0 & DIGIT;
        let end = run(text, start, |class| class & DIGIT == digit);
        if digit != 0 && at(text, end).0 & WORD == 0 {
            from_the_right(&text[start..end], piece);
            start = end;
            continue;
        }
        // The digits that begin a longer word stay with what is around them.
        let next = |from| run(text, from, |class| class & DIGIT == 0);
        let mut stop = if digit != 0 { next(end) } else { end };
        while stop < text.len() {
            let after = run(text, stop, |class| class & DIGIT != 0);
            if at(text, after).0 & WORD == 0 {
                break;
            }
            stop = next(after);
        }
        piece(&text[start..stop]);
        start = stop;
    }
}

/// SuperBPE's `\p{N}+`, and of that `(?=(\d{3})+(?!\d))`: numbers, their digits in threes from the right.
pub(super) fn numbers_in_threes<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    cut(text, |start| number_end(text, start, usize::MAX), &mut |part| {
        if at(part, 0).0 & NUMBER == 0 {
            return piece(part);
        }
        // Cut before each group of three; what is a number and no digit stays with what is before it.
        let (mut done, mut start) = (0, 0);
        while start < part.len() {
            let digits = run(part, start, |class| class & DIGIT == 0);
            let end = run(part, digits, |class| class & DIGIT != 0);
            let count = part[digits..end].chars().count();
            for (place, (at, _)) in part[digits..end].char_indices().enumerate() {
                if (count - place).is_multiple_of(3) && digits + at > done {
                    piece(&part[done..digits + at]);
                    done = digits + at;
                }
            }
            start = end;
        }
        piece(&part[done..]);
    });
}

/// AFMoE's numbers: all of them, in threes from the right.
pub(super) fn afmoe_numbers<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    cut(text, |start| number_end(text, start, usize::MAX), &mut |part| {
        if at(part, 0).0 & NUMBER == 0 { piece(part) } else { from_the_right(part, piece) }
    });
}

/// Calls `piece` on the threes of characters of a text, the first of which may be shorter.
fn from_the_right<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let first = match text.chars().count() % 3 {
        0 => 3,
        odd => odd,
    };
    let (mut start, mut count) = (0, 3 - first);
    for (position, _) in text.char_indices() {
        if count == 3 {
            piece(&text[start..position]);
            (start, count) = (position, 0);
        }
        count += 1;
    }
    piece(&text[start..]);
}

/// AFMoE's second step: runs of the scripts that are written without spaces.
pub(super) fn afmoe_scripts<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let belongs = |character| {
        matches!(
            character,
            '\u{4E00}'..='\u{9FFF}'
                | '\u{3400}'..='\u{4DBF}'
                | '\u{F900}'..='\u{FAFF}'
                | '\u{3040}'..='\u{30FF}'
                | '\u{FF65}'..='\u{FF9F}'
                | '\u{2F00}'..='\u{2FDF}'
                | '\u{E00}'..='\u{EFF}'
                | '\u{1780}'..='\u{17FF}'
                | '\u{1000}'..='\u{109F}'
                | '\u{AA60}'..='\u{AA7F}'
                | '\u{A9E0}'..='\u{A9FF}'
                | '\u{AC00}'..='\u{D7AF}'
                | '\u{1100}'..='\u{11FF}'
        )
    };
    cut(text, |start| listed(text, start, belongs), piece);
}

/// Jais 2's words: Llama 3's, with white space in pieces of 512, 256, ... 4, 2 or 1, each the longest that leaves some.
pub(super) fn jais2_words<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let mut start = 0;
    while start < text.len() {
        if let Some(end) = llama3::part_end(text, start, llama3::LLAMA3) {
            piece(&text[start..end]);
            start = end;
            continue;
        }
        let end = run(text, start, |class| class & SPACE != 0);
        if let Some(newline) = text[start..end].rfind(['\r', '\n']) {
            piece(&text[start..=start + newline]);
            start += newline + 1;
            continue;
        }
        let mut left = text[start..end].chars().count();
        // The last one goes with the word behind it, if that takes it.
        let all = left == 1 || end == text.len();
        while left > usize::from(!all) {
            let most = if end == text.len() { left } else { (left - 1).max(1) };
            let taken =
                [512, 256, 128, 64, 32, 16, 8, 4, 2, 1].into_iter().find(|size| *size <= most).unwrap_or(1);
            let next = text[start..end].char_indices().nth(taken).map_or(end, |(at, _)| start + at);
            piece(&text[start..next]);
            (start, left) = (next, left - taken);
        }
    }
}

/// EXAONE MoE's words: Qwen 2's, where letters may have marks and single spaces between them, and punctuation takes at
/// most one line break or slash: `[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+`
pub(super) fn exaone_moe_words<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let letters = |mut end: usize| loop {
        let from = end + usize::from(text.as_bytes().get(end) == Some(&b' '));
        let (class, length) = at(text, from);
        if class & LETTER == 0 {
            return end;
        }
        end = run(text, from + length, |class| class & MARK != 0);
    };
    let end = |start: usize| {
        let contraction = super::classes::contraction(text, start, true);
        if contraction > 0 {
            return start + contraction;
        }
        let (class, length) = at(text, start);
        let first = if class & (LETTER | NUMBER) == 0 && !is_newline(text, start) { length } else { 0 };
        if at(text, start + first).0 & LETTER != 0 {
            return letters(start + first);
        }
        if class & NUMBER != 0 {
            return start + length;
        }
        let one = std::cell::Cell::new(true);
        let follows = |byte| matches!(byte, b'\r' | b'\n' | b'/') && one.replace(false);
        llama3::punctuation_end(text, start, SPACE | LETTER | NUMBER, follows)
            .unwrap_or_else(|| white_space_end(text, start))
    };
    cut(text, end, piece);
}

/// Chameleon's `<sentinel:[0-9]+>`
pub(super) fn sentinels<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let end = |start: usize| {
        let Some(digits) = text[start..].strip_prefix("<sentinel:") else { return start };
        let rest = digits.trim_start_matches(|character: char| character.is_ascii_digit());
        if rest.len() < digits.len() && rest.starts_with('>') { text.len() - rest.len() + 1 } else { start }
    };
    cut(text, end, piece);
}

/// Chameleon's `(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z`
pub(super) fn images<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let end = |start: usize| {
        let Some(rest) = text[start..].strip_prefix("IMGIMG") else { return start };
        let letters = rest.bytes().take_while(|byte| (b'A'..=b'I').contains(byte)).take(5).count();
        let whole = (1..=4).contains(&letters) && rest.as_bytes().get(letters) == Some(&b'Z');
        if whole { text.len() - rest.len() + letters + 1 } else { start }
    };
    cut(text, end, piece);
}

/// Chameleon's `([\t\n]|    |  )`
pub(super) fn indents<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let end = |start: usize| {
        let rest = &text[start..];
        start
            + ["\t", "\n", "    ", "  "]
                .iter()
                .find(|part| rest.starts_with(**part))
                .map_or(0, |part| part.len())
    };
    cut(text, end, piece);
}

/// Chameleon's ``[\p{P}!-/:-@\[-`{-~]``
pub(super) fn each_mark<'t>(text: &'t str, piece: &mut dyn FnMut(&'t str)) {
    let end = |start: usize| {
        let (class, length) = at(text, start);
        let mark = class & PUNCTUATION != 0 || text.as_bytes()[start].is_ascii_punctuation();
        if mark { start + length } else { start }
    };
    cut(text, end, piece);
}
