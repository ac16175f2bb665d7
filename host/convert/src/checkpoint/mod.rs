//! Published checkpoints to GGUF: a folder with `config.json`, safetensors and a tokenizer's files becomes one file, with the names,
//! shapes and keys that llama.cpp's `convert_hf_to_gguf.py` writes.
//!
//! A [`Checkpoint`] is such a folder. A [`Conversion`] has what its file will hold, and [`Conversion::write`] streams it, a few million
//! weights at a time, so that models may be larger than memory. A setting or a tensor that would be dropped is refused by name, unless
//! it is known to say nothing of what the model computes.

mod config;
mod error;
mod families;
mod general;
mod json;
mod meta;
mod place;
mod recipe;
mod shards;
mod table;
mod vocabulary;
mod write;

use std::path::{Path, PathBuf};

use herald::gguf::Writer;
use herald_api::DType;

use config::Config;
use error::{Result, bad_file};
use meta::Meta;
use recipe::{Content, Recipe};
use shards::Shards;

use crate::quantize::{Fallback, Types};

pub use error::CheckpointError;

/// How a checkpoint is converted.
#[derive(Clone, Debug, Default)]
pub struct ConvertOptions {
    /// The type of the matrices; without one, that in which most checkpoints of today are: of the first matrix.
    pub dtype: Option<DType>,
    /// The model's name; without one, that of the folder.
    pub name: Option<String>,
    /// GGUF's name of the pre-tokenizer, where its expressions aren't known.
    pub pre_tokenizer: Option<String>,
    /// Settings that it is converted without, though they aren't known.
    pub ignored: Vec<String>,
}

/// A folder with a checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    shards: Shards,
}

impl Checkpoint {
    /// Opens a folder as it is downloaded: that of the files, or one of Hugging Face's cache (`models--OWNER--NAME`).
    ///
    /// # Errors
    ///
    /// Where a file is missing, can't be read or is damaged.
    pub fn open(folder: &Path) -> Result<Self> {
        if folder.is_file() {
            return Err(bad_file(folder, "it is a file, where the folder of a checkpoint was expected"));
        }
        let folder = snapshot(folder)?;
        let shards = Shards::open(&folder)?;
        if shards.tensors().is_empty() {
            return Err(bad_file(&folder, "its safetensors files hold no tensors, which were expected"));
        }
        Ok(Self { folder, shards })
    }

    /// The folder of the files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The model's name, by its folder's.
    fn name(&self) -> String {
        let of = |path: Option<&Path>| {
            path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned())
        };
        let cached = of(self.folder.parent().and_then(Path::parent));
        let cached = cached
            .as_deref()
            .and_then(|name| name.strip_prefix("models--")?.split("--").last().map(str::to_owned));
        let whole = self.folder.canonicalize().ok();
        general::title(&cached.or(of(whole.as_deref())).unwrap_or_else(|| "model".to_owned()))
    }
}

/// The folder of a checkpoint's files: in the cache, of the revision `main`, or of the only one.
fn snapshot(folder: &Path) -> Result<PathBuf> {
    let snapshots = folder.join("snapshots");
    if folder.join("config.json").exists() || !snapshots.is_dir() {
        return Ok(folder.to_owned());
    }
    let named = json::text(&folder.join("refs").join("main"))?;
    let named = named
        .map(|revision| revision.trim().to_owned())
        .filter(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if let Some(revision) = named
        && snapshots.join(&revision).is_dir()
    {
        return Ok(snapshots.join(revision));
    }
    let read = |source| CheckpointError::Read { path: snapshots.clone(), source };
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(&snapshots).map_err(read)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    match (found.pop(), found.len()) {
        (Some(only), 0) => Ok(only),
        (_, others) => {
            Err(bad_file(&snapshots, format!("it has {} revisions, where one was expected", others + 1)))
        }
    }
}

/// A tensor of the file: its name, what it is made of, and its type.
#[derive(Debug)]
struct Tensor {
    name: String,
    recipe: Recipe,
    dtype: DType,
}

/// What a checkpoint's file will hold.
#[derive(Debug)]
pub struct Conversion<'c> {
    checkpoint: &'c Checkpoint,
    meta: Meta,
    tensors: Vec<Tensor>,
    left_out: Vec<String>,
    fallbacks: Vec<Fallback>,
}

