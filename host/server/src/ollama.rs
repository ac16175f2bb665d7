//! Ollama's API: `/api/chat`, `/api/generate`, `/api/embed`, and what its clients ask of a server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Map, Value, json};

use crate::answer::{Choice, Format, Frame, Piece, Reason, Run, answer, now};
use crate::conversation::{Conversation, messages};
use crate::error::ApiError;
use crate::fields::{Body, OLLAMA_CHAT, OLLAMA_EMBED, OLLAMA_GENERATE, OLLAMA_OPTIONS, OLLAMA_SHOW, wrong};
use crate::job::{Job, Source, schema_of, sources};
use crate::models::Facts;
use crate::openai::chat::{effort_variables, thinking_variables, top_logprobs};
use crate::openai::embeddings::embed;
use crate::tools::{Tool, ToolUse};
use crate::{App, Shared, checked};

/// The version of Ollama whose API this is. Clients compare it with the one that they need.
const OLLAMA_VERSION: &str = "0.12.0";

/// A response, or an error in Ollama's form.
fn or_error(made: Result<Response, ApiError>) -> Response {
    made.unwrap_or_else(|error| error.respond(error.ollama()))
}

pub(crate) async fn chat(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let made = async {
        match read_chat(&checked(&shared, &headers, body)?)? {
            Ok(job) => answer(Arc::clone(&shared), &headers, job, Ollama::new(true)).await,
            Err(keep) => {
                let (model, reason) = keep.done(&shared).await?;
                let message = json!({"role": "assistant", "content": ""});
                Ok(Json(json!({"model": model, "created_at": time(now()), "message": message,
                "done": true, "done_reason": reason}))
                .into_response())
            }
        }
    };
    or_error(made.await)
}

pub(crate) async fn generate(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let made = async {
        match read_generate(&checked(&shared, &headers, body)?)? {
            Ok(job) => answer(Arc::clone(&shared), &headers, job, Ollama::new(false)).await,
            Err(keep) => {
                let (model, reason) = keep.done(&shared).await?;
                Ok(Json(json!({"model": model, "created_at": time(now()), "response": "",
                "done": true, "done_reason": reason}))
                .into_response())
            }
        }
    };
    or_error(made.await)
}

/// What a request that asks for no text is for: loading a model, or unloading it.
pub(crate) struct Keep {
    model: Option<String>,
    unloads: bool,
}

impl Keep {
    fn take(body: &mut Body) -> Self {
        // As a number of seconds or as a text with a unit.
        let unloads = body.any("keep_alive").is_some_and(|time| match &time {
            Value::String(text) => text.trim_end_matches(|c: char| c.is_ascii_alphabetic()) == "0",
            number => number.as_f64() == Some(0.0),
        });
        Self { model: body.text("model"), unloads }
    }

    /// Does it. Returns the model's name, and by which word the API tells what was done.
    async fn done(self, shared: &Shared) -> Result<(String, &'static str), ApiError> {
        let name = self.model.as_deref();
        match self.unloads {
            true => Ok((shared.models.unload(name)?.to_owned(), "unload")),
            false => Ok((shared.models.get(name).await?.name.clone(), "load")),
        }
    }
}

/// Reads a body of `/api/chat`: a job, or without messages what becomes of the model.
///
/// # Errors
/// Where a field won't do.
pub(crate) fn read_chat(bytes: &[u8]) -> Result<Result<Job, Keep>, ApiError> {
    let mut body = Body::read(&OLLAMA_CHAT, bytes)?;
    let mut list = body.list("messages").unwrap_or_default();
    if list.is_empty() {
        return Ok(Err(Keep::take(&mut body)));
    }
    list.iter_mut().for_each(message);
    let tools = Tool::list(&body.list("tools").unwrap_or_default())?;
    let conversation = Conversation {
        messages: messages(list)?,
        uses: ToolUse::new(tools, None, true)?,
        variables: variables(&mut body)?,
        begins_turn: true,
        continues: false,
    };
    common(body, vec![Source::Chat(Box::new(conversation))]).map(Ok)
}

