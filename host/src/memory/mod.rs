//! What a sequence has seen: for each layer its pages of keys and values, or its recurrent state.

mod census;
mod copies;
mod options;
mod pages;
mod prefix;

use std::sync::{Arc, Mutex};

use herald_api::import::{Batch, Fetcher, LayerHandle, PageHandle, TierHandle};
use herald_api::{AlignedBytes, MemoryTier, Result, TierStats};

use crate::threads::ThreadPool;

pub(crate) use census::{Account, Census, Entry};
pub use options::{Capacity, MemoryOptions};
pub(crate) use pages::{LayerPages, Limits, PagesNeeds};
pub(crate) use prefix::{PageRow, PrefixCache};

pub(crate) use copies::LayerBytes;

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
    /// The compressed tier: whole pages of earlier tokens, 4 bits an element.
    pub compressed: TierStats,
    /// Bytes of active pages that are kept for prompts that begin alike (some of the active tier's).
    pub prefix_bytes: u64,
    /// Bytes of recurrent states, which are in no tier.
    pub state_bytes: u64,
    /// Bytes that the pages of all tiers would take in the active one.
    pub exact_bytes: u64,
}

impl MemoryUsage {
    /// Pages in all tiers.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.active.pages + self.compressed.pages
    }

    /// Tokens in all tiers; each layer counts its own.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.active.tokens + self.compressed.tokens
    }

    /// Bytes in all tiers.
    #[must_use]
    pub fn page_bytes(&self) -> u64 {
        self.active.bytes + self.compressed.bytes
    }

    /// How many times smaller the pages of all tiers are than they would be in the active one; 1 where there are none.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        let bytes = self.page_bytes();
        if bytes == 0 { 1.0 } else { self.exact_bytes as f64 / bytes as f64 }
    }
}

/// Adds up what the tiers hold, each counted once.
pub(crate) fn usage(needs: &[LayerNeeds], prefix_bytes: usize, state_bytes: u64) -> MemoryUsage {
    let mut seen: Vec<&TierHandle> = Vec::new();
    let mut usage = MemoryUsage { prefix_bytes: prefix_bytes as u64, state_bytes, ..MemoryUsage::default() };
    for needs in needs {
        let LayerNeeds::Pages(needs) = needs else { continue };
        let tiers =
            [(Some(&needs.tier), &mut usage.active), (needs.compressed.as_ref(), &mut usage.compressed)];
        for (tier, sum) in tiers {
            let Some(tier) = tier.filter(|tier| !seen.iter().any(|seen| seen.is(tier))) else { continue };
            seen.push(tier);
            let stats = tier.stats();
            sum.pages += stats.pages;
            sum.tokens += stats.tokens;
            sum.bytes += stats.bytes;
            sum.hits += stats.hits;
            sum.misses += stats.misses;
            usage.exact_bytes += stats.pages * pages::page_bytes(tier.config().page_bytes());
        }
    }
    usage
}

/// How much of a sequence stays in which tier, by options in tokens or bytes.
pub(crate) fn limits(needs: &[LayerNeeds], options: &MemoryOptions) -> Limits {
    let mut active_bytes = 0;
    for needs in needs {
        let LayerNeeds::Pages(PagesNeeds { tier, compressed: Some(_), .. }) = needs else { continue };
        let config = tier.config();
        let token_bytes =
            |page: Option<(usize, usize)>| page.map_or(0, |(k, v)| (k + v) / config.page_tokens);
        active_bytes += token_bytes(config.page_bytes());
    }
    Limits { active_tokens: options.active.tokens(active_bytes) }
}

/// What all layers keep of one sequence.
pub(crate) struct SequenceMemory {
    layers: Vec<LayerMemory>,
}

/// A sequence's far pages of one layer, with how many of them a batch may fetch.
pub(crate) type FarPages<'b> = (&'b [Arc<PageHandle>], usize, usize);

/// Brings the far pages with the best scores.
#[derive(Default)]
pub(crate) struct BestPages<'b> {
    /// Of each sequence of the batch: its far pages, the place of the first in pages, and tokens of a page.
    sequences: Vec<(FarPages<'b>, usize)>,
}

impl<'b> BestPages<'b> {
    /// Adds the next sequence of the batch.
    pub(crate) fn push(&mut self, far: Option<FarPages<'b>>, page_tokens: usize) {
        self.sequences.push((far.unwrap_or((&[], 0, 0)), page_tokens));
    }
}

impl Fetcher for BestPages<'_> {
    fn fetch(&mut self, scores: &[f32], batch: &mut Batch<'_>) -> Result<()> {
        let mut first = 0;
        for (index, n_far) in batch.n_far().into_iter().enumerate() {
            let scores = &scores[first..first + n_far];
            first += n_far;
            let Some(((far, sink, most), page_tokens)) = self.sequences.get(index).filter(|_| n_far > 0)
            else {
                continue;
            };
            let mut order: Vec<usize> = (0..n_far.min(far.len())).collect();
            if order.len() > *most {
                order.select_nth_unstable_by(*most, |a, b| scores[*b].total_cmp(&scores[*a]).then(b.cmp(a)));
                order.truncate(*most);
            }
            for page in order {
                batch.add_fetched(index, (sink + page) * page_tokens, Arc::clone(&far[page]))?;
            }
        }
        Ok(())
    }
}

impl SequenceMemory {
    /// Memory of an empty sequence.
    pub(crate) fn new(needs: &[LayerNeeds]) -> Result<Self> {
        let layers = needs
            .iter()
            .map(|needs| {
                Ok(match needs {
                    LayerNeeds::Nothing => LayerMemory::Stateless,
                    LayerNeeds::Pages(needs) => LayerMemory::Pages(LayerPages::new(needs)),
                    LayerNeeds::State(bytes) => LayerMemory::State(AlignedBytes::zeroed(*bytes)?),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers })
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
        best: &mut BestPages<'b>,
        n_tokens: usize,
        past: usize,
    ) -> Result<()> {
        match &mut self.layers[layer] {
            LayerMemory::Stateless => batch.push(n_tokens, past, None, []),
            LayerMemory::State(state) => batch.push(n_tokens, past, Some(state), []),
            LayerMemory::Pages(pages) => {
                let page_tokens = pages.page_tokens();
                best.push(pages.add_to(batch, n_tokens, past)?, page_tokens);
                Ok(())
            }
        }
    }

    /// Tells the tiers that tokens `past..tokens` are written, and moves pages that are no longer among the latest down a
    /// tier; `layers` are the engine's, on whose threads this is shared out.
    pub(crate) fn commit(
        &mut self,
        past: usize,
        tokens: usize,
        layers: &[LayerHandle],
        pool: &ThreadPool,
    ) -> Result<()> {
        self.pages().try_for_each(|pages| pages.commit(past, tokens))?;
        self.demote(tokens, None, layers, pool)
    }

    /// Moves pages that have no place in their tier down, with `tokens` tokens in all; `limits`: `None` for the engine's
    /// own.
    pub(crate) fn demote(
        &mut self,
        tokens: usize,
        limits: Option<Limits>,
        layers: &[LayerHandle],
        pool: &ThreadPool,
    ) -> Result<()> {
        let demoted: Vec<_> = self
            .layers
            .iter_mut()
            .zip(layers)
            .filter_map(|(memory, layer)| match memory {
                LayerMemory::Pages(pages) => {
                    let limits = limits.unwrap_or(pages.limits());
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
                let mut item = item.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let (pages, limits, layer, done) = &mut *item;
                *done = pages.demote(tokens, *limits, layer);
            }
        });
        demoted
            .into_iter()
            .try_for_each(|item| item.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).3)
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
