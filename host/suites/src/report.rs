//! A run's report: the machine, the model, and each benchmark's result on each backend.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::context::Effort;
use super::limits::{Limits, Machine, ModelFacts};
use super::measurement::Measurement;
use super::target::{Better, Verdict, judge};
use super::{Benchmark, Suite};
use herald::{Error, Result};

/// What must be equal for two runs to be comparable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The processor's name.
    pub cpu: String,
    /// Processors that the process may use.
    pub cpus: u32,
    /// Threads of the engine.
    pub threads: usize,
    /// RAM, in whole GiB.
    pub memory_gib: u64,
    /// The operating system and the processor's architecture.
    pub system: String,
    /// This program's version.
    pub version: String,
    /// The model's file name and size.
    pub model: String,
    /// How thorough the run was.
    pub effort: String,
}

impl Fingerprint {
    /// This machine's.
    #[must_use]
    pub fn of(threads: usize, model: &ModelFacts, effort: Effort) -> Self {
        let hardware = herald::plugin::this_machine();
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            cpu: name.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            cpus: hardware.cpus,
            threads,
            memory_gib: hardware.memory_bytes >> 30,
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: format!("{}, {} bytes", model.name, model.file_bytes),
            effort: effort.name().to_owned(),
        }
    }

    /// The differences, a sentence each.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let fields = |of: &Self| {
            [
                ("processor", of.cpu.clone()),
                ("processors", of.cpus.to_string()),
                ("threads", of.threads.to_string()),
                ("memory in GiB", of.memory_gib.to_string()),
                ("system", of.system.clone()),
                ("version", of.version.clone()),
                ("model", of.model.clone()),
                ("effort", of.effort.clone()),
            ]
        };
        let pairs = fields(self).into_iter().zip(fields(other));
        pairs
            .filter(|((_, ours), (_, theirs))| ours != theirs)
            .map(|((what, ours), (_, theirs))| format!("{what}: {ours} here, {theirs} there"))
            .collect()
    }
}

/// A backend of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendRow {
    /// Its name.
    pub name: String,
    /// Which of its variants runs here.
    pub variant: String,
    /// Whether it is the chosen one, whose verdicts are the run's.
    pub chosen: bool,
    /// Why it did not run, if so.
    pub skipped: Option<String>,
}

/// A benchmark's result on a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The suite.
    pub suite: Suite,
    /// The benchmark.
    pub name: String,
    /// The backend.
    pub backend: String,
    /// The figure; `None` if there is none.
    pub figure: Option<f64>,
    /// Its unit.
    pub unit: String,
    /// Whether higher or lower is better.
    pub better: Better,
    /// The verdict: targets, and whether it passed.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The rounds' spread, as a share of the figure.
    pub spread: f64,
    /// How it was measured.
    pub method: String,
    /// Seconds that the whole benchmark took.
    pub seconds: f64,
    /// The whole measurement.
    pub measurement: Option<Measurement>,
}

impl Outcome {
    /// Judges a measurement, or the reason for its absence.
    #[must_use]
    pub fn of(
        benchmark: &Benchmark,
        backend: &str,
        found: std::result::Result<Measurement, String>,
        seconds: f64,
        limits: &Limits<'_>,
    ) -> Self {
        let (verdict, measurement) = match found {
            Ok(found) => (judge(&benchmark.target, benchmark.unit, &found, limits), Some(found)),
            Err(reason) => {
                let empty = Measurement::default();
                let verdict = judge(&benchmark.target, benchmark.unit, &empty, limits);
                let failed = Verdict { passed: false, passed_fixed: false, reasons: vec![reason], ..verdict };
                (failed, None)
            }
        };
        Self {
            suite: benchmark.suite,
            name: benchmark.name.to_owned(),
            backend: backend.to_owned(),
            figure: measurement.as_ref().map(|found| found.figure).filter(|figure| figure.is_finite()),
            unit: benchmark.unit.to_owned(),
            better: benchmark.target.better,
            verdict,
            spread: measurement.as_ref().map_or(0.0, Measurement::spread),
            method: benchmark.method.to_owned(),
            seconds,
            measurement,
        }
    }
}

/// A run's report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Whether it came to its end. Of a run that was interrupted, the report has what was finished.
    #[serde(default = "complete")]
    pub complete: bool,
    /// What other runs must share to be comparable.
    pub fingerprint: Fingerprint,
    /// The machine's limits.
    pub machine: Machine,
    /// The model's costs.
    pub model: ModelFacts,
    /// The backends, the chosen one first.
    pub backends: Vec<BackendRow>,
    /// One result for each benchmark and backend.
    pub results: Vec<Outcome>,
    /// What conversations cost on the chosen backend, where they were measured.
    #[serde(default)]
    pub conversations: Vec<Conversations>,
}

/// What conversations cost that clients sent in one way, all of it again with every turn: see [`crate::Agents`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversations {
    /// In which way.
    pub name: String,
    /// How many requests there were.
    pub requests: usize,
    /// Tokens of their prompts that no earlier request of the conversation had in its prompt or answer.
    pub new_tokens: usize,
    /// Tokens of their prompts that were computed.
    pub computed_tokens: usize,
    /// The median time to the first token, in seconds.
    pub median_first_token_s: f64,
    /// The longest, in seconds.
    pub max_first_token_s: f64,
}

impl Conversations {
    /// Computed tokens for each new one.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.computed_tokens as f64 / self.new_tokens.max(1) as f64
    }
}

/// Reports of earlier versions were only written at the end.
fn complete() -> bool {
    true
}

impl Report {
    /// A backend's results.
    pub fn of_backend<'r>(&'r self, backend: &'r str) -> impl Iterator<Item = &'r Outcome> {
        self.results.iter().filter(move |result| result.backend == backend)
    }

    /// The chosen backend's results.
    pub fn chosen(&self) -> impl Iterator<Item = &Outcome> {
        let chosen = self.backends.iter().find(|backend| backend.chosen).map(|backend| &backend.name[..]);
        self.results.iter().filter(move |result| Some(&result.backend[..]) == chosen)
    }

    /// Writes it as JSON.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::Invalid(format!("{}: the report can't be written: {error}", path.display()))
        };
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(&error))?;
        fs::write(path, text + "\n").map_err(|error| failed(&error))
    }

    /// Reads a report.
    ///
    /// # Errors
    /// If the file can't be read or is not a report.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::Invalid(format!("{}: the report can't be read: {error}", path.display()))
        };
        let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
        serde_json::from_str(&text).map_err(|error| failed(&error))
    }
}
