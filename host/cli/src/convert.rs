//! `host convert`: make a model file of a published checkpoint.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use clap::Args;
use herald::files::{Readers, Unfinished};
use herald::gguf::GgufError;
use herald::threads;
use herald_api::DType;
use herald_convert::checkpoint::{Checkpoint, CheckpointError, Conversion, ConvertOptions};
use serde_json::json;

use super::arguments::Listed;
use super::failure::Failure;
use super::interrupt::Lookout;
use super::options::EngineOptions;
use super::{dtypes, output, progress, written};

/// Make a model file of a checkpoint as it is published: safetensors with a configuration and a tokenizer
#[derive(Debug, Args)]
#[command(
    after_help = "The folder is one that was downloaded from Hugging Face, with config.json, model.safetensors (or its shards and their
index) and tokenizer.json or tokenizer.model; or one of Hugging Face's cache, models--OWNER--NAME. Names, shapes and keys
are those of llama.cpp's convert_hf_to_gguf.py. A setting or a tensor that isn't known is refused by name.

Examples:
  host convert Qwen2.5-0.5B-Instruct qwen.gguf
  host convert Qwen2.5-0.5B-Instruct qwen.gguf --type q4_k
  host convert ~/.cache/huggingface/hub/models--Qwen--Qwen3-0.6B qwen3.gguf --type q8_0"
)]
pub(super) struct Convert {
    /// The folder of the checkpoint
    #[arg(value_name = "FOLDER")]
    input: PathBuf,
    /// The file to write
    output: PathBuf,
    /// The type of the matrices [default: as published]
    #[arg(short = 'T', long = "type", value_name = "TYPE", value_parser = Listed::new(dtypes::writable, dtypes::all_writable))]
    dtype: Option<DType>,
    /// The model's name in the file [default: the folder's]
    #[arg(long)]
    name: Option<String>,
    /// GGUF's name of the pre-tokenizer, where what it does isn't known
    #[arg(long = "pre", value_name = "NAME")]
    pre_tokenizer: Option<String>,
    /// A setting of config.json to convert without, though it isn't known; repeat for several
    #[arg(long, value_name = "SETTING")]
    ignore: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Convert {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let checkpoint = Checkpoint::open(&self.input).map_err(refused)?;
        let how = ConvertOptions {
            dtype: self.dtype,
            name: self.name.clone(),
            pre_tokenizer: self.pre_tokenizer.clone(),
            ignored: self.ignore.clone(),
        };
        // Models that were made of it before may be written anew.
        let files =
            fs::read_dir(checkpoint.folder()).into_iter().flatten().flatten().map(|entry| entry.path());
        let files: Vec<PathBuf> =
            files.filter(|file| file.extension().is_none_or(|end| end != "gguf")).collect();
        written::check(&self.output, files.iter().map(|file| (&**file, "a file of the checkpoint")))?;
        let conversion = Conversion::new(&checkpoint, &how).map_err(refused)?;
        if !options.quiet {
            notes(&conversion);
        }
        let failed = |error: std::io::Error| Failure::file(&self.output, "it can't be written", &error);
        let pool = threads::shared(options.threads).map_err(herald::Error::from)?;
        let file = Unfinished::create(&self.output, Readers::Usual).map_err(failed)?;
        let bar = progress::bar("converting", conversion.weights(), "weights", options.quiet);
        let lookout = Lookout::begin();
        let written = conversion.write(&pool, file, &mut |weights| {
            bar.inc(weights as u64);
            lookout.go_on()
        });
        bar.finish_and_clear();
        let file = written.map_err(|error| match error {
            CheckpointError::Cancelled => Failure::Interrupted,
            CheckpointError::Gguf(GgufError::Io { source, .. }) => failed(source),
            error => refused(error),
        })?;
        let bytes = file.file().metadata().map_err(failed)?.len();
        file.keep(&self.output).map_err(failed)?;
        self.report(&conversion, bytes)
    }

    fn report(&self, conversion: &Conversion<'_>, bytes: u64) -> Result<(), Failure> {
        let mut types: BTreeMap<&str, usize> = BTreeMap::new();
        for dtype in conversion.types() {
            *types.entry(dtype.name()).or_default() += 1;
        }
        if self.json {
            return output::json(&json!({
                "path": self.output.to_string_lossy(),
                "bytes": bytes,
                "tensors": types,
                "left_out": conversion.left_out(),
            }));
        }
        let types: Vec<String> = types.iter().map(|(name, count)| format!("{count} {name}")).collect();
        output::line(format!(
            "{}: {}; tensors: {}",
            self.output.display(),
            output::bytes(bytes),
            types.join(", ")
        ))
    }
}

fn refused(error: CheckpointError) -> Failure {
    Failure::Failed(error.to_string())
}

/// Notes before the work: what the file will not have, and where it has another type than the requested one.
fn notes(conversion: &Conversion<'_>) {
    if let Some(first) = conversion.left_out().first() {
        let count = conversion.left_out().len();
        output::note(format_args!(
            "{count} published tensors of other senses or tasks are left out, {first} for example"
        ));
    }
    for fallback in conversion.fallbacks() {
        output::note(format_args!(
            "tensors with rows of {} weights, not a multiple of {}'s {}: {} instead, in {} of them",
            fallback.columns,
            fallback.wanted,
            fallback.wanted.block_len(),
            fallback.dtype,
            fallback.tensors
        ));
    }
}
