//! `host bench`: measurements.

mod choices;
mod context;
mod speed;

use clap::Subcommand;

use super::failure::Failure;
use super::options::EngineOptions;

/// Measure this machine and model
#[derive(Debug, Subcommand)]
pub(super) enum Bench {
    Speed(speed::Speed),
    Context(context::Context),
    Choices(choices::Choices),
}

impl Bench {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        match self {
            Self::Speed(command) => command.run(options),
            Self::Context(command) => command.run(options),
            Self::Choices(command) => command.run(options),
        }
    }
}
