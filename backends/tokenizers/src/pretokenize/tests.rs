//! Each splitting against its published expression (`tests/data/splits.json`), and what holds for any text.

use super::*;
use proptest::prelude::*;
use serde_json::Value;

fn words(name: &str, text: &str) -> Vec<String> {
    let mut words = Vec::new();
    PreTokenizer::named(name).unwrap().split(text, |word| words.push(word.to_owned()));
    words
}

#[test]
fn as_the_published_expressions_split() {
    let oracle: Value = serde_json::from_str(include_str!("../../tests/data/splits.json")).unwrap();
    let texts: Vec<&str> =
        oracle["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let splits = oracle["splits"].as_object().unwrap();
    assert!(texts.len() > 150);
    // Of each splitting the first name, but for those that drop white space.
    for known in KNOWN.iter().filter(|known| !matches!(known.splitter, Splitter::Spaces)) {
        let (name, expected) = (known.names[0], &splits[known.names[0]]);
        for (text, expected) in texts.iter().zip(expected.as_array().unwrap()) {
            let expected: Vec<String> = expected
                .as_array()
                .unwrap()
                .iter()
                .scan(text.chars(), |rest, length| {
                    Some(rest.take(length.as_u64().unwrap() as usize).collect())
                })
                .collect();
            assert_eq!(words(name, text), expected, "{name}: {text:?}");
        }
    }
}

#[test]
fn no_name_is_the_default() {
    assert_eq!(words("", "a 1234.5"), words("default", "a 1234.5"));
}

#[test]
fn an_unknown_name_is_named_with_the_known_ones() {
    let error = PreTokenizer::named("gpt-5").err().unwrap();
    assert_eq!(error.status(), herald_api::Status::Unsupported);
    let start = "the pre-tokenizer is \"gpt-5\", and the known ones are default, gpt-2, ";
    assert!(error.message().starts_with(start), "{error}");
}

/// Every name that llama.cpp knows.
#[rustfmt::skip]
const LLAMA_CPP: [&str; 91] = [
    "a.x-4.0", "afmoe", "bailingmoe", "bailingmoe2", "bloom", "chameleon", "chatglm-bpe", "codeshell",
    "cohere2moe", "command-r", "dbrx", "deepseek-coder", "deepseek-llm", "deepseek-r1-qwen",
    "deepseek-v3", "default", "exaone", "exaone-moe", "exaone4", "f2llmv2", "falcon", "falcon-h1",
    "falcon3", "gemma4", "gigachat", "glm4", "glm5", "gpt-2", "gpt-4o", "gpt3-finnish",
    "granite-docling", "granite-embed-multi-311m", "granite-embed-multi-97m", "grok-2", "hunyuan",
    "hunyuan-dense", "hy_v4", "jais", "jais-2", "jina-de", "jina-es", "jina-v1-en", "jina-v2-code",
    "jina-v2-de", "jina-v2-es", "jina-v5-nano", "joyai-llm", "kanana2", "kimi-k2", "kormo", "laguna",
    "lfm2", "llada-moe", "llama-bpe", "llama-v3", "llama3", "llama4", "megrez", "mellum", "mellum2",
    "midm-2.0", "minerva-7b", "minicpm5", "minimax-m2", "modern-bert", "mpt", "olmo", "phi-2",
    "pixtral", "poro-chat", "qwen2", "qwen35", "refact", "roberta-bpe", "sarvam-moe", "seed-coder",
    "smaug-bpe", "smollm", "solar-open", "spark2_5", "stablelm2", "starcoder", "superbpe", "talkie",
    "tekken", "tiny_aya", "trillion", "ufakzeka", "viking", "whitespace", "youtu",
];

#[test]
fn every_name_is_known_once() {
    let mut names: Vec<&str> = KNOWN.iter().flat_map(|known| known.names.iter().copied()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(names, LLAMA_CPP);
}

#[test]
fn long_runs_of_anything_end() {
    for known in &KNOWN {
        let name = known.names[0];
        for unit in [
            "a",
            "A",
            "1",
            " ",
            "\n",
            "\u{301}",
            "\u{4f60}",
            "'",
            " \n",
            "Aa",
            "\u{301}A",
            "a1 .\n",
            "\u{200d}",
            "\u{3000}",
            "12a",
            "<sentinel:1",
            "a ",
            ". ",
            "\u{4f60}A",
        ] {
            let text = unit.repeat(100_000);
            let kept = words(name, &text).iter().map(String::len).sum::<usize>();
            assert!(kept == text.len() || name == "whitespace", "{name}: {unit:?}");
        }
    }
}

#[test]
fn white_space_is_dropped() {
    assert_eq!(words("whitespace", " a\u{3000}b \n你好 "), ["a", "b", "你好"]);
}

proptest! {
    #[test]
    fn words_are_the_text(text in "(\\PC|[ \\t\\r\\n'sSlL1\u{301}\u{3000}\u{4f60}]){0,40}") {
        for known in KNOWN.iter().filter(|known| !matches!(known.splitter, Splitter::Spaces)) {
            let words = words(known.names[0], &text);
            prop_assert!(words.iter().all(|word| !word.is_empty()));
            prop_assert_eq!(words.concat(), text.as_str());
        }
    }
}
