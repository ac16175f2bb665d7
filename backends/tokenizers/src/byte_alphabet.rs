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
fn byte_of(character: char) -> Option<u8> {
    match u8::try_from(character) {
        Ok(byte) => is_plain(byte).then_some(byte),
        Err(_) => SHIFTED.get((character as usize).checked_sub(0x100)?).copied(),
    }
}

/// Appends the bytes that `spelling` stands for. A spelling that leaves the alphabet anywhere stands for itself.
pub(crate) fn decode_into(spelling: &[u8], bytes: &mut Vec<u8>) {
    let start = bytes.len();
    let decoded = std::str::from_utf8(spelling).is_ok_and(|text| {
        text.chars().all(|character| byte_of(character).map(|byte| bytes.push(byte)).is_some())
    });
    if !decoded {
        bytes.truncate(start);
        bytes.extend_from_slice(spelling);
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
        let mut seen: Vec<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_of).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=255).collect::<Vec<u8>>());
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
    }
}
