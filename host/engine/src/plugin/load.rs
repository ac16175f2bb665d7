//! Opening a plugin's file and checking its table.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::threads::locked;
use herald_api::abi;
use herald_api::import::{Entry, Plugin};
use herald_trusted_files::Refusal;
use libloading::Library;

/// Plugins that are loaded already. A library is loaded once a process, and stays: code that has registered anything
/// (a thread-local's destructor, a log) must not vanish. In a tree, whose every part begins where
/// a pointer points: leak checkers see it as held, and a hash table as lost.
static LOADED: Mutex<BTreeMap<PathBuf, Held>> = Mutex::new(BTreeMap::new());

/// A loaded plugin, and what holds its place.
struct Held {
    plugin: Plugin,
    /// The library's name goes through these descriptors ([`CheckedFile::name_for_loader`]).
    _place: CheckedFile,
}

/// A file that has been checked, and holds the place where it was.
pub(super) struct CheckedFile {
    /// Its canonical path.
    pub(super) path: PathBuf,
    file: File,
    /// Its folder.
    #[cfg(target_os = "linux")]
    folder: File,
}

impl CheckedFile {
    /// Opens a file by its canonical path and checks that nobody else may have written it or a library that it links (unless the
    /// user `insists`), and that it holds what its headers describe.
    pub(super) fn open(path: &Path, insists: bool) -> Result<Self, String> {
        let sentence = |refusal| match refusal {
            Refusal::Untrusted(reason) => {
                format!("{reason} (--allow-insecure-plugins loads it all the same)")
            }
            Refusal::Unusable(reason) => reason,
        };
        let file = herald_trusted_files::open(path, !insists).map_err(sentence)?;
        #[cfg(all(unix, not(target_vendor = "apple")))]
        {
            let links = super::elf::check(&file)?;
            if !insists {
                super::linked::check(path, links).map_err(sentence)?;
            }
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            #[cfg(target_os = "linux")]
            folder: folder(path).map_err(|error| format!("its folder can't be opened: {error}"))?,
        })
    }

    /// What the system's loader opens: the file by its name in the folder that was checked, whatever the folder is called by
    /// now.
    ///
    /// The loader takes no descriptor. `/proc/self/fd/N` of the file itself would do, but then the library would think that it
    /// lives in `/proc/self/fd`: a run path of `$ORIGIN` and plugins that look beside themselves would find nothing. Only
    /// root and this user can swap a file in the folder; where they do, [`CheckedFile::is_in_place`] tells. The process's number in
    /// place of `self` lets debuggers follow the name.
    #[cfg(target_os = "linux")]
    fn name_for_loader(&self) -> PathBuf {
        use std::os::fd::AsRawFd;

        let through = || {
            let process = std::fs::read_link("/proc/self").ok()?;
            let folder =
                Path::new("/proc").join(process).join("fd").join(self.folder.as_raw_fd().to_string());
            let name = folder.join(self.path.file_name()?);
            self.is_at(&name).then_some(name)
        };
        // Without /proc the path itself, which nobody else can change either.
        through().unwrap_or_else(|| self.path.clone())
    }

    #[cfg(not(target_os = "linux"))]
    fn name_for_loader(&self) -> PathBuf {
        self.path.clone()
    }

    /// Whether a name leads to this very file.
    #[cfg(unix)]
    fn is_at(&self, name: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;

        let of = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        match (self.file.metadata(), name.metadata()) {
            (Ok(ours), Ok(there)) => of(ours) == of(there),
            _ => false,
        }
    }

    #[cfg(not(unix))]
    fn is_at(&self, _: &Path) -> bool {
        true
    }

    /// What tells the file from others.
    pub(super) fn metadata(&self) -> std::io::Result<std::fs::Metadata> {
        self.file.metadata()
    }

    /// Whether it is loaded already.
    pub(super) fn is_loaded(&self) -> bool {
        locked(&LOADED).contains_key(&self.path)
    }

    /// Loads the plugin, or says why it is none.
    pub(super) fn load(self) -> Result<Plugin, String> {
        let mut loaded = locked(&LOADED);
        if let Some(held) = loaded.get(&self.path) {
            return Ok(held.plugin.clone());
        }
        let name = self.name_for_loader();
        let library = open(&name)?;
        if !self.is_at(&name) {
            // What has been loaded stays: its initialisers have run.
            std::mem::forget(library);
            return Err("it was replaced while it was being loaded".to_owned());
        }
        let plugin = checked(library)?;
        loaded.insert(self.path.clone(), Held { plugin: plugin.clone(), _place: self });
        Ok(plugin)
    }
}

/// A descriptor for the folder that needs no right to list it.
#[cfg(target_os = "linux")]
fn folder(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;

    let flags = libc::O_PATH | libc::O_DIRECTORY;
    File::options().read(true).custom_flags(flags).open(path.parent().unwrap_or(Path::new("/")))
}

fn open(name: &Path) -> Result<Library, String> {
    // SAFETY: loading runs the library's initialisers. That is what a plugin is: its file has been checked to be one
    // that only this user or the system may write, or the user insisted.
    unsafe { system_open(name) }
        .map_err(|error| format!("it is no library that this system can load: {}", reason(&error, name)))
}

/// # Safety
/// The library's initialisers may run.
#[cfg(not(windows))]
unsafe fn system_open(name: &Path) -> Result<Library, libloading::Error> {
    // SAFETY: the caller's contract.
    unsafe { Library::new(name) }
}

/// What the library links is looked for in its own folder, in the program's and in the system's; never in the working directory, nor
/// in the folders of `PATH`.
///
/// # Safety
/// The library's initialisers may run.
#[cfg(windows)]
unsafe fn system_open(name: &Path) -> Result<Library, libloading::Error> {
    use libloading::os::windows::{
        LOAD_LIBRARY_SEARCH_DEFAULT_DIRS, LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR, Library,
    };

    let flags = LOAD_LIBRARY_SEARCH_DEFAULT_DIRS | LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR;
    // SAFETY: the caller's contract.
    unsafe { Library::load_with_flags(name, flags) }.map(Into::into)
}

fn checked(library: Library) -> Result<Plugin, String> {
    // SAFETY: the symbol, where there is one, is by its name a plugin's entry of this version of the ABI.
    let entry = unsafe { library.get::<Entry>(abi::ENTRY_SYMBOL) }.map(|symbol| *symbol).map_err(|_| {
        format!("it exports no {}, where a plugin for version 1 of the ABI has one", abi::ENTRY_SYMBOL)
    })?;
    // SAFETY: the entry is a plugin's own, and the library that it is in goes along.
    unsafe { Plugin::load(entry, Box::new(library), log) }.map_err(|error| error.to_string())
}

/// The loader's own words, without the name, which whoever reports this has said.
fn reason(error: &libloading::Error, name: &Path) -> String {
    let text = match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    let text = text.replace(&format!("{}: ", name.display()), "");
    text.lines().next().unwrap_or("").to_owned()
}

fn log(level: u32, line: &str) {
    match level {
        abi::HERALD_LOG_ERROR => tracing::error!("{line}"),
        abi::HERALD_LOG_WARN => tracing::warn!("{line}"),
        abi::HERALD_LOG_INFO => tracing::info!("{line}"),
        _ => tracing::debug!("{line}"),
    }
}
