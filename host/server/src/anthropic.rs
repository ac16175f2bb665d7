//! Anthropic's API: `/v1/messages`, and how many tokens a request would have.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Map, Value, json};

use crate::answer::{Choice, Format, Frame, Piece, Reason, Run, answer};
use crate::conversation::{Conversation, messages, text_of};
use crate::error::ApiError;
use crate::fields::{ANTHROPIC_COUNT, ANTHROPIC_MESSAGES, Body, wrong};
use crate::job::{Job, Source, schema_of};
use crate::models::Model;
use crate::openai::chat::thinking_variables;
use crate::tools::{self, Delta, Tool, ToolUse};
use crate::{App, Shared, checked};

pub(crate) async fn create(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let made = async {
        let job = read(&checked(&shared, &headers, body)?)?;
        answer(Arc::clone(&shared), &headers, job, Messages::default()).await
    };
    made.await.unwrap_or_else(|error: ApiError| error.respond(error.anthropic()))
}

pub(crate) async fn count(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let made = async {
        let mut body = Body::read(&ANTHROPIC_COUNT, &checked(&shared, &headers, body)?)?;
        let (conversation, _) = conversation(&mut body)?;
        let model = body.text("model");
        body.done()?;
        let model = shared.models.get(model.as_deref()).await?;
        let ids = tokens(&shared, model, conversation).await?;
        Ok(Json(json!({"input_tokens": ids})).into_response())
    };
    made.await.unwrap_or_else(|error: ApiError| error.respond(error.anthropic()))
}

async fn tokens(shared: &Shared, model: Arc<Model>, conversation: Conversation) -> Result<usize, ApiError> {
    let trusts = shared.options.trust_content;
    let work = move || {
        let prompt = model.chat()?.prompt(model.scheduler.engine(), &conversation, trusts)?;
        Ok(prompt.ids.len())
    };
    shared.preparing.text(work).await
}

