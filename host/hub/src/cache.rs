//! The cache that the hub's clients share: `models--USER--REPO` with `blobs` (contents by their ids), `snapshots` (a commit's files, as
//! links to blobs) and `refs` (which commit a branch is at). See huggingface_hub's "Understand caching".

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use herald::files::{self, Lock};

use crate::api::is_id;
use crate::error::{Error, Result};
use crate::names::{is_repo, is_safe_path};
use crate::offers::RepoFile;
use crate::settings::Patience;
use crate::watch::{Event, Watch, sleep, tell};

/// Folders within folders of a snapshot that are looked into.
const MAX_DEPTH: usize = 6;

/// Files of a snapshot that are looked at, and repositories, and snapshots of one.
const MAX_ENTRIES: usize = 20_000;

/// A repository's folder in the cache.
#[derive(Clone, Debug)]
pub(crate) struct RepoCache {
    /// `USER/REPO`.
    pub(crate) repo: String,
    pub(crate) folder: PathBuf,
    locks: PathBuf,
}

/// A file of a snapshot: where it stands, and where its contents are.
#[derive(Clone, Debug)]
pub(crate) struct Cached {
    pub(crate) file: RepoFile,
    pub(crate) path: PathBuf,
    /// The blob, or the file itself where it is no link.
    pub(crate) contents: PathBuf,
    pub(crate) used: Option<SystemTime>,
}

impl RepoCache {
    pub(crate) fn new(cache: &Path, repo: &str) -> Self {
        let name = format!("models--{}", repo.replace('/', "--"));
        Self { repo: repo.to_owned(), folder: cache.join(&name), locks: cache.join(".locks").join(&name) }
    }

