//! `host plugin check`: whether a plugin computes what it claims to and keeps the ABI's rules.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use herald_conformance::Part;

use super::report::Report;
use super::watch::Watch;
use crate::failure::Failure;
use crate::options::EngineOptions;

/// Check that a plugin computes what it claims to, and keeps the ABI's rules
#[derive(Debug, Args)]
#[command(
    after_help = "The plugin runs in a process of its own, so that one that crashes or hangs is a finding. Its results are compared with
those of the cpu plugin. The exit code is 1 if a check fails. With --json, each line is an object: a check with its outcome
(passed, failed with its fault, or skipped) and details, and at the end the numbers of each.

Examples:
  host plugin check ./libherald_mine.so
  host plugin check ./libherald_mine.so --only layers -v"
)]
pub(crate) struct Check {
    /// The plugin's library
    file: PathBuf,
    /// Check only these parts of it
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<PartName>,
    /// How long one check may take before the plugin counts as hanging
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,
    /// Print JSON, an object in each line
    #[arg(long)]
    json: bool,
}

/// A part's name on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum PartName {
    Layers,
    Tokenizers,
    Tiers,
}

impl PartName {
    /// The parts that were named; all where none was.
    pub(super) fn parts(names: &[Self]) -> Vec<Part> {
        let part = |name: &Self| match name {
            Self::Layers => Part::Layers,
            Self::Tokenizers => Part::Tokenizers,
            Self::Tiers => Part::Tiers,
        };
        if names.is_empty() { Part::ALL.to_vec() } else { names.iter().map(part).collect() }
    }
}

impl Check {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let mut report = Report::new(self.json, options.verbose > 0, options.quiet);
        let watch = Watch {
            file: &self.file,
            parts: &PartName::parts(&self.only),
            plugins: &options.plugins,
            allow_insecure: options.allow_insecure_plugins,
            verbose: options.verbose,
            limit: Duration::from_secs(self.timeout.into()),
        };
        // Whoever checks it may have repaired what it needs.
        options.search().trial.forgive(&self.file);
        watch.run(&mut report)?;
        report.end()
    }
}
