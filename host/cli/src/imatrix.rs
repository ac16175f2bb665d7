//! `host imatrix`: which columns of a model's matrices matter, over a text.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clap::Args;
use herald::files::{Readers, Unfinished};
use herald::gguf::GgufError;
use herald::threads::locked;
use herald_convert::imatrix::ImportanceMatrix;
use serde_json::json;

use super::failure::Failure;
use super::interrupt::Lookout;
use super::options::EngineOptions;
use super::{input, output, progress, written};

/// The output head, or the embedding that is the head too: `host quantize` keeps it at six bits and more.
const HEADS: [&str; 2] = ["output.weight", "token_embd.weight"];

/// Compute an importance matrix over a text, for `host quantize`
#[derive(Debug, Args)]
#[command(
    after_help = "The text should be like what the model will read and write, and of some ten thousand tokens or more. It is cut into
windows, and the squares of what each matrix is multiplied with are added up, column by column. The file is as llama.cpp
writes and reads it. Use the model in f16 or bf16, or the largest that you have.

Example:
  host imatrix --model big.gguf --file text.txt big.imatrix.gguf
  host quantize big.gguf small.gguf --type iq3_s --imatrix big.imatrix.gguf"
)]
pub(super) struct Imatrix {
    /// The file to write
    output: PathBuf,
    /// The text; `-` is stdin
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Tokens of a window
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(2..))]
    window: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Imatrix {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let text = input::read(&self.file)?;
        let model = options.model_path()?;
        written::check(&self.output, [(&*model, written::MODEL), (&*self.file, written::TEXT)])?;
        let engine = options.load()?;
        let window = self.window as usize;
        if window > engine.context() {
            return Err(Failure::Usage(format!(
                "windows of {window} tokens are longer than the context of {}",
                engine.context()
            )));
        }
        let bos = engine.tokenizer().prompt_bos();
        let ids = engine.tokenizer().encode(&text, false)?;
        if ids.is_empty() {
            return Err(Failure::Failed(format!(
                "{}: it is empty, where a text was expected",
                self.file.display()
            )));
        }
        let matrix = Arc::new(Mutex::new(ImportanceMatrix::default()));
        let watched = engine.watch_products({
            let matrix = Arc::clone(&matrix);
            move |product| {
                if !HEADS.contains(&product.tensor) {
                    let place = [product.matrix, product.matrices];
                    locked(&matrix).add(product.tensor, product.columns, place, product.input);
                }
            }
        })?;
        let bar = progress::bar("importance", ids.len(), "tokens", options.quiet);
        let lookout = Lookout::begin();
        let mut chunk_count = 0;
        for piece in ids.chunks(window - usize::from(bos.is_some())) {
            let ids: Vec<u32> = bos.into_iter().chain(piece.iter().copied()).collect();
            let mut sequence = engine.sequence()?;
            sequence.set_stop(Some(lookout.stop()));
            engine.prefill_while(&mut sequence, &ids, &mut |_| lookout.go_on())?;
            chunk_count += 1;
            bar.inc(piece.len() as u64);
        }
        bar.finish_and_clear();
        drop(watched);
        let mut matrix = locked(&matrix);
        matrix.datasets = vec![self.file.to_string_lossy().into_owned()];
        (matrix.chunk_count, matrix.chunk_size) = (chunk_count, self.window);
        self.write(&matrix, ids.len())
    }

    fn write(&self, matrix: &ImportanceMatrix, tokens: usize) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::file(&self.output, "it can't be written", &error);
        let file = Unfinished::create(&self.output, Readers::Usual).map_err(failed)?;
        let file = matrix.write(file).map_err(|error| match error {
            GgufError::Io { source, .. } => failed(source),
            error => Failure::Failed(error.to_string()),
        })?;
        file.keep(&self.output).map_err(failed)?;
        let tensors = matrix.tensors().len();
        if self.json {
            return output::json(&json!({
                "path": self.output.to_string_lossy(),
                "tensors": tensors,
                "tokens": tokens,
                "windows": matrix.chunk_count,
                "window": self.window,
            }));
        }
        output::line(format!(
            "{}: {tensors} tensors, over {tokens} tokens in {} windows",
            self.output.display(),
            matrix.chunk_count
        ))
    }
}
