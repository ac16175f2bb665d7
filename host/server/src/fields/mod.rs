//! The fields of requests: one table of them drives the reader, the refusals, `/openapi.json` and the tables of docs/SERVER.md.
//!
//! `null` means "not given" everywhere. A field that no table has, or that would change the answer and isn't served, is refused by its
//! name, so that nothing is dropped in silence.

mod body;
mod describe;
mod tables;

pub(crate) use body::{Body, integer_of, refused, wrong};
pub use describe::{documented, openapi};
pub(crate) use tables::{
    ANTHROPIC_COUNT, ANTHROPIC_MESSAGES, APPLY_TEMPLATE, CHAT, COMPLETION, COMPLETIONS, DETOKENIZE,
    EMBEDDINGS, INFILL, OLLAMA_CHAT, OLLAMA_EMBED, OLLAMA_GENERATE, OLLAMA_OPTIONS, OLLAMA_SHOW, RERANK,
    RESPONSES, TOKENIZE,
};

/// What a field's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Flag,
    /// A whole number; -1 where the field's description gives that a meaning.
    Integer,
    Number,
    Text,
    /// One text or several.
    Texts,
    List,
    Object,
    /// Several of these; the field's description says which.
    Any,
}

impl Kind {
    /// In a sentence.
    fn expected(self) -> &'static str {
        match self {
            Self::Flag => "true or false",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::Texts => "a text or a list of texts",
            Self::List => "a list",
            Self::Object => "an object",
            Self::Any => "a value",
        }
    }

    fn fits(self, value: &serde_json::Value) -> bool {
        match self {
            Self::Flag => value.is_boolean(),
            Self::Integer => body::whole(value).is_some(),
            Self::Number => value.is_number(),
            Self::Text => value.is_string(),
            Self::Texts => {
                value.is_string()
                    || value.as_array().is_some_and(|texts| texts.iter().all(serde_json::Value::is_string))
            }
            Self::List => value.is_array(),
            Self::Object => value.is_object(),
            Self::Any => true,
        }
    }
}

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It is honoured.
    Served,
    /// It is taken, and changes nothing of an answer here.
    Noted,
    /// It is taken with one of these values, as JSON, which ask for nothing that isn't served, and refused with others.
    Only(&'static [&'static str]),
}

/// A field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) role: Role,
    /// What it does, in a few words.
    pub(crate) about: &'static str,
}

const fn served(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, role: Role::Served, about }
}

const fn noted(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, role: Role::Noted, about }
}

const fn only(name: &'static str, kind: Kind, values: &'static [&'static str], about: &'static str) -> Field {
    Field { name, kind, role: Role::Only(values), about }
}

/// The fields of one kind of request.
#[derive(Debug)]
pub(crate) struct Api {
    /// The path, or what holds the fields.
    pub(crate) name: &'static str,
    pub(crate) groups: &'static [&'static [Field]],
}

impl Api {
    pub(crate) fn fields(&self) -> impl Iterator<Item = &'static Field> {
        self.groups.iter().copied().flatten()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields().find(|field| field.name == name)
    }
}
