//! A draft model: a smaller model of the same vocabulary, which says what it expects to come next (arXiv 2211.17192); or a block of
//! the model's own file that was made for it (multi-token prediction, see `model/mtp.rs`), which reads the model's states beside the text.
//!
//! Its guesses are never more than that: the model itself chooses every token, so a draft model that is wrong, runs out of memory or fails
//! costs time and changes no text. It has an engine of its own, and for each text a sequence that follows the text's one.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use herald_api::{AlignedBytes, LayerParams};

use super::interrupt::Leave;
use super::memory::EngineMemory;
use super::mtp::KEPT_STATES;
use super::pass::WantedLogits;
use super::{NeuroEngine, Sequence};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo};
use crate::kv_cache::MemoryOptions;
use crate::model::{Fusion, LayerPlan};
use crate::options::LoadOptions;
use crate::packs::Packs;
use crate::plugin::Plugins;
use crate::speculation::{Draft, Experience, Guess, ModelChances};
use crate::threads::locked;

/// A guess that is less probable is withheld: checking it would cost more than it brings.
const THRESHOLD: f32 = 0.4;

/// The most tokens of a text that are read before one pass, which waits for that: a long prompt is read over several.
const PIECE: usize = 128;

/// What a token that is read costs, over what one that is guessed does.
const READING: f64 = 0.2;

/// Over how many drafts at most what is read before the first is spread.
const SPREAD: usize = 64;

/// The most tokens by which one vocabulary may be longer than the other: padding, such as Qwen2.5's models have different amounts of.
const PADDING: usize = 512;

/// Which part of the prefix cache's bytes the draft model's own gets.
const PREFIX_PART: usize = 8;

/// The smaller model, or the model's own block.
pub(super) struct DraftModel {
    engine: NeuroEngine,
    /// Whether it is the model's own block.
    reads_states: bool,
    /// What one of its passes costs over one of the other model's, as far as their weights tell.
    size: f64,
    /// The tokens that both have.
    vocabulary: usize,
    experience: Mutex<Experience>,
}

/// What the draft model has seen of one text.
#[derive(Default)]
pub(crate) enum Follower {
    /// Nothing yet.
    #[default]
    Nothing,
    /// A part of it.
    Text(Box<Following>),
    /// It drafts no more of this text: there was no memory or room for it, or it failed.
    Never,
}

/// A text that the draft model follows.
pub(crate) struct Following {
    sequence: Sequence,
    /// Where in the text its sequence begins: the model's own block begins where states are left of it.
    start: usize,
    /// How many tokens it has read with the model's states beside them: guesses after these were read with its own.
    read: usize,
    /// Where it has recurrent states: what they were before the last guesses, after so many tokens.
    states: Option<(usize, Vec<AlignedBytes>)>,
}

impl DraftModel {
    /// The most sequences that share a pass for which it guesses: it runs for one after another.
    pub(super) const MAX_SEQUENCES: usize = 4;

    /// The draft model that the options name for a model, if they do and it can be used.
    ///
    /// # Errors
    /// As [`NeuroEngine::load`]; where it is a model that doesn't generate, or its vocabulary isn't the other model's.
    pub(super) fn beside(target: &NeuroEngine, options: &LoadOptions) -> Result<Option<Self>> {
        let Some(path) = options.draft_model.as_deref().filter(|_| options.max_draft > 0) else {
            return Ok(None);
        };
        if target.batch_invariant_tokens < 2 {
            tracing::warn!(
                "the draft model {} isn't used: a layer of the model's backends gives a token other results beside others",
                path.display()
            );
            return Ok(None);
        }
        let load = LoadOptions { overrides: Vec::new(), chat_template: None, ..load_options(options) };
        let engine = NeuroEngine::load(path, &load)?;
        let vocabulary = shared_vocabulary(path, &engine, target)?;
        let bytes = |engine: &NeuroEngine| engine.gguf.tensors().map(|tensor| tensor.bytes()).sum::<usize>();
        let size = bytes(&engine) as f64 / bytes(target).max(1) as f64;
        tracing::info!("the draft model {} has {:.2} of the model's bytes", path.display(), size);
        Ok(Some(Self { engine, reads_states: false, size, vocabulary, experience: Mutex::default() }))
    }

