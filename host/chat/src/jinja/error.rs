//! Why a template stops, with the line.

use std::fmt;

/// Why a template could not be parsed or rendered.
#[derive(Debug)]
pub(crate) struct Error(Box<Fault>);

#[derive(Debug)]
struct Fault {
    line: Option<u32>,
    reason: Reason,
}

/// What kind of end it was.
#[derive(Debug)]
pub(crate) enum Reason {
    /// The template's own `raise_exception`.
    Raised(String),
    /// It used more steps than these.
    Work(u64),
    /// It held more bytes than these.
    Memory(usize),
    /// What is wrong: a kind ("invalid operation") and a sentence.
    Wrong(&'static str, String),
}

impl Error {
    fn new(reason: Reason) -> Self {
        Self(Box::new(Fault { line: None, reason }))
    }

    pub(super) fn raised(message: String) -> Self {
        Self::new(Reason::Raised(message))
    }

    pub(super) fn too_much_work(limit: u64) -> Self {
        Self::new(Reason::Work(limit))
    }

    pub(super) fn too_much_memory(limit: usize) -> Self {
        Self::new(Reason::Memory(limit))
    }

    pub(super) fn syntax(line: u32, detail: impl Into<String>) -> Self {
        Self::new(Reason::Wrong("syntax error", detail.into())).at(line)
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Reason::Wrong("invalid operation", detail.into()))
    }

    pub(super) fn undefined(what: &str) -> Self {
        Self::new(Reason::Wrong("undefined value", format!("`{what}` is undefined")))
    }

    pub(super) fn unknown(kind: &'static str, detail: String) -> Self {
        Self::new(Reason::Wrong(kind, detail))
    }

    /// Says the line, unless one is known: the innermost counts.
    pub(super) fn at(mut self, line: u32) -> Self {
        self.0.line.get_or_insert(line);
        self
    }

    /// The line, from 1.
    pub(crate) fn line(&self) -> usize {
        self.0.line.unwrap_or(1) as usize
    }

    pub(crate) fn into_reason(self) -> Reason {
        self.0.reason
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raised(message) => f.write_str(message),
            Self::Work(limit) => write!(f, "more than {limit} steps"),
            Self::Memory(limit) => write!(f, "more than {limit} bytes"),
            Self::Wrong(kind, detail) => write!(f, "{kind}: {detail}"),
        }
    }
}
