//! `host rm`: remove models from this machine.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use herald::{folders, packs};
use herald_hub::{Hub, Model, Settings};
use serde_json::json;

use super::arguments::Listed;
use super::failure::Failure;
use super::options::EngineOptions;
use super::{output, store};

/// Remove pulled models from this machine
#[derive(Debug, Args)]
#[command(
    after_help = "A name without its quant means all of the repository's models. What another repository in the hub's cache uses stays,
and nothing outside of the caches is removed."
)]
pub(super) struct Rm {
    /// The models, as `host ls` names them
    #[arg(required = true, value_parser = Listed::new(NonEmptyStringValueParser::new(), store::values), hide_possible_values = true)]
    names: Vec<String>,
    /// Don't ask
    #[arg(short, long)]
    yes: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What is to go.
enum Doomed {
    Known(&'static store::Known),
    Pulled(Box<Model>),
}

impl Doomed {
    fn name(&self) -> &str {
        match self {
            Self::Known(known) => known.name,
            Self::Pulled(model) => &model.name,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Known(known) => known.bytes,
            Self::Pulled(model) => model.bytes,
        }
    }

    /// Removes it. Returns the bytes that are free now.
    fn remove(&self, hub: &Hub) -> Result<u64, Failure> {
        match self {
            Self::Known(known) => {
                let path = known.path()?;
                fs::remove_file(&path)
                    .map_err(|error| Failure::file(&path, "it can't be removed", &error))?;
                Ok(known.bytes)
            }
            Self::Pulled(model) => Ok(hub.remove(std::slice::from_ref(model))?),
        }
    }
}

impl Rm {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let hub = Hub::new(Settings::from_env()?);
        let mut doomed: Vec<Doomed> = Vec::new();
        for name in &self.names {
            for one in found(&hub, name)? {
                if !doomed.iter().any(|other| other.name() == one.name()) {
                    doomed.push(one);
                }
            }
        }
        if !self.yes {
            self.ask(&doomed)?;
        }
        let mut freed = 0;
        for one in &doomed {
            freed += one.remove(&hub)?;
        }
        // What was packed of them is of no use to anyone.
        if let Some(folder) = folders::packs() {
            let is_gone = |files: &[PathBuf]| files.iter().any(|file| !file.exists());
            freed += packs::remove(&folder, is_gone)
                .map_err(|error| Failure::file(&folder, "packed weights in it can't be removed", &error))?;
        }
        if self.json {
            let names: Vec<&str> = doomed.iter().map(Doomed::name).collect();
            return output::json(&json!({"removed": names, "bytes": freed}));
        }
        if !options.quiet {
            let names: Vec<&str> = doomed.iter().map(Doomed::name).collect();
            output::line(format!("removed {}: {} are free now", names.join(", "), output::bytes(freed)))?;
        }
        Ok(())
    }

    fn ask(&self, doomed: &[Doomed]) -> Result<(), Failure> {
        if !output::can_ask() {
            return Err(Failure::Failed(format!(
                "nobody can be asked whether to remove {}: `host rm --yes` doesn't ask",
                self.names.join(", ")
            )));
        }
        for one in doomed {
            output::note(format_args!("{} ({})", one.name(), output::bytes(one.bytes())));
        }
        match output::says_yes("Remove from this machine? [y/N] ") {
            true => Ok(()),
            false => Err(Failure::Failed("nothing was removed".to_owned())),
        }
    }
}

/// The models that a name means.
fn found(hub: &Hub, name: &str) -> Result<Vec<Doomed>, Failure> {
    let real = Path::new(name).canonicalize().ok();
    let is_known = |known: &&store::Known| {
        let there = known.there();
        let is_file = || real.is_some() && there.as_ref().and_then(|path| path.canonicalize().ok()) == real;
        there.is_some() && (known.name == name || is_file())
    };
    if let Some(known) = store::KNOWN.iter().find(is_known) {
        return Ok(vec![Doomed::Known(known)]);
    }
    if store::KNOWN.iter().any(|known| known.name == name) {
        return Err(Failure::Failed(format!(
            "there is no model {name:?} on this machine: it was not pulled"
        )));
    }
    let models = hub.to_remove(name)?;
    Ok(models.into_iter().map(|model| Doomed::Pulled(Box::new(model))).collect())
}
