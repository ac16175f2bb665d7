//! What a sequence has seen: for each layer its pages of keys and values, or its recurrent state.

mod census;
mod copies;
mod ledger;
mod moves;
mod options;
mod page_selection;
mod pages;
mod prefix;
mod selectable;
mod traffic;
mod usage;

use std::sync::{Arc, Mutex};

use herald_api::import::{Batch, LayerHandle};
use herald_api::{AlignedBytes, Result};

use crate::threads::{ThreadPool, into_value, locked};

pub(crate) use census::{Census, Seen};
pub(crate) use copies::{LayerBytes, PageBytes};
pub(crate) use ledger::Ledger;
use ledger::SequenceCharge;
pub(crate) use moves::Limits;
pub use options::{Capacity, MemoryOptions};
pub(crate) use page_selection::PageSelector;
pub use page_selection::{PageSelection, SelectionWatcher};
pub(crate) use pages::{LayerPages, PagesNeeds};
pub use prefix::CacheReport;
pub(crate) use prefix::{CacheLimits, PageKey, PrefixCache};
pub use traffic::{TierTraffic, Traffic};
pub use usage::MemoryUsage;
pub(crate) use usage::{limits, usage};

/// What one layer keeps of one sequence.
enum LayerMemory {
    /// Nothing: the layer computes each token by itself.
    Stateless,
    /// Keys and values.
    Pages(LayerPages),
    /// The keys and values of an earlier layer, which alone fills them.
    PagesOf(usize),
    /// A recurrent state.
    State(AlignedBytes),
}

/// What a layer keeps of each sequence.
pub(crate) enum LayerNeeds {
    /// Nothing.
    Nothing,
    /// Keys and values.
    Pages(PagesNeeds),
    /// The keys and values of an earlier layer.
    PagesOf(usize),
    /// A recurrent state of this many bytes.
    State(usize),
}

/// What all layers keep of one sequence.
pub(crate) struct SequenceMemory {
    layers: Vec<LayerMemory>,
    charge: SequenceCharge,
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
                    LayerNeeds::PagesOf(layer) => LayerMemory::PagesOf(*layer),
                    LayerNeeds::State(bytes) => LayerMemory::State(AlignedBytes::zeroed(*bytes)?),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self::charged(layers, ledger))
    }

    fn charged(layers: Vec<LayerMemory>, ledger: &Arc<Ledger>) -> Self {
        let charge = SequenceCharge::new(ledger, state_bytes(&layers));
        Self { layers, charge }
    }

    fn pages(&mut self) -> impl Iterator<Item = &mut LayerPages> {
        self.layers.iter_mut().filter_map(|layer| match layer {
            LayerMemory::Pages(pages) => Some(pages),
            _ => None,
        })
    }

    /// Makes room for `tokens` tokens in all, of which `past` are there. Pages that will be written become this sequence's own.
    /// Where that fails, the sequence's content is unchanged.
    pub(crate) fn reserve(&mut self, past: usize, tokens: usize) -> Result<()> {
        self.pages().try_for_each(|pages| pages.reserve(past, tokens))
    }

    /// Adds a layer's memory of this sequence to a batch: `n_tokens` new tokens after `past`. The pages that the layer has to
    /// select from go to `selector`.
    pub(crate) fn add_to<'b>(
        &'b mut self,
        layer: usize,
        batch: &mut Batch<'b>,
        selector: &mut PageSelector<'b>,
        n_tokens: usize,
        past: usize,
    ) -> Result<()> {
        let layer = self.filler(layer);
        match &mut self.layers[layer] {
            LayerMemory::Stateless | LayerMemory::PagesOf(_) => batch.push(n_tokens, past, None, []),
            LayerMemory::State(state) => batch.push(n_tokens, past, Some(state), []),
            LayerMemory::Pages(pages) => {
                selector.push(pages.add_to(batch, n_tokens, past)?);
                Ok(())
            }
        }
    }

    /// The layer that fills what this one reads: itself, or an earlier one.
    fn filler(&self, layer: usize) -> usize {
        match self.layers[layer] {
            LayerMemory::PagesOf(filler) => filler,
            _ => layer,
        }
    }

    /// Whether any layer keeps a recurrent state.
    pub(crate) fn has_states(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer, LayerMemory::State(_)))
    }

    /// Whether a layer has compressed or archived pages.
    pub(crate) fn has_selectable_pages(&self, layer: usize) -> bool {
        matches!(&self.layers[self.filler(layer)], LayerMemory::Pages(pages) if pages.n_selectable() > 0)
    }

    /// Tells the tiers that tokens `past..tokens` are written, and moves pages that are no longer among the latest down a tier.
    /// `layers` are the engine's; the threads of `pool` share the work.
    pub(crate) fn commit(
        &mut self,
        past: usize,
        tokens: usize,
        limits: Limits,
        layers: &[LayerHandle],
        pool: &ThreadPool,
    ) -> Result<()> {
        self.pages().try_for_each(|pages| pages.commit(past, tokens))?;
        // The tokens have been run: a page that can't move stays where it is, and moves when the sequence next grows.
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

    /// Moves pages up for which a higher tier has room.
    pub(crate) fn promote(&mut self, tokens: usize, limits: Limits) -> Result<()> {
        self.pages().try_for_each(|pages| pages.promote(tokens, limits))
    }

    /// Moves pages beyond their tier's limit down, with `tokens` tokens in all.
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
                let mut item = locked(item);
                let (pages, limits, layer, done) = &mut *item;
                *done = pages.demote(tokens, *limits, layer);
            }
        });
        demoted.into_iter().try_for_each(|item| into_value(item).3)
    }

    /// Up to how many tokens a pass may take the sequence and give the results of passes of one token
    /// ([`LayerPages::even_until`]).
    pub(crate) fn even_until(&self, limits: Limits) -> usize {
        let pages = self.layers.iter().filter_map(|layer| match layer {
            LayerMemory::Pages(pages) => Some(pages.even_until(limits)),
            _ => None,
        });
        pages.min().unwrap_or(usize::MAX)
    }

    /// Forgets the tokens from `tokens` on, and takes the recurrent states back to what they were there.
    pub(crate) fn go_back(&mut self, tokens: usize, states: Vec<AlignedBytes>) {
        self.pages().for_each(|pages| pages.truncate(tokens));
        self.set_states(states);
    }

    /// Forgets the tokens from `tokens` on. `false` where there is a recurrent state, which can't go back.
    pub(crate) fn truncate(&mut self, tokens: usize) -> bool {
        if tokens > 0 && self.has_states() {
            return false;
        }
        for layer in &mut self.layers {
            match layer {
                LayerMemory::Stateless | LayerMemory::PagesOf(_) => {}
                LayerMemory::Pages(pages) => pages.truncate(tokens),
                LayerMemory::State(state) => state.fill(0),
            }
        }
        true
    }

    /// Bytes that it takes. Pages that it shares with other sequences count whole.
    pub(crate) fn bytes(&self) -> usize {
        self.layers
            .iter()
            .map(|layer| match layer {
                LayerMemory::Stateless | LayerMemory::PagesOf(_) => 0,
                LayerMemory::Pages(pages) => pages.bytes(),
                LayerMemory::State(state) => state.len(),
            })
            .sum()
    }
}

/// Bytes of recurrent states.
fn state_bytes(layers: &[LayerMemory]) -> usize {
    let state = |layer: &LayerMemory| match layer {
        LayerMemory::State(state) => state.len(),
        _ => 0,
    };
    layers.iter().map(state).sum()
}