/// Reads a body.
///
/// # Errors
/// Where a field won't do.
pub(crate) fn read(bytes: &[u8]) -> Result<Job, ApiError> {
    let mut body = Body::read(&ANTHROPIC_MESSAGES, bytes)?;
    let (conversation, max_thoughts) = conversation(&mut body)?;
    let mut job = Job::new(vec![Source::Chat(Box::new(conversation))]);
    job.max_thoughts = max_thoughts;
    job.take_sampling(&mut body)?;
    job.stop = body.texts("stop_sequences").unwrap_or_default();
    job.stop.retain(|text| !text.is_empty());
    job.take_max_tokens(&mut body, &["max_tokens"], None);
    job.stream = body.flag("stream").unwrap_or(false);
    job.model = body.text("model");
    let metadata = body.object("metadata").unwrap_or_default();
    job.client = metadata.get("user_id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let config = body.object("output_config").unwrap_or_default();
    let format =
        body.object("output_format").or_else(|| config.get("format").and_then(Value::as_object).cloned());
    if let Some(format) = format {
        if format.get("type").is_none_or(|kind| kind != "json_schema") {
            return Err(wrong("output_format.type", "another", "json_schema"));
        }
        let schema = format.get("schema").unwrap_or(&Value::Null);
        job.constraint = Some(schema_of("output_format.schema", schema)?);
    }
    body.done()?;
    Ok(job)
}

/// Takes the turns, and how many tokens thoughts may have.
///
/// # Errors
/// Where a field won't do.
fn conversation(body: &mut Body) -> Result<(Conversation, Option<usize>), ApiError> {
    let mut list = Vec::new();
    if let Some(system) = body.any("system") {
        let text = text_of(&system).map_err(|expected| wrong("system", "another value", &expected))?;
        list.push(json!({"role": "system", "content": text}));
    }
    let given = body.list("messages");
    for (index, message) in body.needed("messages", given)?.into_iter().enumerate() {
        turn(index, &message, &mut list)?;
    }
    let (mut variables, mut max_thoughts) = (Map::new(), None);
    let thinking = body.object("thinking");
    // As in Anthropic's API, a model doesn't think unless it is asked to: clients read the first block as text.
    let thinks = |thinking: &Map<String, Value>| thinking.get("type").is_some_and(|kind| kind != "disabled");
    thinking_variables(thinking.as_ref().is_some_and(thinks), &mut variables);
    let budget = thinking.as_ref().and_then(|thinking| thinking.get("budget_tokens"));
    if let Some(budget) = budget.filter(|budget| !budget.is_null()) {
        let count = budget.as_u64().and_then(|count| usize::try_from(count).ok());
        let wrong = || wrong("thinking.budget_tokens", &budget.to_string(), "a whole number of at least 0");
        max_thoughts = Some(count.ok_or_else(wrong)?);
    }
    let tool = |(index, tool): (usize, &Value)| {
        let place = format!("tools[{index}]");
        if tool["type"].as_str().is_some_and(|kind| kind != "custom") {
            let what = "custom (the server has no tools of its own)";
            return Err(wrong(&format!("{place}.type"), &tool["type"].to_string(), what));
        }
        let name = tool["name"].as_str();
        let name = name.ok_or_else(|| wrong(&format!("{place}.name"), "missing", "a tool's name"))?;
        Ok(Tool::new(name, tool.get("description"), tool.get("input_schema")))
    };
    let list_of_tools = body.list("tools").unwrap_or_default();
    let list_of_tools = list_of_tools.iter().enumerate().map(tool).collect::<Result<Vec<_>, _>>()?;
    let choice = body.object("tool_choice").unwrap_or_default();
    let parallel = choice.get("disable_parallel_tool_use") != Some(&Value::Bool(true));
    let choice = match choice.get("type").and_then(Value::as_str) {
        None | Some("auto") => tools::Choice::Auto,
        Some("any") => tools::Choice::Required,
        Some("none") => tools::Choice::None,
        Some("tool") => tools::Choice::Named(
            choice.get("name").and_then(Value::as_str).map(str::to_owned).into_iter().collect(),
        ),
        Some(other) => {
            return Err(wrong("tool_choice.type", &format!("{other:?}"), "auto, any, tool or none"));
        }
    };
    let uses = ToolUse::new(list_of_tools, Some(choice), parallel)?;
    let mut messages = messages(list)?;
    // A last turn of the assistant's is gone on with.
    let continues =
        messages.last().is_some_and(|last| last["role"] == "assistant" && last["tool_calls"].is_null());
    if continues && let Some(last) = messages.last_mut() {
        let text = last["content"].as_str().unwrap_or_default().trim_end().to_owned();
        last["content"] = text.into();
    }
    Ok((Conversation { messages, uses, variables, begins_turn: !continues, continues }, max_thoughts))
}

/// A turn as OpenAI's messages: results of tools are messages of their own there.
fn turn(index: usize, message: &Value, list: &mut Vec<Value>) -> Result<(), ApiError> {
    let place = format!("messages[{index}]");
    let Some(blocks) = message["content"].as_array() else {
        list.push(message.clone());
        return Ok(());
    };
    let (mut rest, mut calls, mut thoughts) = (Vec::new(), Vec::new(), String::new());
    for block in blocks {
        match block["type"].as_str() {
            Some("tool_use") => {
                let function = json!({"name": block["name"], "arguments": block["input"].to_string()});
                calls.push(json!({"id": block["id"], "type": "function", "function": function}));
            }
            Some("tool_result") => {
                let text = text_of(&block["content"])
                    .map_err(|expected| wrong(&format!("{place}.content"), "a tool_result", &expected))?;
                list.push(json!({"role": "tool", "tool_call_id": block["tool_use_id"], "content": text}));
            }
            Some("thinking") => thoughts.push_str(block["thinking"].as_str().unwrap_or_default()),
            Some("redacted_thinking") => {}
            _ => rest.push(block.clone()),
        }
    }
    if rest.is_empty() && calls.is_empty() && !blocks.is_empty() && thoughts.is_empty() {
        return Ok(());
    }
    let mut turn = json!({"role": message["role"], "content": rest});
    if !calls.is_empty() {
        turn["tool_calls"] = calls.into();
    }
    if !thoughts.is_empty() {
        turn["reasoning_content"] = thoughts.into();
    }
    list.push(turn);
    Ok(())
}

/// A block of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    Tool(usize),
}

#[derive(Default)]
struct Messages {
    /// Blocks that were begun; the last is open until the next begins.
    n_blocks: usize,
    open: Option<Block>,
}

fn stop_reason(choice: &Choice) -> Value {
    match choice.reason() {
        Reason::Stop => "end_turn",
        Reason::StopText(_) => "stop_sequence",
        Reason::Length => "max_tokens",
        Reason::Calls => "tool_use",
        Reason::Cancelled => "end_turn",
    }
    .into()
}

