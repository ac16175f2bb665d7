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
mod named;
mod stack;
mod template;

pub use error::ChatError;
pub use named::{named_template, template_names};
pub use template::Template;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

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
    template: Template,
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
        Ok(Self { template: Template::new(source)?, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The text for these messages; with `add_generation_prompt`, up to where the model's next turn begins.
    ///
    /// # Errors
    /// The template refuses the messages ([`ChatError::Refused`]), fails on them ([`ChatError::Render`]), or exceeds
    /// the limits ([`ChatError::TooMuchWork`], [`ChatError::TooMuchMemory`]).
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
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
        self.template.render(variables)
    }
}