    /// The model's own block for multi-token prediction, where it has one that can be used and the options don't name a draft model.
    pub(super) fn of_own_block(
        target: &NeuroEngine,
        plugins: &Plugins,
        options: &LoadOptions,
        packs: &Packs,
    ) -> Option<Self> {
        let plan = target.plan.mtp.as_deref()?;
        // Models that embed or rank generate nothing.
        let generates = target.plan.pooling.is_none() && target.plan.rank.is_empty();
        let drafts = options.draft_model.is_none() && options.max_draft > 0;
        if !generates || !drafts || target.batch_invariant_tokens < 2 {
            return None;
        }
        let load = LoadOptions { context: Some(target.context), ..load_options(options) };
        let model = (&*target.path, target.gguf.clone(), plan.clone());
        let (choice, pool) = (target.choice.clone(), Arc::clone(&target.pool));
        let tokenizer = Some(Arc::clone(&target.tokenizer));
        let engine = NeuroEngine::assemble(model, plugins, choice, pool, &load, (packs, tokenizer));
        let mut engine = match engine {
            Ok(engine) => engine,
            // Without it everything is computed as well, one token after another.
            Err(error) => {
                tracing::warn!("the block for multi-token prediction isn't used: {error}");
                return None;
            }
        };
        engine.keeps_states = true;
        let fusion = plan.fusion.iter().flat_map(Fusion::layers);
        let its = multiplied_bytes(&target.gguf, plan.layers.iter().chain(fusion));
        let size = its as f64 / multiplied_bytes(&target.gguf, &target.plan.layers).max(1) as f64;
        tracing::info!(
            "a block of the model's own predicts further tokens, with {size:.2} of the model's bytes"
        );
        let vocabulary = engine.plan.vocabulary;
        Some(Self { engine, reads_states: true, size, vocabulary, experience: Mutex::default() })
    }

    /// Gives its memory of a text up where there is too little for it beside `memory`, the other model's.
    pub(super) fn make_way(&self, follower: &mut Follower, memory: &EngineMemory) {
        if self.find_room(0, memory).is_err() {
            *follower = Follower::Never;
        }
    }

    /// What its guesses cost and bring for a text, which is that of `sequence` and what it runs next, where a pass of the other model takes
    /// so many seconds and at most `left` tokens are still to come; `None` where it has none.
    pub(super) fn chances(
        &self,
        follower: &mut Follower,
        (sequence, text): (&Sequence, [&[u32]; 2]),
        pass: Option<f64>,
        left: usize,
    ) -> Option<ModelChances> {
        let len = text[0].len() + text[1].len();
        if len >= self.engine.context {
            return None;
        }
        let seen = match self.following(follower, sequence, text) {
            Ok(following) => following.start + following.sequence.tokens.len(),
            Err(error) => {
                give_up(follower, &error);
                return None;
            }
        };
        let guess = locked(&self.engine.pass_cost).seconds(1);
        let token = guess.zip(pass).map_or(self.size, |(guess, pass)| guess / pass);
        // The last token is read as the first is guessed.
        let most = if self.reads_states { KEPT_STATES } else { usize::MAX };
        let unread = len.saturating_sub(seen + 1).min(most) as f64;
        let spread = (left / 4).clamp(1, SPREAD) as f64;
        let expected = locked(&self.experience).probability();
        Some(ModelChances { token, behind: token * READING * unread / spread, expected })
    }

    /// Guesses what follows a text, which is that of `sequence` and what it runs next: at most `max` tokens, and `min` however unsure it
    /// is. Its memory counts beside `memory`, the other model's.
    pub(super) fn guess(
        &self,
        follower: &mut Follower,
        (sequence, text): (&Sequence, [&[u32]; 2]),
        [min, max]: [usize; 2],
        memory: &EngineMemory,
    ) -> Guess {
        match self.try_guess(follower, (sequence, text), [min, max], memory) {
            Ok(guess) => guess,
            Err(error) => {
                give_up(follower, &error);
                Guess::default()
            }
        }
    }

