//! What can go wrong with a chat template.

use std::error::Error as _;

use minijinja::{Error, ErrorKind};

/// Why a chat template could not be compiled or rendered. Each displays as one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The source is longer than any real template.
    #[error("chat template: the source has {length} bytes, expected at most {limit}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The most that is accepted.
        limit: usize,
    },
    /// The source is not a template.
    #[error("chat template, line {line}: {reason}")]
    Syntax {
        /// From 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// The template itself refuses the messages (by `raise_exception`).
    #[error("chat template: refuses these messages: {0}")]
    Refused(String),
    /// The template does more than any real one does for such messages.
    #[error("chat template: used more than {0} steps for these messages, expected far fewer")]
    OutOfFuel(u64),
    /// The thread that templates are compiled and rendered on could not be had, or panicked.
    #[error("chat template: {0}")]
    Internal(String),
    /// The template fails on these messages.
    #[error("chat template, line {line}: {reason}")]
    Render {
        /// From 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
}

/// The message of a template's `raise_exception`, on its way through the template engine.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

impl ChatError {
    pub(super) fn of_source(error: Error) -> Self {
        Self::Syntax { line: error.line().unwrap_or(1), reason: reason(&error) }
    }

    pub(super) fn of_rendering(error: &Error, fuel: u64) -> Self {
        // An error inside a macro or a block is the source of another.
        let mut innermost = error;
        while let Some(source) = innermost.source() {
            if let Some(Raised(message)) = source.downcast_ref() {
                return Self::Refused(message.clone());
            }
            let Some(source) = source.downcast_ref() else { break };
            innermost = source;
        }
        if innermost.kind() == ErrorKind::OutOfFuel {
            return Self::OutOfFuel(fuel);
        }
        let line = innermost.line().or(error.line()).unwrap_or(1);
        Self::Render { line, reason: reason(innermost) }
    }
}

fn reason(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}
