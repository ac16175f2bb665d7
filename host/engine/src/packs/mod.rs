//! Weights as plugins pack them, kept in files: a model is packed once on a machine, and all processes that run it share the memory.
//!
//! A plugin that packs weights takes the memory for them from the host ([`PackKeeper`]). The first time, that is private memory,
//! which is written to a new file as it is filled, and mapped from there; the file becomes the model's pack once every layer is
//! built. From then on the pack is mapped as it is, read-only: loading reads nothing, and what several processes map is in memory
//! once. A pack belongs to the model's files and the plugin's, by their names, lengths and times: where any has changed, weights are
//! packed anew. Nothing depends on a pack: where none can be made (a full disk, a folder that can't be written to), weights stay in
//! the process's own memory.

mod file;
mod region;
mod store;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use herald_api::PackKeeper;

use crate::gguf::{Gguf, OpenedFile};
use crate::plugin::Loaded;
use crate::threads::locked;
use file::{FileId, Identity, PluginBuild};
use store::Store;

/// Smaller models are packed faster than a file is found.
const MIN_MODEL_BYTES: u64 = 32 << 20;

/// The end of a pack's name.
const EXTENSION: &str = "pack";

/// The packs of one model while it is loaded.
pub(crate) struct Packs {
    /// The folder, and the model's files; `None`: no packs are kept.
    kept: Option<(PathBuf, Model)>,
    /// A store for each plugin that was asked for a layer.
    stores: Mutex<HashMap<String, Option<Arc<Store>>>>,
}

/// A model's files, and where they are mapped.
struct Model {
    files: Vec<FileId>,
    mapped: Vec<std::ops::Range<usize>>,
}

impl Packs {
    /// Packs of this model in a folder, which is made where there is none.
    pub(crate) fn new(folder: Option<&Path>, gguf: &Gguf) -> Self {
        let folder = folder.filter(|_| store::OFFERED && gguf.file_bytes() >= MIN_MODEL_BYTES);
        let kept = folder.and_then(|folder| {
            let opened = gguf.opened()?;
            // What is mapped, and not what may have taken its place meanwhile.
            let of = |file: &OpenedFile<'_>| {
                FileId::of(file.path).filter(|id| id.is(file.mapped.len() as u64, file.modified))
            };
            let files = opened.iter().map(of).collect::<Option<Vec<_>>>()?;
            let mapped = opened.into_iter().map(|file| file.mapped).collect();
            Some((folder.to_owned(), Model { files, mapped }))
        });
        Self { kept, stores: Mutex::default() }
    }

    /// The store for what a plugin packs.
    pub(crate) fn of(&self, plugin: &Loaded) -> Option<Arc<dyn PackKeeper>> {
        self.store(plugin).map(|store| store as Arc<dyn PackKeeper>)
    }

    fn store(&self, plugin: &Loaded) -> Option<Arc<Store>> {
        let (folder, model) = self.kept.as_ref()?;
        let mut stores = locked(&self.stores);
        let store = stores.entry(plugin.plugin.name().to_owned()).or_insert_with(|| {
            let identity = Identity { model: model.files.clone(), plugin: PluginBuild::of(plugin)? };
            let path = folder.join(identity.file_name()?);
            Some(Arc::new(Store::new(path, identity, model.mapped.clone())))
        });
        store.clone()
    }

    /// Whether there is a pack of this plugin's that can be used.
    pub(crate) fn is_there(&self, plugin: &Loaded) -> bool {
        self.store(plugin).is_some_and(|store| store.is_there())
    }

    /// Whether a plugin's weights lie in a pack, so that the model's own bytes aren't read any more.
    pub(crate) fn has(&self, plugin: &str) -> bool {
        let stores = locked(&self.stores);
        stores.get(plugin).is_some_and(|store| store.as_ref().is_some_and(|store| store.is_used()))
    }

    /// Keeps what was packed, once every layer is built.
    pub(crate) fn keep(&self) {
        for store in locked(&self.stores).values().flatten() {
            store.keep();
        }
    }
}

/// A pack of a folder.
#[derive(Clone, Debug)]
pub struct PackFile {
    /// Its file.
    pub path: PathBuf,
    /// The model's files, those of a split one in order; none where the pack can't be read: it is of no use.
    pub model: Vec<PathBuf>,
    /// The plugin that packed; empty where the pack can't be read.
    pub plugin: String,
    /// The file's length.
    pub bytes: u64,
}

/// The packs of a folder; none where there is no such folder.
#[must_use]
pub fn list(folder: &Path) -> Vec<PackFile> {
    let read = |path: PathBuf| {
        let bytes = path.symlink_metadata().map_or(0, |facts| facts.len());
        let (model, plugin) = match file::identity(&path) {
            Ok(identity) => {
                (identity.model.into_iter().map(|file| file.path).collect(), identity.plugin.name)
            }
            Err(_) => (Vec::new(), String::new()),
        };
        PackFile { path, model, plugin, bytes }
    };
    files(folder).into_iter().map(read).collect()
}

/// What is named as packs are.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
    paths.sort();
    paths
}

/// Removes the packs of models for which `of_model` holds, given a model's files. Returns their bytes. A process that has one
/// mapped goes on using it.
///
/// # Errors
/// Where one can't be removed.
pub fn remove(folder: &Path, of_model: impl Fn(&[PathBuf]) -> bool) -> io::Result<u64> {
    let mut freed = 0;
    for pack in list(folder).into_iter().filter(|pack| of_model(&pack.model)) {
        match fs::remove_file(&pack.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => freed += pack.bytes,
        }
    }
    Ok(freed)
}
