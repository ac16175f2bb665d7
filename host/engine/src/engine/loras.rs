//! Sequences and the adapters (LoRA) that their tokens are computed with.

use super::{GenerateOptions, Generation, NeuroEngine, Sequence};
use crate::error::{Error, Result};
use crate::lora::{Adapter, LoraScale};

impl NeuroEngine {
    /// The adapters that are loaded, in the order of the options.
    #[must_use]
    pub fn loras(&self) -> &[Adapter] {
        self.loras.adapters()
    }

    /// The adapter of this name.
    #[must_use]
    pub fn lora(&self, name: &str) -> Option<usize> {
        self.loras().iter().position(|adapter| adapter.name() == name)
    }

    /// Has a sequence computed with these adapters, and with no others. One that has tokens, which were computed with others, has to
    /// begin anew for that.
    ///
    /// # Errors
    /// Where the sequence has such tokens or belongs to another engine, there is no such adapter, one is named twice, or its scale is no
    /// finite number.
    pub fn set_loras(&self, sequence: &mut Sequence, loras: &[LoraScale]) -> Result<()> {
        self.owns(sequence)?;
        let selection = self.loras.select(loras)?;
        if !sequence.tokens.is_empty() && selection.key() != sequence.loras.key() {
            return Err(Error::Invalid(format!(
                "the sequence has {} tokens that were computed with other adapters (LoRA) or scales, where the same ones were \
                 expected",
                sequence.tokens.len()
            )));
        }
        sequence.loras = selection;
        Ok(())
    }

    /// Whether sequences can be computed with these adapters.
    pub(crate) fn check_loras(&self, loras: &[LoraScale]) -> Result<()> {
        self.loras.select(loras).map(drop)
    }

    /// A new sequence for what is to be generated.
    pub(crate) fn sequence_for(&self, generation: &Generation) -> Result<Sequence> {
        let GenerateOptions { cache_key, loras, .. } = generation.options();
        let mut sequence = self.sequence()?;
        sequence.set_cache_key(cache_key.as_deref());
        if let Some(loras) = loras {
            self.set_loras(&mut sequence, loras)?;
        }
        Ok(sequence)
    }

    /// The adapters that sequences begin with, as the options said.
    #[must_use]
    pub fn usual_loras(&self) -> Vec<LoraScale> {
        self.loras.usual().scales().to_vec()
    }
}

impl Sequence {
    /// The adapters that it is computed with.
    #[must_use]
    pub fn loras(&self) -> &[LoraScale] {
        self.loras.scales()
    }
}
