//! Whether the libraries that a plugin links are ones that only this user, or the system, may have written.
//!
//! The loader brings them in with the plugin, and runs their initialisers first: a library that anybody could have put into a
//! folder of the plugin's run path is anybody's code. So each is looked for as the loader does
//! (ld.so(8): `DT_RPATH`, `LD_LIBRARY_PATH`, `DT_RUNPATH`, the system's folders), and checked as the plugin itself is; so are the
//! libraries that it links. What the system's cache alone leads to is the administrator's choice.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use herald_trusted_files::{Refusal, check_folder, open};

use super::elf::{self, Links};

/// Libraries that are looked at; a plugin with more is none that anybody made by hand.
const MAX_LIBRARIES: usize = 256;

/// Where every system keeps libraries.
const SYSTEM: [&str; 4] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"];

/// Builds for particular processors, in folders beside a library's own, which the loader prefers.
const VARIANTS: &str = "glibc-hwcaps";

/// Checks all that the loader brings in for a library (by its canonical path) which links these.
pub(super) fn check(path: &Path, links: Links) -> Result<(), Refusal> {
    let mut walk = Walk { seen: HashSet::from([path.to_owned()]), left: Vec::new() };
    walk.left.push(Library { path: path.to_owned(), links, inherited: Vec::new() });
    while let Some(library) = walk.left.pop() {
        walk.visit(&library)?;
    }
    Ok(())
}

/// A library whose own libraries are to be looked at.
struct Library {
    path: PathBuf,
    links: Links,
    /// The folders (`DT_RPATH`) of those that brought it in.
    inherited: Vec<PathBuf>,
}

/// Where the loader looks. Folders that libraries name must be trusted whether or not a library is there now; of those of the
/// user's environment, only what is found there counts.
struct Places {
    /// `DT_RPATH`.
    early: Vec<PathBuf>,
    environment: Vec<PathBuf>,
    /// `DT_RUNPATH`.
    late: Vec<PathBuf>,
}

struct Walk {
    seen: HashSet<PathBuf>,
    left: Vec<Library>,
}

impl Walk {
    fn visit(&mut self, library: &Library) -> Result<(), Refusal> {
        let Library { path, links, inherited } = library;
        let folders = |list: &Option<OsString>| match list {
            Some(list) => folders_of(list, path),
            None => Ok(Vec::new()),
        };
        let mut chain = if links.runpath.is_none() { folders(&links.rpath)? } else { Vec::new() };
        chain.extend_from_slice(inherited);
        let early = if links.runpath.is_none() { chain.clone() } else { Vec::new() };
        let places = Places { early, environment: environment(), late: folders(&links.runpath)? };
        for name in &links.needed {
            for found in found(name, &places)? {
                self.add(name, &found, chain.clone())?;
            }
        }
        Ok(())
    }

    /// Checks a library, and takes it up where it is new.
    fn add(&mut self, name: &OsStr, path: &Path, inherited: Vec<PathBuf>) -> Result<(), Refusal> {
        let of_it =
            |reason: &str| format!("it links {}, found as {}: {reason}", name.display(), path.display());
        let wrong = |refusal| match refusal {
            Refusal::Untrusted(reason) => Refusal::Untrusted(of_it(&reason)),
            Refusal::Unusable(reason) => Refusal::Unusable(of_it(&reason)),
        };
        let path = path.canonicalize().map_err(|error| Refusal::Unusable(of_it(&error.to_string())))?;
        if !self.seen.insert(path.clone()) {
            return Ok(());
        }
        if self.seen.len() > MAX_LIBRARIES {
            return Err(Refusal::Unusable(format!(
                "it links more than {MAX_LIBRARIES} libraries, where far fewer were expected"
            )));
        }
        let file = open(&path, true).map_err(wrong)?;
        let links = elf::check(&file).map_err(|reason| Refusal::Unusable(of_it(&reason)))?;
        self.left.push(Library { path, links, inherited });
        Ok(())
    }
}

/// The files that the loader may take for a name: in the first folder that has one, that and its builds for particular processors.
fn found(name: &OsStr, places: &Places) -> Result<Vec<PathBuf>, Refusal> {
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match path.is_absolute() {
            true => Ok(vec![path]),
            false => Err(Refusal::Untrusted(format!(
                "it links {}, a path from the working directory, where a name or an absolute path was expected",
                name.display()
            ))),
        };
    }
    let system = SYSTEM.iter().map(PathBuf::from);
    let more = ["/lib", "/usr/lib"].map(|lib| format!("{lib}/{}-linux-gnu", std::env::consts::ARCH).into());
    let folders = (places.early.iter().map(|folder| (folder.clone(), true)))
        .chain(places.environment.iter().map(|folder| (folder.clone(), false)))
        .chain(places.late.iter().map(|folder| (folder.clone(), true)))
        .chain(more.into_iter().chain(system).map(|folder| (folder, false)));
    for (folder, is_named) in folders {
        if is_named {
            check_folder(&folder).map_err(|refusal| {
                Refusal::Untrusted(format!(
                    "its run path has {} looked for in {}: {refusal}",
                    name.display(),
                    folder.display()
                ))
            })?;
        }
        let files = files(&folder, name);
        if !files.is_empty() {
            return Ok(files);
        }
    }
    Ok(Vec::new())
}

/// The files of a name in a folder, its builds for particular processors included.
fn files(folder: &Path, name: &OsStr) -> Vec<PathBuf> {
    let variants = std::fs::read_dir(folder.join(VARIANTS)).into_iter().flatten().flatten();
    let all = variants.map(|entry| entry.path().join(name)).chain([folder.join(name)]);
    all.filter(|path| path.symlink_metadata().is_ok()).collect()
}

/// The folders of a run path, as the loader reads it for a library.
fn folders_of(list: &OsStr, library: &Path) -> Result<Vec<PathBuf>, Refusal> {
    let origin = library.parent().unwrap_or(Path::new("/")).as_os_str().as_bytes();
    let folder = |entry: &[u8]| {
        let mut expanded = replaced(entry, b"${ORIGIN}", origin);
        expanded = replaced(&expanded, b"$ORIGIN", origin);
        let folder = PathBuf::from(OsString::from_vec(expanded));
        if folder.as_os_str().as_bytes().contains(&b'$') {
            return Err(Refusal::Untrusted(format!(
                "its run path has the folder {}, where one without variables but $ORIGIN was expected",
                folder.display()
            )));
        }
        match folder.is_absolute() {
            true => Ok(folder),
            false => Err(Refusal::Untrusted(format!(
                "its run path has {:?}, a folder within the working directory, where an absolute one or $ORIGIN was expected",
                folder.display().to_string()
            ))),
        }
    };
    let list = list.as_bytes();
    if list.is_empty() {
        return Ok(Vec::new());
    }
    list.split(|byte| *byte == b':').map(folder).collect()
}

/// A text with each occurrence of a part replaced.
fn replaced(text: &[u8], part: &[u8], by: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((first, others)) = rest.split_first() {
        match rest.strip_prefix(part) {
            Some(after) => {
                out.extend_from_slice(by);
                rest = after;
            }
            None => {
                out.push(*first);
                rest = others;
            }
        }
    }
    out
}

/// The folders of `LD_LIBRARY_PATH`.
fn environment() -> Vec<PathBuf> {
    let list = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = list.as_bytes().split(|byte| [b':', b';'].contains(byte));
    folders.filter(|folder| !folder.is_empty()).map(|folder| OsStr::from_bytes(folder).into()).collect()
}
