//! `host gguf split`: a model file as several smaller ones.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::PathBufValueParser;
use herald::files::UnfinishedFolder;
use herald_convert::parts::{self, Limit};
use serde_json::json;

use crate::arguments::Listed;
use crate::failure::Failure;
use crate::interrupt::Lookout;
use crate::options::{self, EngineOptions};
use crate::{output, progress, store, written};

/// Split a model file into several, named as llama.cpp names them; every command takes the first of them for the model
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("limit").required(true))]
pub(crate) struct Split {
    /// The model: a GGUF file, or a name that `host pull` knows
    #[arg(value_name = "PATH|NAME", value_parser = Listed::new(PathBufValueParser::new(), store::values), hide_possible_values = true)]
    input: PathBuf,
    /// What the parts' names begin with: PREFIX-00001-of-00003.gguf and so on
    prefix: PathBuf,
    /// Maximum size of a part's tensors, such as 4GB; a larger tensor gets a part of its own
    #[arg(long, value_name = "BYTES", value_parser = size, group = "limit")]
    max_size: Option<NonZeroU64>,
    /// Maximum number of tensors in a part
    #[arg(long, value_name = "N", group = "limit")]
    max_tensors: Option<NonZeroUsize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn size(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(options::bytes(text)?).ok_or_else(|| "at least one byte was expected".to_owned())
}

impl Split {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let input = store::file(&self.input, options.quiet)?;
        let gguf = super::opened(&input)?;
        let limit = match (self.max_size, self.max_tensors) {
            (Some(bytes), _) => Limit::Bytes(bytes.get()),
            (None, tensors) => Limit::Tensors(tensors.map_or(usize::MAX, NonZeroUsize::get)),
        };
        let plan = parts::plan(&gguf, limit);
        if plan.len() > usize::from(u16::MAX) {
            return Err(Failure::Usage(format!(
                "this makes {} parts, where at most {} were expected",
                plan.len(),
                u16::MAX
            )));
        }
        let paths: Vec<PathBuf> =
            (0..plan.len()).map(|number| parts::path(&self.prefix, number, plan.len())).collect();
        if let Some(there) = paths.iter().find(|path| path.symlink_metadata().is_ok()) {
            return Err(Failure::Failed(format!(
                "{}: it is there already, where a new file was expected",
                there.display()
            )));
        }
        let folder = written::folder_of(&self.prefix);
        super::must_fit(folder, gguf.file_bytes())?;
        let work = UnfinishedFolder::create_in(folder)
            .map_err(|error| Failure::file(folder, "nothing can be written there", &error))?;
        let bar = progress::weighted(gguf.file_bytes(), options.quiet);
        let lookout = Lookout::begin();
        let mut written = Vec::new();
        for (number, path) in paths.iter().enumerate() {
            let failed = |error| Failure::file(path, "it can't be written", &error);
            let unfinished = work.path().join(format!("{number}"));
            let out = BufWriter::new(File::create(&unfinished).map_err(failed)?);
            let out = parts::write_part(&gguf, &plan, number, out, &mut |bytes| {
                bar.inc(bytes);
                lookout.go_on()
            });
            let file = out
                .map_err(|error| super::failure(path, error))?
                .into_inner()
                .map_err(|error| failed(error.into_error()))?;
            file.sync_all().map_err(failed)?;
            written.push(super::length(&file).map_err(failed)?);
        }
        bar.finish_and_clear();
        place(work.path(), &paths)?;
        self.report(&paths, &written)
    }

    fn report(&self, paths: &[PathBuf], bytes: &[u64]) -> Result<(), Failure> {
        if self.json {
            let part =
                |(path, bytes): (&PathBuf, &u64)| json!({"path": path.to_string_lossy(), "bytes": bytes});
            let parts: Vec<_> = paths.iter().zip(bytes).map(part).collect();
            return output::json(&json!({"parts": parts}));
        }
        for (path, bytes) in paths.iter().zip(bytes) {
            output::line(format_args!("{}: {}", path.display(), output::bytes(*bytes)))?;
        }
        Ok(())
    }
}

/// Gives the finished parts their names: all of them, or none.
fn place(from: &Path, paths: &[PathBuf]) -> Result<(), Failure> {
    for (number, path) in paths.iter().enumerate() {
        // A link is made only where there is no such file, and a rename would replace one.
        let own = from.join(format!("{number}"));
        let placed = fs::hard_link(&own, path).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Err(error),
            // A disk without links.
            _ => fs::rename(&own, path),
        });
        if let Err(error) = placed {
            for placed in &paths[..number] {
                // What can't be removed is a whole part, and no harm.
                let _ = fs::remove_file(placed);
            }
            return Err(Failure::file(path, "it can't be written", &error));
        }
    }
    Ok(())
}
