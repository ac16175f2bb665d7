//! What the memory tiers hold, moving a sequence's pages between them, and watching which are selected.

use super::{NeuroEngine, Sequence};
use crate::error::{Error, Result};
use crate::kv_cache::{LayerNeeds, MemoryOptions, MemoryUsage, SelectionWatcher};

impl NeuroEngine {
    /// What the tiers hold for all sequences of this engine, pages that sequences share counted once.
    #[must_use]
    pub fn memory_usage(&self) -> MemoryUsage {
        self.memory.usage()
    }

    /// Changes how much of a sequence stays in which tier, from the next pass on. Only the capacities of `options` count.
    pub fn set_capacities(&self, options: &MemoryOptions) {
        self.memory.set_limits(options);
    }

    /// How many layers keep pages of a sequence.
    #[must_use]
    pub fn layers_with_pages(&self) -> usize {
        self.memory.needs.iter().filter(|needs| matches!(needs, LayerNeeds::Pages(_))).count()
    }

    /// Moves a sequence's pages down now, as if the engine had been loaded with `options`, of which only the capacities count.
    /// Pages come back up by [`NeuroEngine::promote`] alone: attention reads them where they are.
    ///
    /// # Errors
    /// Where the sequence belongs to another engine, or a tier fails: what moved stays moved, and nothing is lost.
    pub fn demote(&self, sequence: &mut Sequence, options: &MemoryOptions) -> Result<()> {
        self.owns(sequence)?;
        self.move_down(sequence, self.memory.limits_by(options))
    }

    /// Moves a sequence's pages up again, as far as the capacities of `options` go. What compression lost does not come back.
    ///
    /// # Errors
    /// Where the sequence belongs to another engine, there is no memory, or an archived page is damaged: what moved stays
    /// moved, and nothing is lost.
    pub fn promote(&self, sequence: &mut Sequence, options: &MemoryOptions) -> Result<()> {
        self.owns(sequence)?;
        let promoted = sequence.memory.promote(sequence.tokens.len(), self.memory.limits_by(options));
        promoted.map_err(|source| Error::Plugin { what: "the memory of a sequence".to_owned(), source })
    }

    /// Has `watcher` be told which pages each layer selects, from the next pass on; `None`: nobody any more. It is called while
    /// the layer waits.
    pub fn watch_selections(&self, watcher: Option<SelectionWatcher>) {
        self.memory.set_watcher(watcher);
    }
}