fn stop_sequence(run: &Run, choice: &Choice) -> Value {
    match choice.reason() {
        Reason::StopText(index) => run.job.stop.get(index).cloned().into(),
        _ => Value::Null,
    }
}

fn input_of(arguments: &str) -> Value {
    serde_json::from_str(arguments).unwrap_or_else(|_| json!({}))
}

fn usage(run: &Run) -> Value {
    let (input, cached, output) = run.tokens();
    json!({"input_tokens": input - cached.min(input), "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached, "output_tokens": output})
}

fn message(run: &Run, content: Vec<Value>) -> Value {
    json!({
        "id": format!("msg_{}", run.id.replace('-', "_")),
        "type": "message",
        "role": "assistant",
        "model": run.model.name,
        "content": content,
        "stop_reason": null,
        "stop_sequence": null,
        "usage": usage(run),
    })
}

impl Messages {
    fn open(&mut self, choice: &Choice, block: Block, frames: &mut Vec<Frame>) {
        if self.open == Some(block) {
            return;
        }
        self.close(frames);
        let content = match block {
            Block::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
            Block::Text => json!({"type": "text", "text": ""}),
            Block::Tool(index) => {
                let call = choice.calls.get(index);
                json!({"type": "tool_use", "id": call.map(|call| call.id.as_str()),
                    "name": call.map(|call| call.name.as_str()), "input": {}})
            }
        };
        let value = json!({"type": "content_block_start", "index": self.n_blocks, "content_block": content});
        frames.push(Frame::Event("content_block_start", value));
        self.n_blocks += 1;
        self.open = Some(block);
    }

    fn close(&mut self, frames: &mut Vec<Frame>) {
        if self.open.take().is_some() {
            let value = json!({"type": "content_block_stop", "index": self.n_blocks - 1});
            frames.push(Frame::Event("content_block_stop", value));
        }
    }
}

impl Format for Messages {
    fn whole(&mut self, run: &Run) -> Value {
        let choice = &run.choices[0];
        let mut content = Vec::new();
        if !choice.thoughts.is_empty() {
            content.push(json!({"type": "thinking", "thinking": choice.thoughts, "signature": ""}));
        }
        if !choice.text.is_empty() || choice.calls.is_empty() {
            content.push(json!({"type": "text", "text": choice.text}));
        }
        for call in &choice.calls {
            let input = input_of(&call.arguments);
            content.push(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input}));
        }
        let mut whole = message(run, content);
        whole["stop_reason"] = stop_reason(choice);
        whole["stop_sequence"] = stop_sequence(run, choice);
        whole
    }

    fn begin(&mut self, run: &Run) -> Vec<Frame> {
        let value = json!({"type": "message_start", "message": message(run, Vec::new())});
        vec![Frame::Event("message_start", value), Frame::Event("ping", json!({"type": "ping"}))]
    }

    fn piece(&mut self, _run: &Run, choice: &Choice, piece: &Piece) -> Vec<Frame> {
        let mut frames = Vec::new();
        for delta in &piece.deltas {
            let (block, value) = match delta {
                Delta::Text(text) => (Block::Text, json!({"type": "text_delta", "text": text})),
                Delta::Thought(text) => {
                    (Block::Thinking, json!({"type": "thinking_delta", "thinking": text}))
                }
                Delta::Call(index, _) => {
                    (Block::Tool(*index), json!({"type": "input_json_delta", "partial_json": ""}))
                }
                Delta::Arguments(index, text) => {
                    (Block::Tool(*index), json!({"type": "input_json_delta", "partial_json": text}))
                }
            };
            self.open(choice, block, &mut frames);
            let value = json!({"type": "content_block_delta", "index": self.n_blocks - 1, "delta": value});
            frames.push(Frame::Event("content_block_delta", value));
        }
        frames
    }

    fn ended(&mut self, run: &Run, choice: &Choice) -> Vec<Frame> {
        let mut frames = Vec::new();
        if self.n_blocks == 0 {
            self.open(choice, Block::Text, &mut frames);
        }
        self.close(&mut frames);
        let delta = json!({"stop_reason": stop_reason(choice), "stop_sequence": stop_sequence(run, choice)});
        let value = json!({"type": "message_delta", "delta": delta, "usage": usage(run)});
        frames.push(Frame::Event("message_delta", value));
        frames
    }

    fn end(&mut self, _run: &Run) -> Vec<Frame> {
        vec![Frame::Event("message_stop", json!({"type": "message_stop"}))]
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Frame> {
        vec![Frame::Event("error", error.anthropic())]
    }
}
