//! `host bench worker`: benchmarks in a process of their own, for [`super::processes`]. It says in lines of JSON what it
//! begins and what it finds.

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
    /// All that there is
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// The model's weights are random
    #[arg(long)]
    synthetic: bool,
    /// The benchmarks
    names: Vec<String>,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// It begins this benchmark.
    Begun(String),
    /// It has ended this benchmark: what was found, or why nothing, and seconds.
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
            say(&Said::Begun(name.clone()))?;
            let start = Instant::now();
            let found = benchmark.measure(&context).map_err(|error| error.to_string());
            say(&Said::Ended(name, found, start.elapsed().as_secs_f64()))?;
        }
        Ok(())
    }
}

/// In one line, also where it goes to a terminal.
fn say(said: &Said) -> Result<(), Failure> {
    let text = serde_json::to_string(said);
    output::line(text.map_err(|error| Failure::Failed(format!("a result can't be told: {error}")))?)
}
