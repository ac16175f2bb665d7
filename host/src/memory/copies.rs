//! Copies of what a sequence has seen: for a fork of it, and as bytes for a file.

use herald_api::{AlignedBytes, Error, Result};

use super::{LayerMemory, LayerNeeds, SequenceMemory};

/// What a layer keeps, as bytes.
pub(crate) enum LayerBytes<'a> {
    /// Nothing.
    Nothing,
    /// A page's keys and values, page after page.
    Pages(Vec<(&'a [u8], &'a [u8])>),
    /// A recurrent state.
    State(&'a [u8]),
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
                    LayerMemory::State(state) => LayerMemory::State(copied(state)?),
                    LayerMemory::Pages(pages) => LayerMemory::Pages(pages.fork(tokens)),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// Makes this longer by whole pages of at most `tokens` tokens together (see [`super::LayerPages::stretch`]); returns
    /// how many tokens these are.
    pub(crate) fn stretch(&mut self, tokens: usize) -> Result<usize> {
        let mut added = tokens;
        for layer in &mut self.layers {
            if let LayerMemory::Pages(pages) = layer {
                let count = tokens / pages.page_tokens();
                pages.stretch(count)?;
                added = count * pages.page_tokens();
            }
        }
        Ok(added)
    }

    /// What each layer keeps of the first `tokens` tokens.
    pub(crate) fn layer_bytes(&self, tokens: usize) -> impl Iterator<Item = LayerBytes<'_>> {
        self.layers.iter().map(move |layer| match layer {
            LayerMemory::Stateless => LayerBytes::Nothing,
            LayerMemory::State(state) => LayerBytes::State(state),
            LayerMemory::Pages(pages) => LayerBytes::Pages(pages.page_bytes(tokens)),
        })
    }

    /// Memory with what each layer keeps of `tokens` tokens, as `layer_bytes` gave it: `layer` is asked for each.
    pub(crate) fn from_bytes<'b>(
        needs: &[LayerNeeds],
        tokens: usize,
        mut layer: impl FnMut(usize) -> Result<LayerBytes<'b>>,
    ) -> Result<Self> {
        let mut memory = Self::new(needs)?;
        memory.reserve(0, tokens)?;
        for (index, memory) in memory.layers.iter_mut().enumerate() {
            match (memory, layer(index)?) {
                (LayerMemory::Stateless, LayerBytes::Nothing) => {}
                (LayerMemory::State(state), LayerBytes::State(bytes)) if state.len() == bytes.len() => {
                    state.copy_from_slice(bytes);
                }
                (LayerMemory::Pages(pages), LayerBytes::Pages(bytes)) if pages.len() == bytes.len() => {
                    pages.overwrite(&bytes)?;
                }
                _ => {
                    return Err(Error::invalid(format!(
                        "layer {index} keeps something else of a sequence than the model does here"
                    )));
                }
            }
        }
        memory.pages().try_for_each(|pages| pages.commit(0, tokens))?;
        Ok(memory)
    }
}

fn copied(bytes: &[u8]) -> Result<AlignedBytes> {
    let mut copy = AlignedBytes::zeroed(bytes.len())?;
    copy.copy_from_slice(bytes);
    Ok(copy)
}