    fn try_guess(
        &self,
        follower: &mut Follower,
        (sequence, [seen, chosen]): (&Sequence, [&[u32]; 2]),
        [min, max]: [usize; 2],
        memory: &EngineMemory,
    ) -> Result<Guess> {
        let len = seen.len() + chosen.len();
        // The last guess isn't run.
        let max = max.min((self.engine.context + 1).saturating_sub(len));
        if max == 0 || len == 0 {
            return Ok(Guess::default());
        }
        let following = self.following(follower, sequence, [seen, chosen])?;
        let start = following.start;
        let shared = common(&following.sequence.tokens, start, [seen, chosen]);
        let known = if self.reads_states { following.read } else { usize::MAX };
        following.go_back(shared.min((len - 1).saturating_sub(start)).min(known));
        let states = match self.reads_states {
            false => Vec::new(),
            true => match following.states_of(sequence, [seen, chosen]) {
                Some(states) => self.as_heads_read(&states, 0)?,
                None => return Ok(Guess::default()),
            },
        };
        let past = following.sequence.tokens.len();
        let last = len - following.start;
        self.find_room(following.sequence.memory.wanted(past, last + max), memory)?;
        let unread: Vec<u32> = seen.iter().chain(chosen).skip(following.start + past).copied().collect();
        let piece = PIECE.min(self.engine.max_batch);
        if unread.len() > piece {
            following.sequence.states_beside = states;
            following.sequence.states_beside.truncate(piece * self.engine.plan.hidden);
            self.engine.run(&mut following.sequence, &unread[..piece])?;
            following.read = following.sequence.tokens.len();
            return Ok(Guess::default());
        }
        let mut guess = Guess::default();
        following.sequence.states_beside = states;
        let (mut token, mut probability) = self.next(&mut following.sequence, &unread)?;
        following.read = last;
        if following.sequence.memory.has_states() {
            let copy = following.sequence.memory.copy_states();
            let copy =
                copy.map_err(|source| Error::Plugin { what: "a copy of states".to_owned(), source })?;
            following.states = Some((last, copy));
        }
        loop {
            if probability < THRESHOLD && guess.tokens.len() >= min {
                guess.withheld = true;
                break;
            }
            guess.tokens.push(token);
            if guess.tokens.len() == max {
                break;
            }
            if self.reads_states {
                // Guesses go on from its own states.
                following.sequence.states_beside = self.as_heads_read(following.sequence.states.last(), 1)?;
            }
            (token, probability) = self.next(&mut following.sequence, &[token])?;
        }
        Ok(guess)
    }

    /// States as the model's head (0) or the block's own (1) reads them, where the block wants those.
    fn as_heads_read(&self, states: &[f32], head: usize) -> Result<Vec<f32>> {
        match self.engine.fusion.as_ref().and_then(|fusion| fusion.heads_norms.as_ref()) {
            Some(norms) => self.engine.normed(&norms[head], states),
            None => Ok(states.to_vec()),
        }
    }

