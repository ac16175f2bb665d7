//! The character classes of the published expressions, exactly as Unicode defines them.
//!
//! `\p{L}` is the general categories L*, not Rust's `is_alphabetic`, which also takes in letter numbers and many
//! combining marks; `\s` is the property White_Space, which is what Rust's `is_whitespace` says.

use unicode_general_category::{GeneralCategory as Category, get_general_category};

/// What a character is, as a set of the bits below.
pub(super) type Class = u16;

/// `\p{L}`
pub(super) const LETTER: Class = 1;
/// `\p{N}`
pub(super) const NUMBER: Class = 2;
/// `\s`
pub(super) const SPACE: Class = 4;
/// `\p{M}`
pub(super) const MARK: Class = 8;
/// `\p{P}`
pub(super) const PUNCTUATION: Class = 16;
/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`: what may stand in the upper-case part of a word.
pub(super) const UPPER: Class = 32;
/// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`: what may stand in the lower-case part of a word.
pub(super) const LOWER: Class = 64;
/// `\p{S}`
pub(super) const SYMBOL: Class = 128;
/// `\d`
pub(super) const DIGIT: Class = 256;
/// `\w` as Oniguruma has it: letters, marks, numbers and connecting punctuation.
pub(super) const WORD: Class = 512;
/// `\p{Han}`
pub(super) const HAN: Class = 1024;

/// The class of each ASCII character: most text never leaves this table.
static ASCII: [Class; 128] = {
    let (mut classes, mut code) = ([0; 128], 0);
    while code < 128 {
        classes[code] = match code as u8 {
            b'A'..=b'Z' => LETTER | UPPER | WORD,
            b'a'..=b'z' => LETTER | LOWER | WORD,
            b'0'..=b'9' => NUMBER | DIGIT | WORD,
            b'\t'..=b'\r' | b' ' => SPACE,
            b'$' | b'+' | b'<' | b'=' | b'>' | b'^' | b'`' | b'|' | b'~' => SYMBOL,
            b'_' => PUNCTUATION | WORD,
            b'!'..=b'~' => PUNCTUATION,
            _ => 0,
        };
        code += 1;
    }
    classes
};

/// The class of a character.
fn class_of(character: char) -> Class {
    if let Some(&class) = ASCII.get(character as usize) {
        return class;
    }
    if character.is_whitespace() {
        return SPACE;
    }
    let han = if is_han(character) { HAN } else { 0 };
    han | match get_general_category(character) {
        Category::UppercaseLetter | Category::TitlecaseLetter => LETTER | UPPER | WORD,
        Category::LowercaseLetter => LETTER | LOWER | WORD,
        Category::ModifierLetter | Category::OtherLetter => LETTER | UPPER | LOWER | WORD,
        Category::NonspacingMark | Category::SpacingMark | Category::EnclosingMark => {
            MARK | UPPER | LOWER | WORD
        }
        Category::DecimalNumber => NUMBER | DIGIT | WORD,
        Category::LetterNumber | Category::OtherNumber => NUMBER | WORD,
        Category::MathSymbol
        | Category::CurrencySymbol
        | Category::ModifierSymbol
        | Category::OtherSymbol => SYMBOL,
        Category::ConnectorPunctuation => PUNCTUATION | WORD,
        Category::DashPunctuation
        | Category::OpenPunctuation
        | Category::ClosePunctuation
        | Category::InitialPunctuation
        | Category::FinalPunctuation
        | Category::OtherPunctuation => PUNCTUATION,
        _ => 0,
    }
}

/// Whether the character's script is Han (Unicode's Scripts.txt).
fn is_han(character: char) -> bool {
    character >= '\u{2E80}'
        && matches!(
            character,
            '\u{2E80}'..='\u{2E99}'
                | '\u{2E9B}'..='\u{2EF3}'
                | '\u{2F00}'..='\u{2FD5}'
                | '\u{3005}'
                | '\u{3007}'
                | '\u{3021}'..='\u{3029}'
                | '\u{3038}'..='\u{303B}'
                | '\u{3400}'..='\u{4DBF}'
                | '\u{4E00}'..='\u{9FFF}'
                | '\u{F900}'..='\u{FA6D}'
                | '\u{FA70}'..='\u{FAD9}'
                | '\u{16FE2}'..='\u{16FE3}'
                | '\u{16FF0}'..='\u{16FF1}'
                | '\u{20000}'..='\u{2A6DF}'
                | '\u{2A700}'..='\u{2EE5D}'
                | '\u{2F800}'..='\u{2FA1D}'
                | '\u{30000}'..='\u{323AF}'
        )
}

