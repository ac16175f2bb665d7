//! `host cache packs`: packed weights that are kept in files.

use clap::Args;
use herald::{folders, packs};
use serde_json::json;

use crate::failure::Failure;
use crate::options::EngineOptions;
use crate::output;

/// List the packed weights that are kept in files, or remove them
#[derive(Debug, Args)]
#[command(
    after_help = "A model's weights are packed when it is first loaded, into a file that later runs and other programs map; a file goes with
its model (host rm), or when the model changes. A program that has it open goes on with it."
)]
pub(crate) struct Packs {
    /// Remove them all: models are packed anew when they are next loaded
    #[arg(long)]
    clear: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Packs {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let folder = folders::packs().ok_or_else(|| {
            Failure::Failed(
                "the user's cache folder, where packed weights are kept, can't be found".to_owned(),
            )
        })?;
        if self.clear {
            let freed = packs::remove(&folder, |_| true)
                .map_err(|error| Failure::file(&folder, "packed weights in it can't be removed", &error))?;
            if self.json {
                return output::json(&json!({"bytes": freed}));
            }
            return match options.quiet {
                true => Ok(()),
                false => output::line(format!("removed: {} are free now", output::bytes(freed))),
            };
        }
        let found = packs::list(&folder);
        if self.json {
            let packs: Vec<_> = found
                .iter()
                .map(|pack| json!({"model": pack.model, "plugin": pack.plugin, "bytes": pack.bytes, "file": pack.path}))
                .collect();
            return output::json(&json!({"folder": folder, "packs": packs}));
        }
        for pack in &found {
            let model = pack.model.first().map(|path| path.display().to_string()).unwrap_or_default();
            output::line(format!("{}  {}  {model}", output::bytes(pack.bytes), pack.plugin))?;
        }
        let total = found.iter().map(|pack| pack.bytes).sum();
        output::line(format!("{} in {}", output::bytes(total), folder.display()))
    }
}
