//! What can go wrong with a chat template.

use super::jinja::{Error, Reason};

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
    #[error(
        "chat template, line {line}: used more than {limit} steps for these messages, expected far fewer"
    )]
    TooMuchWork {
        /// From 1: where it was then.
        line: usize,
        /// The steps that it had.
        limit: u64,
    },
    /// The template makes more than any real one does of such messages.
    #[error("chat template, line {line}: used more than {} MiB for these messages, expected far less", limit >> 20)]
    TooMuchMemory {
        /// From 1: where it was then.
        line: usize,
        /// The bytes that it had.
        limit: usize,
    },
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

impl ChatError {
    pub(super) fn of_source(error: Error) -> Self {
        Self::Syntax { line: error.line(), reason: error.into_reason().to_string() }
    }

    pub(super) fn of_rendering(error: Error) -> Self {
        let line = error.line();
        match error.into_reason() {
            Reason::Raised(message) => Self::Refused(message),
            Reason::Work(limit) => Self::TooMuchWork { line, limit },
            Reason::Memory(limit) => Self::TooMuchMemory { line, limit },
            reason @ Reason::Wrong(..) => Self::Render { line, reason: reason.to_string() },
        }
    }
}
