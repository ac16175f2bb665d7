//! What the memory tiers hold, and moving a sequence's pages down.

use herald_api::{MemoryTier, TierKind, TierStats};

use super::{NeuroEngine, Sequence};
use crate::error::{Error, Result};
use crate::memory::{self, LayerNeeds, MemoryOptions};

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

    /// Moves a sequence's pages down now, as if `options` were those that the engine was loaded with; of the options only
    /// the capacities count. Pages don't come back up by a call with greater ones: attention reads them where they are.
    ///
    /// # Errors
    /// Where the sequence belongs to another engine, or a tier fails: what moved stays moved, and nothing is lost.
    pub fn demote(&self, sequence: &mut Sequence, options: &MemoryOptions) -> Result<()> {
        self.owns(sequence)?;
        let limits = memory::limits(&self.needs, options);
        let tokens = sequence.tokens.len();
        let demoted = sequence.memory.demote(tokens, Some(limits), &self.layers, &self.pool);
        demoted.map_err(|source| Error::Plugin { what: "the memory of a sequence".to_owned(), source })
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
