//! `host gguf`: model files taken apart, put together, changed in their metadata, and told apart by their digests.

mod hash;
mod merge;
mod set;
mod split;

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use clap::Subcommand;
use herald::files::Unfinished;
use herald::gguf::{Gguf as Model, GgufError};
use herald_convert::parts::PartsError;

use super::failure::Failure;
use super::options::EngineOptions;
use super::output;

/// Split and merge model files, set their metadata, compute and check their digests
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  host gguf split big.gguf parts/big --max-size 4GB    big-00001-of-00003.gguf and so on
  host gguf merge parts/big-00001-of-00003.gguf big.gguf
  host gguf set model.gguf tokenizer.ggml.add_bos_token=false
  host gguf hash model.gguf > model.sha256
  host gguf hash model.gguf --check model.sha256")]
pub(super) enum Gguf {
    Split(split::Split),
    Merge(merge::Merge),
    Set(set::Set),
    Hash(hash::Hash),
}

impl Gguf {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        match self {
            Self::Split(command) => command.run(options),
            Self::Merge(command) => command.run(options),
            Self::Set(command) => command.run(options),
            Self::Hash(command) => command.run(options),
        }
    }
}

fn opened(path: &Path) -> Result<Model, Failure> {
    Ok(Model::open(path).map_err(herald::Error::from)?)
}

/// Refuses to begin what the disk has no room for.
fn must_fit(folder: &Path, bytes: u64) -> Result<(), Failure> {
    match herald::free_bytes(folder).filter(|free| *free < bytes) {
        None => Ok(()),
        Some(free) => Err(Failure::Failed(format!(
            "{}: {} are free there, where {} were expected",
            folder.display(),
            output::bytes(free),
            output::bytes(bytes)
        ))),
    }
}

/// A failure of writing to `path`.
fn failure(path: &Path, error: PartsError) -> Failure {
    match error {
        PartsError::Cancelled => Failure::Interrupted,
        PartsError::Gguf(GgufError::Io { source, .. }) => Failure::file(path, "it can't be written", &source),
        error => Failure::Failed(error.to_string()),
    }
}

/// A whole new file takes the place of `path`.
fn keep(path: &Path, out: BufWriter<Unfinished>) -> Result<u64, Failure> {
    let failed = |error| Failure::file(path, "it can't be written", &error);
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    let bytes = length(file.file()).map_err(failed)?;
    file.keep(path).map_err(failed)?;
    Ok(bytes)
}

fn length(file: &File) -> std::io::Result<u64> {
    Ok(file.metadata()?.len())
}
