//! `host docs add`: keep a text.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Folder;
use crate::failure::Failure;
use crate::interrupt::Lookout;
use crate::options::EngineOptions;
use crate::{input, output, progress};

/// Keep a text, in chunks of 1,024 tokens that overlap by 128
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The text's file; `-` is stdin [default: stdin]
    file: Option<PathBuf>,
    /// The text's name [default: the file's]
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

impl Add {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let text = input::text(None, self.file.as_deref())?;
        let file = self.file.as_deref().filter(|file| *file != Path::new("-"));
        let name = self
            .name
            .or_else(|| file.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()));
        let documents = self.folder.documents(options)?;
        let lookout = Lookout::begin();
        let mut bar = None;
        let added = documents.add_while(name.as_deref().unwrap_or("stdin"), &text, &mut |done, total| {
            let bar = bar
                .get_or_insert_with(|| progress::bar("adding", total, "chunks", options.quiet || total < 2));
            bar.set_position(done as u64);
            lookout.go_on()
        })?;
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        if self.json {
            return output::json(&added);
        }
        let plural = if added.chunks == 1 { "" } else { "s" };
        output::line(format_args!(
            "{} {:?}: {} tokens in {} chunk{plural}",
            added.id, added.name, added.tokens, added.chunks
        ))
    }
}
