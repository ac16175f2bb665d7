//! How a command fails: its sentence and its exit code.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use herald::files;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It failed: one sentence. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Wrong usage, found after the arguments were parsed: one sentence. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The user interrupted it. Nothing is printed. Exit code 1.
    #[error("interrupted")]
    Interrupted,
    /// The reader of stdout closed it (`host generate | head -1`), which is no error. Exit code 0.
    #[error("stdout was closed")]
    Unread,
}

impl Failure {
    /// A failure with a file: its path, what could not be done, and why.
    pub(super) fn file(path: &Path, what: &str, error: &io::Error) -> Self {
        let said = files::dangling(path).filter(|_| error.kind() == io::ErrorKind::NotFound).map_or_else(
            || error.to_string(),
            |target| format!("it is a symbolic link to {}, which isn't there", target.display()),
        );
        Self::Failed(format!("{}: {what}: {said}", path.display()))
    }

    /// The failure for an error of writing to stdout.
    pub(super) fn of_output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Failed(format!("the results can't be written: {error}")),
        }
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Unread => ExitCode::SUCCESS,
            Self::Failed(_) | Self::Interrupted => ExitCode::FAILURE,
            Self::Usage(_) => ExitCode::from(2),
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

impl From<herald_hub::Error> for Failure {
    fn from(error: herald_hub::Error) -> Self {
        match error {
            herald_hub::Error::Interrupted => Self::Interrupted,
            error => Self::Failed(error.to_string()),
        }
    }
}
