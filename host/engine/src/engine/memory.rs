//! What an engine's sequences keep, in which tiers, and within which limits.

use std::sync::{Arc, Mutex};

use super::tiers::MemoryParts;
use crate::kv_cache::{
    self, CacheLimits, LayerNeeds, Ledger, Limits, MemoryOptions, MemoryUsage, PrefixCache, SelectionWatcher,
    TierTraffic,
};
use crate::options::LoadOptions;
use crate::threads::locked;

pub(super) struct EngineMemory {
    /// What each layer keeps of each sequence.
    pub(super) needs: Vec<LayerNeeds>,
    /// What earlier sequences computed.
    pub(super) prefixes: PrefixCache,
    /// Counts the pages that move between tiers.
    pub(super) traffic: Arc<TierTraffic>,
    /// Counts open sequences, and what the host holds of them beside pages.
    pub(super) ledger: Arc<Ledger>,
    /// As the engine was loaded.
    pub(super) options: MemoryOptions,
    limits: Mutex<Limits>,
    watcher: Mutex<Option<SelectionWatcher>>,
}

impl EngineMemory {
    pub(super) fn new(parts: MemoryParts, load: &LoadOptions) -> Self {
        let MemoryParts { needs, traffic, ledger, .. } = parts;
        let options = &load.memory;
        let cache = CacheLimits {
            bytes: load.prefix_bytes,
            folder: load.cache_dir.clone(),
            file_bytes: load.cache_dir_bytes,
        };
        Self {
            limits: Mutex::new(kv_cache::limits(&needs, options)),
            prefixes: PrefixCache::new(cache, load.page_tokens, &needs),
            needs,
            traffic,
            ledger,
            options: options.clone(),
            watcher: Mutex::default(),
        }
    }

    pub(super) fn usage(&self) -> MemoryUsage {
        kv_cache::usage(&self.needs, self.prefixes.bytes(), &self.traffic, &self.ledger)
    }

    /// How much of a sequence stays in which tier.
    pub(super) fn limits(&self) -> Limits {
        *locked(&self.limits)
    }

    /// The same by other options.
    pub(super) fn limits_by(&self, options: &MemoryOptions) -> Limits {
        kv_cache::limits(&self.needs, options)
    }

    pub(super) fn set_limits(&self, options: &MemoryOptions) {
        *locked(&self.limits) = self.limits_by(options);
    }

    pub(super) fn watcher(&self) -> Option<SelectionWatcher> {
        locked(&self.watcher).clone()
    }

    pub(super) fn set_watcher(&self, watcher: Option<SelectionWatcher>) {
        *locked(&self.watcher) = watcher;
    }
}
