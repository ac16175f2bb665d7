//! Log-probabilities in the shapes of OpenAI's two APIs.

use serde_json::{Map, Value, json};

use crate::answer::TokenInfo;

/// JSON has no -inf; OpenAI's API has this in its place.
const LEAST: f32 = -9999.0;

fn number(logprob: f32) -> Value {
    json!(logprob.max(LEAST))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn entry(bytes: &[u8], logprob: f32) -> Value {
    json!({"token": text(bytes), "logprob": number(logprob), "bytes": bytes})
}

/// Those of chat: one object for each token.
pub(super) fn chat(tokens: &[TokenInfo]) -> Value {
    let entries = tokens.iter().map(|token| {
        let mut value = entry(&token.bytes, token.logprob.unwrap_or(0.0));
        value["top_logprobs"] = token.top.iter().map(|(_, bytes, logprob)| entry(bytes, *logprob)).collect();
        value
    });
    json!({"content": entries.collect::<Vec<_>>(), "refusal": null})
}

/// Those of completions: a list for each part. `offset`: characters before the first token.
pub(super) fn completions(tokens: &[&TokenInfo], mut offset: usize) -> Value {
    let (mut texts, mut logprobs, mut tops, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for token in tokens {
        let written = text(&token.bytes);
        offsets.push(offset);
        offset += written.chars().count();
        logprobs.push(token.logprob.map_or(Value::Null, number));
        let mut top = Map::new();
        for (_, bytes, logprob) in &token.top {
            top.entry(text(bytes)).or_insert_with(|| number(*logprob));
        }
        // The token itself is always among them.
        if let Some(logprob) = token.logprob {
            top.entry(written.clone()).or_insert_with(|| number(logprob));
        }
        tops.push(if token.logprob.is_some() { Value::Object(top) } else { Value::Null });
        texts.push(written);
    }
    json!({"tokens": texts, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets})
}
