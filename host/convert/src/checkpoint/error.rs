//! Why a checkpoint can't be converted.

use std::io;
use std::path::{Path, PathBuf};

use herald::gguf::GgufError;

/// Why a checkpoint can't be converted. Each displays as one sentence.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file of the checkpoint can't be read.
    #[error("{path}: it can't be read: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file, a setting or a tensor isn't as expected.
    #[error("{0}")]
    Refused(String),
    /// The GGUF file can't be written.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A tensor holds a value that its type in the file can't hold.
    #[error("tensor {tensor:?}: {source}")]
    Weight {
        /// The tensor's name in the file.
        tensor: String,
        /// Which of a row's weights is wrong, and why.
        source: herald_formats::Unstorable,
    },
    /// The caller stopped the work.
    #[error("the work was cancelled")]
    Cancelled,
}

pub(super) type Result<T> = std::result::Result<T, CheckpointError>;

/// A refusal in one sentence.
pub(super) fn refused<T>(sentence: impl Into<String>) -> Result<T> {
    Err(CheckpointError::Refused(sentence.into()))
}

/// A refusal of a file: where, what was found, what was expected.
pub(super) fn bad_file(path: &Path, what: impl std::fmt::Display) -> CheckpointError {
    CheckpointError::Refused(format!("{}: {what}", path.display()))
}
