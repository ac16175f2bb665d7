//! `host docs remove` and `host docs clear`: remove texts.

use clap::Args;
use serde_json::json;

use super::Folder;
use crate::failure::Failure;
use crate::output;

/// Remove texts by their numbers, as `list` shows them
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The texts' numbers
    #[arg(required = true)]
    ids: Vec<u64>,
    /// Print {"removed": N}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

impl Remove {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut store = self.folder.store()?;
        for id in &self.ids {
            if !store.remove(*id)? {
                return Err(Failure::Failed(format!(
                    "there is no text {id}, where a number that `host docs list` shows was expected"
                )));
            }
        }
        report(self.ids.len(), self.json)
    }
}

/// Remove all texts
#[derive(Debug, Args)]
pub(crate) struct Clear {
    /// Don't ask
    #[arg(short, long)]
    yes: bool,
    /// Print {"removed": N}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

impl Clear {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut store = self.folder.store()?;
        let count = store.documents().len();
        let question = format!("Remove all of the {count} kept texts? [y/N] ");
        if !self.yes && count > 0 && output::can_ask() && !output::says_yes(&question) {
            return Err(Failure::Failed("nothing was removed".to_owned()));
        }
        report(store.clear()?, self.json)
    }
}

fn report(removed: usize, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return output::json(&json!({ "removed": removed }));
    }
    output::line(format_args!("removed {removed} texts"))
}
