//! `host cache packs`: packed weights that are kept in files.

use clap::Args;
use herald::packs::PackFile;
use herald::{folders, packs};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::options::EngineOptions;
use crate::output;

/// List the packed weights that are kept in files, or remove them
#[derive(Debug, Args)]
#[command(
    after_help = "A model's weights are packed when it is first loaded, into a file that later runs and other programs map; a file goes with
its model (host rm), or when another model is packed after its own is gone or has changed. A program that has it open goes on with it."
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
            let packs: Vec<_> = found.iter().map(facts).collect();
            return output::json(&json!({"folder": folder.to_string_lossy(), "packs": packs}));
        }
        for pack in &found {
            let model = match pack.model.first() {
                Some(path) if path.exists() => path.display().to_string(),
                Some(path) => format!("{} (which is gone)", path.display()),
                None => format!("{} (which can't be read)", pack.path.display()),
            };
            output::line(format!("{}  {}  {model}", output::bytes(pack.bytes), pack.plugin))?;
        }
        let total = found.iter().map(|pack| pack.bytes).sum();
        output::line(format!("{} in {}", output::bytes(total), folder.display()))
    }
}

/// A pack in JSON, with what of paths is text.
fn facts(pack: &PackFile) -> Value {
    let model: Vec<_> = pack.model.iter().map(|path| path.to_string_lossy()).collect();
    json!({"model": model, "plugin": pack.plugin, "bytes": pack.bytes, "file": pack.path.to_string_lossy()})
}
