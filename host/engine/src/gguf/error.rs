//! What is wrong with a GGUF file, in one sentence: which field, where, what it held, what was expected.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a GGUF file could not be read or written. Displays as one sentence, which begins with the file's path where
/// the file was opened by one.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The operating system refused the file.
    #[error("{} cannot be {doing}: {source}", subject(.path))]
    Io {
        /// The file, or none where it is bytes in memory.
        path: Option<PathBuf>,
        /// What was attempted, as a participle: "opened", "mapped".
        doing: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A field holds what it must not: the file is damaged, hostile, or of a kind that HERALD doesn't read.
    #[error("{}{field} at byte {offset} is {held}; expected {expected}", prefix(.path))]
    Field {
        /// The file, or none where it is bytes in memory.
        path: Option<PathBuf>,
        /// The field, with a name that a person can follow.
        field: String,
        /// Where the field begins, in bytes from the start of the file.
        offset: u64,
        /// What the field holds.
        held: String,
        /// What it should have held.
        expected: String,
    },
    /// It is no GGUF file but one that is known by how it begins.
    #[error("{}it is {held}, where a GGUF file was expected: {advice}", prefix(.path))]
    Foreign {
        /// The file, or none where it is bytes in memory.
        path: Option<PathBuf>,
        /// What it is.
        held: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// A metadata key that the caller requires isn't there.
    #[error("{}metadata {} is missing; expected {expected}", prefix(.path), Quoted(.key.as_bytes()))]
    Missing {
        /// The file, or none where it is bytes in memory.
        path: Option<PathBuf>,
        /// The key.
        key: String,
        /// What its value should have been.
        expected: String,
    },
    /// The parts of a split model don't fit together.
    #[error("{}{message}", prefix(.path))]
    Split {
        /// The part, or none where it is bytes in memory.
        path: Option<PathBuf>,
        /// What is wrong, and what was expected.
        message: String,
    },
    /// The writer was given what a GGUF file can't hold.
    #[error("{what} is {held}; expected {expected}")]
    Unwritable {
        /// The argument.
        what: String,
        /// What it held.
        held: String,
        /// What it should have held.
        expected: String,
    },
}

impl GgufError {
    /// A field of bytes whose path the caller adds with [`GgufError::in_file`].
    pub(super) fn field(
        field: fmt::Arguments<'_>,
        offset: usize,
        held: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::Field {
            path: None,
            field: field.to_string(),
            offset: offset as u64,
            held: held.into(),
            expected: expected.into(),
        }
    }

    /// The same error, naming the file it was found in.
    pub(super) fn in_file(mut self, file: Option<&Path>) -> Self {
        match &mut self {
            Self::Io { path, .. }
            | Self::Field { path, .. }
            | Self::Foreign { path, .. }
            | Self::Missing { path, .. }
            | Self::Split { path, .. } => *path = file.map(Path::to_path_buf),
            Self::Unwritable { .. } => {}
        }
        self
    }
}

/// The path and a colon, or nothing.
fn prefix(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default()
}

/// The path as a sentence's subject, or words for a file without one.
fn subject(path: &Option<PathBuf>) -> String {
    path.as_ref().map_or_else(|| "the GGUF file".to_owned(), |path| path.display().to_string())
}

/// Bytes from a file as an error shows them: quoted, escaped so that a sentence stays one line, and never long.
pub(super) struct Quoted<'a>(pub(super) &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 64;
        let shown = String::from_utf8_lossy(self.0.get(..SHOWN).unwrap_or(self.0));
        let more = if self.0.len() > SHOWN { "…" } else { "" };
        write!(f, "\"{}{more}\"", shown.escape_debug())
    }
}
