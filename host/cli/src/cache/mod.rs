//! `host cache`: the KV caches of saved sequences, a check for memory leaks, and packed weights.

mod compress;
mod leaks;
mod packs;
mod tiers;
mod usage;

use std::path::Path;

use clap::Subcommand;

use super::failure::Failure;
use super::options::EngineOptions;

/// Inspect and shrink the KV cache of a saved sequence; look for memory leaks; list packed weights
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  host cache usage s.herald                    a saved sequence's memory, tier by tier
  host cache compress s.herald --keep 1024     make it smaller
  host cache leaks                             check for memory leaks
  host cache packs                             which models' weights are kept packed")]
pub(super) enum Cache {
    Usage(usage::Usage),
    Compress(compress::Compress),
    Leaks(leaks::Leaks),
    Packs(packs::Packs),
}

impl Cache {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        match self {
            Self::Usage(command) => command.run(options),
            Self::Compress(command) => command.run(options),
            Self::Leaks(command) => command.run(options),
            Self::Packs(command) => command.run(options),
        }
    }
}

/// Refuses a file that isn't there, before a model is loaded or even fetched for it.
fn must_be_saved(path: &Path) -> Result<(), Failure> {
    path.metadata().map_err(|error| Failure::file(path, "can't be read", &error))?;
    match herald::is_saved_sequence(path) {
        true => Ok(()),
        false => {
            Err(Failure::Failed(format!("{}: it is no saved sequence, which was expected", path.display())))
        }
    }
}
