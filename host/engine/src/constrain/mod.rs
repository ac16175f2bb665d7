//! Answers in a given form: a JSON schema, a regular expression or a grammar.
//!
//! At each token the form says which ones may come next (by the crate `llguidance`, over the bytes of the model's tokens),
//! and the sampler chooses among those. The answer ends where the form can't go on, or where the model ends it and the form
//! allows that.
//!
//! **Limits.** With a token limit (or a context) that leaves room for a whole answer, the answer is whole: a [`Guide`] always
//! knows a way to the end, and takes it before the room becomes too short. It is the shortest way, by what the form's grammar
//! and its lexemes still want at least. A form that it can't follow so (a very large one) has a way that prefers what closes
//! things. An answer whose limit is shorter than the shortest answer is cut off like any other, and its end is
//! [`Finish::Length`](crate::Finish::Length) and not [`Finish::Complete`](crate::Finish::Complete). The user's own stop texts
//! and tokens end an answer anywhere. A number is as long as its schema allows: without bounds it may be valid JSON and yet too
//! large for a program's numbers.

mod chart;
mod compile;
mod exclusive;
mod gbnf;
mod guide;
mod schema;
mod spelling;
mod syntax;
mod vocabulary;
mod way;
mod words;

pub(crate) use guide::{Guide, Next};
pub(crate) use vocabulary::Forms;

use serde_json::Value;

/// The form that an answer must have.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// JSON of this schema (JSON Schema 2020-12, as far as `llguidance` knows it; what it doesn't is refused), with the
    /// spaces that Python's `json.dumps` writes. `{}` allows any JSON value.
    JsonSchema(Value),
    /// Text that the whole of this regular expression matches (Rust's `regex` syntax, without anchors).
    Regex(String),
    /// Text of this grammar, in the form of the parser generator Lark as `llguidance` has it
    /// ([its description](https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md)), whose rule `start` is the whole.
    Lark(String),
    /// Text of this grammar in GBNF, llama.cpp's form of grammars
    /// ([its description](https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md)), whose rule `root` is the whole.
    Gbnf(String),
}

impl Constraint {
    /// The grammar in this text: GBNF where a rule is defined by `::=`, and else Lark.
    #[must_use]
    pub fn grammar(text: &str) -> Self {
        match text.lines().any(gbnf::is_definition) {
            true => Self::Gbnf(text.to_owned()),
            false => Self::Lark(text.to_owned()),
        }
    }

    /// The JSON schema in this text.
    ///
    /// # Errors
    /// One sentence where the text is no JSON, or neither an object nor a boolean.
    pub fn json_schema(text: &str) -> Result<Self, String> {
        let schema: Value =
            serde_json::from_str(text).map_err(|error| format!("the JSON schema is no JSON: {error}"))?;
        match schema {
            Value::Object(_) | Value::Bool(true) => Ok(Self::JsonSchema(schema)),
            other => Err(format!("the JSON schema is {other}, where an object was expected")),
        }
    }
}
