//! From a conversation to the text that a chat model was trained to continue.
//!
//! Each model has its own markers around roles and turns, and its file carries a Jinja template that writes them,
//! made for Python's Jinja2 as the `transformers` package sets it up. [`ChatTemplate`] renders such a template the
//! same way: whitespace rules, loop controls, Python's string and dict methods, its JSON.
//!
//! A template comes with a model, from anywhere, so its source, its work, its memory and its recursion are limited, and
//! that by what its operations really take: see `jinja/mod.rs`.
//!
//! What a template finds: `messages`, `add_generation_prompt`, `bos_token`, `eos_token`, `tools` and `documents`
//! (both `none`), `raise_exception(message)`, `strftime_now(format)` and the filter `tojson`.
//! See [the format's description](https://huggingface.co/docs/transformers/chat_templating_writing).

mod clock;
mod error;
mod jinja;
mod stack;

pub use error::ChatError;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use jinja::Budget;

/// Bytes of a template's source. Real ones have some ten thousand.
const MAX_SOURCE: usize = 128 << 10;
/// Steps that a rendering may use for a start, then for each message and each byte of one. Real templates use some
/// hundred for a message. A step takes some 30 ns.
const WORK: u64 = 2_000_000;
const WORK_PER_MESSAGE: u64 = 10_000;
const WORK_PER_BYTE: u64 = 2;
/// Bytes of memory for a start, and then for each message and each byte of one.
const MEMORY: usize = 32 << 20;
const MEMORY_PER_MESSAGE: usize = 4 << 10;
const MEMORY_PER_BYTE: usize = 8;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what else the model's template knows.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message of this role and content.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A model's chat template, compiled.
///
/// ```
/// use herald::chat::{ChatTemplate, Message};
///
/// let source = "{% for message in messages %}<{{ message.role }}>{{ message.content | trim }}\n{% endfor %}";
/// let template = ChatTemplate::new(source, "<s>", "</s>")?;
/// assert_eq!(template.render(&[Message::new("user", " Hello! ")], false)?, "<user>Hello!\n");
/// # Ok::<(), herald::chat::ChatError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    program: Arc<jinja::Program>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Compiles a template. `bos` and `eos` are the texts of the model's tokens for the beginning and the end of a
    /// text; empty where it has none.
    ///
    /// # Errors
    /// The source is too long, or isn't a template: [`ChatError::TooLong`], [`ChatError::Syntax`].
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, ChatError> {
        if source.len() > MAX_SOURCE {
            return Err(ChatError::TooLong { length: source.len(), limit: MAX_SOURCE });
        }
        let program = stack::with_deep_stack(|| jinja::parse(source).map_err(ChatError::of_source))?;
        Ok(Self { program: Arc::new(program), bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The text for these messages; with `add_generation_prompt`, up to where the model's next turn begins.
    ///
    /// # Errors
    /// The template refuses the messages ([`ChatError::Refused`]), fails on them ([`ChatError::Render`]), or exceeds
    /// the limits ([`ChatError::TooMuchWork`], [`ChatError::TooMuchMemory`]).
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        let bytes: usize = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
        let budget = budget(messages.len(), bytes);
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| json!({ "role": message.role, "content": message.content }))
            .collect();
        let variables = [
            ("messages", Value::Array(messages)),
            ("add_generation_prompt", Value::Bool(add_generation_prompt)),
            ("bos_token", Value::String(self.bos.clone())),
            ("eos_token", Value::String(self.eos.clone())),
            ("tools", Value::Null),
            ("documents", Value::Null),
        ];
        // All values are made and dropped on the deep stack.
        stack::with_deep_stack(|| {
            jinja::render(&self.program, variables, clock::strftime_now, budget)
                .map_err(ChatError::of_rendering)
        })
    }
}

/// What a rendering of so many messages, of so many bytes in all, may use.
fn budget(messages: usize, bytes: usize) -> Budget {
    let (count, length) = (messages as u64, bytes as u64);
    Budget {
        work: WORK
            .saturating_add(WORK_PER_MESSAGE.saturating_mul(count))
            .saturating_add(WORK_PER_BYTE.saturating_mul(length)),
        memory: MEMORY
            .saturating_add(MEMORY_PER_MESSAGE.saturating_mul(messages))
            .saturating_add(MEMORY_PER_BYTE.saturating_mul(bytes)),
    }
}
