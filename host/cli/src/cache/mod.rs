//! `host cache`: the KV caches of saved sequences, and whether work leaves memory behind.

mod compress;
mod leaks;
mod tiers;
mod usage;

use clap::Subcommand;

use super::failure::Failure;
use super::options::EngineOptions;

/// Inspect and shrink the KV cache of a saved sequence; look for memory leaks
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  host cache usage s.herald                    what a saved sequence takes, tier by tier
  host cache compress s.herald --keep 1024     make it smaller
  host cache leaks                             whether work leaves memory behind")]
pub(super) enum Cache {
    Usage(usage::Usage),
    Compress(compress::Compress),
    Leaks(leaks::Leaks),
}

impl Cache {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        match self {
            Self::Usage(command) => command.run(options),
            Self::Compress(command) => command.run(options),
            Self::Leaks(command) => command.run(options),
        }
    }
}
