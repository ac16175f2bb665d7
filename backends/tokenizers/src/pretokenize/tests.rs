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
    assert!(texts.len() > 150 && splits.len() == 9);
    for (name, expected) in splits {
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
    assert_eq!(PreTokenizer::named("").unwrap(), PreTokenizer::named("default").unwrap());
}

#[test]
fn an_unknown_name_is_named_with_the_known_ones() {
    let error = PreTokenizer::named("gpt-5").unwrap_err();
    assert_eq!(error.status(), herald_api::Status::Unsupported);
    let start = "the pre-tokenizer is \"gpt-5\", and the known ones are default, gpt-2, ";
    assert!(error.message().starts_with(start), "{error}");
}

#[test]
fn every_name_is_known_once() {
    let mut names: Vec<&str> = KNOWN.iter().flat_map(|(names, ..)| names.iter().copied()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn long_runs_of_anything_end() {
    for (name, ..) in KNOWN.iter().flat_map(|(names, ..)| names.first()).map(|name| (*name, ())) {
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
            "\u{4f60}A",
        ] {
            let text = unit.repeat(100_000);
            assert_eq!(words(name, &text).iter().map(String::len).sum::<usize>(), text.len());
        }
    }
}

proptest! {
    #[test]
    fn words_are_the_text(text in "(\\PC|[ \\t\\r\\n'sSlL1\u{301}\u{3000}\u{4f60}]){0,40}") {
        for (names, ..) in &KNOWN {
            let words = words(names[0], &text);
            prop_assert!(words.iter().all(|word| !word.is_empty()));
            prop_assert_eq!(words.concat(), text.as_str());
        }
    }
}
