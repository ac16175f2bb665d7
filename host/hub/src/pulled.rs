//! The models that are on this machine, and removing them.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use herald::files;

use crate::address::{self, Origin};
use crate::cache::{Cached, RepoCache, in_all_snapshots};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::names::{HubModel, Source, Wanted};
use crate::offers::{self, Offer, RepoFile};

/// Folders of addresses that are looked at.
const MAX_FOLDERS: usize = 10_000;

/// A model on this machine.
#[derive(Clone, Debug)]
pub struct Model {
    /// What `host pull`, `host rm` and `--model` take for it.
    pub name: String,
    /// Its quant as its files' names have it, in capitals.
    pub quant: Option<String>,
    /// Its files; of a split model, all parts in their order.
    pub paths: Vec<PathBuf>,
    /// Their size in bytes.
    pub bytes: u64,
    /// When it was read last, as far as the file system notes that.
    pub used: Option<SystemTime>,
    /// Where it is from.
    pub from: From,
}

/// Where a model on this machine is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A repository of the hub.
    Hub {
        /// `USER/REPO`.
        repo: String,
        /// The commit.
        commit: String,
    },
    /// Another address.
    Url(String),
}

impl Hub {
    /// All models on this machine that came from the hub, through whichever of its clients, or from other addresses.
    #[must_use]
    pub fn models(&self) -> Vec<Model> {
        let mut found = Vec::new();
        for cache in RepoCache::all(&self.settings.cache) {
            let mut seen = HashSet::new();
            for (age, commit) in cache.commits("main").into_iter().enumerate() {
                for model in of_commit(&cache, &commit, age > 0) {
                    // A file that an older commit has by the same name, and with the same contents, is the same model.
                    let same =
                        |path: &PathBuf| (path.file_name().map(ToOwned::to_owned), path.canonicalize().ok());
                    if seen.insert(model.paths.iter().map(same).collect::<Vec<_>>()) {
                        found.push(model);
                    }
                }
            }
        }
        found.extend(self.downloaded());
        found
    }

    /// The models of other addresses.
    fn downloaded(&self) -> Vec<Model> {
        let entries =
            fs::read_dir(&self.settings.downloads).into_iter().flatten().flatten().take(MAX_FOLDERS);
        let mut found: Vec<Model> = entries.filter_map(|entry| of_folder(&entry.path())).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// The first file of a model that is on this machine, by whatever name it can be pulled. Nothing is fetched.
    #[must_use]
    pub fn find(&self, source: &Source, memory: u64) -> Option<PathBuf> {
        match source {
            Source::File(path) => path.is_file().then(|| path.clone()),
            Source::Url(url) => {
                let (folder, files) = address::parts(&self.settings.downloads, url).ok()?;
                let paths: Vec<PathBuf> = files.iter().map(|(name, _)| folder.join(name)).collect();
                paths.iter().all(|path| path.is_file()).then(|| paths.into_iter().next())?
            }
            Source::Hub(model) => {
                let cache = RepoCache::new(&self.settings.cache, &model.repo);
                cache.commits(&model.revision).iter().find_map(|commit| {
                    let offers = offers::offers(&listed(&cache.files(commit)));
                    let best = offers::best(&offers, &model.wanted, memory)?;
                    Some(cache.pointer(commit, best.path()))
                })
            }
        }
    }

    /// The models that a name to remove means: all of a repository where it says no quant, at all of its commits. A path must be of
    /// one of the caches.
    ///
    /// # Errors
    /// Where there is none, or a path lies elsewhere.
    pub fn to_remove(&self, name: &str) -> Result<Vec<Model>> {
        let path = Path::new(name);
        // A folder may be called as a repository is.
        if path.is_file() || (path.is_absolute() && path.exists()) {
            return self.of_path(path);
        }
        let source = Source::parse(name)?;
        let found = match &source {
            Source::Hub(model) => self.of_repo(model),
            Source::Url(url) => {
                let folder = address::parts(&self.settings.downloads, url)?.0;
                of_folder(&folder).into_iter().collect()
            }
            Source::File(_) => Vec::new(),
        };
        if found.is_empty() {
            return Err(Error::Failed(format!(
                "there is no model {name:?} on this machine, where one that `host ls` lists was expected"
            )));
        }
        Ok(found)
    }

    fn of_repo(&self, model: &HubModel) -> Vec<Model> {
        let cache = RepoCache::new(&self.settings.cache, &model.repo);
        let mut found = Vec::new();
        for (age, commit) in cache.commits(&model.revision).iter().enumerate() {
            let files = cache.files(commit);
            let offers = offers::offers(&listed(&files));
            let meant = offers::all(&offers, &model.wanted);
            found.extend(
                meant.into_iter().map(|offer| as_model(&cache, commit, offer, &offers, &files, age > 0)),
            );
        }
        found
    }

    fn of_path(&self, path: &Path) -> Result<Vec<Model>> {
        let models = self.models();
        let real = path.canonicalize().ok();
        let is_it = |own: &PathBuf| own == path || (real.is_some() && own.canonicalize().ok() == real);
        let found: Vec<Model> = models.into_iter().filter(|model| model.paths.iter().any(is_it)).collect();
        if found.is_empty() {
            return Err(Error::Failed(format!(
                "{}: it is no pulled model's file, where one in {} or {} was expected; nothing else is removed",
                path.display(),
                self.settings.cache.display(),
                self.settings.downloads.display()
            )));
        }
        Ok(found)
    }

    /// Removes models that [`Hub::to_remove`] found, and what nothing else uses of them. Returns the bytes that are free now.
    ///
    /// # Errors
    /// Where a file can't be removed, or another process is fetching it.
    pub fn remove(&self, models: &[Model]) -> Result<u64> {
        let mut freed = 0;
        for model in models {
            freed += match &model.from {
                From::Hub { repo, .. } => {
                    self.remove_of_hub(&RepoCache::new(&self.settings.cache, repo), model)?
                }
                From::Url(_) => remove_folder(&self.settings.downloads, model)?,
            };
        }
        Ok(freed)
    }

    fn remove_of_hub(&self, cache: &RepoCache, model: &Model) -> Result<u64> {
        let blobs = cache.folder.join("blobs").canonicalize().ok();
        let (mut freed, mut contents) = (0, Vec::new());
        for path in &model.paths {
            let Ok(facts) = path.symlink_metadata() else { continue };
            match facts.is_symlink() {
                // What lies outside of the repository's own blobs is somebody else's.
                true => contents.extend(
                    path.canonicalize()
                        .ok()
                        .filter(|real| blobs.as_ref().is_some_and(|blobs| real.parent() == Some(blobs))),
                ),
                false => freed += facts.len(),
            }
            removed(path)?;
        }
        let used = in_all_snapshots(&self.settings.cache)?;
        for blob in contents.into_iter().filter(|blob| !used.contains(blob)) {
            let bytes = blob.metadata().map_or(0, |facts| facts.len());
            let Some(id) = blob.file_name().and_then(|name| name.to_str()) else { continue };
            let Some(_lock) = cache.try_lock(id)? else {
                return Err(Error::Failed(format!(
                    "{}: another process is fetching it, where nobody was expected to use it",
                    blob.display()
                )));
            };
            removed(&blob)?;
            freed += bytes;
        }
        cache.tidy();
        Ok(freed)
    }
}

/// Removes a file; one that is gone already is no error.
fn removed(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file(path, "it can't be removed", &error))
        }
        _ => Ok(()),
    }
}

