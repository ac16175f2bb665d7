//! What can go wrong, each in one sentence.

use std::io;
use std::path::Path;

/// Why a model can't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One sentence: what, where, what was found, and what was expected.
    #[error("{0}")]
    Failed(String),
    /// The watcher ended it.
    #[error("interrupted")]
    Interrupted,
}

/// What a call returns.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure with a file or a folder.
    pub(crate) fn file(path: &Path, what: &str, error: &io::Error) -> Self {
        let path = path.display();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Failed(format!("{path}: the disk is full: {what}"))
            }
            _ => Self::Failed(format!("{path}: {what}: {error}")),
        }
    }
}
