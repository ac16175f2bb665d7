//! `/v1/responses`. Nothing is stored: a client sends the whole conversation, as the clients of agents do.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::chat::{effort_variables, top_logprobs};
use super::logprobs;
use crate::answer::{Call, Choice, Format, Frame, Piece, Reason, Run, answer};
use crate::conversation::{Conversation, messages, text_of};
use crate::error::ApiError;
use crate::fields::{Body, RESPONSES, refused, wrong};
use crate::job::{Job, Source, response_format};
use crate::tools::{self, Delta, Tool, ToolUse};
use crate::{App, checked};

pub(crate) async fn responses(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let bytes = checked(&shared, &headers, body)?;
    let (job, asked) = read(&bytes)?;
    answer(Arc::clone(&shared), &headers, job, Responses::new(asked)).await
}

/// Reads a body: the job, and the fields that the answer gives back.
///
/// # Errors
/// Where a field won't do.
pub(crate) fn read(bytes: &[u8]) -> Result<(Job, Map<String, Value>), ApiError> {
    // The table has checked that it is an object.
    let given: Value = serde_json::from_slice(bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes))
        .unwrap_or_default();
    let mut body = Body::read(&RESPONSES, bytes)?;
    let input = body.any("input");
    let mut list = Vec::new();
    if let Some(text) = body.text("instructions") {
        list.push(json!({"role": "system", "content": text}));
    }
    turns(&body.needed("input", input)?, &mut list)?;
    let mut variables = Map::new();
    if let Some(reasoning) = body.object("reasoning")
        && let Some(effort) = reasoning.get("effort").and_then(Value::as_str)
    {
        effort_variables(effort, &mut variables);
    }
    let choice = body.any("tool_choice").map(|choice| tools::Choice::read(&choice)).transpose()?;
    let list_of_tools = Tool::list(&body.list("tools").unwrap_or_default())?;
    let uses = ToolUse::new(list_of_tools, choice, body.flag("parallel_tool_calls").unwrap_or(true))?;
    let conversation =
        Conversation { messages: messages(list)?, uses, variables, begins_turn: true, continues: false };
    let mut job = Job::new(vec![Source::Chat(Box::new(conversation))]);
    job.take_client(&mut body);
    job.take_sampling(&mut body)?;
    job.take_max_tokens(&mut body, &["max_output_tokens"], None);
    if let Some(text) = body.object("text")
        && let Some(format) = text.get("format").and_then(Value::as_object)
    {
        job.constraint = response_format("text.format", format)?;
    }
    let include = body.list("include").unwrap_or_default();
    for part in &include {
        if !matches!(part.as_str(), Some("message.output_text.logprobs" | "reasoning.encrypted_content")) {
            return Err(refused(&format!("include {part}")));
        }
    }
    let wanted = include.iter().any(|part| part == "message.output_text.logprobs");
    job.logprobs = top_logprobs(&mut body, wanted)?;
    body.done()?;
    let given = match given {
        Value::Object(given) => given,
        _ => Map::new(),
    };
    Ok((job, given))
}

/// The turns of an input.
fn turns(input: &Value, list: &mut Vec<Value>) -> Result<(), ApiError> {
    let items = match input {
        Value::String(text) => {
            list.push(json!({"role": "user", "content": text}));
            return Ok(());
        }
        Value::Array(items) => items,
        other => return Err(wrong("input", &other.to_string(), "a text or a list")),
    };
    for (index, item) in items.iter().enumerate() {
        let place = format!("input[{index}]");
        match item["type"].as_str() {
            Some("function_call") => {
                let call = json!({"id": item["call_id"], "type": "function",
                    "function": {"name": item["name"], "arguments": item["arguments"]}});
                // Calls of one answer, and its text, are one turn.
                match list.last_mut().filter(|last| last["role"] == "assistant") {
                    Some(last) => match last["tool_calls"].as_array_mut() {
                        Some(calls) => calls.push(call),
                        None => last["tool_calls"] = json!([call]),
                    },
                    None => list.push(json!({"role": "assistant", "content": "", "tool_calls": [call]})),
                }
            }
            Some("function_call_output") => {
                let output = &item["output"];
                let text = text_of(output).unwrap_or_else(|_| output.to_string());
                list.push(json!({"role": "tool", "tool_call_id": item["call_id"], "content": text}));
            }
            Some("reasoning") => {
                let texts = ["content", "summary"].into_iter().filter_map(|name| item[name].as_array());
                let text: String = texts.flatten().filter_map(|part| part["text"].as_str()).collect();
                if !text.is_empty() {
                    list.push(json!({"role": "assistant", "content": "", "reasoning_content": text}));
                }
            }
            None | Some("message") if item["role"].is_string() => {
                let is_after_thoughts = |last: &&mut Value| {
                    item["role"] == "assistant"
                        && last["reasoning_content"].is_string()
                        && last["content"] == ""
                };
                match list.last_mut().filter(is_after_thoughts) {
                    Some(last) => last["content"] = item["content"].clone(),
                    None => list.push(json!({"role": item["role"], "content": item["content"]})),
                }
            }
            kind => {
                let found = format!("of type {:?}", kind.unwrap_or("?"));
                return Err(wrong(&place, &found, "a message, a function_call, its output, or reasoning"));
            }
        }
    }
    Ok(())
}