/// An Ollama message as OpenAI's.
fn message(message: &mut Value) {
    let Some(fields) = message.as_object_mut() else { return };
    if let Some(name) = fields.remove("tool_name") {
        fields.insert("name".to_owned(), name);
    }
    if let Some(thoughts) = fields.remove("thinking").filter(Value::is_string) {
        fields.insert("reasoning_content".to_owned(), thoughts);
    }
    if fields.get("images").is_some_and(|images| images.as_array().is_some_and(Vec::is_empty)) {
        fields.remove("images");
    }
    if let Some(images) = fields.remove("images").filter(|images| !images.is_null()) {
        // Refused by its kind, as a part of another API's message is.
        fields.insert("content".to_owned(), json!([{"type": "image", "image": images}]));
    }
}

/// Reads a body of `/api/generate`: a job, or without a prompt what becomes of the model.
///
/// # Errors
/// Where a field won't do.
fn read_generate(bytes: &[u8]) -> Result<Result<Job, Keep>, ApiError> {
    let mut body = Body::read(&OLLAMA_GENERATE, bytes)?;
    let prompt = body.text("prompt").unwrap_or_default();
    let system = body.text("system").unwrap_or_default();
    let suffix = body.text("suffix").unwrap_or_default();
    let is_raw = body.flag("raw").unwrap_or(false);
    let context = body.list("context").unwrap_or_default();
    let variables = variables(&mut body)?;
    if prompt.is_empty() {
        return Ok(Err(Keep::take(&mut body)));
    }
    if !context.is_empty() {
        let what = "context is no longer given by this API: send the conversation to /api/chat";
        return Err(ApiError::invalid(what).at("context"));
    }
    let source = if !suffix.is_empty() {
        Source::Fill { prefix: prompt, suffix, others: Vec::new() }
    } else if is_raw {
        Source::Text { text: prompt, special: true, around: true }
    } else {
        let mut list = Vec::new();
        if !system.is_empty() {
            list.push(json!({"role": "system", "content": system}));
        }
        list.push(json!({"role": "user", "content": prompt}));
        let uses = ToolUse::default();
        let conversation =
            Conversation { messages: messages(list)?, uses, variables, begins_turn: true, continues: false };
        Source::Chat(Box::new(conversation))
    };
    common(body, vec![source]).map(Ok)
}

/// What a template is told of whether to think.
fn variables(body: &mut Body) -> Result<Map<String, Value>, ApiError> {
    let mut variables = Map::new();
    match body.any("think") {
        None => {}
        Some(Value::Bool(thinks)) => thinking_variables(thinks, &mut variables),
        Some(Value::String(effort)) => effort_variables(&effort, &mut variables),
        Some(other) => return Err(wrong("think", &other.to_string(), "true, false, or how much")),
    }
    Ok(variables)
}

fn common(mut body: Body, sources: Vec<Source>) -> Result<Job, ApiError> {
    let mut job = Job::new(sources);
    job.stream = body.flag("stream").unwrap_or(true);
    job.model = body.text("model");
    body.any("keep_alive");
    job.constraint = match body.any("format") {
        None => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::String(text)) if text == "json" => Some(schema_of("format", &json!({"type": "object"}))?),
        Some(Value::String(text)) if !text.trim_start().starts_with(['{', 't']) => {
            return Err(wrong("format", &format!("{text:?}"), "\"json\", or a JSON schema"));
        }
        Some(schema) => Some(schema_of("format", &schema)?),
    };
    let wants_logprobs = body.flag("logprobs").unwrap_or(false);
    job.logprobs = top_logprobs(&mut body, wants_logprobs)?;
    let options = body.object("options").unwrap_or_default();
    body.done()?;
    let mut options = Body::of(&OLLAMA_OPTIONS, options)?;
    job.take_sampling(&mut options)?;
    job.take_max_tokens(&mut options, &["num_predict"], None);
    options.done()?;
    Ok(job)
}

