//! How a command fails: what is said, and with which exit code.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use super::output;

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It failed: one sentence. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// It was called wrongly, which only showed after the arguments were parsed: one sentence. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The user interrupted it, and need not be told. Exit code 1.
    #[error("interrupted")]
    Interrupted,
    /// Who reads the results has had enough (`host generate | head -1`): no fault of anyone's. Exit code 0.
    #[error("the results are not read any more")]
    Unread,
}

impl Failure {
    /// A failure with a file: what could not be done to which, and why.
    pub(super) fn file(path: &Path, what: &str, error: &io::Error) -> Self {
        Self::Failed(format!("{}: {what}: {error}", path.display()))
    }

    /// What became of writing results.
    pub(super) fn of_output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Failed(format!("the results can't be written: {error}")),
        }
    }

    /// Tells the user, and gives the exit code.
    pub(super) fn report(self) -> ExitCode {
        match self {
            Self::Unread => ExitCode::SUCCESS,
            Self::Interrupted => ExitCode::FAILURE,
            Self::Failed(sentence) => {
                output::note(format_args!("error: {sentence}"));
                ExitCode::FAILURE
            }
            Self::Usage(sentence) => {
                output::note(format_args!("error: {sentence}"));
                ExitCode::from(2)
            }
        }
    }
}

impl From<herald::Error> for Failure {
    fn from(error: herald::Error) -> Self {
        match error {
            herald::Error::Cancelled => Self::Interrupted,
            error => Self::Failed(error.to_string()),
        }
    }
}
