//! Model files: GGUF versions 2 and 3, read by mapping them into memory, and written.
//!
//! A model file comes from the network, so nothing in it is trusted: each count, length, offset and type is checked against the
//! file's real content before it is used, and a file that fails gets one sentence that says which field, at which byte, what it
//! held and what was expected ([`GgufError`]). Opening reads the metadata and the list of tensors, but no tensor's data. Weights
//! are views of the mapped file, and so are the large arrays of the vocabulary.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod cursor;
mod error;
mod foreign;
mod metadata;
mod overrides;
mod part;
mod split;
mod tensor;
#[cfg(test)]
mod tests;
mod value;
mod view;
mod writer;

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use memmap2::{Mmap, MmapMut};

pub use error::GgufError;
pub use metadata::Metadata;
pub use overrides::Override;
pub use tensor::TensorInfo;
pub use value::{Array, Elements, FromValue, Value, ValueType};
pub use view::TensorView;
pub use writer::{ArrayBuf, DataWriter, Writer};

use crate::files;
use part::Part;

/// A model file, or the parts of a split one, mapped into memory.
///
/// The mapping shows what is on disk. As with any mapped file, shortening or rewriting it breaks the program that has it open.
#[derive(Clone, Debug)]
pub struct Gguf {
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// Positions in `tensors`, sorted by name.
    by_name: Vec<usize>,
    files: Vec<MappedFile>,
}

/// A file of the model.
#[derive(Clone, Debug)]
struct MappedFile {
    path: Option<PathBuf>,
    map: Arc<Mmap>,
    /// When it had last been changed as it was opened, where the system tells.
    modified: Option<SystemTime>,
}

/// A file of the model as it was opened.
pub(crate) struct OpenedFile<'g> {
    pub(crate) path: &'g Path,
    /// The addresses that it is mapped to.
    pub(crate) mapped: Range<usize>,
    /// When it had last been changed.
    pub(crate) modified: SystemTime,
}

/// A file that was read by itself: whole, or a part of a split model.
struct Loaded {
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    file: MappedFile,
}

