//! What the memory tiers hold.

use herald_api::{MemoryTier, TierKind, TierStats};

use super::NeuroEngine;
use crate::memory::LayerNeeds;

/// A tier, and what it holds for all sequences together.
#[derive(Clone, Debug)]
pub struct TierUse {
    /// Which tier.
    pub kind: TierKind,
    /// What it holds.
    pub stats: TierStats,
}

impl NeuroEngine {
    /// How many layers keep pages of a sequence.
    #[must_use]
    pub fn layers_with_pages(&self) -> usize {
        self.needs.iter().filter(|needs| matches!(needs, LayerNeeds::Pages(_))).count()
    }

    /// What each kind of memory tier holds for all sequences of this engine.
    #[must_use]
    pub fn tier_use(&self) -> Vec<TierUse> {
        let mut seen = Vec::new();
        let mut uses: Vec<TierUse> = Vec::new();
        for needs in &self.needs {
            let LayerNeeds::Pages(needs) = needs else { continue };
            for tier in std::iter::once(&needs.tier).chain(&needs.compressed) {
                // Layers of one shape share a tier.
                if seen.contains(&tier.config()) {
                    continue;
                }
                seen.push(tier.config());
                let (kind, stats) = (tier.config().kind, tier.stats());
                match uses.iter_mut().find(|found| found.kind == kind) {
                    Some(found) => {
                        let sum = &mut found.stats;
                        sum.pages += stats.pages;
                        sum.tokens += stats.tokens;
                        sum.bytes += stats.bytes;
                        sum.hits += stats.hits;
                        sum.misses += stats.misses;
                    }
                    None => uses.push(TierUse { kind, stats }),
                }
            }
        }
        uses
    }
}
