//! `host bench`: the benchmark suites, and other measurements.

mod agents;
mod baselines;
mod choices;
mod context;
mod model;
mod outputs;
mod processes;
mod speed;
mod suites;
mod table;
mod worker;
mod wrong;

use clap::{Args, Subcommand};

use super::failure::Failure;
use super::options::EngineOptions;

/// Run the benchmarks on every backend of this machine, the best first
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Each suite runs in its own process. Results are judged against fixed targets, or on a slower machine against what its memory
and arithmetic allow. The exit code is 1 if the chosen backend (the best, or the one that --backend names) misses one.

Examples:
  host bench                                       everything
  host bench performance model                     two of the suites
  host --backend simd bench --html report.html     one backend, and a report as a web page
  host bench --save-baseline before                later: host bench --compare before
  host bench speed -p 512 -n 128                   tokens per second only"
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
    Agents(agents::Agents),
    Choices(choices::Choices),
    #[command(hide = true)]
    Worker(worker::Worker),
}

impl Bench {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        // What is measured is what a pass takes, unless drafts are asked for.
        let options = &EngineOptions { max_draft: options.max_draft.or(Some(0)), ..options.clone() };
        match self.command {
            Some(Command::Speed(command)) => command.run(options),
            Some(Command::Context(command)) => command.run(options),
            Some(Command::Agents(command)) => command.run(options),
            Some(Command::Choices(command)) => command.run(options),
            Some(Command::Worker(command)) => command.run(options),
            None => self.suites.run(options),
        }
    }

    /// Whether it reports refused plugins itself: the suites do, and their workers need not repeat it.
    pub(super) fn reports_plugins(&self) -> bool {
        matches!(self.command, None | Some(Command::Worker(_)))
    }
}
