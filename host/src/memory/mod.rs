//! What a sequence has seen: for each layer its pages of keys and values, or its recurrent state.

mod copies;
mod prefix;

use std::sync::Arc;

use herald_api::import::{Batch, PageHandle, PageUse, TierHandle};
use herald_api::{AlignedBytes, Error, MemoryTier, Result, TierStats};

pub(crate) use prefix::{PageRow, PrefixCache};

pub(crate) use copies::LayerBytes;

/// What one layer keeps of one sequence.
enum LayerMemory {
    /// Nothing: the layer looks at each token by itself.
    Stateless,
    /// Keys and values, in pages of `page_tokens` tokens one after another. Sequences that began alike share pages: one
    /// that is shared is copied before it is written.
    Pages { tier: TierHandle, page_tokens: usize, pages: Vec<Arc<PageHandle>> },
    /// A recurrent state.
    State(AlignedBytes),
}

/// What a layer keeps of each sequence, as far as the engine knows when the layer is built.
pub(crate) enum LayerNeeds {
    /// Nothing.
    Nothing,
    /// Keys and values, in pages from this tier.
    Pages(TierHandle),
    /// A recurrent state of so many bytes.
    State(usize),
}

/// What the tiers of an engine hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// The active tier: pages as attention writes them.
    pub active: TierStats,
    /// Bytes of active pages that are kept for prompts that begin alike (some of the active tier's).
    pub prefix_bytes: u64,
}

/// Adds up what the tiers hold, each counted once.
pub(crate) fn usage(needs: &[LayerNeeds], prefix_bytes: usize) -> MemoryUsage {
    let mut seen: Vec<&TierHandle> = Vec::new();
    let mut usage = MemoryUsage { prefix_bytes: prefix_bytes as u64, ..MemoryUsage::default() };
    for needs in needs {
        if let LayerNeeds::Pages(tier) = needs
            && !seen.iter().any(|seen| seen.is(tier))
        {
            seen.push(tier);
            let stats = tier.stats();
            usage.active.pages += stats.pages;
            usage.active.tokens += stats.tokens;
            usage.active.bytes += stats.bytes;
            usage.active.hits += stats.hits;
            usage.active.misses += stats.misses;
        }
    }
    usage
}

/// What all layers keep of one sequence.
pub(crate) struct SequenceMemory {
    layers: Vec<LayerMemory>,
}

