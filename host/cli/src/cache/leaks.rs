//! `host cache leaks`: checks for memory leaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Args;
use herald::{GenerateOptions, MultiTierMemoryManager};
use serde_json::json;

use crate::failure::Failure;
use crate::interrupt::Lookout;
use crate::options::EngineOptions;
use crate::{output, progress};

/// Fill, compress, read and clear several contexts at once, and show what memory is left behind
#[derive(Debug, Args)]
pub(crate) struct Leaks {
    /// Rounds of each thread
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Threads, each with its own context
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    contexts: u32,
    /// Tokens that each round adds to a context
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Leaks {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let engine = Arc::new(options.load()?);
        let memory = MultiTierMemoryManager::new(Arc::clone(&engine));
        let lookout = Lookout::begin();
        // The engine's first pass allocates its working memory, which stays.
        self.round(&memory, "first", 0)?;
        memory.close("first")?;
        memory.optimize_memory()?;
        memory.mark();
        let bar = progress::bar("rounds", (self.rounds * self.contexts) as usize, "rounds", options.quiet);
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.contexts)
                .map(|context| {
                    let (memory, bar, lookout, done, this) = (&memory, &bar, &lookout, &done, &self);
                    scope.spawn(move || -> herald::Result<()> {
                        let name = format!("context {context}");
                        for round in 0..this.rounds {
                            if !lookout.go_on() {
                                return Err(herald::Error::Cancelled);
                            }
                            this.round(memory, &name, context * this.rounds + round)?;
                            bar.inc(1);
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        memory.close(&name).map(drop)
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(ended) => ended,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        bar.finish_and_clear();
        let optimized = memory.optimize_memory()?;
        let stats = memory.get_memory_leak_stats()?;
        let left = stats.held_pages > 0 || stats.leaks();
        if self.json {
            output::json(
                &json!({"rounds": done.into_inner(), "leaks": left, "stats": stats, "optimized": optimized}),
            )?;
        } else {
            output::line(format_args!(
                "{} rounds: {} pages ({}) are left in the tiers, {} of them without an owner; RSS has grown by {}",
                done.into_inner(),
                stats.held_pages,
                output::bytes(stats.held_bytes),
                stats.orphaned_pages,
                output::bytes(stats.since_mark.rss_bytes.max(0).unsigned_abs()),
            ))?;
        }
        if left { Err(Failure::Failed("memory is left behind".to_owned())) } else { Ok(()) }
    }

    fn round(&self, memory: &MultiTierMemoryManager, name: &str, seed: u32) -> herald::Result<()> {
        let vocabulary = memory.engine().plan().vocabulary as u32;
        let max_tokens = memory.engine().context().saturating_sub(16).max(1) as u32;
        let ids: Vec<u32> = (0..self.tokens.min(max_tokens))
            .map(|index| index.wrapping_mul(7919).wrapping_add(seed.wrapping_mul(104_729)) % vocabulary)
            .collect();
        memory.add_to_active_memory(name, &ids)?;
        memory.compress_memory(name, ids.len() / 4)?;
        let options = GenerateOptions { max_tokens: Some(4), ignore_eos: true, ..GenerateOptions::default() };
        memory.generate(name, &ids[..1], &options)?;
        memory.optimize_memory()?;
        memory.clear_active_memory(name).map(drop)
    }
}