impl Gguf {
    /// Opens a model file. For a split model, `path` is its first part, and the others lie beside it under the names
    /// that GGUF gives them (`NAME-00002-of-00003.gguf`).
    ///
    /// # Errors
    ///
    /// Where the file can't be read, is damaged or of a kind that HERALD doesn't read, is a part other than the first,
    /// or has siblings that are missing or don't fit.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let first = Loaded::open(path)?;
        let parts = split::siblings(&first)?;
        Self::join(first, parts)
    }

    /// Reads a model from bytes in memory, of which it keeps a copy.
    ///
    /// # Errors
    ///
    /// As [`Gguf::open`]; a part of a split model is refused.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, GgufError> {
        let part = Part::parse(bytes)?;
        let map =
            copy_to_map(bytes).map_err(|source| GgufError::Io { path: None, doing: "copied", source })?;
        let whole = Loaded::new(part, MappedFile { path: None, map: Arc::new(map), modified: None });
        split::refuse_split(&whole)?;
        Self::join(whole, Vec::new())
    }

    /// One model of its parts, whose tensors' names must differ.
    fn join(first: Loaded, others: Vec<Loaded>) -> Result<Self, GgufError> {
        let Loaded { version, metadata, mut tensors, file } = first;
        let mut files = vec![file];
        for (index, other) in others.into_iter().enumerate() {
            tensors.extend(other.tensors.into_iter().map(|info| TensorInfo { part: index + 1, ..info }));
            files.push(other.file);
        }
        let mut by_name: Vec<usize> = (0..tensors.len()).collect();
        by_name.sort_by_key(|&index| tensors.get(index).map(TensorInfo::name));
        let gguf = Self { version, metadata, tensors, by_name, files };
        split::check_names(&gguf)?;
        Ok(gguf)
    }

    /// Sets a key of the metadata for this run; the file stays as it is.
    ///
    /// # Errors
    /// A sentence where the value is of another type than the file's, or that is an array.
    pub fn set(&mut self, set: &Override) -> Result<(), String> {
        self.metadata.set(set)
    }

    /// The version of the format: 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The metadata (of a split model, its first part's).
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors in the file's order; of a split model, part after part.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    /// The tensor of this name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let named = |index: &usize| self.tensors.get(*index).map_or("", TensorInfo::name);
        let found = self.by_name.binary_search_by(|index| named(index).cmp(name)).ok()?;
        self.tensors.get(*self.by_name.get(found)?)
    }

    /// A tensor's data.
    ///
    /// # Panics
    ///
    /// Where `info` is another model's and lies outside this one.
    #[must_use]
    pub fn bytes(&self, info: &TensorInfo) -> &[u8] {
        &self.files[info.part].map[info.offset..info.offset + info.bytes]
    }

    /// A tensor's data, which stays mapped for as long as the view lives, even past the `Gguf`.
    ///
    /// # Panics
    ///
    /// As [`Gguf::bytes`].
    #[must_use]
    pub fn view(&self, info: &TensorInfo) -> TensorView {
        TensorView::new(Arc::clone(&self.files[info.part].map), info.offset..info.offset + info.bytes)
    }

    /// Tells the system that a tensor's bytes won't be read soon, so that they take no memory of this process.
    pub fn give_back(&self, info: &TensorInfo) {
        // What isn't in a file would be lost.
        if self.files[info.part].path.is_some() {
            self.view(info).give_back();
        }
    }

    /// The path of each file that the model was opened from: several for a split model, none for one from memory.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().filter_map(|file| file.path.as_deref())
    }

    /// The model's files as they were opened; `None` for a model from memory, and where the system doesn't tell files' times.
    pub(crate) fn opened(&self) -> Option<Vec<OpenedFile<'_>>> {
        let all = self.files.iter().map(|file| {
            let (path, modified) = (file.path.as_deref()?, file.modified?);
            let start = file.map.as_ptr() as usize;
            Some(OpenedFile { path, mapped: start..start + file.map.len(), modified })
        });
        all.collect()
    }

    /// The size of the model's files together, in bytes.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.map.len() as u64).sum()
    }
}

impl Loaded {
    fn open(path: &Path) -> Result<Self, GgufError> {
        let refused = |doing| move |source| GgufError::Io { path: Some(path.to_path_buf()), doing, source };
        // Asked before opening, since opening a pipe would wait for its writer.
        let facts = fs::metadata(path).map_err(|error| files::explained(path, error));
        if !facts.map_err(refused("opened"))?.is_file() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(refused("opened")(source));
        }
        let file = fs::File::open(path).map_err(refused("opened"))?;
        // SAFETY: the mapping is read-only, and the borrow checker keeps references to it from outliving it. What no
        // program can rule out is that another one writes to the file meanwhile, which `Gguf` documents; nothing here
        // relies on bytes being the same when they are read again.
        let map = unsafe { Mmap::map(&file) }.map_err(refused("mapped"))?;
        let part = Part::parse(&map).map_err(|error| error.in_file(Some(path)))?;
        let modified = file.metadata().and_then(|facts| facts.modified()).ok();
        Ok(Self::new(part, MappedFile { path: Some(path.to_path_buf()), map: Arc::new(map), modified }))
    }

    fn new(part: Part, file: MappedFile) -> Self {
        let metadata = Metadata::new(file.path.clone(), Arc::clone(&file.map), part.entries);
        Self { version: part.version, metadata, tensors: part.tensors, file }
    }
}

/// Memory with the bytes, aligned as a mapped file would be.
fn copy_to_map(bytes: &[u8]) -> io::Result<Mmap> {
    let mut map = MmapMut::map_anon(bytes.len())?;
    map.copy_from_slice(bytes);
    map.make_read_only()
}
