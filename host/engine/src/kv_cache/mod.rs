//! What a sequence has seen: for each layer its pages of keys and values, or its recurrent state.

mod census;
mod copies;
mod ledger;
mod options;
mod page_selection;
mod pages;
mod prefix;

use std::sync::{Arc, Mutex};

use herald_api::import::{Batch, LayerHandle, TierHandle};
use herald_api::{AlignedBytes, MemoryTier, Result, TierKind, TierStats};

use crate::metrics::TierTraffic;
use crate::threads::ThreadPool;
use crate::threads::{into_value, locked};

pub(crate) use census::{Account, Census, Entry, Seen};
use ledger::Charge;
pub(crate) use ledger::Ledger;
pub(crate) use page_selection::PageSelector;
pub use page_selection::{PageSelection, SelectionWatcher};

pub use options::{Capacity, MemoryOptions};
pub(crate) use pages::{LayerPages, Limits, PagesNeeds};
pub(crate) use prefix::{PageRow, PrefixCache};

pub(crate) use copies::{LayerBytes, PageBytes};

/// What one layer keeps of one sequence.
enum LayerMemory {
    /// Nothing: the layer looks at each token by itself.
    Stateless,
    /// Keys and values.
    Pages(LayerPages),
    /// A recurrent state.
    State(AlignedBytes),
}

/// What a layer keeps of each sequence, as far as the engine knows when the layer is built.
pub(crate) enum LayerNeeds {
    /// Nothing.
    Nothing,
    /// Keys and values.
    Pages(PagesNeeds),
    /// A recurrent state of so many bytes.
    State(usize),
}

/// What the tiers hold of a sequence, or of all sequences of an engine. In tiers each layer counts its own tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// The active tier: pages as attention writes them.
    pub active: TierStats,
    /// The compressed tier: whole pages of earlier tokens, 4 bits an element. Its hits are pages that a layer chose and that
    /// were in it, its misses those that came from the archive.
    pub compressed: TierStats,
    /// The archived tier: the oldest pages, in a file. Its hits are views of pages.
    pub archived: TierStats,
    /// Bytes of active pages that are kept for prompts that begin alike (some of the active tier's).
    pub prefix_bytes: u64,
    /// Bytes of recurrent states, which are in no tier.
    pub state_bytes: u64,
    /// Bytes that the pages of all tiers would take in the active one.
    pub exact_bytes: u64,
    /// Bytes of recurrent states (`state_bytes`), and of what tells pages beyond the active ones apart.
    pub other_bytes: u64,
}

impl MemoryUsage {
    /// Bytes of RAM, all together.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.tiers().iter().map(|(_, stats)| stats.memory_bytes).sum::<u64>() + self.other_bytes
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

/// Adds up what the tiers hold, each counted once.
pub(crate) fn usage(
    needs: &[LayerNeeds],
    prefix_bytes: usize,
    state_bytes: u64,
    traffic: &TierTraffic,
    ledger: &Ledger,
) -> MemoryUsage {
    let mut seen: Vec<&TierHandle> = Vec::new();
    let mut usage = MemoryUsage { prefix_bytes: prefix_bytes as u64, state_bytes, ..MemoryUsage::default() };
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
            usage.exact_bytes += stats.pages * pages::page_bytes(tier.config().page_bytes());
        }
    }
    usage.other_bytes = ledger.bytes();
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

/// What all layers keep of one sequence.
pub(crate) struct SequenceMemory {
    layers: Vec<LayerMemory>,
    /// What its recurrent states take.
    charge: Charge,
}

impl SequenceMemory {
    /// Memory of an empty sequence.
    pub(crate) fn new(needs: &[LayerNeeds], ledger: &Arc<Ledger>) -> Result<Self> {
        let layers: Vec<_> = needs
            .iter()
            .map(|needs| {
                Ok(match needs {
                    LayerNeeds::Nothing => LayerMemory::Stateless,
                    LayerNeeds::Pages(needs) => LayerMemory::Pages(LayerPages::new(needs)),
                    LayerNeeds::State(bytes) => LayerMemory::State(AlignedBytes::zeroed(*bytes)?),
                })
            })
            .collect::<Result<_>>()?;
        let mut memory = Self { layers, charge: Charge::new(ledger, 0) };
        memory.charge.set(memory.state_bytes());
        Ok(memory)
    }

    /// Bytes of its recurrent states.
    fn state_bytes(&self) -> usize {
        let state = |layer: &LayerMemory| match layer {
            LayerMemory::State(state) => state.len(),
            _ => 0,
        };
        self.layers.iter().map(state).sum()
    }

    fn pages(&mut self) -> impl Iterator<Item = &mut LayerPages> {
        self.layers.iter_mut().filter_map(|layer| match layer {
            LayerMemory::Pages(pages) => Some(pages),
            _ => None,
        })
    }

    /// Makes room for `tokens` tokens in all, of which `past` are there: pages that will be written become this
    /// sequence's own. Where that fails, what is there stays as it was.
    pub(crate) fn reserve(&mut self, past: usize, tokens: usize) -> Result<()> {
        self.pages().try_for_each(|pages| pages.reserve(past, tokens))
    }