/// The class of the character at a position and its length in bytes; at the end of the text both are 0.
#[inline]
pub(super) fn at(text: &str, position: usize) -> (Class, usize) {
    match text.as_bytes().get(position) {
        None => (0, 0),
        Some(&byte) => match ASCII.get(usize::from(byte)) {
            Some(&class) => (class, 1),
            None => text[position..]
                .chars()
                .next()
                .map_or((0, 0), |character| (class_of(character), character.len_utf8())),
        },
    }
}

/// Where the run of characters of which `belongs` holds, that begins at `position`, ends.
#[inline]
pub(super) fn run(text: &str, mut position: usize, belongs: impl Fn(Class) -> bool) -> usize {
    loop {
        let (class, length) = at(text, position);
        if length == 0 || !belongs(class) {
            return position;
        }
        position += length;
    }
}

/// `\s+(?!\S)|\s+` on the run of white space from `start` to `end`, which is not empty: all of it where the text ends
/// there (`last`), otherwise all but its last character, which goes with the word that follows, unless it is the only one.
#[inline]
pub(super) fn space_end(text: &str, start: usize, end: usize, last: bool) -> usize {
    if last {
        return end;
    }
    match text[start..end].char_indices().next_back() {
        Some((offset, _)) if offset > 0 => start + offset,
        _ => end,
    }
}

/// The length of the contraction that `text` begins with at `position`, or 0: `'s|'t|'re|'ve|'m|'ll|'d`, and where
/// `any_case` these in any case, which by Unicode's case folding takes in the long s (U+017F).
#[inline]
pub(super) fn contraction(text: &str, position: usize, any_case: bool) -> usize {
    let bytes = &text.as_bytes()[position..];
    if bytes.first() != Some(&b'\'') {
        return 0;
    }
    let letter = |at: usize| match bytes.get(at) {
        Some(&byte) if any_case => byte.to_ascii_lowercase(),
        Some(&byte) => byte,
        None => 0,
    };
    match (letter(1), letter(2)) {
        (b's' | b't' | b'm' | b'd', _) => 2,
        (b'r' | b'v', b'e') | (b'l', b'l') => 3,
        _ if any_case && bytes[1..].starts_with("ſ".as_bytes()) => 3,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_agrees_with_unicode() {
        for (code, &class) in (0u8..).zip(&ASCII) {
            let character = char::from(code);
            assert_eq!(class & SPACE != 0, character.is_whitespace(), "{character:?}");
            assert_eq!(class & LETTER != 0, character.is_ascii_alphabetic(), "{character:?}");
            assert_eq!(class & NUMBER != 0, character.is_ascii_digit(), "{character:?}");
            let punctuation = get_general_category(character).abbreviation().starts_with('P');
            assert_eq!(class & PUNCTUATION != 0, punctuation, "{character:?}");
            let symbol = get_general_category(character).abbreviation().starts_with('S');
            assert_eq!(class & SYMBOL != 0, symbol, "{character:?}");
            assert_eq!(class & DIGIT != 0, character.is_ascii_digit(), "{character:?}");
            assert_eq!(
                class & WORD != 0,
                character.is_ascii_alphanumeric() || character == '_',
                "{character:?}"
            );
        }
    }

    #[test]
    fn where_rust_and_unicode_part() {
        assert_eq!(class_of('Ⅷ'), NUMBER | WORD, "a letter number is alphabetic and no letter");
        assert_eq!(class_of('\u{0345}'), MARK | UPPER | LOWER | WORD, "a mark may be alphabetic");
        assert_eq!(class_of('\u{180E}'), 0, "the Mongolian vowel separator is no space");
        assert_eq!(class_of('\u{85}'), SPACE);
        assert_eq!(class_of('ª'), LETTER | UPPER | LOWER | WORD);
        assert_eq!(class_of('〇'), NUMBER | WORD | HAN, "a number may be Han");
    }
}
