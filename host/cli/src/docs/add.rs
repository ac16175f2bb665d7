//! `host docs add`: keep a text.

use std::path::{Path, PathBuf};

use clap::Args;
use herald_documents::DocumentInfo;
use serde::Serialize;

use super::Folder;
use crate::failure::Failure;
use crate::interrupt::Lookout;
use crate::options::EngineOptions;
use crate::{input, output, progress};

/// Keep a text, in chunks of 1,024 tokens that overlap by 128
#[derive(Debug, Args)]
#[command(
    after_help = "A text that is kept under its name already is not kept twice. Another text of the same name is kept \
beside it; with --replace, instead of it."
)]
pub(crate) struct Add {
    /// The text's file; `-` is stdin [default: stdin]
    file: Option<PathBuf>,
    /// The text's name [default: the file's]
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Remove the texts that were kept under this name before
    #[arg(long)]
    replace: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

/// What a call did, as JSON.
#[derive(Serialize)]
struct Added<'a> {
    #[serde(flatten)]
    text: &'a DocumentInfo,
    /// The same text was kept under this name before.
    kept_already: bool,
    /// The texts that it replaced.
    replaced: Vec<u64>,
}

impl Add {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let text = input::text(None, self.file.as_deref())?;
        let file = self.file.as_deref().filter(|file| *file != Path::new("-"));
        let name = self
            .name
            .or_else(|| file.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()));
        let name = name.as_deref().unwrap_or("stdin");
        let documents = self.folder.documents(options)?;
        let before: Vec<_> = documents.documents().into_iter().filter(|text| text.name == name).collect();
        let lookout = Lookout::begin();
        let mut bar = None;
        let added = documents.add_while(name, &text, &mut |done, total| {
            let bar = bar
                .get_or_insert_with(|| progress::bar("adding", total, "chunks", options.quiet || total < 2));
            bar.set_position(done as u64);
            lookout.go_on()
        })?;
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let kept_already = before.iter().any(|text| text.id == added.id);
        let others: Vec<u64> = before.iter().map(|text| text.id).filter(|id| *id != added.id).collect();
        if self.replace {
            // Only once the new one is kept.
            for id in &others {
                documents.remove(*id)?;
            }
        } else if !others.is_empty() && !kept_already && !options.quiet {
            let numbers: Vec<String> = others.iter().map(u64::to_string).collect();
            output::note(format_args!(
                "note: {} is kept under this name too; --replace removes it",
                numbers.join(", ")
            ));
        }
        if self.json {
            return output::json(&Added {
                text: &added,
                kept_already,
                replaced: if self.replace { others } else { Vec::new() },
            });
        }
        if kept_already {
            return output::line(format_args!("{} {:?}: it is kept already", added.id, added.name));
        }
        let plural = if added.chunks == 1 { "" } else { "s" };
        output::line(format_args!(
            "{} {:?}: {} tokens in {} chunk{plural}",
            added.id, added.name, added.tokens, added.chunks
        ))
    }
}