impl SequenceMemory {
    /// Memory of an empty sequence.
    pub(crate) fn new(needs: &[LayerNeeds]) -> Result<Self> {
        let layers = needs
            .iter()
            .map(|needs| {
                Ok(match needs {
                    LayerNeeds::Nothing => LayerMemory::Stateless,
                    LayerNeeds::Pages(tier) => LayerMemory::Pages {
                        page_tokens: tier.config().page_tokens,
                        tier: tier.clone(),
                        pages: Vec::new(),
                    },
                    LayerNeeds::State(bytes) => LayerMemory::State(AlignedBytes::zeroed(*bytes)?),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// Makes room for `tokens` tokens in all, of which `past` are there: pages that will be written become this
    /// sequence's own. Where that fails, what is there stays as it was.
    pub(crate) fn reserve(&mut self, past: usize, tokens: usize) -> Result<()> {
        for layer in &mut self.layers {
            if let LayerMemory::Pages { tier, page_tokens, pages } = layer {
                for page in pages.iter_mut().skip(past / *page_tokens) {
                    if Arc::get_mut(page).is_none() {
                        let mut copy = tier.reserve()?;
                        copy.copy_from(page)?;
                        *page = Arc::new(copy);
                    }
                }
                while pages.len() * *page_tokens < tokens {
                    pages.push(Arc::new(tier.reserve()?));
                }
            }
        }
        Ok(())
    }

    /// Adds a layer's part of this sequence to a batch: `n_tokens` new tokens after `past`.
    pub(crate) fn add_to<'b>(
        &'b mut self,
        layer: usize,
        batch: &mut Batch<'b>,
        n_tokens: usize,
        past: usize,
    ) -> Result<()> {
        match &mut self.layers[layer] {
            LayerMemory::Stateless => batch.push(n_tokens, past, None, []),
            LayerMemory::State(state) => batch.push(n_tokens, past, Some(state), []),
            LayerMemory::Pages { page_tokens, pages, .. } => {
                let page_tokens = *page_tokens;
                // Whole pages of earlier tokens are only read; room that was reserved beyond the batch is left out.
                let uses = pages.iter_mut().enumerate().map(|(index, page)| (index * page_tokens, page));
                let uses = uses
                    .take_while(|(start, _)| *start < past + n_tokens)
                    .map(|(start, page)| {
                        let whole = start + page_tokens <= past;
                        let page = if whole { PageUse::Shared(page) } else { PageUse::Own(own(page)?) };
                        Ok((start, page))
                    })
                    .collect::<Result<Vec<_>>>()?;
                batch.push(n_tokens, past, None, uses)
            }
        }
    }

    /// Tells the tiers that tokens `past..tokens` are written.
    pub(crate) fn commit(&mut self, past: usize, tokens: usize) -> Result<()> {
        for layer in &mut self.layers {
            if let LayerMemory::Pages { page_tokens, pages, .. } = layer {
                let page_tokens = *page_tokens;
                for (index, page) in pages.iter_mut().enumerate().skip(past / page_tokens) {
                    let start = index * page_tokens;
                    if start >= tokens {
                        break;
                    }
                    own(page)?.commit((tokens - start).min(page_tokens))?;
                }
            }
        }
        Ok(())
    }

    /// Forgets the tokens from `tokens` on; `false` where a recurrent state, which can't go back, is in the way.
    pub(crate) fn truncate(&mut self, tokens: usize) -> bool {
        if tokens > 0 && self.layers.iter().any(|layer| matches!(layer, LayerMemory::State(_))) {
            return false;
        }
        for layer in &mut self.layers {
            match layer {
                LayerMemory::Stateless => {}
                LayerMemory::Pages { page_tokens, pages, .. } => {
                    pages.truncate(tokens.div_ceil(*page_tokens))
                }
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
                LayerMemory::Pages { page_tokens, .. } => tokens = Some(*page_tokens),
            }
        }
        tokens
    }

    /// The page `index` of every layer that keeps pages, and their bytes; `None` where one isn't there.
    pub(crate) fn page_row(&self, index: usize) -> Option<(PageRow, usize)> {
        let mut bytes = 0;
        let mut row = PageRow::new();
        for layer in &self.layers {
            if let LayerMemory::Pages { tier, pages, .. } = layer {
                row.push(Arc::clone(pages.get(index)?));
                bytes += page_bytes(tier);
            }
        }
        Some((row, bytes))
    }

    /// Begins an empty sequence with pages of another one: rows as `page_row` gave them, in order.
    pub(crate) fn begin_with(&mut self, rows: Vec<PageRow>) {
        for row in rows {
            let layers = self.layers.iter_mut().filter_map(|layer| match layer {
                LayerMemory::Pages { pages, .. } => Some(pages),
                _ => None,
            });
            for (pages, page) in layers.zip(row) {
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
                LayerMemory::Pages { tier, pages, .. } => pages.len() * page_bytes(tier),
                LayerMemory::State(state) => state.len(),
            })
            .sum()
    }
}

/// Bytes of a page in the active tier.
fn page_bytes(tier: &TierHandle) -> usize {
    tier.config().page_bytes().map_or(0, |(keys, values)| keys + values)
}

/// A page for writing, which `SequenceMemory::reserve` has made the sequence's own.
fn own(page: &mut Arc<PageHandle>) -> Result<&mut PageHandle> {
    Arc::get_mut(page).ok_or_else(|| Error::invalid("a page that is shared was to be written"))
}