/// The items of the answer, in the order in which they began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Reasoning,
    Message,
    Call(usize),
}

struct Responses {
    asked: Map<String, Value>,
    items: Vec<Item>,
    /// Items that have ended.
    closed: usize,
    sequence: u64,
}

impl Responses {
    fn new(asked: Map<String, Value>) -> Self {
        Self { asked, items: Vec::new(), closed: 0, sequence: 0 }
    }

    fn event(&mut self, name: &'static str, mut value: Value) -> Frame {
        value["type"] = name.into();
        value["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        Frame::Event(name, value)
    }

    fn id(run: &Run, item: Item) -> String {
        match item {
            Item::Reasoning => format!("rs-{}", run.id),
            Item::Message => format!("msg-{}", run.id),
            Item::Call(index) => format!("fc-{}-{index}", run.id),
        }
    }

    fn text_part(run: &Run, choice: &Choice) -> Value {
        let logprobs = match run.job.logprobs {
            Some(_) => logprobs::chat(&choice.tokens)["content"].take(),
            None => json!([]),
        };
        json!({"type": "output_text", "text": choice.text, "annotations": [], "logprobs": logprobs})
    }

    /// An item as it is now.
    fn item(run: &Run, choice: &Choice, item: Item, is_done: bool) -> Value {
        let id = Self::id(run, item);
        let status = match (is_done, choice.reason()) {
            (false, _) => "in_progress",
            (true, Reason::Length | Reason::Cancelled) if choice.has_ended() => "incomplete",
            (true, _) => "completed",
        };
        match item {
            Item::Reasoning => {
                let content = if is_done {
                    json!([{"type": "reasoning_text", "text": choice.thoughts}])
                } else {
                    json!([])
                };
                json!({"id": id, "type": "reasoning", "summary": [], "content": content, "status": status})
            }
            Item::Message => {
                let content = if is_done { json!([Self::text_part(run, choice)]) } else { json!([]) };
                json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": content})
            }
            Item::Call(index) => {
                let empty = Call { id: String::new(), name: String::new(), arguments: String::new() };
                let call = choice.calls.get(index).unwrap_or(&empty);
                let arguments = if is_done { call.arguments.as_str() } else { "" };
                json!({"id": id, "type": "function_call", "status": status, "call_id": call.id, "name": call.name,
                    "arguments": arguments})
            }
        }
    }

    fn response(&self, run: &Run, status: &str) -> Value {
        let asked = |name: &str, default: Value| {
            self.asked.get(name).filter(|value| !value.is_null()).cloned().unwrap_or(default)
        };
        let choice = &run.choices[0];
        let output: Vec<Value> = match status {
            "in_progress" => Vec::new(),
            _ => self.items.iter().map(|item| Self::item(run, choice, *item, true)).collect(),
        };
        let (input, cached, completion) = run.tokens();
        let usage = json!({
            "input_tokens": input,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input + completion,
        });
        let is_cut = status == "incomplete";
        let mut response = json!({
            "id": format!("resp-{}", run.id),
            "object": "response",
            "created_at": run.created,
            "status": status,
            "background": false,
            "error": null,
            "incomplete_details": if is_cut { json!({"reason": "max_output_tokens"}) } else { Value::Null },
            "model": run.model.name,
            "output": output,
            "previous_response_id": null,
            "store": false,
            "usage": if status == "in_progress" { Value::Null } else { usage },
        });
        for (name, default) in [
            ("instructions", Value::Null),
            ("max_output_tokens", Value::Null),
            ("metadata", json!({})),
            ("parallel_tool_calls", true.into()),
            ("reasoning", json!({"effort": null, "summary": null})),
            ("temperature", Value::Null),
            ("text", json!({"format": {"type": "text"}})),
            ("tool_choice", "auto".into()),
            ("tools", json!([])),
            ("top_p", Value::Null),
            ("truncation", "disabled".into()),
            ("user", Value::Null),
        ] {
            response[name] = asked(name, default);
        }
        response
    }

    fn status(choice: &Choice) -> &'static str {
        match choice.reason() {
            Reason::Length => "incomplete",
            Reason::Cancelled => "cancelled",
            _ => "completed",
        }
    }

