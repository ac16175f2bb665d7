//! What a sequence has seen: for each layer its pages of keys and values, or its recurrent state.

use herald_api::import::{Batch, PageHandle, PageUse, TierHandle};
use herald_api::{AlignedBytes, Result};

/// What one layer keeps of one sequence.
enum LayerMemory {
    /// Nothing: the layer looks at each token by itself.
    Stateless,
    /// Keys and values, in pages of `page_tokens` tokens one after another.
    Pages { tier: TierHandle, page_tokens: usize, pages: Vec<PageHandle> },
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

    /// Makes room for `tokens` tokens in all. Where that fails, what is there stays as it was.
    pub(crate) fn reserve(&mut self, tokens: usize) -> Result<()> {
        for layer in &mut self.layers {
            if let LayerMemory::Pages { tier, page_tokens, pages } = layer {
                while pages.len() * *page_tokens < tokens {
                    pages.push(tier.reserve()?);
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
                let uses = uses.take_while(|(start, _)| *start < past + n_tokens).map(|(start, page)| {
                    let whole = start + page_tokens <= past;
                    (start, if whole { PageUse::Shared(page) } else { PageUse::Own(page) })
                });
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
                    page.commit((tokens - start).min(page_tokens))?;
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

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.layers
            .iter()
            .map(|layer| match layer {
                LayerMemory::Stateless => 0,
                LayerMemory::Pages { tier, pages, .. } => {
                    pages.len() * tier.config().page_bytes().map_or(0, |(keys, values)| keys + values)
                }
                LayerMemory::State(state) => state.len(),
            })
            .sum()
    }
}
