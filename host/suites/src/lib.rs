//! The benchmarks: 33 in four suites, each on the real engine and a real model.
//!
//! Measuring, judging and presenting are separate. A benchmark (`performance`, `model`, `memory`, `throughput`: one file
//! per suite) only measures, and its checks say whether it timed real work: answers that parse, that equal those of
//! requests that run alone, that the model itself finds likely. [`judge`] compares the figure with two targets: a fixed
//! one, and one derived from what this machine's memory and arithmetic allow ([`Machine`]). No figure passes if a check
//! fails.
//!
//! Nothing here starts processes or prints: the program runs suites in child processes, so that no benchmark counts memory
//! that another left behind.

mod agents;
mod baseline;
mod chart;
mod context;
mod corpus;
mod html;
mod limits;
mod measurement;
mod memory;
mod mixed_load;
mod model;
mod performance;
mod questions;
mod report;
mod sanity;
mod scaling;
mod serving;
mod target;
mod throughput;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use agents::{AgentScenario, AgentTurn, Agents};
pub use baseline::{Change, Comparison, compare};
pub use context::{Context, Effort};
pub use html::page;
pub use limits::{Limits, Machine, ModelFacts, cache_bytes_per_s};
pub use measurement::{Chart, Check, Detail, Line, Measurement};
pub use report::{BackendRow, Conversations, Fingerprint, Outcome, Report};
pub use target::{Better, Target, Verdict, judge};

use herald::Result;

/// A group of benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// What a user notices: loading, answers, memory, simultaneous requests.
    Performance,
    /// Speed of the model, alone and in batches.
    Model,
    /// The memory manager: adding, compressing, optimising and freeing.
    Memory,
    /// Long jobs, and many requests at once.
    Throughput,
}

impl Suite {
    /// Every suite, in the order they run.
    pub const ALL: [Self; 4] = [Self::Performance, Self::Model, Self::Memory, Self::Throughput];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Performance => "performance",
            Self::Model => "model",
            Self::Memory => "memory",
            Self::Throughput => "throughput",
        }
    }

    /// Its benchmarks, in the order they run.
    #[must_use]
    pub fn benchmarks(self) -> &'static [Benchmark] {
        match self {
            Self::Performance => &performance::BENCHMARKS,
            Self::Model => &model::BENCHMARKS,
            Self::Memory => &memory::BENCHMARKS,
            Self::Throughput => &throughput::BENCHMARKS,
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Suite {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|suite| suite.name() == text);
        found.ok_or_else(|| {
            format!("there is no suite {text:?}, where one of these was expected: {}", known())
        })
    }
}

/// One benchmark.
pub struct Benchmark {
    /// Its suite.
    pub suite: Suite,
    /// Its name in the suite.
    pub name: &'static str,
    /// How it measures.
    pub method: &'static str,
    /// The unit of its figure.
    pub unit: &'static str,
    /// The target of its figure.
    pub target: Target,
    /// Whether it needs its own process, because it measures that process's memory or start.
    pub fresh: bool,
    /// About how long it takes, relative to the others.
    pub weight: u32,
    run: fn(&Context) -> Result<Measurement>,
}

impl Benchmark {
    /// The benchmark of this name.
    #[must_use]
    pub fn find(suite: Suite, name: &str) -> Option<&'static Self> {
        suite.benchmarks().iter().find(|benchmark| benchmark.name == name)
    }

    /// Measures, then checks that the engine that did the work predicts text like a model.
    ///
    /// # Errors
    /// One sentence that says why there is no figure.
    pub fn measure(&self, context: &Context) -> Result<Measurement> {
        let mut measurement = (self.run)(context)?;
        measurement.checks.extend(context.sanity()?.iter().cloned());
        Ok(measurement)
    }
}
