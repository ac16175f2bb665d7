//! `host docs usage`: how many texts are kept, and the space they take.

use clap::Args;
use serde_json::json;

use super::Folder;
use crate::failure::Failure;
use crate::output;

/// Show how many texts there are, and the space they take
#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

impl Usage {
    pub(super) fn run(self) -> Result<(), Failure> {
        let folder = self.folder.path()?;
        let store = self.folder.store()?;
        let usage = store.usage();
        if self.json {
            return output::json(
                &json!({"folder": folder.to_string_lossy(), "texts": usage, "damaged": store.damaged()}),
            );
        }
        output::line(format_args!(
            "{}: {} texts in {} chunks, {} tokens",
            folder.display(),
            usage.documents,
            usage.chunks,
            usage.tokens
        ))?;
        output::line(format_args!(
            "{} of text, {} of vectors, {} on disk",
            output::bytes(usage.text_bytes as u64),
            output::bytes(usage.vector_bytes as u64),
            output::bytes(usage.file_bytes)
        ))
    }
}
