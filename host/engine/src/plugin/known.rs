//! What became of the plugins that have been tried on this machine, in a file in the user's cache folder.
//!
//! One that answered isn't tried again until its file changes. One that didn't is not waited for with every command either; but it
//! may have been the machine's fault, which was busy or out of memory, so that is forgotten after an hour.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::load::CheckedFile;
use crate::files::{self, Readers, Unfinished};

const NAME: &str = "plugins.json";
const FORMAT: &str = "herald-probed-plugins";
const VERSION: u32 = 2;

/// Longer files are not read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The most plugins of each kind that are recorded: those that were added last.
const MAX_PLUGINS: usize = 256;

/// How long a refusal counts.
const REFUSED_FOR: Duration = Duration::from_secs(3600);

/// The beginnings of variables that decide what a plugin loads and does when it is probed.
const VARIABLES: [&str; 6] = ["HERALD_SIMD", "HERALD_BLAS", "LD_", "OPENBLAS_", "MKL_", "OMP_"];

/// A plugin's file. A change of any of this makes it another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tried {
    #[serde(with = "files::any_path")]
    path: PathBuf,
    bytes: u64,
    /// When it was last changed, in nanoseconds since 1970.
    modified: u64,
    inode: u64,
    /// Under which circumstances it answered.
    circumstances: String,
}

/// A plugin that gave no answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Failed {
    file: Tried,
    /// What became of it.
    reason: String,
    /// When, in seconds since 1970.
    at: u64,
}

impl Failed {
    /// Whether that was within the last hour. A clock that was set back makes it long ago.
    fn counts(&self) -> bool {
        now().checked_sub(self.at).is_some_and(|seconds| seconds < REFUSED_FOR.as_secs())
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    format: String,
    version: u32,
    plugins: Vec<Tried>,
    failed: Vec<Failed>,
}

/// The plugins that have been tried.
pub(super) struct KnownPlugins<'f> {
    folder: Option<&'f Path>,
    circumstances: String,
    plugins: Vec<Tried>,
    failed: Vec<Failed>,
    is_changed: bool,
}

impl<'f> KnownPlugins<'f> {
    /// Those that a folder's file names. A damaged file names none: it is written anew.
    pub(super) fn read(folder: Option<&'f Path>) -> Self {
        let (plugins, failed) =
            folder.and_then(read).map(|read| (read.plugins, read.failed)).unwrap_or_default();
        Self { folder, circumstances: circumstances(), plugins, failed, is_changed: false }
    }

    pub(super) fn has(&self, file: &CheckedFile) -> bool {
        self.entry(file).is_some_and(|entry| self.plugins.contains(&entry))
    }

    pub(super) fn add(&mut self, file: &CheckedFile) {
        if let Some(entry) = self.entry(file) {
            self.plugins.push(entry);
            self.is_changed = true;
        }
    }

    /// Why a plugin was refused within the last hour.
    pub(super) fn failure(&self, file: &CheckedFile) -> Option<&str> {
        let entry = self.entry(file)?;
        let failed = self.failed.iter().find(|failed| failed.file == entry && failed.counts())?;
        Some(&failed.reason)
    }

    pub(super) fn add_failure(&mut self, file: &CheckedFile, reason: &str) {
        if let Some(file) = self.entry(file) {
            self.failed.push(Failed { file, reason: reason.to_owned(), at: now() });
            self.is_changed = true;
        }
    }

    /// Forgets that the plugin at a canonical path was refused.
    pub(super) fn forgive(&mut self, path: &Path) {
        let before = self.failed.len();
        self.failed.retain(|failed| failed.file.path != path);
        self.is_changed |= self.failed.len() != before;
    }

    /// Writes them, whole or not at all. Of processes that write at once the last one wins; what it doesn't know is tried
    /// once more.
    pub(super) fn keep(mut self) {
        let Some(folder) = self.folder.filter(|_| self.is_changed) else { return };
        self.failed.retain(Failed::counts);
        let contents = Contents {
            format: FORMAT.to_owned(),
            version: VERSION,
            plugins: last(&self.plugins),
            failed: last(&self.failed),
        };
        if let Err(error) = write(folder, &contents) {
            tracing::debug!("{}: what became of plugins can't be recorded: {error}", folder.display());
        }
    }

    fn entry(&self, file: &CheckedFile) -> Option<Tried> {
        let metadata = file.metadata().ok()?;
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Some(Tried {
            path: file.path.clone(),
            bytes: metadata.len(),
            modified: u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX),
            inode,
            circumstances: self.circumstances.clone(),
        })
    }
}

fn last<T: Clone>(all: &[T]) -> Vec<T> {
    all[all.len().saturating_sub(MAX_PLUGINS)..].to_vec()
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

fn read(folder: &Path) -> Option<Contents> {
    let path = folder.join(NAME);
    if path.metadata().ok()?.len() > MAX_FILE_BYTES {
        return None;
    }
    let contents: Contents = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (contents.format == FORMAT && contents.version == VERSION).then_some(contents)
}

fn write(folder: &Path, contents: &Contents) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(NAME);
    let mut file = Unfinished::create(&path, Readers::Owner)?;
    file.write_all(&serde_json::to_vec(contents)?)?;
    file.keep(&path)
}

