//! GPT-2's byte alphabet: a vocabulary file is text, so byte-level BPE spells each byte as a printable character.
//!
//! Bytes that are printable in Latin-1 stand for themselves; the other 68 take the characters from U+0100 on, in
//! order. Defined by `bytes_to_unicode` of GPT-2's encoder (Radford et al., 2019).

/// Whether a byte stands for itself in the alphabet.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The bytes that take the characters from U+0100 on, in order.
const SHIFTED: [u8; 68] = {
    let (mut shifted, mut count, mut byte) = ([0; 68], 0, 0);
    while byte < 256 {
        if !is_plain(byte as u8) {
            shifted[count] = byte as u8;
            count += 1;
        }
        byte += 1;
    }
    shifted
};

/// The byte that a character spells, or `None` where the character isn't in the alphabet.
fn byte_of(character: u32) -> Option<u8> {
    match u8::try_from(character) {
        Ok(byte) => is_plain(byte).then_some(byte),
        Err(_) => SHIFTED.get((character as usize).checked_sub(0x100)?).copied(),
    }
}

/// The byte that a spelling's first character stands for, and the rest of it. All of the alphabet's characters take one byte or two
/// in UTF-8.
fn first_byte(spelling: &[u8]) -> Option<(u8, &[u8])> {
    match spelling {
        [first @ ..0x80, rest @ ..] => Some((byte_of(u32::from(*first))?, rest)),
        [first @ 0xc2..0xe0, second @ 0x80..0xc0, rest @ ..] => {
            let character = u32::from(first & 0x1f) << 6 | u32::from(second & 0x3f);
            Some((byte_of(character)?, rest))
        }
        _ => None,
    }
}

/// Appends the bytes that `spelling` stands for. A spelling that leaves the alphabet anywhere stands for itself.
pub(crate) fn decode_into(spelling: &[u8], bytes: &mut Vec<u8>) {
    let start = bytes.len();
    let mut left = spelling;
    while !left.is_empty() {
        let Some((byte, rest)) = first_byte(left) else {
            bytes.truncate(start);
            bytes.extend_from_slice(spelling);
            return;
        };
        bytes.push(byte);
        left = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(spelling: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        decode_into(spelling.as_bytes(), &mut bytes);
        bytes
    }

    #[test]
    fn every_byte_has_one_character() {
        let mut seen: Vec<u8> = (0..0x200).filter_map(byte_of).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn each_character_is_decoded_as_utf8_has_it() {
        for character in (0..=0x10_ffff).filter_map(char::from_u32) {
            let spelling = character.to_string();
            let expected =
                byte_of(u32::from(character)).map_or(spelling.clone().into_bytes(), |byte| vec![byte]);
            assert_eq!(decode(&spelling), expected, "{character:?}");
        }
    }

    #[test]
    fn well_known_spellings() {
        assert_eq!(decode("Ġthe"), b" the");
        assert_eq!(decode("ĊĉčĀ"), b"\n\t\r\0");
        assert_eq!(decode("Ã©"), "é".as_bytes());
        assert_eq!(decode("Ń"), [0xAD]);
        assert_eq!(decode("ł"), [0xA0]);
    }

    #[test]
    fn what_leaves_the_alphabet_stands_for_itself() {
        assert_eq!(decode("Ġ好"), "Ġ好".as_bytes());
        assert_eq!(decode("a b"), b"a b");
        let mut bytes = b"kept".to_vec();
        decode_into(&[b'a', 0xFF], &mut bytes);
        assert_eq!(bytes, b"kept\x61\xFF");
        for cut_or_overlong in [&[0xc4][..], &[0xc4, b'a'], &[0xc1, 0xa1], &[0xc4, 0xa0, 0xc4]] {
            let mut bytes = Vec::new();
            decode_into(cut_or_overlong, &mut bytes);
            assert_eq!(bytes, cut_or_overlong);
        }
    }
}
