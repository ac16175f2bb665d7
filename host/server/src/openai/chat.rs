//! `/v1/chat/completions`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::{UsageWanted, head, logprobs, usage};
use crate::answer::{Call, Choice, Format, Frame, Piece, Run, answer};
use crate::conversation::{Conversation, messages};
use crate::error::ApiError;
use crate::fields::{Body, CHAT, wrong};
use crate::job::{Job, Source, take_form};
use crate::tools::{self, Delta, Tool, ToolUse};
use crate::{App, checked};

/// The most log-probabilities beside a token's own.
const MAX_TOP: i64 = 100;

pub(crate) async fn chat(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let (job, usage) = read(&checked(&shared, &headers, body)?)?;
    answer(Arc::clone(&shared), &headers, job, Chat { usage, has_begun: Vec::new() }).await
}

/// Reads a body.
///
/// # Errors
/// Where a field won't do.
fn read(bytes: &[u8]) -> Result<(Job, UsageWanted), ApiError> {
    let mut body = Body::read(&CHAT, bytes)?;
    let conversation = conversation(&mut body)?;
    let mut job = Job::new(vec![Source::Chat(Box::new(conversation))]);
    job.take_client(&mut body);
    job.take_n(&mut body)?;
    job.take_sampling(&mut body)?;
    job.take_max_tokens(&mut body, &["max_completion_tokens", "max_tokens", "n_predict"], None);
    job.constraint = take_form(&mut body)?;
    for name in ["thinking_budget", "thinking_token_budget", "reasoning_budget"] {
        let limit = body.limit(name).flatten().map(|limit| limit as usize);
        job.max_thoughts = job.max_thoughts.or(limit);
    }
    job.reads_calls = body.flag("parse_tool_calls").unwrap_or(true);
    job.reads_thoughts = match body.text("reasoning_format").as_deref() {
        None | Some("auto" | "deepseek" | "deepseek-legacy") => true,
        Some("none") => false,
        Some(other) => {
            return Err(wrong("reasoning_format", &format!("{other:?}"), "none, auto or deepseek"));
        }
    };
    let wants_logprobs = body.flag("logprobs").unwrap_or(false);
    job.logprobs = top_logprobs(&mut body, wants_logprobs)?;
    let usage = UsageWanted::take(&mut body)?;
    body.done()?;
    Ok((job, usage))
}

/// Checks a body, and forgets it.
///
/// # Errors
/// As for a request.
pub(crate) fn check(bytes: &[u8]) -> Result<(), ApiError> {
    read(bytes).map(drop)
}

/// Takes how many of the likeliest tokens are wanted; `None` where no log-probabilities are.
pub(crate) fn top_logprobs(body: &mut Body, wanted: bool) -> Result<Option<u32>, ApiError> {
    let top = body.integer("top_logprobs");
    match top {
        Some(top) if !(0..=MAX_TOP).contains(&top) => {
            Err(wrong("top_logprobs", &top.to_string(), "a number from 0 to 100"))
        }
        Some(top) if top > 0 && !wanted => {
            Err(wrong("top_logprobs", &top.to_string(), "left out where logprobs is not true"))
        }
        top => Ok(wanted.then_some(top.unwrap_or(0) as u32)),
    }
}

/// Takes what becomes the prompt.
///
/// # Errors
/// Where a field won't do.
pub(crate) fn conversation(body: &mut Body) -> Result<Conversation, ApiError> {
    let list = body.list("messages");
    let messages = messages(body.needed("messages", list)?)?;
    let mut variables = body.object("chat_template_kwargs").unwrap_or_default();
    if let Some(effort) = body.text("reasoning_effort") {
        effort_variables(&effort, &mut variables);
    }
    if let Some(documents) = body.list("documents") {
        variables.insert("documents".to_owned(), documents.into());
    }
    let given = (body.flag("add_generation_prompt"), body.flag("continue_final_message"));
    let continues = given.1.unwrap_or(false);
    let begins_turn = given.0.unwrap_or(!continues);
    if continues && begins_turn {
        let what = "add_generation_prompt and continue_final_message are both true, where one was expected";
        return Err(ApiError::invalid(what).at("continue_final_message"));
    }
    Ok(Conversation { messages, uses: tool_use(body)?, variables, begins_turn, continues })
}

/// What a template is told of how much to think.
pub(crate) fn effort_variables(effort: &str, variables: &mut Map<String, Value>) {
    if effort == "none" {
        thinking_variables(false, variables);
    } else {
        variables.entry("reasoning_effort").or_insert_with(|| effort.into());
    }
}

/// What a template is told of whether to think, by the names that templates have for it.
pub(crate) fn thinking_variables(thinks: bool, variables: &mut Map<String, Value>) {
    for name in ["enable_thinking", "thinking"] {
        variables.entry(name).or_insert_with(|| thinks.into());
    }
}

