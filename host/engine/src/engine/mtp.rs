//! What a block for multi-token prediction (see `model/mtp.rs`) reads: the states of a sequence's last tokens, and how they become the
//! block's input.

use std::collections::VecDeque;

use herald_api::import::LayerHandle;

use super::NeuroEngine;
use super::pass::HEAD_TOKENS;
use crate::error::Result;

/// States that a sequence keeps: of as many of its last tokens, and of those that were guessed after them.
pub(super) const KEPT_STATES: usize = 160;

/// The layers that make a block's input.
pub(super) struct FusionLayers {
    pub(super) embedding_norm: LayerHandle,
    pub(super) state_norm: LayerHandle,
    pub(super) projection: LayerHandle,
    /// The norms that states go through before, the model's and the block's own, where there are any.
    pub(super) heads_norms: Option<[LayerHandle; 2]>,
}

/// What the last block made of a sequence's last tokens. It may reach beyond the tokens that the sequence still has: whoever reads it
/// says which tokens they must be of.
#[derive(Clone, Debug, Default)]
pub(super) struct LastStates {
    /// The place of the first one's token in the sequence.
    first: usize,
    /// Tokens and their states `[hidden]`.
    states: VecDeque<(u32, Box<[f32]>)>,
}

impl LastStates {
    /// The place of the first one's token in the sequence.
    pub(super) fn first(&self) -> usize {
        self.first
    }

    /// Takes the states `[ids.len(), hidden]` of the tokens that came to a sequence at the place `past`.
    pub(super) fn add(&mut self, past: usize, ids: &[u32], rows: &[f32]) {
        let kept = past.checked_sub(self.first).filter(|kept| *kept <= self.states.len());
        match kept {
            Some(kept) => self.states.truncate(kept),
            None => self.states.clear(),
        }
        if self.states.is_empty() {
            self.first = past;
        }
        let rows = rows.chunks_exact(rows.len() / ids.len().max(1));
        let skipped = ids.len().saturating_sub(KEPT_STATES);
        if skipped > 0 {
            self.states.clear();
            self.first = past + skipped;
        }
        let kept = ids.iter().copied().zip(rows).skip(skipped);
        self.states.extend(kept.map(|(token, row)| (token, Box::from(row))));
        while self.states.len() > KEPT_STATES {
            self.states.pop_front();
            self.first += 1;
        }
    }

    /// The states of these tokens, of which the first is at the place `start`, one after another; `None` where one is missing, or
    /// another token's.
    pub(super) fn of<'t>(&self, start: usize, tokens: impl Iterator<Item = &'t u32>) -> Option<Vec<f32>> {
        let skipped = start.checked_sub(self.first)?;
        let mut states = self.states.iter().skip(skipped);
        let mut rows = Vec::new();
        for token in tokens {
            let (of, row) = states.next()?;
            if of != token {
                return None;
            }
            rows.extend_from_slice(row);
        }
        Some(rows)
    }

    /// Bytes of it.
    pub(super) fn bytes(&self) -> usize {
        self.states.iter().map(|(_, row)| size_of_val(&**row)).sum()
    }

    /// The state of the last token.
    pub(super) fn last(&self) -> &[f32] {
        self.states.back().map_or(&[], |(_, row)| row)
    }
}

impl NeuroEngine {
    /// Makes a block's inputs of embeddings and the states of the tokens before, both `[n, hidden]`, in place of the embeddings.
    pub(super) fn fuse(&self, layers: &FusionLayers, embeddings: &mut [f32], states: &[f32]) -> Result<()> {
        let hidden = self.plan.hidden;
        let (e, h) =
            (self.normed(&layers.embedding_norm, embeddings)?, self.normed(&layers.state_norm, states)?);
        let rows = e.chunks_exact(hidden).zip(h.chunks_exact(hidden));
        let both: Vec<f32> = rows.flat_map(|(e, h)| [e, h]).flatten().copied().collect();
        let n = HEAD_TOKENS.min(self.max_batch);
        for (both, x) in both.chunks(2 * n * hidden).zip(embeddings.chunks_mut(n * hidden)) {
            self.apply(&layers.projection, both, x)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(tokens: &[u32]) -> Vec<f32> {
        tokens.iter().flat_map(|token| [*token as f32, 0.5]).collect()
    }

    fn add(states: &mut LastStates, past: usize, tokens: &[u32]) {
        states.add(past, tokens, &rows(tokens));
    }

    #[test]
    fn states_are_those_of_the_tokens_that_were_asked_for() {
        let mut states = LastStates::default();
        add(&mut states, 0, &[7, 8, 9]);
        assert_eq!(states.of(1, [8, 9].iter()), Some(rows(&[8, 9])));
        assert_eq!(states.of(1, [8, 4].iter()), None, "another token");
        assert_eq!(states.of(2, [9, 1].iter()), None, "a token that wasn't run");
        assert_eq!(states.last(), rows(&[9]));
        // A guess that didn't come, and what came in its place.
        add(&mut states, 2, &[5]);
        assert_eq!(states.of(0, [7, 8, 5].iter()), Some(rows(&[7, 8, 5])));
        // Text that was taken over from elsewhere.
        add(&mut states, 10, &[1]);
        assert_eq!((states.first(), states.of(9, [4].iter())), (10, None));
    }

    #[test]
    fn the_last_states_of_a_long_text_are_kept() {
        let mut states = LastStates::default();
        let long: Vec<u32> = (0..500).collect();
        add(&mut states, 0, &long);
        let first = 500 - KEPT_STATES;
        assert_eq!(states.first(), first);
        assert_eq!(states.of(first, long[first..].iter()), Some(rows(&long[first..])));
        add(&mut states, 500, &[3, 4]);
        assert_eq!(states.first(), first + 2);
        assert_eq!(states.of(499, [499, 3, 4].iter()), Some(rows(&[499, 3, 4])));
    }
}
