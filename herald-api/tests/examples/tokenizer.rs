//! The examples' tokenizer: longest match, and bytes that come back as they went in.

use herald_api::{DecodeOptions, EncodeOptions, Result, Status, Tokenizer, Vocabulary};

use crate::plugins;

/// Tokens and their types (GGUF's numbers).
const TOKENS: [(&str, u32); 14] = [
    ("<unk>", 2),
    ("<s>", 3),
    ("a", 1),
    ("b", 1),
    ("ab", 1),
    ("abab", 1),
    (" ", 1),
    ("é", 1),
    ("<0x0A>", 6),
    ("<0xC3>", 6),
    ("abb", 5),
    ("<s", 1),
    ("ba", 4),
    ("ab", 1),
];

fn vocabulary(types: &[u32]) -> Vocabulary<'_> {
    let tokens = TOKENS.iter().map(|(text, _)| text.as_bytes()).collect();
    Vocabulary { model: "longest-match", tokens, types, unknown: Some(0), ..Vocabulary::default() }
}

fn types() -> Vec<u32> {
    TOKENS.iter().map(|(_, kind)| *kind).collect()
}

fn encode(tokenizer: &dyn Tokenizer, text: &str, special: bool) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    tokenizer.encode(text, EncodeOptions { special, continues: false }, &mut ids).map(|()| ids)
}

fn decode(tokenizer: &dyn Tokenizer, ids: &[u32], special: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokenizer.decode(ids, DecodeOptions { special, continues: true }, &mut bytes).expect("bytes");
    bytes
}

#[test]
fn the_longest_token_is_taken() {
    for plugin in plugins() {
        let tokenizer = plugin.create_tokenizer(&vocabulary(&types())).expect("the tokenizer");
        let ids = |text, special| encode(&tokenizer, text, special).expect("ids");
        assert_eq!(ids("", false), []);
        assert_eq!(ids("ababab", false), [5, 4], "the first of equal tokens");
        assert_eq!(ids("aba", false), [4, 2]);
        assert_eq!(ids("abb", false), [4, 3], "unused tokens are never made");
        assert_eq!(ids("bab\n", false), [12, 3, 8]);
        assert_eq!(ids("é", false), [7]);
        assert_eq!(ids("à", false), [9, 0], "byte 0xC3, and a byte that no token has");
        assert_eq!(ids("<s>", true), [1]);
        assert_eq!(ids("<s>", false), [11, 0]);
        assert_eq!(ids("<unk>", true), [0, 0, 0, 0, 0], "no text makes the unknown token by its name");
        assert_eq!(decode(&tokenizer, &[1, 5, 8, 9, 1], false), b"abab\n\xC3");
        assert_eq!(decode(&tokenizer, &[1, 4, 0], true), b"<s>ab<unk>");
    }
}

#[test]
fn what_can_not_be_expressed_or_contradicts_itself_is_said() {
    for plugin in plugins() {
        let types = types();
        let tokenizer = plugin.create_tokenizer(&Vocabulary { unknown: None, ..vocabulary(&types) });
        let error = encode(&tokenizer.expect("the tokenizer"), "abc", false).expect_err("no c");
        assert_eq!(error.status(), Status::Unsupported);
        assert_eq!(
            error.message(),
            "byte 2 of the text, 0x63, is in no token, and the vocabulary has no unknown token"
        );
        let status = |vocabulary: Vocabulary<'_>| {
            plugin.create_tokenizer(&vocabulary).err().map(|error| error.status())
        };
        assert_eq!(status(Vocabulary { model: "gpt2", ..vocabulary(&types) }), Some(Status::Unsupported));
        assert_eq!(status(Vocabulary { pre: "qwen2", ..vocabulary(&types) }), Some(Status::Unsupported));
        assert_eq!(
            status(Vocabulary { add_space_prefix: true, ..vocabulary(&types) }),
            Some(Status::Unsupported)
        );
        assert_eq!(status(Vocabulary { unknown: Some(14), ..vocabulary(&types) }), Some(Status::Corrupt));
        let mut bytes = types.clone();
        bytes[4] = 6;
        assert_eq!(status(vocabulary(&bytes)), Some(Status::Corrupt), "a byte that is not spelt as one");
    }
}

/// A vocabulary with every byte and many pairs: any text comes back, and both plugins agree on its tokens.
#[test]
fn texts_come_back() {
    let bytes: Vec<Vec<u8>> = (0..=255_u8).map(|byte| vec![byte]).collect();
    let words = ["the ", "th", "he", "in", "ing ", "日本", "日", "\n\n", "  ", "    ", "ß", "qu"];
    let mut tokens: Vec<&[u8]> = bytes.iter().map(Vec::as_slice).collect();
    tokens.extend(words.map(str::as_bytes));
    let vocabulary = Vocabulary { model: "longest-match", tokens, ..Vocabulary::default() };
    let long = "the king in the ring \u{0} ".repeat(3000) + &"a".repeat(100_000);
    let texts = ["", "x", "the thing\n\n\n     日本語 Straße quill", "\u{10FFFF}\u{7F}", &long];
    let made = plugins().map(|plugin| plugin.create_tokenizer(&vocabulary).expect("the tokenizer"));
    for text in texts {
        let [ids, same] = made.each_ref().map(|tokenizer| encode(tokenizer, text, false).expect("ids"));
        assert!(ids == same, "both plugins agree on {:?}", &text[..text.len().min(40)]);
        for tokenizer in &made {
            assert!(decode(tokenizer, &ids, false) == text.as_bytes());
            // In pieces, too.
            let pieces: Vec<u8> = ids.chunks(3).flat_map(|ids| decode(tokenizer, ids, false)).collect();
            assert!(pieces == text.as_bytes());
        }
    }
}