/// Removes the model of an address, with its folder.
fn remove_folder(downloads: &Path, model: &Model) -> Result<u64> {
    let folder = model.paths.first().and_then(|path| path.parent());
    let Some(folder) = folder.filter(|folder| folder.parent() == Some(downloads)) else { return Ok(0) };
    let locks: Vec<PathBuf> = model.paths.iter().map(|path| path.with_added_extension("lock")).collect();
    for lock in &locks {
        let held = files::lock(lock).map_err(|error| Error::file(lock, "it can't be locked", &error))?;
        if held.is_none() {
            return Err(Error::Failed(format!("{}: another process is fetching it", folder.display())));
        }
    }
    fs::remove_dir_all(folder).map_err(|error| Error::file(folder, "it can't be removed", &error))?;
    Ok(model.bytes)
}

fn listed(files: &[Cached]) -> Vec<RepoFile> {
    files.iter().map(|cached| cached.file.clone()).collect()
}

/// The models of a commit. One that isn't its branch's any more has the commit in its name.
fn of_commit(cache: &RepoCache, commit: &str, is_old: bool) -> Vec<Model> {
    let files = cache.files(commit);
    let offers = offers::offers(&listed(&files));
    offers.iter().map(|offer| as_model(cache, commit, offer, &offers, &files, is_old)).collect()
}

fn as_model(
    cache: &RepoCache,
    commit: &str,
    offer: &Offer,
    all: &[Offer],
    files: &[Cached],
    is_old: bool,
) -> Model {
    let of_offer =
        || files.iter().filter(|cached| offer.files.iter().any(|file| file.path == cached.file.path));
    let is_alone = all.iter().filter(|other| other.tag() == offer.tag()).count() == 1;
    let name = match (is_old, is_alone) {
        (true, _) => format!("hf.co/{}/blob/{commit}/{}", cache.repo, offer.path()),
        (false, true) => format!("{}:{}", cache.repo, offer.tag()),
        (false, false) => format!("{}:{}", cache.repo, offer.path()),
    };
    Model {
        name,
        quant: offer.quant.clone(),
        paths: of_offer().map(|cached| cached.path.clone()).collect(),
        bytes: offer.bytes(),
        used: of_offer().filter_map(|cached| cached.used).max(),
        from: From::Hub { repo: cache.repo.clone(), commit: commit.to_owned() },
    }
}

/// The model in an address's folder.
fn of_folder(folder: &Path) -> Option<Model> {
    let origin = Origin::read(folder)?;
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")));
    paths.sort();
    let file = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        Some(RepoFile { path: name, bytes: path.metadata().ok()?.len(), sha256: None })
    };
    let files: Vec<RepoFile> = paths.iter().filter_map(file).collect();
    let offer = offers::best(&offers::offers(&files), &Wanted::Any, 0)?.clone();
    let used = paths.iter().filter_map(|path| path.metadata().ok()?.accessed().ok()).max();
    Some(Model {
        name: origin.url.clone(),
        quant: offer.quant.clone(),
        bytes: offer.bytes(),
        paths: offer.files.iter().map(|file| folder.join(&file.path)).collect(),
        used,
        from: From::Url(origin.url),
    })
}
