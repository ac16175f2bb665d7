//! Keeping what sequences have seen within a budget of RAM.

use super::memory::EngineMemory;
use super::{NeuroEngine, Sequence};
use crate::error::{Error, Result};
use crate::kv_cache::{LayerNeeds, Limits};

impl NeuroEngine {
    /// Makes room for `n_tokens` more tokens of a sequence, and moves down what could not be moved before.
    pub(super) fn make_room(&self, sequence: &mut Sequence, n_tokens: usize) -> Result<()> {
        let past = sequence.tokens.len();
        let limits = self.memory.limits();
        self.move_down(sequence, limits)?;
        let excess = |sequence: &Sequence| self.memory.excess(sequence.memory.wanted(past, past + n_tokens));
        if self.memory.give_prefixes_up(|| excess(sequence)) {
            return Ok(());
        }
        let mut limits = Limits {
            active_tokens: limits.active_tokens.min(past),
            compressed_tokens: limits.compressed_tokens.min(past),
        };
        while limits.active_tokens > 0 || limits.compressed_tokens > 0 {
            // Of the two tiers, the one that takes more; a compressed token takes about a quarter of an active one.
            if limits.active_tokens > 0 && limits.active_tokens >= limits.compressed_tokens / 4 {
                limits.active_tokens /= 2;
            } else {
                limits.compressed_tokens /= 2;
            }
            self.move_down(sequence, limits)?;
            if excess(sequence) == 0 {
                return Ok(());
            }
        }
        self.memory.write_archives()?;
        match excess(sequence) {
            0 => Ok(()),
            excess => Err(self.memory.over_budget(excess)),
        }
    }

    pub(super) fn move_down(&self, sequence: &mut Sequence, limits: Limits) -> Result<()> {
        let tokens = sequence.tokens.len();
        let moved = sequence.memory.demote(tokens, limits, &self.layers, &self.pool);
        moved.map_err(|source| Error::Plugin { what: "the memory of a sequence".to_owned(), source })
    }
}

impl EngineMemory {
    /// Makes room for an empty sequence's recurrent states.
    pub(super) fn make_room_for_states(&self) -> Result<()> {
        let wanted = self.state_bytes();
        let excess = || if wanted == 0 { 0 } else { self.excess(wanted) };
        if self.give_prefixes_up(excess) { Ok(()) } else { Err(self.over_budget(excess())) }
    }

    /// Whether there is room for a copy of recurrent states, for which other things in the cache give way.
    pub(super) fn has_room_for_states(&self) -> bool {
        let wanted = self.state_bytes();
        self.give_prefixes_up(|| self.excess(wanted))
    }

    /// Bytes that the cache may read from its files.
    pub(super) fn room_for_prefixes(&self) -> usize {
        let Some(budget) = self.options.budget else { return usize::MAX };
        usize::try_from(budget.saturating_sub(self.usage().memory_bytes())).unwrap_or(usize::MAX)
    }

    /// Bytes of a sequence's recurrent states.
    fn state_bytes(&self) -> usize {
        let state = |needs: &LayerNeeds| if let LayerNeeds::State(bytes) = needs { *bytes } else { 0 };
        self.needs.iter().map(state).sum()
    }

    /// By how many bytes the budget would be exceeded with `wanted` bytes more.
    pub(super) fn excess(&self, wanted: usize) -> u64 {
        let Some(budget) = self.options.budget else { return 0 };
        self.usage().memory_bytes().saturating_add(wanted as u64).saturating_sub(budget)
    }

    /// Gives up what earlier sequences computed, which may be in use elsewhere, until there is room or none is left. Returns whether
    /// there is room.
    fn give_prefixes_up(&self, excess: impl Fn() -> u64) -> bool {
        let mut over = excess();
        while over > 0 && self.prefixes.bytes() > 0 {
            self.prefixes.give_up(usize::try_from(over).unwrap_or(usize::MAX));
            over = excess();
        }
        over == 0
    }

    /// Has pages that wait to be archived leave RAM.
    fn write_archives(&self) -> Result<()> {
        self.needs.iter().try_for_each(|needs| match needs {
            LayerNeeds::Pages(needs) => needs.archive.as_ref().map_or(Ok(()), |tier| {
                let flushed = tier.flush();
                flushed.map_err(|source| Error::Plugin { what: "the archive".to_owned(), source })
            }),
            _ => Ok(()),
        })
    }

    pub(super) fn over_budget(&self, excess: u64) -> Error {
        let budget = self.options.budget.unwrap_or(0);
        Error::Budget { wanted: budget.saturating_add(excess), budget }
    }
}
