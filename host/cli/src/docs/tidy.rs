//! `host docs tidy`: remove damaged and left-over files.

use clap::Args;
use serde_json::json;

use super::Folder;
use crate::failure::Failure;
use crate::output;

/// Remove damaged files and the remains of interrupted additions from the texts' folder
#[derive(Debug, Args)]
pub(crate) struct Tidy {
    /// Print {"removed_files": N, "removed_bytes": N}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

impl Tidy {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (files, bytes) = self.folder.store()?.tidy()?;
        if self.json {
            return output::json(&json!({"removed_files": files, "removed_bytes": bytes}));
        }
        output::line(format_args!("removed {files} files with {}", output::bytes(bytes)))
    }
}
