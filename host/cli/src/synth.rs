//! `host synth`: a model file of a real shape with random weights.

use std::io::BufWriter;
use std::path::PathBuf;

use clap::Args;
use herald::gguf::GgufError;
use herald_convert::synth::{self, Storage};

use super::atomic_file;
use super::failure::Failure;

/// Write a model with a real model's shape and random weights, for speed measurements
#[derive(Debug, Args)]
#[command(
    after_help = "Models: granite_hybrid 350m, falcon_h1 0.5b, mamba2 130m, mamba 130m, lfm2 350m, jamba small, llama 1b.

Types: q4_k_m (the usual mixture of q4_k and q6_k), f32, f16, bf16, q8_0, q6_k, q5_1, q5_k, q5_0, q4_1, q4_k, q4_0, iq4_nl, iq4_xs,
q3_k, q2_k."
)]
pub(super) struct Synth {
    /// The architecture
    #[arg(long, value_name = "NAME")]
    arch: String,
    /// The size of the model whose shape to use
    #[arg(long, value_name = "SIZE")]
    like: String,
    /// The type of its matrices
    #[arg(long = "type", value_name = "TYPE", default_value = "q4_k_m", value_parser = storage)]
    storage: Storage,
    /// The file to write
    output: PathBuf,
}

fn storage(name: &str) -> Result<Storage, String> {
    Storage::named(name).ok_or_else(|| "this is not a weight type that HERALD knows".to_owned())
}

impl Synth {
    pub(super) fn run(self) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::file(&self.output, "it can't be written", &error);
        let file = atomic_file::create(&self.output).map_err(failed)?;
        let Some(written) = synth::write(&self.arch, &self.like, self.storage, BufWriter::new(file)) else {
            let known: Vec<String> =
                synth::models().iter().map(|(architecture, size)| format!("{architecture} {size}")).collect();
            return Err(Failure::Usage(format!(
                "there is no shape for {} {}, where one of these was expected: {}",
                self.arch,
                self.like,
                known.join(", ")
            )));
        };
        let file = written.map_err(|error| match error {
            GgufError::Io { source, .. } => failed(source),
            error => Failure::Failed(error.to_string()),
        })?;
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.persist(&self.output).map_err(|error| failed(error.error))?;
        Ok(())
    }
}
