//! Whether pages are left behind.

use std::sync::Arc;

use serde::Serialize;

use super::MultiTierMemoryManager;
use super::context::{Context, Hold};
use crate::error::Result;
use crate::metrics::Leak;
use crate::threads::locked;

/// Pages that tiers hold, and those that can be reached, counted while nobody works on a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryLeakStats {
    /// Pages that the tiers hold.
    pub held_pages: u64,
    /// Bytes that they take.
    pub held_bytes: u64,
    /// Pages that can be reached from the manager's contexts, or from the earlier prompts that the engine keeps; each once.
    pub reachable_pages: u64,
    /// Bytes that they take.
    pub reachable_bytes: u64,
    /// Sequences of the engine that others opened: the manager can't see which pages they hold.
    pub other_sequences: u64,
    /// Pages whose owner is gone: held, but reached from nowhere. While there are other sequences, this counts their pages too,
    /// since the manager can't tell them apart.
    pub orphaned_pages: u64,
    /// Bytes that they take.
    pub orphaned_bytes: u64,
    /// Growth since [`MultiTierMemoryManager::mark`], or since the manager was made. Pages that contexts hold are no leak.
    pub since_mark: Leak,
}

impl MemoryLeakStats {
    /// Whether there are pages whose owner is certainly gone.
    #[must_use]
    pub fn leaks(&self) -> bool {
        self.other_sequences == 0 && self.orphaned_pages > 0
    }
}

impl MultiTierMemoryManager {
    /// Counts the pages that tiers hold, and those that can be reached. Waits for current work on contexts to end, and makes new
    /// work wait.
    ///
    /// # Errors
    /// From within a callback of [`MultiTierMemoryManager::generate_while`].
    pub fn get_memory_leak_stats(&self) -> Result<MemoryLeakStats> {
        let hold = Hold::begin()?;
        let _alone = self.enter_alone();
        let contexts: Vec<Arc<Context>> = self.map().values().cloned().collect();
        // Nobody else holds any of them, so nothing is waited for.
        let held: Vec<_> = contexts.iter().filter_map(|context| context.lock(&hold)).collect();
        let seen = self.engine.reachable(held.iter().map(|held| &held.sequence));
        let usage = self.engine.memory_usage();
        let (total, archived) = (usage.total(), usage.archived);
        let reachable_pages = seen.pages + seen.archived;
        // Pages of archives may take different numbers of bytes; only their sum is known.
        let reachable_bytes = seen.bytes
            + u128::from(archived.bytes)
                .checked_mul(u128::from(seen.archived.min(archived.pages)))
                .and_then(|bytes| bytes.checked_div(u128::from(archived.pages)))
                .map_or(0, |bytes| bytes as u64);
        let mark = locked(&self.mark).clone();
        Ok(MemoryLeakStats {
            held_pages: total.pages,
            held_bytes: total.bytes,
            reachable_pages,
            reachable_bytes,
            other_sequences: self.engine.open_sequences().saturating_sub(held.len() as u64),
            orphaned_pages: total.pages.saturating_sub(reachable_pages),
            orphaned_bytes: total.bytes.saturating_sub(reachable_bytes),
            since_mark: self.profiler.leak_since(&mark),
        })
    }

    /// Counts growth from now on.
    pub fn mark(&self) {
        let now = self.profiler.now("");
        *locked(&self.mark) = now;
    }
}