    /// Begins an item, after the one before has ended.
    fn open(&mut self, run: &Run, choice: &Choice, item: Item, frames: &mut Vec<Frame>) {
        if self.items.last() == Some(&item) {
            return;
        }
        self.close(run, choice, frames);
        // Text may go on after a call: it is the same message then.
        if self.items.contains(&item) {
            return;
        }
        let index = self.items.len();
        self.items.push(item);
        let value = json!({"output_index": index, "item": Self::item(run, choice, item, false)});
        frames.push(self.event("response.output_item.added", value));
        let id = Self::id(run, item);
        let part = match item {
            Item::Message => json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []}),
            Item::Reasoning => json!({"type": "reasoning_text", "text": ""}),
            Item::Call(_) => return,
        };
        let value = json!({"item_id": id, "output_index": index, "content_index": 0, "part": part});
        frames.push(self.event("response.content_part.added", value));
    }

    /// Ends the last item.
    fn close(&mut self, run: &Run, choice: &Choice, frames: &mut Vec<Frame>) {
        if self.closed == self.items.len() {
            return;
        }
        self.closed = self.items.len();
        let index = self.items.len() - 1;
        let item = self.items[index];
        let id = Self::id(run, item);
        match item {
            Item::Message => {
                let part = Self::text_part(run, choice);
                let value = json!({"item_id": id, "output_index": index, "content_index": 0, "text": choice.text,
                    "logprobs": part["logprobs"]});
                frames.push(self.event("response.output_text.done", value));
                let value = json!({"item_id": id, "output_index": index, "content_index": 0, "part": part});
                frames.push(self.event("response.content_part.done", value));
            }
            Item::Reasoning => {
                let value = json!({"item_id": id, "output_index": index, "content_index": 0, "text": choice.thoughts});
                frames.push(self.event("response.reasoning_text.done", value));
                let part = json!({"type": "reasoning_text", "text": choice.thoughts});
                let value = json!({"item_id": id, "output_index": index, "content_index": 0, "part": part});
                frames.push(self.event("response.content_part.done", value));
            }
            Item::Call(call) => {
                let call = choice.calls.get(call);
                let value = json!({"item_id": id, "output_index": index,
                    "name": call.map(|call| call.name.as_str()), "arguments": call.map(|call| call.arguments.as_str())});
                frames.push(self.event("response.function_call_arguments.done", value));
            }
        }
        let value = json!({"output_index": index, "item": Self::item(run, choice, item, true)});
        frames.push(self.event("response.output_item.done", value));
    }
}

impl Format for Responses {
    fn whole(&mut self, run: &Run) -> Value {
        let choice = &run.choices[0];
        self.items.extend((!choice.thoughts.is_empty()).then_some(Item::Reasoning));
        self.items.extend((!choice.text.is_empty() || choice.calls.is_empty()).then_some(Item::Message));
        self.items.extend((0..choice.calls.len()).map(Item::Call));
        self.response(run, Self::status(choice))
    }

    fn begin(&mut self, run: &Run) -> Vec<Frame> {
        let response = self.response(run, "in_progress");
        let created = self.event("response.created", json!({"response": response}));
        let response = self.response(run, "in_progress");
        vec![created, self.event("response.in_progress", json!({"response": response}))]
    }

    fn piece(&mut self, run: &Run, choice: &Choice, piece: &Piece) -> Vec<Frame> {
        let mut frames = Vec::new();
        for delta in &piece.deltas {
            let (item, name, text) = match delta {
                Delta::Text(text) => (Item::Message, "response.output_text.delta", text),
                Delta::Thought(text) => (Item::Reasoning, "response.reasoning_text.delta", text),
                Delta::Call(index, _) => {
                    self.open(run, choice, Item::Call(*index), &mut frames);
                    continue;
                }
                Delta::Arguments(index, text) => {
                    (Item::Call(*index), "response.function_call_arguments.delta", text)
                }
            };
            self.open(run, choice, item, &mut frames);
            let index = self.items.iter().position(|other| *other == item).unwrap_or(0);
            let mut value = json!({"item_id": Self::id(run, item), "output_index": index, "delta": text});
            if !matches!(item, Item::Call(_)) {
                value["content_index"] = 0.into();
            }
            if item == Item::Message {
                let tokens = run.job.logprobs.map(|_| logprobs::chat(&piece.tokens)["content"].take());
                value["logprobs"] = tokens.unwrap_or_else(|| json!([]));
            }
            frames.push(self.event(name, value));
        }
        frames
    }

    fn ended(&mut self, run: &Run, choice: &Choice) -> Vec<Frame> {
        let mut frames = Vec::new();
        if self.items.is_empty() {
            self.open(run, choice, Item::Message, &mut frames);
        }
        self.close(run, choice, &mut frames);
        frames
    }

    fn end(&mut self, run: &Run) -> Vec<Frame> {
        let status = Self::status(&run.choices[0]);
        let name = if status == "incomplete" { "response.incomplete" } else { "response.completed" };
        let response = self.response(run, status);
        vec![self.event(name, json!({"response": response}))]
    }

    fn failed(&mut self, error: &ApiError) -> Vec<Frame> {
        let mut value = error.json()["error"].take();
        value["param"] = Value::Null;
        vec![self.event("error", value)]
    }
}
