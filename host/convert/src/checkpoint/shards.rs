//! The weights as published: one safetensors file, or shards that an index lists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use herald_api::DType;
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::error::{CheckpointError, Result, bad_file, refused};
use super::json;

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// How a published tensor's numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// As floats.
    Floats(DType),
    /// As bytes: the codes and scales of MXFP4.
    Bytes,
    /// As something that no model is computed with.
    Otherwise(Dtype),
}

/// A tensor as published.
#[derive(Clone, Debug)]
pub(super) struct Published {
    shard: usize,
    pub(super) stored: Stored,
    /// In PyTorch's order: the length of a row last.
    pub(super) dims: Vec<usize>,
    range: Range<usize>,
}

/// All tensors of a checkpoint, in mapped files.
#[derive(Debug)]
pub(super) struct Shards {
    maps: Vec<Mmap>,
    tensors: BTreeMap<String, Published>,
}

impl Shards {
    /// Maps the files of a checkpoint and reads what tensors they hold.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let index = Index::open(folder)?;
        let names = match &index {
            Some(index) => index.files()?,
            None => BTreeSet::from([only_file(folder)?]),
        };
        let mut shards = Self { maps: Vec::new(), tensors: BTreeMap::new() };
        for name in &names {
            let path = folder.join(name);
            if index.is_some() && !path.exists() {
                return refused(format!(
                    "{}: there is no {name}, which it lists, where all shards were expected",
                    folder.join(INDEX).display()
                ));
            }
            shards.add(&path)?;
        }
        if let Some(index) = index {
            index.check(&shards.tensors)?;
        }
        Ok(shards)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let read = |source| CheckpointError::Read { path: path.to_owned(), source };
        if !path.metadata().map_err(read)?.is_file() {
            return Err(bad_file(path, "it is a folder or a device, where a safetensors file was expected"));
        }
        let file = File::open(path).map_err(read)?;
        // SAFETY: As with any mapped file, another process that cuts it while it is read ends this one by a signal; no other
        // harm comes of changes, since all bit patterns of the bytes that are read are numbers.
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        let whole = |error| bad_file(path, format!("no whole safetensors file: {error}"));
        let tensors = SafeTensors::deserialize(&map).map_err(whole)?;
        let start = map.as_ptr() as usize;
        for (name, tensor) in tensors.iter() {
            let begin = tensor.data().as_ptr() as usize - start;
            let range = begin..begin + tensor.data().len();
            if range.is_empty() {
                return Err(bad_file(path, format!("tensor {name:?} is empty, where numbers were expected")));
            }
            let stored = match tensor.dtype() {
                Dtype::F32 => Stored::Floats(DType::F32),
                Dtype::F16 => Stored::Floats(DType::F16),
                Dtype::BF16 => Stored::Floats(DType::Bf16),
                Dtype::U8 => Stored::Bytes,
                other => Stored::Otherwise(other),
            };
            let published =
                Published { shard: self.maps.len(), stored, dims: tensor.shape().to_vec(), range };
            if self.tensors.insert(name.to_owned(), published).is_some() {
                return Err(bad_file(path, format!("tensor {name:?} is in another shard, too")));
            }
        }
        self.maps.push(map);
        Ok(())
    }

    /// All tensors, by name.
    pub(super) fn tensors(&self) -> &BTreeMap<String, Published> {
        &self.tensors
    }

    /// A tensor's data.
    pub(super) fn bytes(&self, tensor: &Published) -> &[u8] {
        // Ranges were taken from these maps.
        self.maps.get(tensor.shard).and_then(|map| map.get(tensor.range.clone())).unwrap_or_default()
    }
}

/// The only safetensors file of a folder without an index: `model.safetensors`, or else the one that begins so.
fn only_file(folder: &Path) -> Result<String> {
    let entries =
        fs::read_dir(folder).map_err(|source| CheckpointError::Read { path: folder.to_owned(), source })?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let names: BTreeSet<String> =
        names.filter(|name| name.starts_with("model") && name.ends_with(".safetensors")).collect();
    if names.contains(WHOLE) {
        return Ok(WHOLE.to_owned());
    }
    match (names.len(), names.into_iter().next()) {
        (1, Some(name)) if !name.contains("-of-") => Ok(name),
        (count, first) => {
            let held = first.map_or_else(
                || format!("no {WHOLE}"),
                |name| format!("{count} files such as {name}, and no {INDEX}"),
            );
            Err(bad_file(
                folder,
                format!("there is {held}, where {WHOLE} or {INDEX} with all shards was expected"),
            ))
        }
    }
}

/// `model.safetensors.index.json`: which file each tensor is in.
struct Index {
    path: PathBuf,
    files: BTreeMap<String, String>,
}

impl Index {
    fn open(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(INDEX);
        let Some(mut index) = json::object(&path)? else { return Ok(None) };
        let Some(Value::Object(map)) = index.remove("weight_map") else {
            return Err(bad_file(&path, "it has no object weight_map, which was expected"));
        };
        let mut files = BTreeMap::new();
        for (tensor, file) in map {
            let Value::String(file) = file else {
                return Err(bad_file(
                    &path,
                    format!("{tensor:?} is in {}, where a file's name was expected", json::shown(&file)),
                ));
            };
            files.insert(tensor, file);
        }
        if files.is_empty() {
            return Err(bad_file(&path, "its weight_map is empty, where tensors were expected"));
        }
        Ok(Some(Self { path, files }))
    }

    /// The files' names, which must be those of files in the same folder.
    fn files(&self) -> Result<BTreeSet<String>> {
        let plain = |name: &str| {
            let mut parts = Path::new(name).components();
            matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
                && !name.contains(['/', '\\', '\0'])
        };
        match self.files.values().find(|name| !plain(name)) {
            Some(name) => Err(bad_file(
                &self.path,
                format!("it lists {name:?}, where the name of a file beside it was expected"),
            )),
            None => Ok(self.files.values().cloned().collect()),
        }
    }

    /// Refuses shards that don't hold just what the index says.
    fn check(&self, tensors: &BTreeMap<String, Published>) -> Result<()> {
        if let Some((name, file)) = self.files.iter().find(|(name, _)| !tensors.contains_key(*name)) {
            return Err(bad_file(
                &self.path,
                format!("it says that {name:?} is in {file}, which has no such tensor"),
            ));
        }
        match tensors.keys().find(|name| !self.files.contains_key(*name)) {
            Some(name) => {
                Err(bad_file(&self.path, format!("it doesn't list {name:?}, which is in one of its shards")))
            }
            None => Ok(()),
        }
    }
}
