//! From a conversation to the text that a chat model was trained to continue.
//!
//! Each model has its own markers around roles and turns, and its file carries a Jinja template that writes them,
//! made for Python's Jinja2 as the `transformers` package sets it up. [`ChatTemplate`] renders such a template the
//! same way: whitespace rules, loop controls, Python's string and dict methods, its JSON.
//!
//! A template comes with a model, from anywhere, so its source, steps, output and recursion are limited. One gap
//! remains: a list built of the same list twice, and so on, is small in memory but endless when it is joined, compared
//! or made a string, and the template engine counts no steps there.
//!
//! What a template finds: `messages`, `add_generation_prompt`, `bos_token`, `eos_token`, `tools` and `documents`
//! (both `none`), `raise_exception(message)`, `strftime_now(format)` and the filter `tojson`.
//! See [the format's description](https://huggingface.co/docs/transformers/chat_templating_writing).

mod clock;
mod error;
mod json;
mod source;
mod stack;

pub use error::ChatError;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, context};
use serde::{Deserialize, Serialize};

use error::Raised;

/// Name of the only template in its environment.
const NAME: &str = "chat";
/// Bytes of a template's source. Real ones have some ten thousand.
const MAX_SOURCE: usize = 128 << 10;
/// Depth of nested calls, loops and blocks, which costs stack.
const MAX_DEPTH: usize = 200;
/// What a rendering may use for a start, then for each message and each byte of one. A unit is an instruction of the
/// template or 64 bytes of memory; real templates use some hundred for a message.
const FUEL: u64 = 2_000_000;
const FUEL_PER_MESSAGE: u64 = 10_000;
const FUEL_PER_BYTE: u64 = 1;

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

    fn to_value(&self) -> Value {
        Value::from_pairs([("role", self.role.as_str()), ("content", self.content.as_str())])
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
    environment: Environment<'static>,
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
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(ChatError::of_source)?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_recursion_limit(MAX_DEPTH);
        environment.set_debug(true);
        environment.set_unknown_method_callback(python_method);
        environment.add_filter("tojson", json::tojson);
        environment.add_function("strftime_now", clock::strftime_now);
        environment.add_function("raise_exception", raise_exception);
        let source = source::without_training_tags(source);
        let environment = stack::with_deep_stack(|| match environment.add_template_owned(NAME, source) {
            Ok(()) => Ok(environment),
            Err(error) => Err(ChatError::of_source(error)),
        })?;
        Ok(Self { environment, bos: bos.to_owned(), eos: eos.to_owned() })
    }

    /// The text for these messages; with `add_generation_prompt`, up to where the model's next turn begins.
    ///
    /// # Errors
    /// The template refuses the messages ([`ChatError::Refused`]), fails on them ([`ChatError::Render`]), or exceeds
    /// the limits ([`ChatError::OutOfFuel`]).
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        let bytes: usize = messages.iter().map(|message| message.role.len() + message.content.len()).sum();
        let fuel = FUEL
            .saturating_add(FUEL_PER_MESSAGE.saturating_mul(messages.len() as u64))
            .saturating_add(FUEL_PER_BYTE.saturating_mul(bytes as u64));
        // The fuel belongs to the environment; a copy shares the compiled template.
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(fuel));

        // All values are made and dropped on the deep stack.
        stack::with_deep_stack(|| {
            let messages: Vec<Value> = messages.iter().map(Message::to_value).collect();
            let variables = context! {
                messages,
                add_generation_prompt,
                bos_token => self.bos.as_str(),
                eos_token => self.eos.as_str(),
                tools => (),
                documents => (),
            };
            environment
                .get_template(NAME)
                .and_then(|template| template.render(variables))
                .map_err(|error| ChatError::of_rendering(&error, fuel))
        })
    }
}

/// The function by which templates refuse a conversation.
fn raise_exception(message: &Value) -> Result<Value, Error> {
    // Not a string: its kind, since writing a list could take forever.
    let message = message.as_str().map_or_else(|| message.kind().to_string(), str::to_owned);
    Err(Error::new(ErrorKind::InvalidOperation, "refused by the template").with_source(Raised(message)))
}

/// Python's methods on strings, lists and dicts.
fn python_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    // A width is the one part of a format that makes more text than it is given, and steps are counted afterwards.
    if let (Some(format), "format") = (value.as_str(), method)
        && format.as_bytes().windows(4).any(|window| window.iter().all(u8::is_ascii_digit))
    {
        let message = "a number of more than 3 digits in a string to format";
        return Err(Error::new(ErrorKind::InvalidOperation, message));
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}
