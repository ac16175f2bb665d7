//! Where memory goes: snapshots, the peak, and whether anything is left behind.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde::Serialize;

use super::process::{self, ProcessMemory};
use crate::engine::NeuroEngine;
use crate::threads::locked;

/// What a memory tier holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TierBytes {
    /// Which tier.
    pub tier: &'static str,
    /// Pages that it holds.
    pub pages: u64,
    /// Tokens in them; each layer counts its own.
    pub tokens: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Look-ups that found their page.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Bytes of RAM that its pages take.
    pub memory_bytes: u64,
}

impl TierBytes {
    /// What the tiers of an engine hold.
    #[must_use]
    pub fn of(engine: &NeuroEngine) -> Vec<Self> {
        let tiers = engine.memory_usage().tiers().into_iter();
        tiers
            .map(|(kind, stats)| Self {
                tier: kind.name(),
                pages: stats.pages,
                tokens: stats.tokens,
                bytes: stats.bytes,
                hits: stats.hits,
                misses: stats.misses,
                memory_bytes: stats.memory_bytes,
            })
            .collect()
    }
}

/// Memory at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MemorySnapshot {
    /// What was going on.
    pub label: String,
    /// Seconds since the profiler started.
    pub at_s: f64,
    /// The process; zeros where the system doesn't say.
    #[serde(flatten)]
    pub process: ProcessMemory,
    /// The tiers.
    pub tiers: Vec<TierBytes>,
}

impl MemorySnapshot {
    fn tier_pages(&self) -> u64 {
        self.tiers.iter().map(|tier| tier.pages).sum()
    }

    fn tier_bytes(&self) -> u64 {
        self.tiers.iter().map(|tier| tier.bytes).sum()
    }
}

/// Growth since a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Leak {
    /// Pages in tiers, more (or fewer) than at the mark.
    pub pages: i64,
    /// Their bytes.
    pub tier_bytes: i64,
    /// RSS. A heap keeps some of what was freed, so this alone proves nothing.
    pub rss_bytes: i64,
}

impl Leak {
    /// Whether pages are left whose owner is gone.
    #[must_use]
    pub fn leaks(&self) -> bool {
        self.pages > 0 || self.tier_bytes > 0
    }
}

/// Follows the memory of this process and of an engine's tiers. Any thread.
pub struct MemoryProfiler {
    engine: Arc<NeuroEngine>,
    start: Instant,
    snapshots: Mutex<Vec<MemorySnapshot>>,
}

impl MemoryProfiler {
    /// Starts to follow an engine.
    #[must_use]
    pub fn start(engine: Arc<NeuroEngine>) -> Self {
        Self { engine, start: Instant::now(), snapshots: Mutex::default() }
    }

    /// Memory now; not kept.
    #[must_use]
    pub fn now(&self, label: &str) -> MemorySnapshot {
        MemorySnapshot {
            label: label.to_owned(),
            at_s: self.start.elapsed().as_secs_f64(),
            process: process::process_memory().unwrap_or_default(),
            tiers: TierBytes::of(&self.engine),
        }
    }

    /// Memory now, which is kept.
    pub fn snapshot(&self, label: &str) -> MemorySnapshot {
        let snapshot = self.now(label);
        locked(&self.snapshots).push(snapshot.clone());
        snapshot
    }

    /// The snapshots that were kept, oldest first.
    #[must_use]
    pub fn snapshots(&self) -> Vec<MemorySnapshot> {
        locked(&self.snapshots).clone()
    }

    /// The most that this process has had in RAM, in bytes.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        process::process_memory().unwrap_or_default().peak_bytes
    }

    /// Growth since a snapshot. Call it when everything that began since has ended.
    #[must_use]
    pub fn leak_since(&self, mark: &MemorySnapshot) -> Leak {
        let now = self.now("");
        let grown = |now: u64, before: u64| now.cast_signed() - before.cast_signed();
        Leak {
            pages: grown(now.tier_pages(), mark.tier_pages()),
            tier_bytes: grown(now.tier_bytes(), mark.tier_bytes()),
            rss_bytes: grown(now.process.rss_bytes, mark.process.rss_bytes),
        }
    }
}