    /// All repositories with models in a cache, by name.
    pub(crate) fn all(cache: &Path) -> Vec<Self> {
        let repo = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let repo = name.strip_prefix("models--")?.replacen("--", "/", 1);
            (is_repo(&repo) && entry.path().is_dir()).then(|| Self::new(cache, &repo))
        };
        let entries = fs::read_dir(cache).into_iter().flatten().flatten().take(MAX_ENTRIES);
        let mut found: Vec<Self> = entries.filter_map(repo).collect();
        found.sort_by(|a, b| a.repo.cmp(&b.repo));
        found
    }

    pub(crate) fn blob(&self, id: &str) -> PathBuf {
        self.folder.join("blobs").join(id)
    }

    /// What has come of a blob so far, by the name that huggingface_hub's versions before 2 give it; they go on with it, too.
    pub(crate) fn partial(&self, id: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{id}.incomplete"))
    }

    /// Where a commit's file stands.
    pub(crate) fn pointer(&self, commit: &str, path: &str) -> PathBuf {
        let mut pointer = self.folder.join("snapshots").join(commit);
        pointer.extend(path.split('/'));
        pointer
    }

    /// Makes the folders of a commit.
    pub(crate) fn prepare(&self, commit: &str) -> Result<()> {
        for folder in
            [self.folder.join("blobs"), self.folder.join("snapshots").join(commit), self.locks.clone()]
        {
            fs::create_dir_all(&folder)
                .map_err(|error| Error::file(&folder, "the folder can't be created", &error))?;
        }
        Ok(())
    }

    /// Locks a blob against other processes, huggingface_hub's among them, and waits for one that fetches it as long as that gets on.
    pub(crate) fn lock(&self, id: &str, patience: Patience, watch: &mut Watch<'_>) -> Result<Lock> {
        let path = self.locks.join(format!("{id}.lock"));
        lock(&path, &self.partial(id), patience, watch)
    }

    /// Locks a blob, unless another process has it locked.
    pub(crate) fn try_lock(&self, id: &str) -> Result<Option<Lock>> {
        let path = self.locks.join(format!("{id}.lock"));
        let held = fs::create_dir_all(&self.locks).and_then(|()| taken(&path));
        held.map_err(|error| Error::file(&path, "it can't be locked", &error))
    }

    /// Removes folders in which nothing is left, and of a repository without files what was left of it unfinished. What can't be
    /// removed stays: it does no harm.
    pub(crate) fn tidy(&self) {
        let snapshots = self.folder.join("snapshots");
        for commit in self.commits("main") {
            remove_empty(&snapshots.join(commit), 0);
        }
        if fs::remove_dir(&snapshots).is_err() {
            return;
        }
        let _ = fs::remove_dir_all(self.folder.join("refs"));
        let blobs = self.folder.join("blobs");
        for entry in fs::read_dir(&blobs).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            // huggingface_hub has a word of its own between the id and the ending.
            let id = name.strip_suffix(".incomplete").and_then(|name| name.split('.').next());
            let unfinished = id.filter(|id| is_id(id));
            if let Some(Ok(Some(_lock))) = unfinished.map(|id| self.try_lock(id)) {
                let _ = fs::remove_file(entry.path());
            }
        }
        // Both fail where anything is left.
        let _ = fs::remove_dir(&blobs);
        let _ = fs::remove_dir(&self.folder);
    }

    /// Has a commit's file be this blob.
    pub(crate) fn point(&self, commit: &str, path: &str, id: &str) -> Result<PathBuf> {
        let (pointer, blob) = (self.pointer(commit, path), self.blob(id));
        let failed =
            |error: io::Error| Error::file(&pointer, "it can't be made a link to its contents", &error);
        if let Some(folder) = pointer.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let target = format!("{}../../blobs/{id}", "../".repeat(path.matches('/').count()));
        if fs::read_link(&pointer).is_ok_and(|found| found == Path::new(&target)) {
            return Ok(pointer);
        }
        match fs::remove_file(&pointer) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        match symlink(&target, &pointer) {
            Ok(()) => {}
            // Another process has made it in the meantime.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // Where there are no links, the file itself stands there, as huggingface_hub has it.
            Err(_) => fs::rename(&blob, &pointer).map_err(failed)?,
        }
        Ok(pointer)
    }

    /// Notes which commit a branch is at.
    pub(crate) fn note(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let mut path = self.folder.join("refs");
        path.extend(revision.split('/'));
        if fs::read_to_string(&path).is_ok_and(|found| found == commit) {
            return Ok(());
        }
        let failed = |error: io::Error| Error::file(&path, "it can't be written", &error);
        fs::create_dir_all(path.parent().unwrap_or(&self.folder)).map_err(failed)?;
        let mut file = files::Unfinished::create(&path, files::Readers::Usual).map_err(failed)?;
        io::Write::write_all(&mut file, commit.as_bytes()).map_err(failed)?;
        file.keep(&path).map_err(failed)
    }

    /// The commit that a branch was at when it was asked for, or the commit itself.
    fn commit(&self, revision: &str) -> Option<String> {
        let mut path = self.folder.join("refs");
        path.extend(revision.split('/').filter(|_| is_safe_path(revision)));
        let mut commit = String::new();
        let read = File::open(path).and_then(|file| file.take(200).read_to_string(&mut commit));
        let commit = if read.is_ok() { commit.trim().to_owned() } else { revision.to_owned() };
        Some(commit).filter(|commit| is_id(commit))
    }

    /// The commits that there are files of: the branch `main`'s first, then the latest. Of another revision, its own alone.
    pub(crate) fn commits(&self, revision: &str) -> Vec<String> {
        let entries = fs::read_dir(self.folder.join("snapshots")).into_iter().flatten().flatten();
        let mut found: Vec<(SystemTime, String)> = entries
            .take(MAX_ENTRIES)
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok().filter(|name| is_id(name))?;
                let changed = entry.metadata().and_then(|facts| facts.modified());
                Some((changed.unwrap_or(SystemTime::UNIX_EPOCH), name))
            })
            .collect();
        let first = self.commit(revision);
        found.retain(|(_, name)| revision == "main" || Some(name) == first.as_ref());
        found.sort_by(|a, b| (Some(&b.1) == first.as_ref(), b).cmp(&(Some(&a.1) == first.as_ref(), a)));
        found.into_iter().map(|(_, name)| name).collect()
    }

    /// A commit's files that are there.
    pub(crate) fn files(&self, commit: &str) -> Vec<Cached> {
        let mut found = Vec::new();
        walk(&self.folder.join("snapshots").join(commit), "", 0, &mut found);
        found.sort_by(|a, b| a.file.path.cmp(&b.file.path));
        found
    }
}

