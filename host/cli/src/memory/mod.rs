//! `host memory`: texts that are kept and found again, and the memory of contexts.

mod add;
mod ask;
mod compress;
mod leaks;
mod list;
mod optimize;
mod remove;
mod search;
mod tiers;
mod usage;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use etcetera::{BaseStrategy, choose_base_strategy};
use herald_documents::{Damaged, TextMemory, TextStore};

use super::failure::Failure;
use super::options::EngineOptions;
use super::output;

/// Keep texts and find them again; see and tidy what memory holds
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  host memory add notes.txt                        keep a text
  host memory search 'Where does the key lie?'     the chunks that fit best, by meaning and by words
  host memory ask 'Where does the key lie?'        an answer from them
  host memory usage                                what is kept, and what it takes
  host memory compress s.herald --keep 1024        make a saved sequence smaller
  host memory leaks                                whether work leaves memory behind")]
pub(super) enum Memory {
    Add(add::Add),
    Search(search::Search),
    Ask(Box<ask::Ask>),
    List(list::List),
    Remove(remove::Remove),
    Clear(remove::Clear),
    Usage(usage::Usage),
    Compress(compress::Compress),
    Optimize(optimize::Optimize),
    Leaks(leaks::Leaks),
}

impl Memory {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        match self {
            Self::Add(command) => command.run(options),
            Self::Search(command) => command.run(options),
            Self::Ask(command) => command.run(options),
            Self::List(command) => command.run(),
            Self::Remove(command) => command.run(),
            Self::Clear(command) => command.run(),
            Self::Usage(command) => command.run(options),
            Self::Compress(command) => command.run(options),
            Self::Optimize(command) => command.run(),
            Self::Leaks(command) => command.run(options),
        }
    }
}

/// Where texts are kept.
#[derive(Debug, Args)]
struct Folder {
    /// The folder that the texts are kept in [default: herald/memory in the user's data folder]
    #[arg(long, value_name = "FOLDER", env = "HERALD_MEMORY", hide_env_values = true)]
    folder: Option<PathBuf>,
}

impl Folder {
    fn path(&self) -> Result<PathBuf, Failure> {
        if let Some(folder) = self.folder.clone().filter(|folder| !folder.as_os_str().is_empty()) {
            return Ok(folder);
        }
        let base = choose_base_strategy().map_err(|error| {
            Failure::Failed(format!("the user's data folder can't be found: {error}; --folder names another"))
        })?;
        Ok(base.data_dir().join("herald").join("memory"))
    }

    /// The texts, without a model.
    fn store(&self) -> Result<TextStore, Failure> {
        let store = TextStore::open(&self.path()?)?;
        warn(store.damaged());
        Ok(store)
    }

    /// The texts, with the model.
    fn memory(&self, options: &EngineOptions) -> Result<TextMemory, Failure> {
        let folder = self.path()?;
        let memory = TextMemory::open(Arc::new(options.load()?), &folder)?;
        warn(memory.damaged());
        Ok(memory)
    }
}

/// Names files that are damaged.
fn warn(damaged: &[Damaged]) {
    for Damaged { path, reason } in damaged {
        output::note(format_args!("warning: {}: {reason}; it is left out", path.display()));
    }
}
