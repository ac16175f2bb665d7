//! Files that replace others as a whole, locks, and what is left of those who died.
//!
//! A file that is kept is written beside its place, synced, and then takes its place, so that whoever looks finds the former
//! one or the new one, after a power cut too. Until it is whole it has no name at all, where the system can do that, and
//! nothing of it is left of a process that was killed. Where it can't, its name begins with [`UNFINISHED`], and its writer
//! holds a lock on it: one without a lock is of a process that died, and [`tidy`] removes it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::{TempDir, TempPath};

/// The beginning of the names of files and folders that are not finished.
pub const UNFINISHED: &str = ".herald-unfinished-";

/// The file in an unfinished folder that its owner has locked.
const LOCK: &str = ".lock";

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone.
    Owner,
    /// Those of any new file: the user's umask says who.
    Usual,
}

#[cfg(unix)]
impl Readers {
    fn mode(self) -> u32 {
        match self {
            Self::Owner => 0o600,
            Self::Usual => 0o666,
        }
    }
}

/// A file that is being written. Dropped before it was kept, it is gone.
#[derive(Debug)]
pub struct Unfinished {
    file: File,
    folder: PathBuf,
    readers: Readers,
    /// Its name, where it has one.
    name: Option<TempPath>,
}

impl Unfinished {
    /// A file that is to be `path`, for [`Unfinished::keep`]; unfinished ones in its folder are tidied.
    ///
    /// # Errors
    /// Where a folder or a device is there, or the folder takes no file.
    pub fn create(path: &Path, readers: Readers) -> io::Result<Self> {
        if path.metadata().is_ok_and(|facts| !facts.is_file()) {
            return Err(io::Error::other("it is a folder or a device, where a file was expected"));
        }
        Self::create_in(folder_of(path), readers)
    }

    /// A file in a folder whose name isn't known yet, for [`Unfinished::keep_new`].
    ///
    /// # Errors
    /// Where the folder takes no file.
    pub fn create_in(folder: &Path, readers: Readers) -> io::Result<Self> {
        if !folder.is_dir() {
            let what = format!("the folder {} isn't there", folder.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        // What can't be tidied now is tidied next time.
        let _ = tidy(folder);
        Self::begin(folder, readers)
    }

    /// The same without tidying, where many files are made.
    pub(crate) fn begin(folder: &Path, readers: Readers) -> io::Result<Self> {
        match nameless(folder, readers) {
            Some(file) => Ok(Self { file, folder: folder.to_owned(), readers, name: None }),
            None => Self::named(folder, readers),
        }
    }

    /// The same where a file needs a name.
    fn named(folder: &Path, readers: Readers) -> io::Result<Self> {
        loop {
            let mut builder = tempfile::Builder::new();
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                builder.permissions(fs::Permissions::from_mode(readers.mode()));
            }
            let (file, name) = builder.prefix(UNFINISHED).tempfile_in(folder)?.into_parts();
            // Before it is locked, another process may take it for one that was left behind. Where a file system has no
            // locks, nothing is tidied.
            if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && name.exists() {
                return Ok(Self { file, folder: folder.to_owned(), readers, name: Some(name) });
            }
        }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Has it take the place of `path`, which must be in the folder that it was made in, once the disk holds all of it.
    ///
    /// # Errors
    /// Where it can't be written out or can't take the place: what was there stays.
    pub fn keep(mut self, path: &Path) -> io::Result<()> {
        // Who may read what was there may read this, and nobody else. File systems without permissions have none to keep.
        #[cfg(unix)]
        if matches!(self.readers, Readers::Usual)
            && let Ok(facts) = path.metadata()
        {
            let _ = self.file.set_permissions(facts.permissions());
        }
        self.file.sync_all()?;
        if self.name.is_none() {
            match self.link(path) {
                Ok(()) => return self.sync_folder(),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // The system made a file without a name and can't give it one.
                Err(_) => self = self.renamed()?,
            }
        }
        let name = match self.name.take() {
            Some(name) => name,
            // A link never replaces a file, so it gets a name first.
            None => self.linked_beside()?,
        };
        name.persist(path).map_err(|error| error.error)?;
        self.sync_folder()
    }

    /// Has it be `path`, unless there is such a file already, without waiting for the disk: for a file that says itself whether
    /// it is whole, and whose name says what is in it.
    ///
    /// # Errors
    /// Where it can't be `path`.
    pub(crate) fn keep_unsynced(mut self, path: &Path) -> io::Result<()> {
        if self.name.is_none() {
            match self.link(path) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
                Err(_) => self = self.renamed()?,
            }
        }
        match self.name.take() {
            Some(name) => name.persist(path).map_err(|error| error.error),
            None => Err(io::Error::other("an unfinished file has no name")),
        }
    }

    /// As [`Unfinished::keep`], but only where there is no such file yet.
    ///
    /// # Errors
    /// As [`Unfinished::keep`]; the file itself too, where there is one by this name.
    pub fn keep_new(mut self, path: &Path) -> Result<(), (io::Error, Option<Self>)> {
        self.file.sync_all().map_err(|error| (error, None))?;
        if self.name.is_none() {
            match self.link(path) {
                Ok(()) => return self.sync_folder().map_err(|error| (error, None)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err((error, Some(self)));
                }
                Err(_) => self = self.renamed().map_err(|error| (error, None))?,
            }
        }
        let Some(name) = self.name.take() else {
            return Err((io::Error::other("an unfinished file has no name"), None));
        };
        match name.persist_noclobber(path) {
            Ok(()) => self.sync_folder().map_err(|error| (error, None)),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                self.name = Some(error.path);
                Err((error.error, Some(self)))
            }
            Err(error) => Err((error.error, None)),
        }
    }

