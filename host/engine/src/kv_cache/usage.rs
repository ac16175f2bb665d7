//! How much the tiers hold, and how much of a sequence stays in each.

use herald_api::import::TierHandle;
use herald_api::{TierKind, TierStats};

use super::LayerNeeds;
use super::ledger::Ledger;
use super::moves::Limits;
use super::options::MemoryOptions;
use super::pages::{PagesNeeds, page_bytes};
use super::traffic::TierTraffic;

/// What the tiers hold of a sequence, or of all sequences of an engine. In tiers each layer counts its own tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// The active tier: pages as attention writes them.
    pub active: TierStats,
    /// The compressed tier: whole pages of earlier tokens, 4 bits an element. Its hits are pages that a layer selected and that
    /// were in it, its misses those that came from the archive.
    pub compressed: TierStats,
    /// The archived tier: the oldest pages, in a file. Its hits are views of pages.
    pub archived: TierStats,
    /// Bytes of the prefix cache. They are part of those of the tiers, of recurrent states, and of summaries.
    pub prefix_bytes: u64,
    /// Bytes of recurrent states, of sequences and in the prefix cache, which are in no tier.
    pub state_bytes: u64,
    /// Bytes that the pages of all tiers would take in the active one.
    pub exact_bytes: u64,
    /// Bytes of the summaries by which layers select among pages that are no longer active, in no tier either.
    pub summary_bytes: u64,
}

impl MemoryUsage {
    /// Bytes of RAM, all together.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.tiers().iter().map(|(_, stats)| stats.memory_bytes).sum::<u64>()
            + self.state_bytes
            + self.summary_bytes
    }

    /// Each kind of tier with what it holds.
    #[must_use]
    pub fn tiers(&self) -> [(TierKind, TierStats); 3] {
        [
            (TierKind::Active, self.active),
            (TierKind::Compressed, self.compressed),
            (TierKind::Archived, self.archived),
        ]
    }

    /// Everything in all tiers.
    #[must_use]
    pub fn total(&self) -> TierStats {
        let mut total = TierStats::default();
        self.tiers().into_iter().for_each(|(_, stats)| total += stats);
        total
    }

    /// How many times smaller the pages of all tiers are than they would be in the active one; 1 where there are none.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        let bytes = self.total().bytes;
        if bytes == 0 { 1.0 } else { self.exact_bytes as f64 / bytes as f64 }
    }
}

/// Adds up what the tiers hold, each tier counted once.
pub(crate) fn usage(
    needs: &[LayerNeeds],
    prefix_bytes: usize,
    traffic: &TierTraffic,
    ledger: &Ledger,
) -> MemoryUsage {
    let mut seen: Vec<&TierHandle> = Vec::new();
    let mut usage = MemoryUsage {
        prefix_bytes: prefix_bytes as u64,
        state_bytes: ledger.state_bytes(),
        summary_bytes: ledger.summary_bytes(),
        ..MemoryUsage::default()
    };
    for needs in needs {
        let LayerNeeds::Pages(needs) = needs else { continue };
        let tiers = [
            (Some(&needs.tier), &mut usage.active),
            (needs.compressed.as_ref(), &mut usage.compressed),
            (needs.archive.as_ref(), &mut usage.archived),
        ];
        for (tier, sum) in tiers {
            let Some(tier) = tier.filter(|tier| !seen.iter().any(|seen| seen.is(tier))) else { continue };
            seen.push(tier);
            let stats = tier.stats();
            *sum += stats;
            usage.exact_bytes += stats.pages * page_bytes(tier.config().page_bytes());
        }
    }
    usage.compressed.hits = traffic.fetched(TierKind::Compressed);
    usage.compressed.misses = traffic.fetched(TierKind::Archived);
    usage
}

/// How much of a sequence stays in which tier, by options in tokens or bytes.
pub(crate) fn limits(needs: &[LayerNeeds], options: &MemoryOptions) -> Limits {
    let (mut active_bytes, mut compressed_bytes) = (0, 0);
    for needs in needs {
        let LayerNeeds::Pages(PagesNeeds { tier, compressed: Some(_), .. }) = needs else { continue };
        let config = tier.config();
        let token_bytes =
            |page: Option<(usize, usize)>| page.map_or(0, |(k, v)| (k + v) / config.page_tokens);
        active_bytes += token_bytes(config.page_bytes());
        compressed_bytes += token_bytes(config.q4_page_bytes());
    }
    Limits {
        active_tokens: options.active.tokens(active_bytes),
        compressed_tokens: options.compressed.tokens(compressed_bytes),
    }
}