    /// What follows the text of a sequence, which begins with what earlier texts left in the draft model's prefix cache.
    fn following<'f>(
        &self,
        follower: &'f mut Follower,
        target: &Sequence,
        [seen, chosen]: [&[u32]; 2],
    ) -> Result<&'f mut Following> {
        if let Follower::Nothing = follower {
            let mut sequence = self.engine.sequence()?;
            sequence.set_cache_key(target.cache_key.as_deref());
            sequence.set_stop(target.stop.clone());
            if !self.reads_states {
                self.engine.begin_shared(&mut sequence, &[seen, chosen].concat());
            }
            *follower = Follower::Text(Box::new(Following { sequence, start: 0, read: 0, states: None }));
        }
        match follower {
            Follower::Text(following) => Ok(following),
            _ => Err(Error::Invalid("the draft model has given this text up".to_owned())),
        }
    }

    /// Runs tokens, and returns the likeliest one after them with its probability.
    fn next(&self, sequence: &mut Sequence, ids: &[u32]) -> Result<(u32, f32)> {
        self.engine.check(sequence, ids)?;
        let (start, mut best) = (Instant::now(), (0, 0.0));
        let row = &mut |row: &[f32]| best = likeliest(&row[..self.vocabulary]);
        self.engine.pass(&mut [(sequence, ids)], WantedLogits::Last, Leave::Any, row)?;
        self.engine.observe_pass(ids.len(), start.elapsed());
        Ok(best)
    }

    /// Finds room for `wanted` bytes more beside what both models hold.
    fn find_room(&self, wanted: usize, memory: &EngineMemory) -> Result<()> {
        let held = || self.engine.memory.usage().memory_bytes() as usize;
        if memory.options.budget.is_none() || memory.excess(held() + wanted) == 0 {
            return Ok(());
        }
        self.engine.forget_prefixes();
        match memory.excess(held() + wanted) {
            0 => Ok(()),
            excess => Err(memory.over_budget(excess)),
        }
    }

    /// Counts what became of a draft: `accepted` of its tokens came.
    pub(super) fn learn(&self, draft: &Draft, accepted: usize) {
        if draft.is_by_model() && draft.tried() > 0 {
            locked(&self.experience).observe(draft.tried(), accepted);
        }
    }

    /// Forgets a little of what its guesses were worth, after a pass without any.
    pub(super) fn fade(&self) {
        locked(&self.experience).fade();
    }

    /// Keeps what it has seen of a text, `tokens`, for texts that begin alike.
    pub(super) fn keep(&self, follower: Follower, tokens: &[u32]) {
        // What the model's own block has seen follows from states too.
        if let Follower::Text(mut following) = follower
            && !self.reads_states
        {
            following.go_back(common(&following.sequence.tokens, 0, [tokens, &[]]));
            self.engine.keep_all(&following.sequence);
        }
    }
}

impl Following {
    /// Forgets the tokens from the `len`-th on, and where recurrent states don't allow that, more of them.
    fn go_back(&mut self, len: usize) {
        if self.sequence.truncate(len) {
            return;
        }
        match self.states.take() {
            Some((before, states)) if before <= len => self.sequence.go_back(before, states),
            _ => {
                self.sequence.truncate(0);
            }
        }
    }

    /// The states beside the tokens of a text that it hasn't seen: each that of the token before. `None` where they aren't known. Where
    /// those after what it has seen are gone, it begins anew with the first that is left.
    fn states_of(&mut self, target: &Sequence, [seen, chosen]: [&[u32]; 2]) -> Option<Vec<f32>> {
        let first = target.states.first() + 1;
        if self.start + self.sequence.tokens.len() < first {
            self.sequence.truncate(0);
            self.start = first;
        }
        let past = self.start + self.sequence.tokens.len();
        let unread = (seen.len() + chosen.len()).checked_sub(past).filter(|unread| *unread > 0)?;
        target.states.of(past - 1, seen.iter().chain(chosen).skip(past - 1).take(unread))
    }
}

/// Bytes of the weights that a token is multiplied with: embeddings are looked up.
fn multiplied_bytes<'p>(gguf: &Gguf, layers: impl IntoIterator<Item = &'p LayerPlan>) -> usize {
    let layers = layers.into_iter().filter(|layer| !matches!(layer.desc.params, LayerParams::Embedding(_)));
    let tensors = layers.flat_map(|layer| &layer.weights).filter_map(|weight| gguf.tensor(&weight.tensor));
    tensors.map(TensorInfo::bytes).sum()
}

