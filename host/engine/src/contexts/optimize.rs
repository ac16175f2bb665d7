//! Keeping memory tidy.

use std::sync::Arc;

use herald_api::TierStats;
use serde::Serialize;

use super::context::{Context, Hold};
use super::{Demoted, MultiTierMemoryManager};
use crate::engine::SharedPages;
use crate::error::Result;
use crate::kv_cache::{Capacity, MemoryOptions, MemoryUsage};
use crate::metrics::{process_memory, trim_heap};
use crate::threads::locked;

/// What [`MultiTierMemoryManager::optimize_memory`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Optimized {
    /// Pages that moved down a tier, and what that freed.
    pub demoted: Demoted,
    /// Pages of earlier prompts that no context held, and were dropped.
    pub unreferenced_pages: u64,
    /// Their bytes.
    pub unreferenced_bytes: u64,
    /// Pages that were dropped because another context has an equal page, which both now share.
    pub merged_pages: u64,
    /// Their bytes.
    pub merged_bytes: u64,
    /// Pages of room that was reserved and not used.
    pub spare_pages: u64,
    /// Their bytes.
    pub spare_bytes: u64,
    /// Bytes of RAM that the tiers gave up in all.
    pub bytes_freed: u64,
    /// Bytes of RAM by which the process shrank when freed memory went back to the system.
    pub returned_bytes: u64,
    /// The share of the tiers' room for tokens that held none, before.
    pub fragmentation_before: f64,
    /// The same afterwards. A sequence's last page is seldom full, so it is seldom 0.
    pub fragmentation_after: f64,
    /// Contexts that were skipped, since somebody worked on them.
    pub busy_contexts: u64,
}

impl MultiTierMemoryManager {
    /// Tidies up. In every context that nobody works on: gives back room that was reserved and not used; moves pages beyond the
    /// active tier's limit down (in a cold context, which nobody has used since the last call, all but the first and the latest
    /// [`super::ManagerOptions::cold_tokens`]); and shares pages that equal another context's to the byte. Then drops pages of
    /// earlier prompts that nobody holds, and returns freed memory to the system.
    ///
    /// # Errors
    /// Where a tier fails: no page is then lost. From within a callback of [`MultiTierMemoryManager::generate_while`].
    pub fn optimize_memory(&self) -> Result<Optimized> {
        let hold = Hold::begin()?;
        let _working = self.enter();
        let before = self.engine.memory_usage();
        let mut did = Optimized { fragmentation_before: self.fragmentation(&before), ..Optimized::default() };
        let epoch = {
            let mut epoch = locked(&self.epoch);
            *epoch += 1;
            *epoch
        };
        let usual = self.engine.memory_options();
        let cold = MemoryOptions { active: Capacity::Tokens(self.options.cold_tokens), ..usual.clone() };
        let contexts: Vec<Arc<Context>> = self.map().values().cloned().collect();
        let mut shared = SharedPages::default();
        for context in &contexts {
            let Ok(held) = context.try_lock(&hold) else {
                did.busy_contexts += 1;
                continue;
            };
            let Some(mut state) = held else { continue };
            let reserved = state.sequence.memory_usage();
            state.sequence.give_back_room();
            let used = state.sequence.memory_usage();
            did.spare_pages += reserved.active.pages - used.active.pages;
            did.spare_bytes += reserved.active.bytes - used.active.bytes;
            let is_cold = state.used + 1 < epoch;
            let moved = self.demote(&mut state.sequence, if is_cold { &cold } else { usual })?;
            did.demoted.pages += moved.pages;
            did.demoted.bytes_freed += moved.bytes_freed;
            let (pages, bytes) = state.sequence.merge(&mut shared, self.engine.page_tokens());
            did.merged_pages += pages;
            did.merged_bytes += bytes;
        }
        drop(shared);
        (did.unreferenced_pages, did.unreferenced_bytes) = self.engine.forget_unheld_prefixes();
        let after = self.engine.memory_usage();
        did.bytes_freed = before.total().memory_bytes.saturating_sub(after.total().memory_bytes);
        did.fragmentation_after = self.fragmentation(&after);
        let resident = || process_memory().map_or(0, |memory| memory.rss_bytes);
        let full = resident();
        if trim_heap() {
            did.returned_bytes = full.saturating_sub(resident());
        }
        Ok(did)
    }

    /// The part of the room in pages, in RAM, that holds no token.
    fn fragmentation(&self, usage: &MemoryUsage) -> f64 {
        let empty = |stats: &TierStats| {
            let room = stats.pages * self.engine.page_tokens() as u64;
            if room == 0 { 0.0 } else { stats.bytes as f64 * (1.0 - stats.tokens as f64 / room as f64) }
        };
        let tiers = [usage.active, usage.compressed];
        let bytes: u64 = tiers.iter().map(|tier| tier.bytes).sum();
        if bytes == 0 { 0.0 } else { tiers.iter().map(empty).sum::<f64>() / bytes as f64 }
    }
}
