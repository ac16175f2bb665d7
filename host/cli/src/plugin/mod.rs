//! `host plugin`: for authors of plugins.

mod check;
mod new;
mod templates;

use clap::Subcommand;

use crate::failure::Failure;
use crate::options::EngineOptions;

/// Check a plugin, or begin one
#[derive(Debug, Subcommand)]
pub(super) enum Plugin {
    Check(check::Check),
    New(new::New),
}

impl Plugin {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        match self {
            Self::Check(command) => command.run(options),
            Self::New(command) => command.run(),
        }
    }
}
