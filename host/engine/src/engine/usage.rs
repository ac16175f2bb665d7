//! What the memory tiers hold, moving a sequence's pages between them, and watching which are chosen.

use super::{NeuroEngine, Sequence};
use crate::error::{Error, Result};
use crate::kv_cache::{self, LayerNeeds, Limits, MemoryOptions, MemoryUsage, SelectionWatcher};
use crate::threads::locked;

impl NeuroEngine {
    /// What the tiers hold for all sequences of this engine, pages that sequences share counted once.
    #[must_use]
    pub fn memory_usage(&self) -> MemoryUsage {
        kv_cache::usage(
            &self.needs,
            self.prefixes.bytes(),
            self.account.state_bytes(),
            &self.traffic,
            &self.ledger,
        )
    }

    /// How much of a sequence stays in which tier.
    pub(crate) fn limits(&self) -> Limits {
        *locked(&self.limits)
    }

    /// Changes how much of a sequence stays in which tier, from the next pass on; of the options only the capacities count.
    pub fn set_capacities(&self, options: &MemoryOptions) {
        *locked(&self.limits) = kv_cache::limits(&self.needs, options);
    }

    /// How many layers keep pages of a sequence.
    #[must_use]
    pub fn layers_with_pages(&self) -> usize {
        self.needs.iter().filter(|needs| matches!(needs, LayerNeeds::Pages(_))).count()
    }

    /// Moves a sequence's pages down now, as if `options` were those that the engine was loaded with; of the options only
    /// the capacities count. Pages come back up by [`NeuroEngine::promote`] only: attention reads them where they are.
    ///
    /// # Errors
    /// Where the sequence belongs to another engine, or a tier fails: what moved stays moved, and nothing is lost.
    pub fn demote(&self, sequence: &mut Sequence, options: &MemoryOptions) -> Result<()> {
        self.owns(sequence)?;
        let limits = kv_cache::limits(&self.needs, options);
        let tokens = sequence.tokens.len();
        let demoted = sequence.memory.demote(tokens, limits, &self.layers, &self.pool);
        demoted.map_err(|source| Error::Plugin { what: "the memory of a sequence".to_owned(), source })
    }

    /// Moves a sequence's pages up again, as far as the capacities of `options` go. What compression took is not given back.
    ///
    /// # Errors
    /// Where the sequence belongs to another engine, there is no memory, or an archived page is damaged: what moved stays
    /// moved, and nothing is lost.
    pub fn promote(&self, sequence: &mut Sequence, options: &MemoryOptions) -> Result<()> {
        self.owns(sequence)?;
        let limits = kv_cache::limits(&self.needs, options);
        let promoted = sequence.memory.promote(sequence.tokens.len(), limits);
        promoted.map_err(|source| Error::Plugin { what: "the memory of a sequence".to_owned(), source })
    }

    /// Has `watcher` be told which pages each layer chooses, from the next pass on; `None`: nobody any more. It is called
    /// while the layer waits.
    pub fn watch_selections(&self, watcher: Option<SelectionWatcher>) {
        *locked(&self.watcher) = watcher;
    }
}
