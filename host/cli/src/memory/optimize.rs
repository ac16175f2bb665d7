//! `host memory optimize`: remove what is of no use.

use clap::Args;
use serde_json::json;

use super::Folder;
use crate::failure::Failure;
use crate::output;

/// Remove damaged files, and what additions that were cut off left behind, from the texts' folder
#[derive(Debug, Args)]
#[command(
    after_help = "Pages of keys and values are tidied up by the library's optimize_memory, for as long as a program runs:
nothing of them outlives it."
)]
pub(crate) struct Optimize {
    /// Print {"removed_files": N, "removed_bytes": N}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

impl Optimize {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (files, bytes) = self.folder.store()?.tidy()?;
        if self.json {
            return output::json(&json!({"removed_files": files, "removed_bytes": bytes}));
        }
        output::line(format_args!("{files} files with {} are removed", output::bytes(bytes)))
    }
}
