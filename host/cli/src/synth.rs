//! `host synth`: a model file of a real shape with random weights.

use std::collections::BTreeSet;
use std::io::BufWriter;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{NonEmptyStringValueParser, PossibleValue};
use herald::files::{Readers, Unfinished};
use herald::gguf::GgufError;
use herald_convert::synth::{self, Storage};
use serde_json::json;

use super::arguments::Listed;
use super::failure::Failure;
use super::options::EngineOptions;
use super::{dtypes, output};

/// Write a model with a real model's shape and random weights, for speed measurements
#[derive(Debug, Args)]
#[command(after_help = after_help())]
pub(super) struct Synth {
    /// The architecture
    #[arg(long, value_name = "NAME", value_parser = Listed::new(NonEmptyStringValueParser::new(), architectures), hide_possible_values = true)]
    arch: String,
    /// The size of the model whose shape to use
    #[arg(long, value_name = "SIZE", value_parser = Listed::new(NonEmptyStringValueParser::new(), sizes), hide_possible_values = true)]
    like: String,
    /// The type of its matrices
    #[arg(long = "type", value_name = "TYPE", default_value = "q4_k_m", value_parser = Listed::new(storage, storages))]
    storage: Storage,
    /// The file to write
    output: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The models that there are.
fn after_help() -> String {
    format!(
        "Models, by --arch and --like: {}.\n\nExample:\n  host synth --arch mamba2 --like 130m random.gguf",
        models().join(", ")
    )
}

/// The values of --type.
fn storages() -> Vec<PossibleValue> {
    let mixture = PossibleValue::new("q4_k_m").help("the usual mixture of q4_k and q6_k");
    [mixture].into_iter().chain(dtypes::values(|_| true)).collect()
}

/// The values of --arch.
fn architectures() -> Vec<PossibleValue> {
    distinct(synth::models().into_iter().map(|(architecture, _)| architecture))
}

/// The values of --like.
fn sizes() -> Vec<PossibleValue> {
    distinct(synth::models().into_iter().map(|(_, size)| size))
}

fn distinct(names: impl Iterator<Item = &'static str>) -> Vec<PossibleValue> {
    names.collect::<BTreeSet<_>>().into_iter().map(PossibleValue::new).collect()
}

fn models() -> Vec<String> {
    synth::models().iter().map(|(architecture, size)| format!("{architecture} {size}")).collect()
}

fn storage(name: &str) -> Result<Storage, String> {
    Storage::named(name).ok_or_else(|| "this is not a weight type that HERALD knows".to_owned())
}

impl Synth {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::file(&self.output, "it can't be written", &error);
        let file = Unfinished::create(&self.output, Readers::Usual).map_err(failed)?;
        let Some(written) = synth::write(&self.arch, &self.like, self.storage, BufWriter::new(file)) else {
            return Err(Failure::Usage(format!(
                "there is no shape for {} {}, where one of these was expected: {}",
                self.arch,
                self.like,
                models().join(", ")
            )));
        };
        let file = written.map_err(|error| match error {
            GgufError::Io { source, .. } => failed(source),
            error => Failure::Failed(error.to_string()),
        })?;
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        let bytes = file.file().metadata().map_err(failed)?.len();
        file.keep(&self.output).map_err(failed)?;
        if self.json {
            return output::json(&json!({
                "path": self.output.to_string_lossy(),
                "bytes": bytes,
                "architecture": self.arch,
                "size": self.like,
            }));
        }
        if !options.quiet {
            output::note(format_args!(
                "the shape of {} {} with random weights, {}",
                self.arch,
                self.like,
                output::bytes(bytes)
            ));
        }
        output::line(self.output.display())
    }
}
