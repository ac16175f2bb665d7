//! `host memory usage`: what is kept, and what it takes.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::{Folder, tiers};
use crate::failure::Failure;
use crate::options::EngineOptions;
use crate::output;

/// Show what the texts take, and the memory tiers of a saved sequence
#[derive(Debug, Args)]
#[command(after_help = "The tiers of a running server are in its /metrics.")]
pub(crate) struct Usage {
    /// A sequence that `host generate --save-state` or `host chat --session` saved: what it takes, tier by tier
    state: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

impl Usage {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        if let Some(path) = &self.state {
            let engine = options.load()?;
            let restored = engine.restore(path)?;
            let (tokens, usage) = (restored.sequence.tokens().len(), restored.sequence.memory_usage());
            if self.json {
                let mut report = tiers::json(&usage);
                report["tokens"] = Value::from(tokens);
                return output::json(&report);
            }
            output::line(format_args!("{}: {tokens} tokens", path.display()))?;
            return tiers::print(&usage);
        }
        let folder = self.folder.path()?;
        let store = self.folder.store()?;
        let usage = store.usage();
        if self.json {
            return output::json(&json!({"folder": folder, "texts": usage, "damaged": store.damaged()}));
        }
        output::line(format_args!(
            "{}: {} texts in {} chunks, {} tokens\n{} of text, {} of vectors, {} on disk",
            folder.display(),
            usage.documents,
            usage.chunks,
            usage.tokens,
            output::bytes(usage.text_bytes as u64),
            output::bytes(usage.vector_bytes as u64),
            output::bytes(usage.file_bytes),
        ))
    }
}
