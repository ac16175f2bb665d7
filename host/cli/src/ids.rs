//! Token ids in a text: integers with white space or commas between them, or JSON as `host tokenize --json` prints it.

use std::path::Path;

use herald::NeuroEngine;
use serde_json::Value;

use super::failure::Failure;
use super::input;

/// The ids in a file, of a model's vocabulary.
pub(super) fn of_file(file: &Path, engine: &NeuroEngine) -> Result<Vec<u32>, Failure> {
    let parsed = parse(&input::read(file)?, engine.plan().vocabulary);
    parsed.map_err(|reason| Failure::Failed(format!("{}: {reason}", file.display())))
}

/// Parses ids, each of which must be below `vocabulary`.
///
/// # Errors
/// One sentence with the word's number, the word, and what was expected.
pub(super) fn parse(text: &str, vocabulary: usize) -> Result<Vec<u32>, String> {
    let words = match text.trim_start().starts_with(['[', '{']) {
        true => of_json(text)?,
        false => text
            .split(|c: char| c.is_whitespace() || c == ',')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect(),
    };
    let ids = words.iter().enumerate().map(|(index, word)| {
        let id = word.parse::<u32>().ok().filter(|id| (*id as usize) < vocabulary);
        id.ok_or_else(|| {
            let shown: String = word.chars().take(40).collect();
            format!(
                "word {} is {shown:?}, where a token id from 0 to {} was expected",
                index + 1,
                vocabulary.saturating_sub(1)
            )
        })
    });
    let ids = ids.collect::<Result<Vec<u32>, String>>()?;
    if ids.is_empty() {
        Err("holds no token ids, where at least one was expected".to_owned())
    } else {
        Ok(ids)
    }
}

/// The words of a list, or of an object's `ids`.
fn of_json(text: &str) -> Result<Vec<String>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let list = value.as_array().or_else(|| value.get("ids")?.as_array());
    let list = list.ok_or("it has no list of token ids: [...] or {\"ids\": [...]} was expected")?;
    Ok(list.iter().map(Value::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn takes_any_white_space_and_commas_and_json() {
        for text in [" 1 2\n3\t4\r\n", "1,2, 3,\n4", "[1, 2, 3, 4]", " {\"ids\":[1,2,3,4]}\n"] {
            assert_eq!(parse(text, 5), Ok(vec![1, 2, 3, 4]), "{text}");
        }
    }

    #[test]
    fn says_which_word_is_wrong() {
        for (text, word) in [
            ("1 2 x", "word 3 is \"x\""),
            ("5", "word 1 is \"5\""),
            ("-1", "\"-1\""),
            ("1.0", "\"1.0\""),
            ("[1, 2.5]", "word 2 is \"2.5\""),
            ("{\"ids\": [1, \"2\"]}", "word 2"),
        ] {
            let error = parse(text, 5).unwrap_err();
            assert!(error.contains(word) && error.contains("from 0 to 4"), "{error}");
        }
        for (text, words) in [
            (" \n", "no token ids"),
            ("[]", "no token ids"),
            ("{\"tokens\": [1]}", "{\"ids\": [...]}"),
            ("[1, 2", "no JSON"),
        ] {
            let error = parse(text, 5).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let long = parse(&"9".repeat(1000), 5).unwrap_err();
        assert!(long.len() < 150, "{long}");
    }
}