/// A time as RFC 3339 has it, in UTC. `seconds` since 1970.
fn time(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days to a date: the year begins in March, and 400 years have 146,097 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

struct Ollama {
    is_chat: bool,
    start: Instant,
}

impl Ollama {
    fn new(is_chat: bool) -> Self {
        Self { is_chat, start: Instant::now() }
    }

    fn line(&self, run: &Run, text: &str, thoughts: &str) -> Value {
        let mut line = json!({"model": run.model.name, "created_at": time(now())});
        if self.is_chat {
            line["message"] = json!({"role": "assistant", "content": text});
        } else {
            line["response"] = text.into();
        }
        if !thoughts.is_empty() {
            let to = if self.is_chat { &mut line["message"] } else { &mut line };
            to["thinking"] = thoughts.into();
        }
        line["done"] = false.into();
        line
    }

    fn add_end(&self, run: &Run, choice: &Choice, line: &mut Value) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (prompt, _, completion) = run.tokens();
        line["done"] = true.into();
        line["done_reason"] = if choice.reason() == Reason::Length { "length" } else { "stop" }.into();
        line["total_duration"] = nanos(self.start.elapsed()).into();
        line["load_duration"] = 0.into();
        line["prompt_eval_count"] = prompt.into();
        line["eval_count"] = completion.into();
        if let Some(generated) = &choice.generated {
            line["prompt_eval_duration"] = nanos(generated.prompt_time).into();
            line["eval_duration"] = nanos(generated.decode_time).into();
        }
    }

    fn calls(choice: &Choice) -> Value {
        let calls = choice.calls.iter().enumerate();
        calls
            .map(|(index, call)| {
                let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
                json!({"id": call.id, "function": {"index": index, "name": call.name, "arguments": arguments}})
            })
            .collect()
    }
}

fn logprobs(tokens: &[crate::answer::TokenInfo]) -> Value {
    let entry = |bytes: &[u8], logprob: f32| json!({"token": String::from_utf8_lossy(bytes), "logprob": logprob.max(-9999.0), "bytes": bytes});
    tokens
        .iter()
        .map(|token| {
            let mut value = entry(&token.bytes, token.logprob.unwrap_or(0.0));
            value["top_logprobs"] =
                token.top.iter().map(|(_, bytes, logprob)| entry(bytes, *logprob)).collect();
            value
        })
        .collect()
}

impl Format for Ollama {
    const LINES: bool = true;

    fn whole(&mut self, run: &Run) -> Value {
        let choice = &run.choices[0];
        let mut line = self.line(run, &choice.text, &choice.thoughts);
        if self.is_chat && !choice.calls.is_empty() {
            line["message"]["tool_calls"] = Self::calls(choice);
        }
        if run.job.logprobs.is_some() {
            line["logprobs"] = logprobs(&choice.tokens);
        }
        self.add_end(run, choice, &mut line);
        line
    }

    fn piece(&mut self, run: &Run, _choice: &Choice, piece: &Piece) -> Vec<Frame> {
        let (mut text, mut thoughts) = (String::new(), String::new());
        for delta in &piece.deltas {
            match delta {
                crate::tools::Delta::Text(more) => text.push_str(more),
                crate::tools::Delta::Thought(more) => thoughts.push_str(more),
                // Calls are given whole, at the end.
                crate::tools::Delta::Call(..) | crate::tools::Delta::Arguments(..) => {}
            }
        }
        if text.is_empty() && thoughts.is_empty() && piece.tokens.is_empty() {
            return Vec::new();
        }
        let mut line = self.line(run, &text, &thoughts);
        if !piece.tokens.is_empty() {
            line["logprobs"] = logprobs(&piece.tokens);
        }
        vec![Frame::Line(line)]
    }

    fn ended(&mut self, run: &Run, choice: &Choice) -> Vec<Frame> {
        let mut frames = Vec::new();
        if self.is_chat && !choice.calls.is_empty() {
            let mut line = self.line(run, "", "");
            line["message"]["tool_calls"] = Self::calls(choice);
            frames.push(Frame::Line(line));
        }
        let mut last = self.line(run, "", "");
        self.add_end(run, choice, &mut last);
        frames.push(Frame::Line(last));
        frames
    }