fn tool_use(body: &mut Body) -> Result<ToolUse, ApiError> {
    let mut list = body.list("tools").unwrap_or_default();
    list.extend(body.list("functions").unwrap_or_default());
    let choice = body.any("tool_choice").or(body.any("function_call"));
    // Its former name stays among what is not taken otherwise.
    body.any("function_call");
    let choice = choice.map(|choice| tools::Choice::read(&choice)).transpose()?;
    ToolUse::new(Tool::list(&list)?, choice, body.flag("parallel_tool_calls").unwrap_or(true))
}

struct Chat {
    usage: UsageWanted,
    /// Choices that were begun.
    has_begun: Vec<usize>,
}

/// A call as a message has it.
pub(crate) fn call_json(call: &Call) -> Value {
    let function = json!({"name": call.name, "arguments": call.arguments});
    json!({"id": call.id, "type": "function", "function": function})
}

impl Chat {
    fn chunk(&self, run: &Run, choice: Value) -> Frame {
        let mut chunk = head(run, "chatcmpl", "chat.completion.chunk", vec![choice]);
        if self.usage.always {
            chunk.insert("usage".to_owned(), usage(run));
        }
        Frame::Data(Value::Object(chunk))
    }

    fn delta(&self, run: &Run, index: usize, delta: Value, logprobs: Value) -> Frame {
        self.chunk(run, json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null}))
    }

    fn first(&mut self, run: &Run, index: usize) -> Option<Frame> {
        if self.has_begun.contains(&index) {
            return None;
        }
        self.has_begun.push(index);
        Some(self.delta(run, index, json!({"role": "assistant", "content": ""}), Value::Null))
    }
}

fn delta_json(delta: &Delta, calls: &[Call]) -> Value {
    match delta {
        Delta::Text(text) => json!({"content": text}),
        Delta::Thought(text) => json!({"reasoning_content": text}),
        Delta::Call(index, name) => {
            let id = calls.get(*index).map(|call| call.id.as_str());
            let function = json!({"name": name, "arguments": ""});
            json!({"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]})
        }
        Delta::Arguments(index, text) => {
            json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
        }
    }
}

impl Format for Chat {
    fn whole(&mut self, run: &Run) -> Value {
        let choice = |choice: &Choice| {
            // As in OpenAI's API: where there are only calls, the content is null.
            let content =
                Some(choice.text.trim_end()).filter(|text| !text.is_empty() || choice.calls.is_empty());
            let content = if choice.calls.is_empty() { Some(choice.text.as_str()) } else { content };
            let mut message = json!({"role": "assistant", "content": content, "refusal": null});
            if !choice.thoughts.is_empty() {
                message["reasoning_content"] = choice.thoughts.as_str().into();
            }
            if !choice.calls.is_empty() {
                message["tool_calls"] = choice.calls.iter().map(call_json).collect();
            }
            let logprobs = run.job.logprobs.map(|_| logprobs::chat(&choice.tokens));
            let finish = choice.reason().openai();
            json!({"index": choice.index, "message": message, "logprobs": logprobs, "finish_reason": finish})
        };
        let choices = run.choices.iter().map(choice).collect();
        let mut answer = head(run, "chatcmpl", "chat.completion", choices);
        answer.insert("usage".to_owned(), usage(run));
        Value::Object(answer)
    }

    fn piece(&mut self, run: &Run, choice: &Choice, piece: &Piece) -> Vec<Frame> {
        let mut frames: Vec<Frame> = self.first(run, choice.index).into_iter().collect();
        let mut logprobs = match run.job.logprobs {
            Some(_) if !piece.tokens.is_empty() => logprobs::chat(&piece.tokens),
            _ => Value::Null,
        };
        for delta in &piece.deltas {
            let delta = delta_json(delta, &choice.calls);
            frames.push(self.delta(run, choice.index, delta, std::mem::take(&mut logprobs)));
        }
        if !logprobs.is_null() {
            frames.push(self.delta(run, choice.index, json!({}), logprobs));
        }
        frames
    }

    fn ended(&mut self, run: &Run, choice: &Choice) -> Vec<Frame> {
        let mut frames: Vec<Frame> = self.first(run, choice.index).into_iter().collect();
        let finish = choice.reason().openai();
        let value = json!({"index": choice.index, "delta": {}, "logprobs": null, "finish_reason": finish});
        frames.push(self.chunk(run, value));
        frames
    }

    fn end(&mut self, run: &Run) -> Vec<Frame> {
        let mut frames = Vec::new();
        if self.usage.at_end {
            let mut chunk = head(run, "chatcmpl", "chat.completion.chunk", Vec::new());
            chunk.insert("usage".to_owned(), usage(run));
            frames.push(Frame::Data(Value::Object(chunk)));
        }
        frames.push(Frame::End);
        frames
    }
}