    /// Adds a layer's part of this sequence to a batch: `n_tokens` new tokens after `past`. What the layer may choose
    /// from goes to `best`.
    pub(crate) fn add_to<'b>(
        &'b mut self,
        layer: usize,
        batch: &mut Batch<'b>,
        best: &mut PageSelector<'b>,
        n_tokens: usize,
        past: usize,
    ) -> Result<()> {
        match &mut self.layers[layer] {
            LayerMemory::Stateless => batch.push(n_tokens, past, None, []),
            LayerMemory::State(state) => batch.push(n_tokens, past, Some(state), []),
            LayerMemory::Pages(pages) => {
                best.push(pages.add_to(batch, n_tokens, past)?);
                Ok(())
            }
        }
    }

    /// Whether a layer has compressed pages.
    pub(crate) fn has_selectable_pages(&self, layer: usize) -> bool {
        matches!(&self.layers[layer], LayerMemory::Pages(pages) if pages.n_selectable() > 0)
    }

    /// Tells the tiers that tokens `past..tokens` are written, and moves pages that are no longer among the latest down a
    /// tier; `layers` are the engine's, on whose threads this is shared out.
    pub(crate) fn commit(
        &mut self,
        past: usize,
        tokens: usize,
        limits: Limits,
        layers: &[LayerHandle],
        pool: &ThreadPool,
    ) -> Result<()> {
        self.pages().try_for_each(|pages| pages.commit(past, tokens))?;
        // The tokens are run all the same: a page that could not move stays, and is moved when the sequence next grows.
        if let Err(error) = self.demote(tokens, limits, layers, pool) {
            tracing::debug!("pages stay in their tier: {error}");
        }
        Ok(())
    }

    /// Bytes of the pages that `reserve` would make.
    pub(crate) fn wanted(&self, past: usize, tokens: usize) -> usize {
        let wanted = |layer: &LayerMemory| match layer {
            LayerMemory::Pages(pages) => pages.wanted(past, tokens),
            _ => 0,
        };
        self.layers.iter().map(wanted).sum()
    }

    /// Moves pages up that have a place in a higher tier.
    pub(crate) fn promote(&mut self, tokens: usize, limits: Limits) -> Result<()> {
        self.pages().try_for_each(|pages| pages.promote(tokens, limits))
    }

    /// Moves pages that have no place in their tier down, with `tokens` tokens in all.
    pub(crate) fn demote(
        &mut self,
        tokens: usize,
        limits: Limits,
        layers: &[LayerHandle],
        pool: &ThreadPool,
    ) -> Result<()> {
        let demoted: Vec<_> = self
            .layers
            .iter_mut()
            .zip(layers)
            .filter_map(|(memory, layer)| match memory {
                LayerMemory::Pages(pages) => {
                    pages.has_to_demote(tokens, limits).then(|| Mutex::new((pages, limits, layer, Ok(()))))
                }
                _ => None,
            })
            .collect();
        if demoted.is_empty() {
            return Ok(());
        }
        herald_api::import::Executor::run(pool, demoted.len(), &|range, _| {
            for item in &demoted[range] {
                let mut item = locked(&item);
                let (pages, limits, layer, done) = &mut *item;
                *done = pages.demote(tokens, *limits, layer);
            }
        });
        demoted.into_iter().try_for_each(|item| into_value(item).3)
    }

    /// Forgets the tokens from `tokens` on; `false` where a recurrent state, which can't go back, is in the way.
    pub(crate) fn truncate(&mut self, tokens: usize) -> bool {
        if tokens > 0 && self.layers.iter().any(|layer| matches!(layer, LayerMemory::State(_))) {
            return false;
        }
        for layer in &mut self.layers {
            match layer {
                LayerMemory::Stateless => {}
                LayerMemory::Pages(pages) => pages.truncate(tokens),
                LayerMemory::State(state) => state.fill(0),
            }
        }
        true
    }

    /// The tokens of a page, the same for every layer; `None` where the model keeps anything but pages of a sequence, so
    /// that sequences can't share their beginnings.
    pub(crate) fn shared_page_tokens(&self) -> Option<usize> {
        let mut tokens = None;
        for layer in &self.layers {
            match layer {
                LayerMemory::Stateless => {}
                LayerMemory::State(_) => return None,
                LayerMemory::Pages(pages) => tokens = Some(pages.page_tokens()),
            }
        }
        tokens
    }

    /// The page `index` of every layer that keeps pages, and their bytes; `None` where one isn't there any more as it was
    /// written.
    pub(crate) fn page_row(&self, index: usize) -> Option<(PageRow, usize)> {
        let mut bytes = 0;
        let mut row = PageRow::new();
        for layer in &self.layers {
            if let LayerMemory::Pages(pages) = layer {
                let page = pages.exact_page(index)?;
                bytes += page.bytes().0.len() + page.bytes().1.len();
                row.push(Arc::clone(page));
            }
        }
        Some((row, bytes))
    }

    /// Begins an empty sequence with pages of another one: rows as `page_row` gave them, in order.
    pub(crate) fn begin_with(&mut self, rows: Vec<PageRow>) {
        for row in rows {
            for (pages, page) in self.pages().zip(row) {
                pages.push(page);
            }
        }
    }

    /// Bytes that it takes; pages that it shares with other sequences count whole.
    pub(crate) fn bytes(&self) -> usize {
        self.layers
            .iter()
            .map(|layer| match layer {
                LayerMemory::Stateless => 0,
                LayerMemory::Pages(pages) => pages.bytes(),
                LayerMemory::State(state) => state.len(),
            })
            .sum()
    }
}
