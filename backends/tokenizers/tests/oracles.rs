//! Encodings against those of Hugging Face's tokenizers and of SentencePiece itself (`tests/data/make_oracles.py`).

use herald_api::{DecodeOptions, EncodeOptions, Tokenizer, Vocabulary};
use serde_json::Value;

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|string| string.as_str().unwrap()).collect()
}

fn bytes(value: &Value) -> Vec<&[u8]> {
    strings(value).into_iter().map(str::as_bytes).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn encode(tokenizer: &dyn Tokenizer, text: &str, special: bool) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encode(text, EncodeOptions { special, continues: false }, &mut ids).unwrap();
    ids
}

fn decode(tokenizer: &dyn Tokenizer, ids: &[u32]) -> String {
    let mut bytes = Vec::new();
    tokenizer.decode(ids, DecodeOptions { special: true, continues: false }, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn byte_level_bpe() {
    let oracle: Value = serde_json::from_str(include_str!("data/bpe.json")).unwrap();
    let types = ids(&oracle["types"]);
    let texts = strings(&oracle["texts"]);
    for (pre, expected) in oracle["encodings"].as_object().unwrap() {
        let tokenizer = herald_tokenizers::create(&Vocabulary {
            model: "gpt2",
            pre,
            tokens: bytes(&oracle["tokens"]),
            types: &types,
            merges: bytes(&oracle["merges"]),
            ..Vocabulary::default()
        })
        .unwrap();
        // Twice: what the first round learns of whole words must not change the second.
        for _ in 0..2 {
            for (position, text) in texts.iter().enumerate() {
                for (key, special) in [("ids", false), ("ids_special", true)] {
                    let ids = encode(&*tokenizer, text, special);
                    assert_eq!(ids, self::ids(&expected[key][position]), "{pre}, {key}: {text:?}");
                    assert_eq!(decode(&*tokenizer, &ids), *text);
                }
            }
        }
    }
}

#[test]
fn sentencepiece() {
    let oracle: Value = serde_json::from_str(include_str!("data/sentencepiece.json")).unwrap();
    for (name, oracle) in oracle.as_object().unwrap() {
        let scores: Vec<f32> =
            oracle["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap() as f32).collect();
        let types = ids(&oracle["types"]);
        let collapses = oracle["remove_extra_whitespace"].as_bool().unwrap();
        let tokenizer = herald_tokenizers::create(&Vocabulary {
            model: "llama",
            tokens: bytes(&oracle["tokens"]),
            types: &types,
            scores: &scores,
            unknown: Some(oracle["unknown"].as_u64().unwrap() as u32),
            add_space_prefix: oracle["add_space_prefix"].as_bool().unwrap(),
            remove_extra_whitespace: collapses,
            ..Vocabulary::default()
        })
        .unwrap();
        for _ in 0..2 {
            for (position, text) in strings(&oracle["texts"]).into_iter().enumerate() {
                let ids = encode(&*tokenizer, text, false);
                assert_eq!(ids, self::ids(&oracle["ids"][position]), "{name}: {text:?}");
                if !collapses {
                    assert_eq!(decode(&*tokenizer, &ids), oracle["decoded"][position].as_str().unwrap());
                }
            }
        }
    }
}

/// Holds the encodings of an oracle to the tokenizer of its vocabulary.
fn holds(name: &str, oracle: &Value, vocabulary: Vocabulary<'_>, special: bool) {
    let types = ids(&oracle["types"]);
    let tokenizer = herald_tokenizers::create(&Vocabulary {
        tokens: bytes(&oracle["tokens"]),
        types: &types,
        unknown: Some(oracle["unknown"].as_u64().unwrap() as u32),
        ..vocabulary
    })
    .unwrap();
    for _ in 0..2 {
        for (position, text) in strings(&oracle["texts"]).into_iter().enumerate() {
            let found = encode(&*tokenizer, text, special);
            assert_eq!(found, ids(&oracle["ids"][position]), "{name}: {text:?}");
        }
    }
}

#[test]
fn unigram() {
    let oracle: Value = serde_json::from_str(include_str!("data/unigram.json")).unwrap();
    for (name, oracle) in oracle.as_object().unwrap() {
        let scores: Vec<f32> =
            oracle["scores"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap() as f32).collect();
        let charsmap = base64(oracle["charsmap"].as_str().unwrap());
        let vocabulary = Vocabulary {
            model: "t5",
            scores: &scores,
            charsmap: &charsmap,
            add_space_prefix: oracle["add_space_prefix"].as_bool().unwrap(),
            remove_extra_whitespace: oracle["remove_extra_whitespace"].as_bool().unwrap(),
            ..Vocabulary::default()
        };
        holds(name, oracle, vocabulary, false);
    }
}

#[test]
fn wordpiece() {
    let oracle: Value = serde_json::from_str(include_str!("data/wordpiece.json")).unwrap();
    for (name, oracle) in oracle.as_object().unwrap() {
        let vocabulary = Vocabulary {
            model: "bert",
            lowercase: oracle["lowercase"].as_bool().unwrap(),
            strip_accents: oracle["strip_accents"].as_bool().unwrap(),
            ..Vocabulary::default()
        };
        holds(name, oracle, vocabulary, true);
    }
}

#[test]
fn bpe_of_characters() {
    let oracle: Value = serde_json::from_str(include_str!("data/characters.json")).unwrap();
    for (model, pre) in [("gemma4", ""), ("gpt2", "gemma4"), ("gpt2", "sarvam-moe")] {
        let merges = bytes(&oracle["merges"]);
        holds(model, &oracle, Vocabulary { model, pre, merges, ..Vocabulary::default() }, false);
    }
}

/// The bytes of a text in base 64.
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').map(digit).collect();
    digits
        .chunks(4)
        .flat_map(|four| {
            let bits = four.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit))
                << (6 * (4 - four.len()));
            bits.to_be_bytes()[1..four.len()].to_vec()
        })
        .collect()
}