/// How a draft model is loaded beside a model that is loaded with these options.
fn load_options(options: &LoadOptions) -> LoadOptions {
    LoadOptions {
        max_draft: 0,
        draft_model: None,
        context: None,
        prefix_bytes: options.prefix_bytes / PREFIX_PART,
        cache_dir: None,
        memory: MemoryOptions {
            // Nothing of it goes to a file: it would be as slow to read as the text is to compute.
            compressed: MemoryOptions::EXACT,
            archive: None,
            ..options.memory.clone()
        },
        loras: Vec::new(),
        ..options.clone()
    }
}

/// Has the draft model draft no more of a text.
fn give_up(follower: &mut Follower, error: &Error) {
    if !matches!(follower, Follower::Never) {
        tracing::debug!("the draft model drafts no more of a text: {error}");
        *follower = Follower::Never;
    }
}

/// How many tokens a sequence and a text have in common from the sequence's beginning, which is at `start` in the text.
fn common(tokens: &[u32], start: usize, [seen, chosen]: [&[u32]; 2]) -> usize {
    let text = seen.iter().chain(chosen).skip(start);
    tokens.iter().zip(text).take_while(|(ours, theirs)| ours == theirs).count()
}

/// The likeliest token by these logits, and about how probable it is.
fn likeliest(logits: &[f32]) -> (u32, f32) {
    let larger = |best: (usize, f32), (token, logit): (usize, &f32)| {
        if *logit > best.1 { (token, *logit) } else { best }
    };
    let (token, most) = logits.iter().enumerate().fold((0, f32::NEG_INFINITY), larger);
    // What is far below adds nothing that counts, and is nearly all of a vocabulary.
    let others = logits.iter().map(|logit| logit - most).filter(|below| *below > -16.0);
    let sum: f32 = others.map(f32::exp).sum();
    // Of logits that are no numbers, none is likely.
    (token as u32, if sum >= 1.0 { 1.0 / sum } else { 0.0 })
}

/// How many tokens both vocabularies have: the ids that may be guessed.
fn shared_vocabulary(path: &Path, draft: &NeuroEngine, target: &NeuroEngine) -> Result<usize> {
    let refused = |what: String| Error::Invalid(format!("{}: the draft model {what}", path.display()));
    if !draft.plan.has_head() || draft.plan.is_bidirectional() {
        return Err(refused("is an encoder, where one that generates text was expected".to_owned()));
    }
    let (its, expected) = (&draft.tokenizer, &target.tokenizer);
    let [n_its, n_expected] = [its.vocabulary(), expected.vocabulary()];
    if n_its.abs_diff(n_expected) > PADDING {
        return Err(refused(format!(
            "has a vocabulary of {n_its} tokens, where that of {} was expected, which has {n_expected}",
            target.path.display()
        )));
    }
    let shared = n_its.min(n_expected);
    for token in 0..shared as u32 {
        let [text, wanted] = [its.token_bytes(token, false)?, expected.token_bytes(token, false)?];
        if text != wanted {
            return Err(refused(format!(
                "has {:?} for the token {token}, where {:?} was expected, as in {}",
                String::from_utf8_lossy(&text),
                String::from_utf8_lossy(&wanted),
                target.path.display()
            )));
        }
    }
    Ok(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_token_has_its_probability() {
        let logits = [0.5_f32, -1.0, 2.25, -40.0, 1.0];
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
        let (token, probability) = likeliest(&logits);
        assert_eq!(token, 2);
        assert!((f64::from(probability) - 2.25_f64.exp() / sum).abs() < 1e-6, "{probability}");
        assert_eq!(likeliest(&[f32::NAN, f32::NEG_INFINITY]), (0, 0.0));
    }

    #[test]
    fn what_texts_have_in_common_ends_where_they_differ() {
        assert_eq!(common(&[1, 2, 3], 0, [&[1], &[2, 4]]), 2);
        assert_eq!(common(&[1, 2, 3], 0, [&[1, 2, 3, 4], &[]]), 3);
        assert_eq!(common(&[], 0, [&[1], &[2]]), 0);
        assert_eq!(common(&[2, 4], 1, [&[1], &[2, 4]]), 2);
    }
}
