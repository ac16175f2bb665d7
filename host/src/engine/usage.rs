//! What the memory tiers hold, and moving a sequence's pages down.

use super::{NeuroEngine, Sequence};
use crate::error::{Error, Result};
use crate::memory::{self, MemoryOptions, MemoryUsage};

impl NeuroEngine {
    /// What the tiers hold for all sequences of this engine, pages that sequences share counted once.
    #[must_use]
    pub fn memory_usage(&self) -> MemoryUsage {
        memory::usage(&self.needs, self.prefixes.bytes(), self.account.state_bytes(), &self.traffic)
    }

    /// Moves a sequence's pages down now, as if `options` were those that the engine was loaded with; of the options only
    /// the capacities count. Pages don't come back up by a call with greater ones: attention reads them where they are.
    ///
    /// # Errors
    /// Where the sequence belongs to another engine, or a tier fails: what moved stays moved, and nothing is lost.
    pub fn demote(&self, sequence: &mut Sequence, options: &MemoryOptions) -> Result<()> {
        self.owns(sequence)?;
        let limits = memory::limits(&self.needs, options);
        let tokens = sequence.tokens.len();
        let demoted = sequence.memory.demote(tokens, Some(limits), &self.layers, &self.pool);
        demoted.map_err(|source| Error::Plugin { what: "the memory of a sequence".to_owned(), source })
    }
}
