//! Leaving a pass between two layers, with its sequences as they were before it.
//!
//! Pages that were written count only once they are committed, which a pass does at its end. Recurrent states are written in
//! place, so a pass that may be left keeps a copy. That costs nothing beside a prompt's piece, and too much beside one token: a
//! short pass of a model with recurrent states runs to its end, which is near.

use herald_api::AlignedBytes;

use super::pass::Entry;
use crate::error::{Error, Result};

/// The fewest tokens of a pass for which a copy of the recurrent states is worth its time.
const COPIED_FROM: usize = 32;

/// Whose [`Stop`](crate::Stop) ends a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// Nobody's.
    Never,
    /// That of any of its sequences.
    Any,
    /// Those of all of its sequences together: nobody waits for the pass any more.
    All,
}

impl Leave {
    /// [`Error::Cancelled`] where the pass is to be left.
    pub(super) fn check(self, entries: &[Entry<'_, '_>]) -> Result<()> {
        let ends = match self {
            Self::Never => false,
            Self::Any => entries.iter().any(|(sequence, _)| sequence.ends()),
            Self::All => entries.iter().all(|(sequence, _)| sequence.ends()),
        };
        if ends { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// The recurrent states of a pass's sequences before it, as far as they are kept.
pub(super) enum StatesBefore {
    /// There are none.
    None,
    /// Those of the only sequence.
    Kept(Vec<AlignedBytes>),
    /// They are lost once a layer has run.
    Lost,
}

impl StatesBefore {
    pub(super) fn of(entries: &[Entry<'_, '_>]) -> Self {
        if !entries.iter().any(|(sequence, _)| sequence.memory.has_states()) {
            return Self::None;
        }
        match entries {
            [(sequence, ids)] if sequence.stop.is_some() && ids.len() >= COPIED_FROM => {
                // Without memory for the copy, the pass runs to its end.
                sequence.memory.copy_states().map_or(Self::Lost, Self::Kept)
            }
            _ => Self::Lost,
        }
    }

    /// Whether a pass may be left: its sequences go on from before it, or nobody goes on with them.
    pub(super) fn allow_leaving(&self, leave: Leave) -> bool {
        leave == Leave::All || !matches!(self, Self::Lost)
    }

    /// Takes the sequences back to before a pass that has failed or was left.
    pub(super) fn give_back(self, entries: &mut [Entry<'_, '_>]) {
        match (self, entries) {
            (Self::None, _) => {}
            (Self::Kept(states), [(sequence, _)]) => sequence.memory.set_states(states),
            (_, entries) => entries.iter_mut().for_each(|(sequence, _)| sequence.torn = true),
        }
    }
}
