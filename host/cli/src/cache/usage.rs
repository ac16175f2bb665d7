//! `host cache usage`: a saved sequence's memory, tier by tier.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::tiers;
use crate::failure::Failure;
use crate::options::EngineOptions;
use crate::output;

/// Show the memory tiers of a saved sequence
#[derive(Debug, Args)]
#[command(after_help = "The tiers of a running server are in its /metrics.")]
pub(crate) struct Usage {
    /// A sequence that `host generate --save-state` or `host chat --session` saved
    state: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Usage {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        super::must_be_saved(&self.state)?;
        let engine = options.load()?;
        let restored = engine.restore(&self.state)?;
        let (tokens, usage) = (restored.sequence.tokens().len(), restored.sequence.memory_usage());
        if self.json {
            let mut report = tiers::json(&usage);
            report["tokens"] = Value::from(tokens);
            return output::json(&report);
        }
        output::line(format_args!("{}: {tokens} tokens", self.state.display()))?;
        tiers::print(&usage)
    }
}
