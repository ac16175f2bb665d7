//! `host bench worker`: benchmarks in their own process, for [`super::processes`]. It reports in lines of JSON when each
//! begins, and its result.

use std::time::Instant;

use clap::Args;
use herald_suites::{Benchmark, Context, Effort, Measurement, Suite};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::options::EngineOptions;
use crate::output;

/// Run some benchmarks in this process
#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// The suite
    #[arg(long)]
    suite: Suite,
    /// One round of each
    #[arg(long)]
    quick: bool,
    /// More rounds and larger sizes
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// The model's weights are random
    #[arg(long)]
    synthetic: bool,
    /// The benchmarks
    names: Vec<String>,
}

/// A line from a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// This benchmark begins.
    Begun(String),
    /// This benchmark has ended: its measurement or why there is none, and seconds.
    Ended(String, Result<Measurement, String>, f64),
}

impl Worker {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let effort = match (self.quick, self.full) {
            (true, _) => Effort::Quick,
            (_, true) => Effort::Full,
            _ => Effort::Usual,
        };
        let context = Context::new(options.model_path()?, &options.load_options(), effort, self.synthetic);
        for name in self.names {
            let Some(benchmark) = Benchmark::find(self.suite, &name) else {
                return Err(Failure::Usage(format!("the suite {} has no benchmark {name:?}", self.suite)));
            };
            send(&Message::Begun(name.clone()))?;
            let start = Instant::now();
            let found = benchmark.measure(&context).map_err(|error| error.to_string());
            send(&Message::Ended(name, found, start.elapsed().as_secs_f64()))?;
        }
        Ok(())
    }
}

/// Prints a message in one line, even on a terminal.
fn send(message: &Message) -> Result<(), Failure> {
    let text = serde_json::to_string(message);
    output::line(
        text.map_err(|error| Failure::Failed(format!("a result can't be written as JSON: {error}")))?,
    )
}
