//! `host docs list`: the kept texts.

use clap::Args;
use serde_json::json;

use super::Folder;
use crate::failure::Failure;
use crate::output;

/// List the kept texts
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Print {"documents": [...], "damaged": [...]}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

impl List {
    pub(super) fn run(self) -> Result<(), Failure> {
        let store = self.folder.store()?;
        if self.json {
            return output::json(&json!({"documents": store.documents(), "damaged": store.damaged()}));
        }
        let mut table = output::table(&["ID", "NAME", "TOKENS", "CHUNKS", "SIZE", "MODEL"]);
        for document in store.documents() {
            table.add_row(vec![
                output::number(document.id),
                document.name.as_str().into(),
                output::number(document.tokens),
                output::number(document.chunks),
                output::number(output::bytes(document.file_bytes)),
                document.model.as_str().into(),
            ]);
        }
        output::print_table(&table)
    }
}
