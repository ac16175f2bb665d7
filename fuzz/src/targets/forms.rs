//! A JSON schema or a regular expression: an answer in that form, or a sentence.

use herald::{Constraint, GenerateOptions};

use super::{DEFAULT, Target, state};

pub(super) const TARGET: Target = Target {
    name: "forms",
    run,
    words: &[
        "\"type\":",
        "\"object\"",
        "\"array\"",
        "\"string\"",
        "\"integer\"",
        "\"number\"",
        "\"properties\":",
        "\"items\":",
        "\"required\":",
        "\"enum\":",
        "\"anyOf\":",
        "\"allOf\":",
        "\"oneOf\":",
        "\"$ref\":",
        "\"#/$defs/a\"",
        "\"$defs\":",
        "\"pattern\":",
        "\"format\":",
        "\"multipleOf\":",
        "\"minimum\":",
        "\"maxLength\":",
        "\"minItems\":",
        "\"const\":",
        "{",
        "}",
        "[",
        "]",
        ",",
        "{100}",
        "{1,1000}",
        "(a|b)*",
        ".*",
        "[^a]",
        "\\w",
        "(?i)",
        "\\p{L}",
        "+",
        "*",
        "?",
        "|",
    ],
    max_len: 2 << 10,
    // What was given up on goes on for a while.
    cpu_ms: 60_000,
    memory_mb: 1024,
    panics_within: true,
    ..DEFAULT
};

/// `s` and a schema, or `r` and a regular expression.
fn run(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let constraint = match text.strip_prefix('r') {
        Some(regex) => Constraint::Regex(regex.to_owned()),
        None => match Constraint::json_schema(text.strip_prefix('s').unwrap_or(&text)) {
            Ok(constraint) => constraint,
            // The sentence has the JSON in it.
            Err(_) => return "no schema".to_owned(),
        },
    };
    let engine = state::engine();
    let options =
        GenerateOptions { max_tokens: Some(8), constraint: Some(constraint), ..GenerateOptions::default() };
    let answer = engine.sequence().and_then(|mut sequence| {
        engine.generate(&mut sequence, &[3, 5], &options, &mut || true, &mut |_| true)
    });
    super::told(answer, |_| "answered".to_owned())
}
