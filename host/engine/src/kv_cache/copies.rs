//! Copies of a sequence's memory: for a fork, and as bytes for a file.

use std::sync::Arc;

use herald_api::import::PageHandle;
use herald_api::{AlignedBytes, Error, Result};

use super::ledger::Ledger;
use super::{LayerMemory, LayerNeeds, LayerPages, Limits, SequenceMemory};

/// What a layer keeps, as bytes.
pub(crate) enum LayerBytes<'a> {
    /// Nothing.
    Nothing,
    /// Pages, in order.
    Pages {
        pages: Vec<PageBytes<'a>>,
        /// How many are archived after the sinks, and how many compressed after these.
        selectable: [usize; 2],
        /// The summaries of those.
        summaries: &'a [u8],
    },
    /// A recurrent state.
    State(&'a [u8]),
}

/// A page's keys and values.
pub(crate) enum PageBytes<'a> {
    /// In a tier, or in its file.
    Opened(Arc<PageHandle>),
    /// Somewhere else.
    Lent(&'a [u8], &'a [u8]),
}

impl PageBytes<'_> {
    pub(crate) fn bytes(&self) -> (&[u8], &[u8]) {
        match self {
            Self::Opened(page) => page.bytes(),
            Self::Lent(keys, values) => (keys, values),
        }
    }
}

impl SequenceMemory {
    /// A copy, for a sequence that goes on by itself from here.
    pub(crate) fn fork(&self, tokens: usize) -> Result<Self> {
        let layers = self
            .layers
            .iter()
            .map(|layer| {
                Ok(match layer {
                    LayerMemory::Stateless => LayerMemory::Stateless,
                    LayerMemory::PagesOf(layer) => LayerMemory::PagesOf(*layer),
                    LayerMemory::State(state) => LayerMemory::State(copied(state)?),
                    LayerMemory::Pages(pages) => LayerMemory::Pages(pages.fork(tokens)),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self::charged(layers, self.charge.ledger()))
    }

    /// Copies of the recurrent states, for [`SequenceMemory::set_states`].
    pub(crate) fn copy_states(&self) -> Result<Vec<AlignedBytes>> {
        let states = self.layers.iter().filter_map(|layer| match layer {
            LayerMemory::State(state) => Some(copied(state)),
            _ => None,
        });
        states.collect()
    }

    /// Puts copies of the recurrent states in their place.
    pub(crate) fn set_states(&mut self, copies: Vec<AlignedBytes>) {
        let states = self.layers.iter_mut().filter_map(|layer| match layer {
            LayerMemory::State(state) => Some(state),
            _ => None,
        });
        states.zip(copies).for_each(|(state, copy)| *state = copy);
    }

    /// Makes this longer by as many whole pages as `tokens` tokens fill (see [`super::LayerPages::stretch`]). Returns how many
    /// tokens these are.
    pub(crate) fn stretch(&mut self, tokens: usize, limits: Limits) -> Result<usize> {
        let mut added = tokens;
        for layer in &mut self.layers {
            if let LayerMemory::Pages(pages) = layer {
                let count = tokens / pages.page_tokens();
                pages.stretch(count, limits)?;
                added = count * pages.page_tokens();
            }
        }
        Ok(added)
    }

    /// What each layer keeps of the first `tokens` tokens.
    pub(crate) fn layer_bytes(&self, tokens: usize) -> impl Iterator<Item = Result<LayerBytes<'_>>> {
        self.layers.iter().map(move |layer| {
            Ok(match layer {
                LayerMemory::Stateless | LayerMemory::PagesOf(_) => LayerBytes::Nothing,
                LayerMemory::State(state) => LayerBytes::State(state),
                LayerMemory::Pages(pages) => {
                    let (selectable, summaries) = pages.selectable();
                    let pages = pages.opened(tokens)?.into_iter().map(PageBytes::Opened).collect();
                    LayerBytes::Pages { pages, selectable, summaries }
                }
            })
        })
    }

    /// Memory of `tokens` tokens. `layer` gives what each layer keeps, as `layer_bytes` gave it.
    pub(crate) fn from_bytes<'b>(
        needs: &[LayerNeeds],
        ledger: &Arc<Ledger>,
        tokens: usize,
        mut layer: impl FnMut(usize) -> Result<LayerBytes<'b>>,
    ) -> Result<Self> {
        let mut memory = Self::new(needs, ledger)?;
        for (index, (memory, needs)) in memory.layers.iter_mut().zip(needs).enumerate() {
            match (memory, layer(index)?, needs) {
                (LayerMemory::Stateless | LayerMemory::PagesOf(_), LayerBytes::Nothing, _) => {}
                (LayerMemory::State(state), LayerBytes::State(bytes), _) if state.len() == bytes.len() => {
                    state.copy_from_slice(bytes);
                }
                (
                    LayerMemory::Pages(made),
                    LayerBytes::Pages { pages, selectable, summaries },
                    LayerNeeds::Pages(needs),
                ) => *made = LayerPages::restored(needs, tokens, &pages, selectable, summaries)?,
                _ => {
                    return Err(Error::invalid(format!(
                        "layer {index} keeps something else of a sequence than the model does here"
                    )));
                }
            }
        }
        Ok(memory)
    }
}

pub(super) fn copied(bytes: &[u8]) -> Result<AlignedBytes> {
    let mut copy = AlignedBytes::zeroed(bytes.len())?;
    copy.copy_from_slice(bytes);
    Ok(copy)
}
