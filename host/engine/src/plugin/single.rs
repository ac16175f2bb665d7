//! One plugin by its file, for tools that check plugins: nothing is searched, and nothing asked of it.

use std::path::Path;

use herald_api::import::Plugin;

use super::{CheckedFile, Refused};

/// Loads the plugin in a file, by the same rules as any (who may write to the file, and what its headers and its table must
/// have), without trying it in another process and without probing it.
///
/// # Errors
/// Why the file is no usable plugin.
pub fn load_file(path: &Path, allow_insecure: bool) -> Result<Plugin, Refused> {
    let refuse =
        |reason: String| Refused { path: path.to_owned(), reason, is_named: true, is_unsuited: false };
    // A name without a folder must not make the loader search its own path.
    let found = dunce::canonicalize(path).map_err(|error| refuse(format!("it can't be opened: {error}")))?;
    CheckedFile::open(&found, allow_insecure).and_then(CheckedFile::load).map_err(refuse)
}
