//! `host bench worker`: benchmarks in their own process, for [`super::processes`]. It reports in lines of JSON when each
//! begins, and its result. Or it computes a sample of the backend's logits, for [`super::wrong`].

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use herald::NeuroEngine;
use herald::agreement::Sample;
use herald_suites::{Benchmark, Context, Effort, Measurement, Suite};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::options::EngineOptions;
use crate::output;

/// Run some benchmarks in this process
#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// The suite
    #[arg(long, required_unless_present = "sample")]
    suite: Option<Suite>,
    /// Write a sample of logits to this file instead
    #[arg(long)]
    sample: Option<PathBuf>,
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
        if let Some(file) = &self.sample {
            return write_sample(options, file);
        }
        let Some(suite) = self.suite else { return Ok(()) };
        let context = Context::new(options.model_path()?, &options.load_options(), effort, self.synthetic);
        for name in self.names {
            let Some(benchmark) = Benchmark::find(suite, &name) else {
                return Err(Failure::Usage(format!("the suite {suite} has no benchmark {name:?}")));
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
    output::json_line(message)
}

fn write_sample(options: &EngineOptions, file: &Path) -> Result<(), Failure> {
    let engine = NeuroEngine::load(&options.model_path()?, &options.load_options())?;
    // Whoever started this process keeps its time.
    let Some(sample) = Sample::of(&engine, Duration::MAX, &mut || true)? else { return Ok(()) };
    let mut bytes = (sample.vocabulary as u64).to_le_bytes().to_vec();
    bytes.extend(sample.logits.iter().flat_map(|logit| logit.to_le_bytes()));
    fs::write(file, bytes).map_err(|error| Failure::file(file, "it can't be written", &error))
}

/// What a worker wrote.
pub(super) fn read_sample(file: &Path) -> Result<Sample, String> {
    let bytes = fs::read(file).map_err(|error| format!("its results can't be read: {error}"))?;
    let short = || format!("its results have {} bytes, where more were expected", bytes.len());
    let (vocabulary, logits) = bytes.split_first_chunk().ok_or_else(short)?;
    let vocabulary = usize::try_from(u64::from_le_bytes(*vocabulary)).map_err(|_| short())?;
    let logits = logits.as_chunks().0.iter().map(|logit| f32::from_le_bytes(*logit)).collect();
    Ok(Sample { vocabulary, logits })
}
