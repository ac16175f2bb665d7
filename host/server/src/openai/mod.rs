//! OpenAI's API.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod embeddings;
mod logprobs;
pub(crate) mod rerank;
pub(crate) mod responses;

use serde_json::{Map, Value, json};

use crate::answer::Run;
use crate::error::ApiError;
use crate::fields::{Body, wrong};

/// The token counts of a job.
fn usage(run: &Run) -> Value {
    let (prompt, cached, completion) = run.tokens();
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    })
}

/// What a stream says of its token counts.
#[derive(Clone, Copy, Debug, Default)]
struct UsageWanted {
    /// In a chunk at the end.
    at_end: bool,
    /// In every chunk.
    always: bool,
}

impl UsageWanted {
    fn take(body: &mut Body) -> Result<Self, ApiError> {
        let options = body.object("stream_options").unwrap_or_default();
        let mut wanted = Self::default();
        for (name, value) in &options {
            let flag = match value {
                Value::Null => Some(false),
                value => value.as_bool(),
            };
            let place = format!("stream_options.{name}");
            let flag = flag.ok_or_else(|| wrong(&place, &value.to_string(), "true or false"))?;
            match name.as_str() {
                "include_usage" => wanted.at_end = flag,
                "continuous_usage_stats" => wanted.always = flag,
                // It pads chunks against listeners, of which there are none without TLS to hide from.
                "include_obfuscation" => {}
                _ => return Err(crate::fields::refused(&place)),
            }
        }
        Ok(wanted)
    }
}

/// The head of an answer or a chunk.
fn head(run: &Run, prefix: &str, object: &str, choices: Vec<Value>) -> Map<String, Value> {
    let head = json!({
        "id": format!("{prefix}-{}", run.id),
        "object": object,
        "created": run.created,
        "model": run.model.name,
        "system_fingerprint": "herald",
        "choices": choices,
    });
    match head {
        Value::Object(head) => head,
        _ => Map::new(),
    }
}
