//! `host logits`: every token's logits, in a file; and two such files, compared.

mod compare;

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use herald::files::{Readers, Unfinished};
use serde_json::json;

use super::failure::Failure;
use super::interrupt::Lookout;
use super::options::EngineOptions;
use super::{ids, input, output, progress, written};

/// Compute every token's logits, and write them to a safetensors file
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "The file holds `ids`, i32 [T], and `logits`, f32 [T, V]: after each token, the logits of the next.

Examples:
  host logits --text prompt.txt --out a.safetensors
  host tokenize --json 'Hello' | host logits --ids - --backend cpu --out b.safetensors
  host logits compare a.safetensors b.safetensors --max-kl 1e-4"
)]
pub(super) struct Logits {
    #[command(subcommand)]
    command: Option<LogitsCommand>,
    /// A file of token ids: with white space or commas between them, or as `host tokenize --json` prints them; `-` is stdin
    #[arg(long, value_name = "FILE", required_unless_present = "text", conflicts_with = "text")]
    ids: Option<PathBuf>,
    /// A file of text, which gets the model's beginning-of-text token; `-` is stdin
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// The file to write
    #[arg(short, long, value_name = "FILE", required = true)]
    out: Option<PathBuf>,
    /// Run the tokens in pieces of this size [default: as --batch says]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pieces: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum LogitsCommand {
    Compare(compare::Compare),
}

impl Logits {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        if let Some(LogitsCommand::Compare(compare)) = self.command {
            return compare.run();
        }
        let to = self.out.as_deref().unwrap_or(Path::new("logits.safetensors"));
        let source = self.ids.as_deref().or(self.text.as_deref()).unwrap_or(Path::new("-"));
        let text = input::read(source)?;
        let model = options.model_path()?;
        written::check(to, [(&*model, written::MODEL), (source, written::TEXT)])?;
        let engine = options.load_exactly()?;
        let vocabulary = engine.plan().vocabulary;
        let ids = if self.ids.is_some() {
            ids::parse(&text, vocabulary)
                .map_err(|reason| Failure::Failed(format!("{}: {reason}", source.display())))?
        } else {
            engine.tokenizer().encode_prompt(&text, false)?
        };
        if ids.is_empty() {
            return Err(Failure::Failed(format!(
                "{}: it holds no tokens, where at least one was expected",
                source.display()
            )));
        }
        if ids.len() > engine.context() {
            return Err(herald::Error::ContextFull { wanted: ids.len(), room: engine.context() }.into());
        }
        let failed = |error: io::Error| Failure::file(to, "it can't be written", &error);
        let mut out = BufWriter::new(Unfinished::create(to, Readers::Usual).map_err(failed)?);
        out.write_all(&header(ids.len(), vocabulary)).map_err(failed)?;
        for id in &ids {
            out.write_all(&id.to_le_bytes()).map_err(failed)?;
        }
        let bar = progress::bar("logits", ids.len(), "tokens", options.quiet);
        let lookout = Lookout::begin();
        let mut sequence = engine.sequence()?;
        sequence.set_stop(Some(lookout.stop()));
        for piece in ids.chunks(self.pieces.map_or(ids.len(), |pieces| pieces as usize)) {
            let mut written = Ok(());
            let passed = engine.logits_while(&mut sequence, piece, &mut |row| {
                bar.inc(1);
                written = row.iter().try_for_each(|logit| out.write_all(&logit.to_le_bytes()));
                written.is_ok() && lookout.go_on()
            });
            // A write error stops the pass, whose own error then only says that it was stopped.
            written.map_err(failed)?;
            passed?;
        }
        bar.finish_and_clear();
        // The file is complete: rename it.
        let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.keep(to).map_err(failed)?;
        if self.json {
            return output::json(&json!({
                "path": to.to_string_lossy(),
                "tokens": ids.len(),
                "vocabulary": vocabulary,
                "model": engine.path().to_string_lossy(),
            }));
        }
        if !options.quiet {
            output::note(format_args!("{}: {} tokens, vocabulary of {vocabulary}", to.display(), ids.len()));
        }
        output::line(to.display())
    }
}

/// The start of a safetensors file: the header's length and the header, padded to 8 bytes.
fn header(tokens: usize, vocabulary: usize) -> Vec<u8> {
    let ids = tokens * size_of::<i32>();
    let logits = ids + tokens * vocabulary * size_of::<f32>();
    let header = json!({
        "ids": {"dtype": "I32", "shape": [tokens], "data_offsets": [0, ids]},
        "logits": {"dtype": "F32", "shape": [tokens, vocabulary], "data_offsets": [ids, logits]},
    });
    let mut text = header.to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    bytes
}
