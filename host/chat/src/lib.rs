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
use serde_json::{Map, Value, json};

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
/// use herald_chat::{ChatTemplate, Message};
///
/// let source = "{% for message in messages %}<{{ message.role }}>{{ message.content | trim }}\n{% endfor %}";
/// let template = ChatTemplate::new(source, "<s>", "</s>")?;
/// assert_eq!(template.render(&[Message::new("user", " Hello! ")], false)?, "<user>Hello!\n");
/// # Ok::<(), herald_chat::ChatError>(())
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
        let mut variables = Map::new();
        variables.insert("add_generation_prompt".to_owned(), Value::Bool(add_generation_prompt));
        self.render_with(messages, variables)
    }

    /// As [`ChatTemplate::render`], for messages as they are, with all of their fields, and with variables of the caller's
    /// (`add_generation_prompt`, `tools`, `enable_thinking`, ...), which go before those that every template is given.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`].
    pub fn render_with(
        &self,
        messages: Vec<Value>,
        variables: Map<String, Value>,
    ) -> Result<String, ChatError> {
        let mut all = Map::new();
        all.insert("messages".to_owned(), Value::Array(messages));
        all.insert("add_generation_prompt".to_owned(), Value::Bool(false));
        all.insert("bos_token".to_owned(), Value::String(self.bos.clone()));
        all.insert("eos_token".to_owned(), Value::String(self.eos.clone()));
        all.insert("tools".to_owned(), Value::Null);
        all.insert("documents".to_owned(), Value::Null);
        all.extend(variables);
        self.template.render(all.iter().map(|(name, value)| (name.as_str(), value.clone())))
    }
}
