//! `host gguf merge`: the parts of a model as one file.

use std::io::BufWriter;
use std::path::PathBuf;

use clap::Args;
use clap::builder::PathBufValueParser;
use herald::files::{Readers, Unfinished};
use herald_convert::parts;
use serde_json::json;

use crate::arguments::Listed;
use crate::failure::Failure;
use crate::interrupt::Lookout;
use crate::options::EngineOptions;
use crate::{output, progress, store, written};

/// Write a split model as one file
#[derive(Debug, Args)]
pub(crate) struct Merge {
    /// The first of its parts, or a name that `host pull` knows; the others are beside it
    #[arg(value_name = "PATH|NAME", value_parser = Listed::new(PathBufValueParser::new(), store::values), hide_possible_values = true)]
    first: PathBuf,
    /// The file to write
    output: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Merge {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let first = store::file(&self.first, options.quiet)?;
        let gguf = super::opened(&first)?;
        let parts = gguf.paths().count();
        if parts < 2 {
            return Err(Failure::Failed(format!(
                "{}: it is a whole model, where the first of several parts was expected",
                first.display()
            )));
        }
        written::check(&self.output, gguf.paths().map(|file| (file, "a part")))?;
        super::must_fit(written::folder_of(&self.output), gguf.file_bytes())?;
        let file = Unfinished::create(&self.output, Readers::Usual)
            .map_err(|error| Failure::file(&self.output, "it can't be written", &error))?;
        let bar = progress::weighted(gguf.file_bytes(), options.quiet);
        let lookout = Lookout::begin();
        let out = parts::write_whole(&gguf, BufWriter::new(file), &mut |bytes| {
            bar.inc(bytes);
            lookout.go_on()
        });
        bar.finish_and_clear();
        let bytes = super::keep(&self.output, out.map_err(|error| super::failure(&self.output, error))?)?;
        if self.json {
            return output::json(&json!({
                "path": self.output.to_string_lossy(),
                "bytes": bytes,
                "parts": parts,
                "tensors": gguf.tensors().len(),
            }));
        }
        output::line(format_args!(
            "{}: {}, {} tensors of {parts} parts",
            self.output.display(),
            output::bytes(bytes),
            gguf.tensors().len()
        ))
    }
}
