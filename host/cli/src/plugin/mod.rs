//! `host plugin`: for authors of plugins.

mod check;
mod child;
mod new;
mod report;
mod templates;
mod watch;

use clap::Subcommand;

use crate::failure::Failure;
use crate::options::EngineOptions;

/// Check a plugin, or begin one
#[derive(Debug, Subcommand)]
pub(super) enum Plugin {
    Check(check::Check),
    New(new::New),
    /// The process that runs the checks, for `check`
    #[command(hide = true)]
    Worker(child::Worker),
}

impl Plugin {
    /// Whether the command itself reports refused plugins, so that warnings would repeat it.
    pub(super) fn reports_plugins(&self) -> bool {
        matches!(self, Self::Check(_) | Self::Worker(_))
    }

    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        match self {
            Self::Check(command) => command.run(options),
            Self::New(command) => command.run(),
            Self::Worker(command) => command.run(options),
        }
    }
}