/// The contents of all files in all snapshots of a cache, of whatever kind.
///
/// # Errors
/// Where there are more files than are looked at: then nobody knows what is in use.
pub(crate) fn in_all_snapshots(cache: &Path) -> Result<HashSet<PathBuf>> {
    let mut used = HashSet::new();
    let mut snapshots = Vec::new();
    for repo in fs::read_dir(cache).into_iter().flatten().flatten() {
        snapshots.extend(fs::read_dir(repo.path().join("snapshots")).into_iter().flatten().flatten());
    }
    for snapshot in snapshots {
        let mut found = Vec::new();
        walk(&snapshot.path(), "", 0, &mut found);
        if found.len() >= MAX_ENTRIES {
            return Err(Error::Failed(format!(
                "{}: it has {MAX_ENTRIES} files or more, too many to see which contents are in use",
                snapshot.path().display()
            )));
        }
        used.extend(found.into_iter().map(|cached| cached.contents));
    }
    Ok(used)
}

/// All files below a folder.
fn walk(folder: &Path, below: &str, depth: usize, found: &mut Vec<Cached>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, Ok(name)) = (entry.path(), entry.file_name().into_string()) else { continue };
        if found.len() >= MAX_ENTRIES {
            return;
        }
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        // A link to a folder is not followed.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if depth < MAX_DEPTH {
                walk(&path, &name, depth + 1, found);
            }
            continue;
        }
        // What leads to nothing isn't there.
        let Some((facts, contents)) = path.metadata().ok().zip(path.canonicalize().ok()) else { continue };
        if facts.is_file() {
            let used = facts.accessed().ok().or_else(|| facts.modified().ok());
            let file = RepoFile { path: name, bytes: facts.len(), sha256: None };
            found.push(Cached { file, path, contents, used });
        }
    }
}

/// Removes a folder that holds nothing but such folders.
fn remove_empty(folder: &Path, depth: usize) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if depth < MAX_DEPTH && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path(), depth + 1);
        }
    }
    let _ = fs::remove_dir(folder);
}

/// Locks a file, which is made where there is none: by the umask, since others who share the cache lock it too.
fn taken(path: &Path) -> io::Result<Option<Lock>> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => files::lock(path),
    }
}

/// Locks a file, and waits for another process that fetches `partial` as long as that grows.
pub(crate) fn lock(path: &Path, partial: &Path, patience: Patience, watch: &mut Watch<'_>) -> Result<Lock> {
    let len = || partial.metadata().map_or(0, |facts| facts.len());
    let (mut seen, mut since, mut told) = (len(), Instant::now(), false);
    loop {
        let held = taken(path).map_err(|error| Error::file(path, "it can't be locked", &error))?;
        if let Some(file) = held {
            return Ok(file);
        }
        if !told {
            tell(watch, Event::Waiting)?;
            told = true;
        }
        sleep(Duration::from_millis(100), watch)?;
        let now = len();
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        if since.elapsed() > patience.other_process {
            return Err(Error::Failed(format!(
                "{}: another process has held the lock for {} s without getting on, where it was expected to fetch the file",
                path.display(),
                since.elapsed().as_secs()
            )));
        }
    }
}

#[cfg(unix)]
fn symlink(target: &str, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(windows)]
fn symlink(target: &str, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target.replace('/', "\\"), link)
}
