//! `host docs`: keeps texts, searches them, and puts them into prompts.

mod add;
mod ask;
mod list;
mod remove;
mod search;
mod tidy;
mod usage;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use etcetera::{BaseStrategy, choose_base_strategy};
use herald_documents::{Damaged, DocumentStore, Documents};

use super::failure::Failure;
use super::options::EngineOptions;
use super::output;

/// Keep texts, search them by meaning and by words, and answer from them
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  host docs add notes.txt                      keep a text
  host docs search 'Where is the key?'         the chunks that fit best, by meaning and by words
  host docs ask 'Where is the key?'            an answer from them
  host docs usage                              how many texts are kept, and the space they take")]
pub(super) enum Docs {
    Add(add::Add),
    Search(search::Search),
    Ask(Box<ask::Ask>),
    List(list::List),
    Remove(remove::Remove),
    Clear(remove::Clear),
    Usage(usage::Usage),
    Tidy(tidy::Tidy),
}

impl Docs {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        match self {
            Self::Add(command) => command.run(options),
            Self::Search(command) => command.run(options),
            Self::Ask(command) => command.run(options),
            Self::List(command) => command.run(),
            Self::Remove(command) => command.run(),
            Self::Clear(command) => command.run(),
            Self::Usage(command) => command.run(),
            Self::Tidy(command) => command.run(),
        }
    }
}

/// The folder of the kept texts.
#[derive(Debug, Args)]
struct Folder {
    /// The folder of the kept texts [default: herald/documents in the user's data folder]
    #[arg(long, value_name = "FOLDER", env = "HERALD_DOCUMENTS", hide_env_values = true)]
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
        let herald = base.data_dir().join("herald");
        let [folder, former] = ["documents", "memory"].map(|name| herald.join(name));
        // Version 0.1.0 kept texts in `memory`.
        Ok(if former.is_dir() && !folder.exists() { former } else { folder })
    }

    /// That a folder which was named is there: only adding a text makes one.
    fn must_be_there(&self) -> Result<(), Failure> {
        match self.folder.as_deref() {
            Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
                Err(Failure::Failed(format!(
                    "{}: the folder isn't there, where one with kept texts was expected",
                    folder.display()
                )))
            }
            _ => Ok(()),
        }
    }

    /// Opens the texts without a model.
    fn store(&self) -> Result<DocumentStore, Failure> {
        self.must_be_there()?;
        let store = DocumentStore::open(&self.path()?)?;
        warn(store.damaged());
        Ok(store)
    }

    /// Opens the texts with the model.
    fn documents(&self, options: &EngineOptions) -> Result<Documents, Failure> {
        let folder = self.path()?;
        let documents = Documents::open(Arc::new(options.load()?), &folder)?;
        warn(documents.damaged());
        Ok(documents)
    }
}

/// Warns about damaged files.
fn warn(damaged: &[Damaged]) {
    for Damaged { path, reason } in damaged {
        output::note(format_args!("warning: {}: {reason}; it is left out", path.display()));
    }
}
