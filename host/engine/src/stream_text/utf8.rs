//! Bytes in pieces, to text.

/// Turns a stream of bytes into text. All of its output together is what [`String::from_utf8_lossy`] makes of all the
/// bytes together, wherever the pieces ended: each maximal part of an invalid character becomes one U+FFFD.
///
/// ```
/// use herald::stream_text::Utf8Stream;
///
/// let (mut stream, mut text) = (Utf8Stream::default(), String::new());
/// stream.push(b"caf\xc3", &mut text);
/// assert_eq!(text, "caf");
/// stream.push(b"\xa9", &mut text);
/// assert_eq!(text, "café");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    /// The beginning of a character: at most 3 bytes.
    incomplete: Vec<u8>,
}

impl Utf8Stream {
    /// Appends to `text` every character that is complete with these bytes.
    pub fn push(&mut self, bytes: &[u8], text: &mut String) {
        if self.incomplete.is_empty() {
            self.incomplete.extend_from_slice(decode(bytes, text));
        } else {
            self.incomplete.extend_from_slice(bytes);
            let left = decode(&self.incomplete, text).len();
            self.incomplete.drain(..self.incomplete.len() - left);
        }
    }

    /// Ends the stream: a character still incomplete becomes U+FFFD. The next bytes begin a new stream.
    pub fn finish(&mut self, text: &mut String) {
        if !self.incomplete.is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            self.incomplete.clear();
        }
    }
}

/// Appends the characters that `bytes` decide; returns the rest, which more bytes may complete.
fn decode<'a>(mut bytes: &'a [u8], text: &mut String) -> &'a [u8] {
    loop {
        let error = match std::str::from_utf8(bytes) {
            Ok(valid) => {
                text.push_str(valid);
                return &[];
            }
            Err(error) => error,
        };
        let (valid, rest) = bytes.split_at(error.valid_up_to());
        // Valid, so this copies nothing.
        text.push_str(&String::from_utf8_lossy(valid));
        let Some(invalid) = error.error_len() else { return rest };
        text.push(char::REPLACEMENT_CHARACTER);
        bytes = &rest[invalid..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes `bytes` in pieces of these lengths (then the rest).
    fn in_pieces(mut bytes: &[u8], lengths: &[usize]) -> String {
        let (mut stream, mut text) = (Utf8Stream::default(), String::new());
        for &length in lengths {
            let (piece, rest) = bytes.split_at(length.min(bytes.len()));
            stream.push(piece, &mut text);
            bytes = rest;
        }
        stream.push(bytes, &mut text);
        stream.finish(&mut text);
        text
    }

    #[test]
    fn a_character_appears_once_it_is_complete() {
        let (mut stream, mut text) = (Utf8Stream::default(), String::new());
        for byte in [0xf0, 0x9f, 0xa6] {
            stream.push(&[byte], &mut text);
            assert_eq!(text, "");
        }
        stream.push(&[0x80, b'!'], &mut text);
        assert_eq!(text, "🦀!");
        // An impossible continuation shows at once.
        stream.push(b"\xe2\x82x", &mut text);
        assert_eq!(text, "🦀!\u{fffd}x");
        stream.push(b"\xe2\x82", &mut text);
        stream.finish(&mut text);
        stream.finish(&mut text);
        assert_eq!(text, "🦀!\u{fffd}x\u{fffd}");
    }

    /// Bytes that often are almost UTF-8.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            any::<char>().prop_map(|c| c.to_string().into_bytes()),
            (any::<char>(), 1usize..4).prop_map(|(c, cut)| {
                let bytes = c.to_string().into_bytes();
                bytes[..cut.min(bytes.len())].to_vec()
            }),
            prop::collection::vec(any::<u8>(), 1..4),
            prop::sample::select(vec![
                0xc0u8, 0xc2, 0xe0, 0xed, 0xf0, 0xf4, 0xf5, 0xff, 0x80, 0x9f, 0xa0, 0xbf
            ])
            .prop_map(|byte| vec![byte]),
        ];
        prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pieces_decode_as_the_whole(bytes in bytes(), lengths in prop::collection::vec(0usize..6, 0..40)) {
            prop_assert_eq!(in_pieces(&bytes, &lengths), String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn at_most_three_bytes_are_held_back(bytes in bytes()) {
            let (mut stream, mut text) = (Utf8Stream::default(), String::new());
            for byte in bytes {
                stream.push(&[byte], &mut text);
                prop_assert!(stream.incomplete.len() <= 3);
            }
        }
    }
}