/// What an answer depends on beside the file: this program, the machine (the folder may be on a network), the limit of the
/// address space, and the environment. As a hash: variables may hold what should be written nowhere.
fn circumstances() -> String {
    let machine = super::this_machine();
    let mut hash = Sha256::new();
    hash.update(format!(
        "{} {} {} {}",
        env!("CARGO_PKG_VERSION"),
        machine.arch,
        machine.features,
        address_space()
    ));
    let mut variables: Vec<(OsString, OsString)> = std::env::vars_os()
        .filter(|(name, _)| {
            VARIABLES.iter().any(|start| name.as_encoded_bytes().starts_with(start.as_bytes()))
        })
        .collect();
    variables.sort();
    for (name, value) in variables {
        for bytes in [name.as_encoded_bytes(), value.as_encoded_bytes()] {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The most bytes of address space that this process may have.
#[cfg(unix)]
fn address_space() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: it writes to the struct, which is ours.
    unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) };
    limit.rlim_cur
}

#[cfg(not(unix))]
fn address_space() -> u64 {
    0
}

#[cfg(all(test, unix, not(target_vendor = "apple")))]
mod tests {
    use super::*;

    fn checked(folder: &Path, name: &str) -> CheckedFile {
        let library = crate::plugin::elf::tests::system_library();
        let path = folder.join(name);
        fs::copy(library, &path).expect("a copy");
        CheckedFile::open(&path.canonicalize().expect("a path"), true).expect("an ELF file")
    }

    #[test]
    fn a_file_is_known_until_it_changes() {
        let (home, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = cache.path().join("herald");
        let file = checked(home.path(), "one.so");
        let mut known = KnownPlugins::read(Some(&folder));
        assert!(!known.has(&file));
        known.add(&file);
        known.keep();
        assert!(KnownPlugins::read(Some(&folder)).has(&file));
        assert!(!KnownPlugins::read(Some(&folder)).has(&checked(home.path(), "other.so")));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left there");
        let time = fs::File::options().append(true).open(&file.path).unwrap();
        time.set_modified(UNIX_EPOCH).unwrap();
        assert!(!KnownPlugins::read(Some(&folder)).has(&file));
    }

    #[test]
    fn damaged_files_name_no_plugin() {
        let (home, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = checked(home.path(), "one.so");
        let mut known = KnownPlugins::read(Some(cache.path()));
        known.add(&file);
        known.keep();
        let path = cache.path().join(NAME);
        let sound = fs::read_to_string(&path).unwrap();
        let long = format!("{sound}{}", " ".repeat(MAX_FILE_BYTES as usize));
        let later = sound.replace("\"version\":2", "\"version\":3");
        for text in ["", "[]", "{}", &sound[..sound.len() / 2], &long, &later] {
            fs::write(&path, text).unwrap();
            assert!(!KnownPlugins::read(Some(cache.path())).has(&file));
        }
        fs::write(&path, &sound).unwrap();
        assert!(KnownPlugins::read(Some(cache.path())).has(&file));
    }

    #[test]
    fn a_refusal_counts_for_an_hour_or_until_the_file_changes_or_it_is_forgiven() {
        let (home, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (file, other) = (checked(home.path(), "one.so"), checked(home.path(), "other.so"));
        let reason = |file| KnownPlugins::read(Some(cache.path())).failure(file).map(str::to_owned);
        let mut known = KnownPlugins::read(Some(cache.path()));
        known.add_failure(&file, "it hung");
        known.add_failure(&other, "it crashed");
        known.keep();
        assert_eq!(
            (reason(&file).as_deref(), reason(&other).as_deref()),
            (Some("it hung"), Some("it crashed"))
        );
        assert!(!KnownPlugins::read(Some(cache.path())).has(&file));
        let mut known = KnownPlugins::read(Some(cache.path()));
        known.forgive(&other.path);
        known.keep();
        assert_eq!((reason(&file).as_deref(), reason(&other)), (Some("it hung"), None));
        // An hour ago; and tomorrow, by a clock that was set back since.
        for at in [now() - REFUSED_FOR.as_secs(), now() + 86_400] {
            let mut known = KnownPlugins::read(Some(cache.path()));
            known.failed[0].at = at;
            assert!(known.failure(&file).is_none());
        }
        fs::File::options().append(true).open(&file.path).unwrap().set_modified(UNIX_EPOCH).unwrap();
        assert_eq!(reason(&file), None);
    }

    /// A name that is no UTF-8 is a name all the same.
    #[test]
    fn any_name_is_recorded() {
        use std::os::unix::ffi::OsStrExt;

        let (home, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = home.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
        fs::create_dir(&folder).unwrap();
        let file = checked(&folder, "one.so");
        let mut known = KnownPlugins::read(Some(cache.path()));
        known.add(&file);
        known.keep();
        assert!(KnownPlugins::read(Some(cache.path())).has(&file));
    }

    #[test]
    fn the_list_does_not_grow_for_ever() {
        let (home, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = checked(home.path(), "one.so");
        let mut known = KnownPlugins::read(Some(cache.path()));
        for _ in 0..=MAX_PLUGINS {
            known.add(&file);
            known.add_failure(&file, "it hung");
        }
        known.keep();
        let kept = read(cache.path()).unwrap();
        assert_eq!((kept.plugins.len(), kept.failed.len()), (MAX_PLUGINS, MAX_PLUGINS));
    }
}
