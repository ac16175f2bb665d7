//! `host bench`: the benchmarks, and other measurements.

mod baselines;
mod choices;
mod context;
mod model;
mod processes;
mod speed;
mod suites;
mod table;
mod worker;

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::options::EngineOptions;

/// Run the benchmarks on every backend that this machine has, the best first
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Each suite runs in a process of its own. Figures are judged by fixed targets, or on a slower machine by what its memory and
arithmetic allow. The exit code is 1 where the chosen backend (the best, or the one that --backend names) fails one.

Examples:
  host bench                                       everything
  host bench performance model                     two of the suites
  host --backend simd bench --html report.html     one backend, and a page to look at
  host bench --save-baseline before                and later: host bench --compare before
  host bench speed -p 512 -n 128                   nothing but tokens a second"
)]
pub(super) struct Bench {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    suites: suites::Suites,
}

#[derive(Debug, Subcommand)]
enum Command {
    Speed(speed::Speed),
    Context(context::Context),
    Choices(choices::Choices),
    #[command(hide = true)]
    Worker(worker::Worker),
}

impl Bench {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        match self.command {
            Some(Command::Speed(command)) => command.run(options),
            Some(Command::Context(command)) => command.run(options),
            Some(Command::Choices(command)) => command.run(options),
            Some(Command::Worker(command)) => command.run(options),
            None => self.suites.run(options),
        }
    }

    /// Whether it says itself which plugins were refused: the benchmarks do, and their workers need not say it again.
    pub(super) fn reports_plugins(&self) -> bool {
        matches!(self.command, None | Some(Command::Worker(_)))
    }
}