impl<'c> Conversion<'c> {
    /// Plans the conversion: reads all but the weights.
    ///
    /// # Errors
    ///
    /// Where the architecture isn't known, a file is missing or damaged, settings and tensors don't fit each other, or one of them
    /// isn't known.
    pub fn new(checkpoint: &'c Checkpoint, options: &ConvertOptions) -> Result<Self> {
        let mut config = Config::open(&checkpoint.folder, &options.ignored)?;
        let mut model = families::model(&mut config)?;
        let placed = place::place(&model, &config, &checkpoint.shards)?;
        config.check_all_known()?;
        let vocabulary =
            vocabulary::vocabulary(&checkpoint.folder, &config, &model, options.pre_tokenizer.as_deref())?;
        let mut tensors: Vec<(String, Recipe)> = placed.tensors.into_iter().collect();
        tensors.sort_by_cached_key(|(name, _)| order(name));
        let dtype = options.dtype.unwrap_or_else(|| usual_type(&checkpoint.shards));
        let mut types = Types::new(dtype, None, tensors.iter().any(|(name, _)| name == "output.weight"));
        let (mut planned, mut has_mxfp4) = (Vec::new(), false);
        let mut meta = Meta::new(model.meta.architecture());
        let name = options.name.clone().unwrap_or_else(|| checkpoint.name());
        general::write(&mut meta, &checkpoint.folder, &name, &tensors)?;
        for (name, recipe) in tensors {
            let is_mxfp4 = matches!(recipe.content, Content::Mxfp4 { .. });
            has_mxfp4 |= is_mxfp4;
            let dims: Vec<usize> = recipe.dims.iter().rev().copied().collect();
            let dtype = match dtype {
                _ if is_mxfp4 => DType::Mxfp4,
                _ if is_vector(&name, &dims) => DType::F32,
                _ => types.of(&name, &dims).unwrap_or(DType::F32),
            };
            planned.push(Tensor { name, recipe, dtype });
        }
        let file_type = if has_mxfp4 && dtype.block_len() == 1 {
            FILE_OF_MXFP4
        } else {
            herald_formats::file_type(dtype)
        };
        meta.set("general.file_type", file_type);
        meta.set("general.quantization_version", FORMATS_VERSION);
        meta.extend(std::mem::take(&mut model.meta));
        meta.extend(vocabulary);
        let fallbacks = types.fallbacks();
        Ok(Self { checkpoint, meta, tensors: planned, left_out: placed.left_out, fallbacks })
    }

    /// The number of weights.
    #[must_use]
    pub fn weights(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.recipe.elements()).sum()
    }

    /// The types of the tensors, in the file's order.
    pub fn types(&self) -> impl ExactSizeIterator<Item = DType> {
        self.tensors.iter().map(|tensor| tensor.dtype)
    }

    /// Published tensors that the file doesn't have: of other senses and other tasks.
    #[must_use]
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Where types depart from the request.
    #[must_use]
    pub fn fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }

    /// A writer with all that comes before the weights.
    fn writer(&self) -> Result<Writer> {
        let mut writer = Writer::new();
        self.meta.write(&mut writer)?;
        for tensor in &self.tensors {
            let dims: Vec<usize> = tensor.recipe.dims.iter().rev().copied().collect();
            writer.tensor(&tensor.name, tensor.dtype, &dims)?;
        }
        Ok(writer)
    }
}

/// The number of files with experts in MXFP4 (`general.file_type`), and the version of the block formats.
const FILE_OF_MXFP4: u32 = 38;
const FORMATS_VERSION: u32 = 2;

/// Whether engines read a tensor in float32 only: vectors, norms, and what has no weight's name.
fn is_vector(name: &str, dims: &[usize]) -> bool {
    dims.len() <= 1 || name.ends_with("_norm.weight") || !name.ends_with(".weight")
}

/// The place of a tensor in the file: embeddings, the blocks in order, and the rest.
fn order(name: &str) -> (usize, usize, String) {
    let block = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')?.0.parse().ok());
    match block {
        Some(block) => (1, block, name.to_owned()),
        None if name.starts_with("output") => (2, 0, name.to_owned()),
        None => (0, 0, name.to_owned()),
    }
}

/// The type of the first matrix, by name.
fn usual_type(shards: &Shards) -> DType {
    let stored =
        shards.tensors().values().filter(|tensor| tensor.dims.len() >= 2).map(|tensor| tensor.stored);
    let floats = stored.filter_map(|stored| match stored {
        shards::Stored::Floats(dtype) => Some(dtype),
        shards::Stored::Bytes | shards::Stored::Otherwise(_) => None,
    });
    floats.into_iter().next().unwrap_or(DType::F32)
}
