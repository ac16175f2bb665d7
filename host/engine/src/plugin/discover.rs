//! Where plugins are looked for.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Refused, Trial, trial};
use crate::system;

/// Files are taken for plugins in the folders that are searched where their names begin with this behind the system's own prefix
/// for libraries (`libherald_cpu.so`, `herald_cpu.dll`) and end as its libraries do.
const PREFIX: &str = "herald_";

/// Where to look for plugins: the files that were named, the folders of `HERALD_PLUGIN_PATH`, beside the executable and
/// this library, and the install's `lib/herald/plugins`. Never the working directory.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Files that were named one by one (`--plugin`).
    pub files: Vec<PathBuf>,
    /// Folders to search, in order.
    pub folders: Vec<PathBuf>,
    /// Load files that others may write to.
    pub allow_insecure: bool,
    /// How plugins that are new to this machine are tried.
    pub trial: Trial,
}

impl Search {
    /// The usual folders.
    #[must_use]
    pub fn usual() -> Self {
        let mut folders = Vec::new();
        if let Some(path) = std::env::var_os("HERALD_PLUGIN_PATH") {
            folders.extend(std::env::split_paths(&path).filter(|folder| !folder.as_os_str().is_empty()));
        }
        let executable = std::env::current_exe().ok().and_then(|path| dunce::canonicalize(path).ok());
        let mut program = None;
        for home in [executable, own_library()].into_iter().flatten() {
            if let Some(folder) = home.parent() {
                folders.push(folder.to_owned());
                program = program.or_else(|| trial::installed_program(folder));
                // An executable in PREFIX/bin, or this library in PREFIX/lib.
                if let Some(prefix) = folder.parent() {
                    folders.push(prefix.join("lib").join("herald").join("plugins"));
                }
            }
        }
        // A program that links this library statically is both.
        let mut seen = HashSet::new();
        folders.retain(|folder| seen.insert(folder.clone()));
        Self { files: Vec::new(), folders, allow_insecure: false, trial: Trial::by(program) }
    }

    /// The folders that are searched.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Files that may be plugins, each once, with whether the user named them; or why one can't be.
    pub(super) fn candidates(&self) -> Vec<Result<(PathBuf, bool), Refused>> {
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        for file in &self.files {
            // A name without a folder must not make the loader search its own path.
            match dunce::canonicalize(file) {
                Ok(path) if seen.insert(identity(&path)) => found.push(Ok((path, true))),
                Ok(_) => {}
                Err(error) => found.push(Err(Refused {
                    path: file.clone(),
                    reason: format!("it can't be opened: {error}"),
                    is_named: true,
                    is_unsuited: false,
                })),
            }
        }
        for folder in &self.folders {
            if folder.is_relative() {
                let reason = "it is a relative folder, where an absolute one was expected: plugins are never taken from \
                              the working directory";
                let (path, reason) = (folder.clone(), reason.to_owned());
                found.push(Err(Refused { path, reason, is_named: false, is_unsuited: false }));
                continue;
            }
            let entries = match std::fs::read_dir(folder) {
                Ok(entries) => entries,
                Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
                    continue;
                }
                Err(error) => {
                    let (path, reason) = (folder.clone(), format!("the folder can't be read: {error}"));
                    found.push(Err(Refused { path, reason, is_named: false, is_unsuited: false }));
                    continue;
                }
            };
            let mut paths: Vec<PathBuf> = entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| is_plugin_name(path))
                .filter_map(|path| dunce::canonicalize(path).ok())
                .collect();
            paths.sort();
            found.extend(
                paths.into_iter().filter(|path| seen.insert(identity(path))).map(|path| Ok((path, false))),
            );
        }
        found
    }
}

fn is_plugin_name(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or("");
    name.strip_prefix(std::env::consts::DLL_PREFIX).is_some_and(|name| name.starts_with(PREFIX))
        && path.extension().is_some_and(|extension| extension == std::env::consts::DLL_EXTENSION)
}

/// The file that holds this code: the executable, or the shared library that a program embeds.
fn own_library() -> Option<PathBuf> {
    dunce::canonicalize(system::library_of(own_library as *const u8)?).ok()
}

/// What tells a file from others, whatever names it has: hard links are one file.
#[cfg(unix)]
fn identity(path: &Path) -> (PathBuf, u64, u64) {
    use std::os::unix::fs::MetadataExt;

    match path.metadata() {
        Ok(metadata) => (PathBuf::new(), metadata.dev(), metadata.ino()),
        Err(_) => (path.to_owned(), 0, 0),
    }
}

/// What tells a file from others: its canonical path.
#[cfg(not(unix))]
fn identity(path: &Path) -> PathBuf {
    path.to_owned()
}