    /// A name of its own beside its place.
    fn linked_beside(&self) -> io::Result<TempPath> {
        // Locked first: without a lock, another process would take it for one that was left behind.
        let _ = self.file.try_lock();
        let made =
            tempfile::Builder::new().prefix(UNFINISHED).make_in(&self.folder, |name| self.link(name))?;
        Ok(made.into_temp_path())
    }

    /// A copy that has a name.
    fn renamed(mut self) -> io::Result<Self> {
        let mut copy = Self::named(&self.folder, self.readers)?;
        self.file.seek(SeekFrom::Start(0))?;
        io::copy(&mut self.file, &mut copy.file)?;
        copy.file.sync_all()?;
        Ok(copy)
    }

    /// Gives a file without a name this one.
    #[cfg(target_os = "linux")]
    fn link(&self, path: &Path) -> io::Result<()> {
        use std::ffi::CString;
        use std::os::fd::AsRawFd;
        use std::os::unix::ffi::OsStrExt;
        let from = CString::new(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?;
        let to = CString::new(path.as_os_str().as_bytes())?;
        let (here, follow) = (libc::AT_FDCWD, libc::AT_SYMLINK_FOLLOW);
        // SAFETY: both are texts that end in NUL and live for the call.
        match unsafe { libc::linkat(here, from.as_ptr(), here, to.as_ptr(), follow) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn link(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes the name survive a power cut. Not every system can sync a folder.
    fn sync_folder(&self) -> io::Result<()> {
        let _ = File::open(&self.folder).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Unfinished {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// The folder of a file.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file without a name in a folder, where the system has such files and ways to name them.
#[cfg(target_os = "linux")]
fn nameless(folder: &Path, readers: Readers) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    if !Path::new("/proc/self/fd").exists() {
        return None;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(readers.mode()).custom_flags(libc::O_TMPFILE);
    options.open(folder).ok()
}

#[cfg(not(target_os = "linux"))]
fn nameless(_: &Path, _: Readers) -> Option<File> {
    None
}

/// A folder for work in progress, which goes with this value, and is tidied if its owner dies.
#[derive(Debug)]
pub struct UnfinishedFolder {
    // Dropped first: Windows removes a folder only where no file of it is open.
    _lock: Lock,
    folder: TempDir,
}

impl UnfinishedFolder {
    /// Makes one in `folder`, of which the unfinished are tidied.
    ///
    /// # Errors
    /// Where it can't be made.
    pub fn create_in(folder: &Path) -> io::Result<Self> {
        let _ = tidy(folder);
        let folder = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(folder)?;
        let lock = open_lock(&folder.path().join(LOCK))?;
        let _ = lock.try_lock();
        Ok(Self { _lock: Lock(lock), folder })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes unfinished files and folders whose owners died. Returns how many, and their bytes.
///
/// # Errors
/// Where the folder can't be read.
pub fn tidy(folder: &Path) -> io::Result<(usize, u64)> {
    let (mut count, mut bytes) = (0, 0);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            continue;
        }
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        // No link is followed: a name is no promise of what it leads to.
        let lock = if kind.is_dir() { path.join(LOCK) } else { path.clone() };
        let Ok(file) = existing(&lock) else { continue };
        let len = file.metadata().map_or(0, |facts| facts.len());
        if file.try_lock().is_err() {
            continue;
        }
        // Windows removes a folder only where no file of it is open.
        #[cfg(windows)]
        drop(file);
        let removed = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if removed.is_ok() {
            (count, bytes) = (count + 1, bytes + len);
        }
    }
    Ok((count, bytes))
}

/// A regular file that is there, without following a link.
fn existing(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    regular(options, path)
}

/// Opens a regular file, through links too. What is none is refused: a pipe would be waited for.
///
/// # Errors
/// Where it can't be opened, or is no regular file.
pub fn opened(path: &Path) -> io::Result<File> {
    existing(&path.canonicalize()?)
}

/// Opens a lock file, or makes an empty one that only its owner may read. Nothing is emptied, and no link is followed.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    regular(options, path)
}

#[cfg_attr(not(unix), expect(unused_mut, reason = "only Unix has more to ask for"))]
fn regular(mut options: OpenOptions, path: &Path) -> io::Result<File> {
    let link = || io::Error::other("it is a symbolic link, where a file of its own was expected");
    let is_link = || path.symlink_metadata().is_ok_and(|facts| facts.is_symlink());
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // A pipe would be waited for.
        options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    // Windows lets only administrators make links, unless its owner has it let everybody.
    #[cfg(not(unix))]
    if is_link() {
        return Err(link());
    }
    let file = options.open(path).map_err(|error| if is_link() { link() } else { error })?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file)
}

/// A file that is locked against other processes until this is dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing isn't enough: a program that is just being started has a copy of the file until it runs.
        let _ = self.0.unlock();
    }
}

/// Locks a file against other processes, which is made where there is none. `None`: another one holds the lock.
///
/// # Errors
/// Where it can't be opened or locked, or is a link.
pub fn lock(path: &Path) -> io::Result<Option<Lock>> {
    let file = open_lock(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Where a path leads that is a symbolic link to nothing; `None` for any other.
#[must_use]
pub fn dangling(path: &Path) -> Option<PathBuf> {
    let mut at = path.to_owned();
    // As many as Linux follows.
    for _ in 0..40 {
        match (at.symlink_metadata(), fs::read_link(&at)) {
            (Ok(facts), Ok(target)) if facts.is_symlink() => at = folder_of(&at).join(target),
            (Err(error), _) if at != path && error.kind() == io::ErrorKind::NotFound => return Some(at),
            _ => return None,
        }
    }
    None
}

/// An error of opening a path, which says of a link that leads to nothing that it does.
#[must_use]
pub fn explained(path: &Path, error: io::Error) -> io::Error {
    match dangling(path).filter(|_| error.kind() == io::ErrorKind::NotFound) {
        Some(target) => io::Error::new(
            error.kind(),
            format!("it is a symbolic link to {}, which isn't there", target.display()),
        ),
        None => error,
    }
}

/// Paths in JSON: as texts, and those that are no UTF-8 as their bytes.
pub(crate) mod any_path {
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Kept {
        Text(String),
        Bytes(OsString),
    }

    pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => text.serialize(serializer),
            None => path.as_os_str().serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(match Kept::deserialize(deserializer)? {
            Kept::Text(text) => text.into(),
            Kept::Bytes(bytes) => bytes.into(),
        })
    }
}

/// A text without the byte order mark that some editors put before it.
#[must_use]
pub fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn unfinished(folder: &Path, named: bool) -> Unfinished {
        let made = if named {
            Unfinished::named(folder, Readers::Owner)
        } else {
            Unfinished::create_in(folder, Readers::Owner)
        };
        let mut file = made.unwrap();
        file.write_all(b"new").unwrap();
        file
    }

    #[test]
    fn a_file_takes_its_place_as_a_whole_or_is_gone() {
        for named in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            drop(unfinished(folder.path(), named));
            assert!(names(folder.path()).is_empty());
            for former in [None, Some("former")] {
                if let Some(former) = former {
                    fs::write(&path, former).unwrap();
                }
                unfinished(folder.path(), named).keep(&path).unwrap();
                assert_eq!((fs::read(&path).unwrap(), names(folder.path()).len()), (b"new".to_vec(), 1));
            }
            fs::write(&path, "mine").unwrap();
            let (error, again) = unfinished(folder.path(), named).keep_new(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&path).unwrap(), b"mine");
            again.unwrap().keep_new(&folder.path().join("other")).unwrap();
            assert_eq!(names(folder.path()), ["file", "other"]);
        }
    }

    #[cfg(unix)]
    #[test]
    fn files_are_their_owners_or_as_usual() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (usual, own) = (folder.path().join("usual"), folder.path().join("own"));
        Unfinished::create(&usual, Readers::Usual).unwrap().keep(&usual).unwrap();
        Unfinished::create(&own, Readers::Owner).unwrap().keep(&own).unwrap();
        fs::write(folder.path().join("plain"), "").unwrap();
        let mode = |name: &str| folder.path().join(name).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("own"), mode("usual")), (0o600, mode("plain")));
    }

    #[test]
    fn what_the_dead_left_is_removed_and_what_is_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let left = |name: &str| folder.path().join(format!("{UNFINISHED}{name}"));
        fs::write(left("a"), "half of a file").unwrap();
        fs::create_dir(left("b")).unwrap();
        fs::write(left("b").join(LOCK), "").unwrap();
        fs::write(left("b").join("package"), "half").unwrap();
        fs::write(folder.path().join("precious"), "text").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path().join("precious"), left("c")).unwrap();
        let mine = unfinished(folder.path(), true);
        let at_work = UnfinishedFolder::create_in(folder.path()).unwrap();
        assert!(!left("a").exists() && !left("b").exists(), "{:?}", names(folder.path()));
        assert!(at_work.path().exists() && mine.name.as_ref().is_some_and(|name| name.exists()));
        drop((mine, at_work));
        assert_eq!(fs::read(folder.path().join("precious")).unwrap(), b"text");
        assert_eq!(tidy(folder.path()).unwrap(), (0, 0));
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_follows_no_link_and_empties_nothing() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (path, link, text) =
            (folder.path().join("lock"), folder.path().join("link"), folder.path().join("text"));
        fs::write(&text, "precious").unwrap();
        symlink(&text, &link).unwrap();
        assert!(lock(&link).unwrap_err().to_string().contains("symbolic link"));
        symlink(folder.path().join("nothing"), folder.path().join("loose")).unwrap();
        assert!(lock(&folder.path().join("loose")).is_err());
        assert!(!folder.path().join("nothing").exists());
        let held = lock(&path).unwrap();
        assert!(held.is_some() && lock(&path).unwrap().is_none());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        drop(held);
        fs::write(&path, "as it was").unwrap();
        assert!(lock(&path).unwrap().is_some());
        assert_eq!(
            (fs::read(&path).unwrap(), fs::read(&text).unwrap()),
            (b"as it was".to_vec(), b"precious".to_vec())
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_to_nothing_are_told() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "").unwrap();
        symlink("file", at("good")).unwrap();
        symlink("nothing", at("bad")).unwrap();
        symlink("bad", at("worse")).unwrap();
        symlink("round", at("round")).unwrap();
        let found = ["file", "good", "none", "round", "bad", "worse"].map(|name| dangling(&at(name)));
        assert_eq!(found, [None, None, None, None, Some(at("nothing")), Some(at("nothing"))]);
        let error = File::open(at("worse")).unwrap_err();
        assert!(explained(&at("worse"), error).to_string().contains("nothing, which isn't there"));
    }
}
