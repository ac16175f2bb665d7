//! What holds for any text and any vocabulary.

use herald_api::{DecodeOptions, EncodeOptions, Tokenizer, Vocabulary};
use proptest::prelude::*;
use serde_json::Value;
use std::sync::LazyLock;

/// A vocabulary of the oracles.
struct Owned {
    tokens: Vec<Vec<u8>>,
    types: Vec<u32>,
    scores: Vec<f32>,
    merges: Vec<Vec<u8>>,
}

impl Owned {
    fn read(value: &Value) -> Self {
        let list = |key: &str| value[key].as_array().cloned().unwrap_or_default();
        let bytes = |key| list(key).iter().map(|text| text.as_str().unwrap().as_bytes().to_vec()).collect();
        Self {
            tokens: bytes("tokens"),
            types: list("types").iter().map(|kind| kind.as_u64().unwrap() as u32).collect(),
            scores: list("scores").iter().map(|score| score.as_f64().unwrap() as f32).collect(),
            merges: bytes("merges"),
        }
    }

    fn tokenizer(&self, model: &str, pre: &str, add_space_prefix: bool) -> Box<dyn Tokenizer> {
        herald_tokenizers::create(&Vocabulary {
            model,
            pre,
            tokens: self.tokens.iter().map(Vec::as_slice).collect(),
            types: &self.types,
            scores: &self.scores,
            merges: self.merges.iter().map(Vec::as_slice).collect(),
            add_space_prefix,
            ..Vocabulary::default()
        })
        .unwrap()
    }
}

/// Tokenizers that can express any text: four of byte-level BPE, then two of SentencePiece.
static TOKENIZERS: LazyLock<Vec<Box<dyn Tokenizer>>> = LazyLock::new(|| {
    let bpe = Owned::read(&serde_json::from_str(include_str!("data/bpe.json")).unwrap());
    let pieces: Value = serde_json::from_str(include_str!("data/sentencepiece.json")).unwrap();
    vec![
        bpe.tokenizer("gpt2", "smollm", false),
        bpe.tokenizer("gpt2", "llama-bpe", false),
        bpe.tokenizer("gpt2", "tekken", false),
        bpe.tokenizer("gpt2", "", false),
        Owned::read(&pieces["llama"]).tokenizer("llama", "", true),
        Owned::read(&pieces["gemma"]).tokenizer("llama", "", false),
    ]
});

fn encode(tokenizer: &dyn Tokenizer, text: &str, special: bool, continues: bool) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encode(text, EncodeOptions { special, continues }, &mut ids).unwrap();
    ids
}

fn decode(tokenizer: &dyn Tokenizer, ids: &[u32], special: bool, continues: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokenizer.decode(ids, DecodeOptions { special, continues }, &mut bytes).unwrap();
    bytes
}

/// Any characters at all, among many that the splittings turn on.
const TEXT: &str =
    "(\\PC|[ \\t\\r\\n'sSlLe1\u{301}\u{3000}\u{4f60}\\x00-\\x1f]|the | {2,9}|<\\|special\\|>|<\\|end){0,30}";

proptest! {
    #[test]
    fn decoding_gives_the_text_back(text in TEXT) {
        // SentencePiece can't tell this character from a space.
        let text = text.replace('\u{2581}', " ");
        for tokenizer in TOKENIZERS.iter() {
            for continues in [false, true] {
                let ids = encode(&**tokenizer, &text, false, continues);
                let bytes = decode(&**tokenizer, &ids, false, continues);
                prop_assert_eq!(std::str::from_utf8(&bytes), Ok(text.as_str()));
            }
        }
    }

    #[test]
    fn special_tokens_come_back_when_asked(text in TEXT) {
        for tokenizer in &TOKENIZERS[..4] {
            let ids = encode(&**tokenizer, &text, true, false);
            prop_assert_eq!(decode(&**tokenizer, &ids, true, false), text.as_bytes());
        }
    }

    #[test]
    fn decoding_in_parts_is_decoding_at_once(
        ids in prop::collection::vec(0u32..900, 1..20),
        cut in 1usize..20,
        special: bool,
    ) {
        let cut = cut.min(ids.len());
        for tokenizer in TOKENIZERS.iter() {
            let mut parts = decode(&**tokenizer, &ids[..cut], special, false);
            parts.extend(decode(&**tokenizer, &ids[cut..], special, true));
            prop_assert_eq!(parts, decode(&**tokenizer, &ids, special, false));
        }
    }

    #[test]
    fn any_vocabulary_and_text_end_well(
        model in "gpt2|llama|gemma4|bert|t5",
        pre in "|gpt-2|qwen2|tekken|deepseek-v3|gemma4|whitespace",
        tokens in prop::collection::vec(
            prop::collection::vec(prop_oneof![Just(b'a'), Just(b' '), Just(b'<'), Just(0xC4), any::<u8>()], 0..5),
            0..20,
        ),
        kinds in prop::collection::vec(0u32..8, 20),
        scores in prop::collection::vec(any::<f32>(), 20),
        merges in prop::collection::vec((0usize..20, 0usize..20), 0..5),
        unknown in prop::option::of(0u32..25),
        flags: (bool, bool, bool, bool),
        strips in prop::collection::vec(0u8..4, 20),
        charsmap in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(b'a'), any::<u8>()], 0..40),
        text in TEXT,
        ids in prop::collection::vec(0u32..25, 0..9),
    ) {
        let merges: Vec<Vec<u8>> = merges
            .iter()
            .filter_map(|&(left, right)| Some([tokens.get(left)?.as_slice(), tokens.get(right)?].join(&b' ')))
            .collect();
        let vocabulary = Vocabulary {
            model: &model,
            pre: &pre,
            tokens: tokens.iter().map(Vec::as_slice).collect(),
            types: &kinds[..tokens.len()],
            scores: &scores[..tokens.len()],
            merges: merges.iter().map(Vec::as_slice).collect(),
            unknown,
            add_space_prefix: flags.0,
            remove_extra_whitespace: flags.1,
            lowercase: flags.0,
            strip_accents: flags.1,
            charsmap: &charsmap,
            strips: if flags.1 { &strips[..tokens.len()] } else { &[] },
        };
        if let Ok(tokenizer) = herald_tokenizers::create(&vocabulary) {
            let mut encoded = Vec::new();
            let _ = tokenizer.encode(&text, EncodeOptions { special: flags.2, continues: flags.3 }, &mut encoded);
            prop_assert!(encoded.iter().all(|&id| (id as usize) < tokens.len()));
            let _ = tokenizer.decode(&ids, DecodeOptions { special: flags.2, continues: flags.3 }, &mut Vec::new());
        }
    }
}

/// Would take hours if the time grew with the square of the text.
#[test]
fn a_megabyte_of_one_letter_ends() {
    for unit in ["a", " ", "\n", "1", "\u{4f60}", "ab", "' ", "<|special|", "<|special|>"] {
        let text = unit.repeat(1_000_000 / unit.len());
        for tokenizer in TOKENIZERS.iter() {
            let ids = encode(&**tokenizer, &text, false, false);
            assert_eq!(decode(&**tokenizer, &ids, false, false), text.as_bytes());
        }
    }
}

#[test]
fn many_threads_at_once_agree() {
    let text = "Hello, how are you today? unreachable zebra \u{4f60}\u{597d}";
    for tokenizer in TOKENIZERS.iter() {
        let expected = encode(&**tokenizer, text, false, false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..50).for_each(|_| assert_eq!(encode(&**tokenizer, text, false, false), expected))
                });
            }
        });
    }
}
