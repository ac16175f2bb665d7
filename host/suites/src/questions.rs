//! Questions that are answered under a JSON schema.

use serde_json::{Value, json};

use super::corpus::Random;
use herald::Constraint;
use herald::Result;
use herald::{GenerateOptions, NeuroEngine};

/// Maximum tokens of an answer.
const MAX_ANSWER_TOKENS: usize = 48;

/// The answers' schema: a reason, a number, and whether the answer is sure.
fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "reason": {"type": "string", "minLength": 8, "maxLength": 60},
            "answer": {"type": "integer", "minimum": 0, "maximum": 1000},
            "sure": {"enum": ["yes", "no"]},
        },
        "required": ["reason", "answer", "sure"],
        "additionalProperties": false,
    })
}

/// The options that answers are generated with.
pub(super) fn options() -> GenerateOptions {
    GenerateOptions {
        max_tokens: Some(MAX_ANSWER_TOKENS),
        constraint: Some(Constraint::JsonSchema(schema())),
        ..GenerateOptions::default()
    }
}

/// A question's prompt.
pub(super) fn prompt(engine: &NeuroEngine, index: usize) -> Result<Vec<u32>> {
    let mut random = Random(index as u64 * 7919 + 1);
    let (a, b, c) = (2 + random.below(40), 2 + random.below(20), 1 + random.below(9));
    let question = match index % 5 {
        0 => format!("Anna has {a} apples and buys {b} more. How many apples does she have?"),
        1 => format!("A train has {a} rows of {c} seats. How many seats does it have?"),
        2 => format!("Tom had {} coins and lost {b}. How many coins are left?", a + b),
        3 => format!("{} sweets are shared by {c} children. How many does each get?", a * c),
        _ => format!("It is {c} o'clock. What hour is it {b} hours later on a clock of 24 hours?"),
    };
    let text = format!("Answer in JSON with reason, answer and sure.\nQuestion: {question}\nJSON: ");
    engine.tokenizer().encode_prompt(&text, false)
}

/// Whether an answer matches the schema.
pub(super) fn matches_schema(text: &str) -> bool {
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return false };
    let reason = fields.get("reason").and_then(Value::as_str);
    let answer = fields.get("answer").and_then(Value::as_u64);
    let sure = fields.get("sure").and_then(Value::as_str);
    fields.len() == 3
        && reason.is_some_and(|reason| (8..=60).contains(&reason.chars().count()))
        && answer.is_some_and(|answer| answer <= 1000)
        && sure.is_some_and(|sure| matches!(sure, "yes" | "no"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_match_the_schema_count() {
        assert!(matches_schema(r#"{"reason": "2 and 2 are four", "answer": 4, "sure": "yes"}"#));
        for text in [
            "",
            "null",
            r#"{"reason": "2 and 2 are four", "answer": 4}"#,
            r#"{"reason": "short", "answer": 4, "sure": "yes"}"#,
            r#"{"reason": "2 and 2 are four", "answer": -4, "sure": "yes"}"#,
            r#"{"reason": "2 and 2 are four", "answer": 4, "sure": "perhaps"}"#,
            r#"{"reason": "2 and 2 are four", "answer": 4, "sure": "yes", "more": 1}"#,
            r#"{"reason": "2 and 2 are four", "answer": 4, "sure": "yes""#,
        ] {
            assert!(!matches_schema(text), "{text}");
        }
    }
}
