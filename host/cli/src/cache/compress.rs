//! `host cache compress`: make a saved sequence smaller.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use herald::{MultiTierMemoryManager, SavedExtras};
use serde_json::json;

use super::tiers;
use crate::failure::Failure;
use crate::options::EngineOptions;
use crate::{output, written};

/// Compress a saved sequence's older pages to 4 bits per element, and save it again
#[derive(Debug, Args)]
#[command(
    after_help = "The first page and the latest tokens stay as they are. Compression is lossy: docs/MEMORY.md says what it costs."
)]
pub(crate) struct Compress {
    /// A sequence that `host generate --save-state` or `host chat --session` saved
    state: PathBuf,
    /// How many of the latest tokens stay as they are
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    keep: usize,
    /// Where to save it [default: over the original]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Compress {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        super::must_be_saved(&self.state)?;
        if let Some(output) = &self.output {
            let model = options.model_path()?;
            written::check_state(output, [(&*model, written::MODEL)])?;
        }
        let engine = Arc::new(options.load()?);
        let restored = engine.restore(&self.state)?;
        let size = |path: &PathBuf| {
            let facts = fs::metadata(path).map_err(|error| Failure::file(path, "can't be read", &error));
            facts.map(|facts| facts.len())
        };
        let before = size(&self.state)?;
        let memory = MultiTierMemoryManager::new(Arc::clone(&engine));
        memory.adopt("state", restored.sequence, restored.pending.clone())?;
        let moved = memory.compress_memory("state", self.keep)?;
        let path = self.output.as_ref().unwrap_or(&self.state);
        // Everything else in the file, such as a conversation's messages, stays.
        let extras =
            SavedExtras { pending: &restored.pending, sampler: restored.sampler, notes: &restored.notes };
        memory.with_sequence("state", |engine, sequence| engine.save_with(sequence, &extras, path))?;
        let (after, usage) = (size(path)?, memory.get_context_usage("state")?);
        if self.json {
            let mut report = tiers::json(&usage);
            report["moved"] = json!(moved);
            report["file_bytes_before"] = json!(before);
            report["file_bytes_after"] = json!(after);
            return output::json(&report);
        }
        tiers::print(&usage)?;
        output::line(format_args!(
            "{}: {}, from {}",
            path.display(),
            output::bytes(after),
            output::bytes(before)
        ))
    }
}