    fn end(&mut self, _run: &Run) -> Vec<Frame> {
        Vec::new()
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Frame> {
        vec![Frame::Line(error.ollama())]
    }
}

pub(crate) async fn embeddings(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let made = async {
        let start = Instant::now();
        let mut body = Body::read(&OLLAMA_EMBED, &checked(&shared, &headers, body)?)?;
        // The former path has another name, and one embedding.
        let prompt = body.any("prompt");
        let input = body.any("input");
        let is_former = prompt.is_some() && input.is_none();
        let texts = sources("input", &body.needed("input", input.or(prompt))?, false, true)?;
        let dimensions = body.count("dimensions")?;
        let model = body.text("model");
        body.done()?;
        let model = shared.models.get(model.as_deref()).await?;
        let embedded = embed(&shared, Arc::clone(&model), texts, dimensions).await?;
        if is_former {
            return Ok(Json(json!({"embedding": embedded.vectors.first()})).into_response());
        }
        let took = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(Json(json!({"model": model.name, "embeddings": embedded.vectors, "total_duration": took,
            "load_duration": 0, "prompt_eval_count": embedded.n_tokens}))
        .into_response())
    };
    or_error(made.await)
}

/// What a model is.
fn details(facts: &Facts) -> Value {
    let family = &facts.architecture;
    json!({"parent_model": "", "format": "gguf", "family": family, "families": [family],
        "parameter_size": facts.size_label, "quantization_level": "unknown"})
}

/// A model as Ollama's API lists it.
fn listed(name: &str, facts: &Facts) -> Value {
    json!({
        "name": name,
        "model": name,
        "modified_at": time(facts.modified),
        "size": facts.bytes,
        "digest": facts.digest,
        "details": details(facts),
    })
}

pub(crate) async fn tags(State(shared): App) -> Json<Value> {
    let models = shared.models.all().map(|(name, facts, _)| listed(name, facts));
    Json(json!({"models": models.collect::<Vec<_>>()}))
}

pub(crate) async fn ps(State(shared): App) -> Json<Value> {
    let models = shared.models.all().filter_map(|(name, facts, model)| {
        let model = model?;
        let mut listed = listed(name, facts);
        listed["size_vram"] = 0.into();
        listed["context_length"] = model.scheduler.engine().context().into();
        Some(listed)
    });
    Json(json!({"models": models.collect::<Vec<_>>()}))
}

pub(crate) async fn version() -> Json<Value> {
    Json(json!({"version": OLLAMA_VERSION}))
}

pub(crate) async fn show(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let made = async {
        let mut body = Body::read(&OLLAMA_SHOW, &checked(&shared, &headers, body)?)?;
        let (name, model) = (body.text("name"), body.text("model"));
        body.done()?;
        let model = shared.models.get(model.or(name).as_deref()).await?;
        let (_, facts, _) = shared.models.named(&model.name)?;
        let engine = model.scheduler.engine();
        let metadata = engine.gguf().metadata();
        let mut info = Map::new();
        for key in ["general.architecture", "general.name", "general.basename", "general.size_label"] {
            if let Some(text) = metadata.get::<&str>(key).ok().flatten() {
                info.insert(key.to_owned(), text.into());
            }
        }
        let family = metadata.get::<&str>("general.architecture").ok().flatten().unwrap_or_default();
        info.insert(format!("{family}.context_length"), engine.context().into());
        info.insert(format!("{family}.embedding_length"), engine.plan().hidden.into());
        let mut capabilities = Vec::new();
        if engine.plan().has_head() {
            capabilities.push("completion");
            if let Some(template) = engine.chat_template_source() {
                capabilities.push("tools");
                if ["enable_thinking", "<think>", "reasoning_effort"]
                    .iter()
                    .any(|word| template.contains(word))
                {
                    capabilities.push("thinking");
                }
            }
        } else {
            capabilities.push("embedding");
        }
        Ok(Json(json!({"modelfile": "", "parameters": "", "template": engine.chat_template_source().unwrap_or_default(),
            "details": details(facts), "model_info": info, "capabilities": capabilities}))
        .into_response())
    };
    or_error(made.await)
}

#[cfg(test)]
mod tests {
    use super::time;

    /// By `date -u -d @SECONDS`.
    #[test]
    fn times_are_dates() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(time(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(time(1_721_044_800), "2024-07-15T12:00:00Z");
        assert_eq!(time(4_102_444_800), "2100-01-01T00:00:00Z");
    }
}
