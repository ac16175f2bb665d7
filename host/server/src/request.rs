//! Requests of OpenAI's API, and their translation into the engine's options.
//!
//! Unknown fields are ignored, since clients send many. Known fields that would change the answer but aren't supported are
//! refused.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::ApiError;
use herald::Constraint;
use herald::chat::Message;
use herald::sampler::SamplerConfig;
use herald::schedule::Request;
use herald::{GenerateOptions, NeuroEngine};

/// Tokens of a completion if the client doesn't say, as in OpenAI's API.
const DEFAULT_TOKENS: usize = 16;

/// One text or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Texts {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// A prompt: text or ids.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

/// The fields that both kinds of requests have.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Common {
    pub(super) stream: bool,
    stream_options: StreamOptions,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<u32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    /// By token id, as text since JSON has no other keys.
    logit_bias: BTreeMap<String, f32>,
    seed: Option<u64>,
    stop: Option<Texts>,
    user: String,
    response_format: Option<ResponseFormat>,
    regex: Option<String>,
    n: Option<u32>,
    best_of: Option<u32>,
    echo: bool,
    suffix: Option<String>,
    logprobs: Value,
    tools: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<JsonSchema>,
}

#[derive(Debug, Deserialize)]
struct JsonSchema {
    schema: Value,
}

/// The body of `/v1/completions`.
#[derive(Debug, Deserialize)]
pub(super) struct Completion {
    prompt: Prompt,
    #[serde(flatten)]
    pub(super) common: Common,
}

/// The body of `/v1/chat/completions`.
#[derive(Debug, Deserialize)]
pub(super) struct Chat {
    messages: Vec<ChatMessage>,
    #[serde(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Deserialize)]
struct ChatMessage {
    role: String,
    content: Content,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: String,
}

impl Content {
    fn into_text(self) -> Result<String, ApiError> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Parts(parts) => match parts.iter().find(|part| part.kind != "text") {
                Some(part) => Err(ApiError::invalid(format!(
                    "a message has a part of type {:?}, where only text is served",
                    part.kind
                ))),
                None => Ok(parts.into_iter().map(|part| part.text).collect()),
            },
        }
    }
}

impl Common {
    /// Whether a stream should end with its token counts.
    pub(super) fn wants_usage(&self) -> bool {
        self.stream_options.include_usage
    }

    fn options(self, default_tokens: Option<usize>) -> Result<(GenerateOptions, String), ApiError> {
        let unserved = [
            ("n", self.n.is_some_and(|n| n != 1)),
            ("best_of", self.best_of.is_some_and(|n| n != 1)),
            ("echo", self.echo),
            ("suffix", self.suffix.is_some()),
            ("logprobs", !matches!(self.logprobs, Value::Null | Value::Bool(false))),
            ("tools", !self.tools.is_empty()),
        ];
        if let Some((name, _)) = unserved.iter().find(|(_, present)| *present) {
            return Err(ApiError::invalid(format!(
                "{name} is not served here: it was expected to be left out"
            )));
        }
        let bias = |(id, bias): (String, f32)| {
            let id = id.parse().map_err(|_| {
                ApiError::invalid(format!("logit_bias has the key {id:?}, where a token's id was expected"))
            })?;
            Ok((id, bias))
        };
        let logit_bias = self.logit_bias.into_iter().map(bias).collect::<Result<_, ApiError>>()?;
        let default = SamplerConfig::default();
        let sampler = SamplerConfig {
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(default.top_p),
            top_k: self.top_k.unwrap_or(default.top_k),
            min_p: self.min_p.unwrap_or(default.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            logit_bias,
            seed: self.seed,
            ..default
        };
        let options = GenerateOptions {
            max_tokens: self.max_tokens.or(self.max_completion_tokens).or(default_tokens),
            sampler,
            stop: self.stop.map(Texts::into_vec).unwrap_or_default(),
            constraint: constraint(self.response_format, self.regex)?,
            ..GenerateOptions::default()
        };
        Ok((options, self.user))
    }
}

fn constraint(format: Option<ResponseFormat>, regex: Option<String>) -> Result<Option<Constraint>, ApiError> {
    let Some(format) = format.filter(|format| format.kind != "text") else {
        return Ok(regex.map(Constraint::Regex));
    };
    if regex.is_some() {
        return Err(ApiError::invalid("response_format and regex are both set, where one was expected"));
    }
    match (format.kind.as_str(), format.json_schema) {
        ("json_object", _) => Ok(Some(Constraint::JsonSchema(json!({"type": "object"})))),
        ("json_schema", Some(JsonSchema { schema })) if schema.is_object() => {
            Ok(Some(Constraint::JsonSchema(schema)))
        }
        ("json_schema", _) => {
            Err(ApiError::invalid("response_format.json_schema.schema was expected to be an object"))
        }
        (kind, _) => Err(ApiError::invalid(format!(
            "response_format.type is {kind:?}, where text, json_object or json_schema was expected"
        ))),
    }
}

/// A request's body.
pub(super) fn body<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // Some clients put a byte order mark before it.
    serde_json::from_slice(body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body))
        .map_err(|error| ApiError::invalid(format!("the request's body is not what was expected: {error}")))
}

/// Reads the body of a request to a path as the server does, and forgets it: for tests of clients, and of this.
///
/// # Errors
/// The sentence that the server would answer.
pub fn check_body(path: &str, bytes: &[u8]) -> Result<(), String> {
    let read = match path {
        "/v1/completions" => body(bytes).and_then(|body: Completion| body.common.options(None)),
        _ => body(bytes).and_then(|body: Chat| {
            body.messages.into_iter().try_for_each(|message| message.content.into_text().map(drop))?;
            body.common.options(None)
        }),
    };
    read.map(drop).map_err(ApiError::into_message)
}

impl Completion {
    pub(super) fn request(self, engine: &NeuroEngine) -> Result<Request, ApiError> {
        let prompt = match self.prompt {
            Prompt::Text(text) => engine.encode_prompt(&text, false)?,
            Prompt::Ids(ids) => ids,
        };
        let (options, client) = self.common.options(Some(DEFAULT_TOKENS))?;
        Ok(Request { prompt, options, client })
    }
}

impl Chat {
    pub(super) fn request(self, engine: &NeuroEngine) -> Result<Request, ApiError> {
        let messages = self
            .messages
            .into_iter()
            .map(|message| Ok(Message::new(message.role, message.content.into_text()?)))
            .collect::<Result<Vec<_>, ApiError>>()?;
        if messages.is_empty() {
            return Err(ApiError::invalid("messages is empty, where at least one message was expected"));
        }
        let rendered = engine.chat_template()?.render(&messages, true).map_err(herald::Error::from)?;
        let prompt = engine.encode_prompt(&rendered, true)?;
        let (options, client) = self.common.options(None)?;
        Ok(Request { prompt, options, client })
    }
}
