//! Drafts in passes: how many tokens there is room for, and going back over those that didn't come.

use std::time::{Duration, Instant};

use super::draft_model::DraftModel;
use super::mtp::LastStates;
use super::{Generation, NeuroEngine, Sequence};
use crate::error::Result;
use crate::speculation::{Ahead, Chances, Draft, Guess};
use crate::threads::locked;

/// How much more a draft's token costs where a sequence has recurrent states: those that came are run again after one that didn't, which
/// is half a token for each of a draft that comes every other time, and less for better ones.
const RERUN: f64 = 1.5;

impl NeuroEngine {
    /// Drafts what comes after the tokens that a sequence runs next, in a pass that `sequences` share and that has room for `spare`
    /// tokens more.
    pub(crate) fn draft(
        &self,
        ahead: &mut Ahead,
        sequence: &Sequence,
        generation: &mut Generation,
        sequences: usize,
        spare: usize,
    ) {
        (ahead.draft, ahead.states) = (Draft::default(), None);
        let [min, max] = self.draft_tokens;
        if max == 0 {
            return;
        }
        if let Some(model) = &self.draft_model {
            model.make_way(&mut ahead.follower, &self.memory);
        }
        let behind = sequence.tokens.len() + ahead.chosen.len();
        let most = sequence.memory.even_until(self.memory.limits()).min(self.context).saturating_sub(behind);
        let most = most.min(self.batch_invariant_tokens.saturating_sub(ahead.chosen.len()));
        let room = most.min(spare).min(max);
        // Drafts take no memory that others need.
        let wanted = sequence.memory.wanted(sequence.tokens.len(), behind + room);
        if room == 0 || self.memory.excess(wanted) > 0 {
            return;
        }
        let has_states = sequence.memory.has_states();
        let cost = locked(&self.pass_cost).clone();
        let (marginal, rows) = (cost.marginal(sequences), ahead.chosen.len());
        let spoken = self.context - behind.min(self.context);
        let Ahead { chosen, follower, .. } = ahead;
        let text = [&sequence.tokens[..], &chosen[..]];
        let model = self.draft_model.as_deref().filter(|_| sequences <= DraftModel::MAX_SEQUENCES);
        let pass = cost.seconds(sequences.max(rows));
        let chances = Chances {
            min,
            room,
            marginal: if has_states { marginal * RERUN } else { marginal },
            fixed: if has_states { cost.fixed(rows) } else { 0.0 },
            sequences,
            model: model
                .and_then(|model| model.chances(follower, (sequence, text), pass, generation.left(spoken))),
        };
        let mut guess = |min, max| {
            model.map_or_else(Guess::default, |model| {
                model.guess(follower, (sequence, text), [min, max], &self.memory)
            })
        };
        ahead.draft = generation.draft(text, spoken, chances, &mut guess);
        if let (Some(model), false) = (model, ahead.draft.is_by_model()) {
            model.fade();
        }
        if !ahead.draft.tokens.is_empty() && has_states {
            let start = Instant::now();
            match sequence.memory.copy_states() {
                Ok(states) => {
                    ahead.states = Some(states);
                    locked(&self.pass_cost).copied(start.elapsed());
                }
                // Without memory for the copy there is no way back.
                Err(_) => ahead.draft = Draft::default(),
            }
        }
    }

    /// After a pass over `ahead`, from whose logits `chosen` were chosen: leaves the sequence with the tokens that came, and `ahead`
    /// with what is still to be run. Where none could be chosen, nothing of the draft came.
    pub(crate) fn settle(
        &self,
        sequence: &mut Sequence,
        ahead: &mut Ahead,
        generation: &mut Generation,
        chosen: &[u32],
    ) {
        let (next, accepted) = chosen.split_last().map_or((None, chosen), |(next, rest)| (Some(next), rest));
        generation.learn(&ahead.draft, accepted.len());
        if let Some(model) = &self.draft_model {
            model.learn(&ahead.draft, accepted.len());
        }
        let before = sequence.tokens.len() - ahead.len();
        let came = before + ahead.chosen.len() + accepted.len();
        if came == sequence.tokens.len() {
            ahead.chosen.clear();
        } else if let Some(states) = ahead.states.take() {
            sequence.go_back(before, states);
            ahead.chosen.extend_from_slice(accepted);
        } else {
            sequence.truncate(came);
            ahead.chosen.clear();
        }
        ahead.chosen.extend(next);
        (ahead.draft, ahead.states) = (Draft::default(), None);
    }

    /// Runs what the sequence went back over, at a text's end, and keeps what the draft model has seen for later texts. Nothing stops it:
    /// these are few tokens.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`].
    pub(crate) fn catch_up(&self, sequence: &mut Sequence, ahead: &mut Ahead) -> Result<()> {
        if let Some(model) = &self.draft_model {
            model.keep(std::mem::take(&mut ahead.follower), &sequence.tokens);
        }
        // A later text's own tokens bring states again.
        sequence.states = LastStates::default();
        let Some((_, behind)) = ahead.chosen.split_last().filter(|(_, behind)| !behind.is_empty()) else {
            return Ok(());
        };
        let stop = sequence.stop.take();
        let done = self.run(sequence, behind);
        sequence.stop = stop;
        ahead.chosen.drain(..ahead.chosen.len() - 1);
        done
    }

    /// Counts what a pass took that decoded `rows` tokens.
    pub(crate) fn observe_pass(&self, rows: usize, took: Duration) {
        locked(&self.pass_cost).observe(rows, took);
    }

    /// The most tokens of a batch that goes through the layers that decode.
    pub(crate) fn most_decoded(&self) -> usize {
        if self.prompt_layers.is_empty() { usize::MAX } else { super::PROMPT_FROM - 1 }
    }
}

impl Sequence {
    /// Forgets the tokens from the `len`-th on, with these states of the tokens before.
    pub(super) fn go_back(&mut self, len: usize, states: Vec<herald_api::AlignedBytes>) {
        self.memory.go_back(len, states);
        self.tokens.truncate(len);
    }
}
