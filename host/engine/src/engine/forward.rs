//! Running tokens: prompts, single tokens of many sequences, and any mix of both.

use herald_api::LayerKind;
use herald_api::import::LayerHandle;

use super::interrupt::Leave;
use super::pass::{WantedLogits, failed, reserve};
use super::{NeuroEngine, Sequence};
use crate::error::{Error, Result};
use crate::stop::Stop;

/// A sequence in a step's batch.
pub struct BatchEntry<'p> {
    /// The sequence.
    pub sequence: &'p mut Sequence,
    /// Tokens to run after what it has seen.
    pub ids: &'p [u32],
    /// Of how many of them, the last ones, the logits are wanted.
    pub logits: usize,
}

impl NeuroEngine {
    /// Runs `ids` after what the sequence has seen, in pieces of at most the batch's size, and returns the logits
    /// `[vocabulary]` of the last token.
    ///
    /// # Errors
    /// Where `ids` is empty or has an unknown token, the context is full, a plugin fails, or the sequence's [`Stop`] ends it. The
    /// sequence then holds the pieces that succeeded.
    pub fn prefill(&self, sequence: &mut Sequence, ids: &[u32]) -> Result<Vec<f32>> {
        self.prefill_while(sequence, ids, &mut |_| true)
    }

    /// As [`NeuroEngine::prefill`]; after each piece `progress` is called with the number of `ids` that are done, and stops the
    /// work by returning `false`.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`], and [`Error::Cancelled`].
    pub fn prefill_while(
        &self,
        sequence: &mut Sequence,
        ids: &[u32],
        progress: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Vec<f32>> {
        self.prefill_pieces(sequence, ids, false, progress)
    }

    /// The same; `keeps` says whether what each piece computes goes into the prefix cache.
    fn prefill_pieces(
        &self,
        sequence: &mut Sequence,
        ids: &[u32],
        keeps: bool,
        progress: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Vec<f32>> {
        self.check(sequence, ids)?;
        let mut logits = Vec::new();
        reserve(&mut logits, self.plan.vocabulary, "logits")?;
        let mut done = 0;
        while done < ids.len() {
            let left = ids.len() - done;
            let n = if keeps { self.piece(sequence, left, self.max_batch) } else { left.min(self.max_batch) };
            let piece = &ids[done..done + n];
            done += n;
            let last = done == ids.len();
            let wanted = if last { WantedLogits::Last } else { WantedLogits::None };
            self.pass(&mut [(&mut *sequence, piece)], wanted, Leave::Any, &mut |rows| {
                logits.extend_from_slice(rows)
            })?;
            if keeps {
                self.keep_piece(sequence, ids.len() - done);
            }
            if !progress(done) && !last {
                return Err(Error::Cancelled);
            }
        }
        Ok(logits)
    }

    /// As [`NeuroEngine::prefill_while`], with the prefix cache: where the sequence is empty and earlier ones began alike, what they
    /// computed is taken over, and what this one computes is kept for later ones. Returns the logits, and how many tokens
    /// were taken over.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill_while`].
    pub fn prefill_shared(
        &self,
        sequence: &mut Sequence,
        ids: &[u32],
        progress: &mut dyn FnMut(usize) -> bool,
    ) -> Result<(Vec<f32>, usize)> {
        self.check(sequence, ids)?;
        sequence.go_on()?;
        let shared = self.begin_shared(sequence, ids);
        let mut progress = |done| progress(shared + done);
        let logits = self.prefill_pieces(sequence, &ids[shared..], true, &mut progress)?;
        Ok((logits, shared))
    }

    /// Runs one token after each sequence's others, all in one pass, and returns the logits `[n_sequences, vocabulary]`.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`]; no sequence then has its token.
    pub fn decode(&self, sequences: &mut [(&mut Sequence, u32)]) -> Result<Vec<f32>> {
        if sequences.len() > self.max_batch {
            return Err(Error::Invalid(format!(
                "{} sequences are too many for one pass, where at most {} were expected",
                sequences.len(),
                self.max_batch
            )));
        }
        let mut parts = Vec::with_capacity(sequences.len());
        for (sequence, token) in sequences.iter_mut() {
            let ids = std::slice::from_ref(&*token);
            self.check(sequence, ids)?;
            parts.push((&mut **sequence, ids));
        }
        let mut logits = Vec::new();
        reserve(&mut logits, parts.len().saturating_mul(self.plan.vocabulary), "logits")?;
        self.pass(&mut parts, WantedLogits::Last, Leave::Any, &mut |rows| logits.extend_from_slice(rows))?;
        Ok(logits)
    }

    /// Runs any mix of prompts' pieces and single tokens in one pass. All entries together may have as many tokens as the
    /// batch's size. `each` is given the logits `[n, vocabulary]` of the tokens whose logits are wanted, in order, some at a time.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`]; no sequence then has its tokens. Where a plugin fails while it computes, recurrent states may
    /// be half updated, and their sequences only go on from their beginning. [`Error::Cancelled`] where the [`Stop`]s of all
    /// sequences say so, to the same effect.
    pub fn step(&self, entries: &mut [BatchEntry<'_>], each: &mut dyn FnMut(&[f32])) -> Result<()> {
        let n_tokens: usize = entries.iter().map(|entry| entry.ids.len()).sum();
        if n_tokens > self.max_batch {
            return Err(Error::Invalid(format!(
                "{n_tokens} tokens are too many for one pass, where at most {} were expected",
                self.max_batch
            )));
        }
        let wanted: Vec<usize> = entries.iter().map(|entry| entry.logits.min(entry.ids.len())).collect();
        let mut runs = Vec::with_capacity(entries.len());
        for BatchEntry { sequence, ids, .. } in entries {
            self.check(sequence, ids)?;
            runs.push((&mut **sequence, *ids));
        }
        let wanted =
            if wanted.iter().any(|n| *n > 0) { WantedLogits::LastOf(&wanted) } else { WantedLogits::None };
        self.pass(&mut runs, wanted, Leave::All, each)
    }

    /// Makes room for `n_tokens` more tokens, so that the next step doesn't fail for lack of memory.
    ///
    /// # Errors
    /// Where there is no memory for them; the sequence is unchanged.
    pub fn reserve(&self, sequence: &mut Sequence, n_tokens: usize) -> Result<()> {
        let past = sequence.tokens.len();
        self.make_room(sequence, n_tokens)?;
        sequence
            .memory
            .reserve(past, past + n_tokens)
            .map_err(|source| failed("room for more tokens", source))
    }

    /// Runs `ids` after what the sequence has seen, and gives each token's logits `[vocabulary]` to `each`, in order.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`].
    pub fn logits(&self, sequence: &mut Sequence, ids: &[u32], each: &mut dyn FnMut(&[f32])) -> Result<()> {
        let mut always = |row: &[f32]| {
            each(row);
            true
        };
        self.logits_while(sequence, ids, &mut always)
    }

    /// As [`NeuroEngine::logits`]; `each` stops the work by returning `false`. The sequence then holds the whole piece in which
    /// that happened.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`], and [`Error::Cancelled`].
    pub fn logits_while(
        &self,
        sequence: &mut Sequence,
        ids: &[u32],
        each: &mut dyn FnMut(&[f32]) -> bool,
    ) -> Result<()> {
        self.check(sequence, ids)?;
        let mut go_on = true;
        for piece in ids.chunks(self.max_batch) {
            let mut rows = |logits: &[f32]| {
                go_on = go_on && logits.chunks_exact(self.plan.vocabulary).all(&mut *each);
            };
            self.pass(&mut [(sequence, piece)], WantedLogits::All, Leave::Any, &mut rows)?;
            if !go_on {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// Runs `ids` through the first `blocks` blocks of layers (all of them, where there are fewer), and gives each token's
    /// activations `[hidden]`, as the next block would read them, to `each`, in order.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`].
    pub fn hidden_states(&self, ids: &[u32], blocks: usize, each: &mut dyn FnMut(&[f32])) -> Result<()> {
        let mut always = |row: &[f32]| {
            each(row);
            true
        };
        self.hidden_states_while(ids, blocks, None, &mut always)
    }

    /// As [`NeuroEngine::hidden_states`]; `stop` ends the work, and so does `each` by returning `false`.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`], and [`Error::Cancelled`].
    pub fn hidden_states_while(
        &self,
        ids: &[u32],
        blocks: usize,
        stop: Option<Stop>,
        each: &mut dyn FnMut(&[f32]) -> bool,
    ) -> Result<()> {
        let past_end = |layer: &LayerHandle| match layer.desc().kind() {
            LayerKind::Embedding => false,
            LayerKind::Head => true,
            _ => layer.desc().block >= blocks,
        };
        let n_layers = self.layers.iter().position(past_end).unwrap_or(self.layers.len());
        let mut sequence = self.sequence()?;
        sequence.set_stop(stop);
        self.check(&sequence, ids)?;
        let (hidden, mut go_on) = (self.plan.hidden, true);
        for piece in ids.chunks(self.max_batch) {
            let mut rows = |rows: &[f32]| go_on = go_on && rows.chunks_exact(hidden).all(&mut *each);
            let wanted = WantedLogits::Hidden(n_layers);
            self.pass(&mut [(&mut sequence, piece)], wanted, Leave::All, &mut rows)?;
            if !go_on {
                return Err(Error::Cancelled);
            }
        }
        Ok(())
    }

    /// The ids of a prompt's text, as [`AscTokenizer::encode_prompt`](crate::AscTokenizer::encode_prompt). A text that no context of
    /// this engine's can hold is refused before it is tokenized.
    ///
    /// # Errors
    /// As `encode_prompt`, and where the text is too long.
    pub fn encode_prompt(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        self.check_text(text)?;
        self.tokenizer.encode_prompt(text, special)
    }

    /// Whether a context of this engine's could hold this text, as far as its length tells before it is tokenized.
    ///
    /// # Errors
    /// Where it is too long.
    pub fn check_text(&self, text: &str) -> Result<()> {
        match self.tokenizer.most_bytes(self.context()) {
            Some(most) if text.len() > most => Err(Error::Invalid(format!(
                "the prompt has {} bytes, where at most {most} were expected: a context of {} tokens holds no more",
                text.len(),
                self.context()
            ))),
            _ => Ok(()),
        }
    }

    /// Whether these tokens could be the first of a sequence.
    pub(crate) fn check_prompt(&self, ids: &[u32]) -> Result<()> {
        self.check_tokens(0, ids)
    }

    /// Runs `ids` after what the sequence has seen, without logits; nothing where there are none.
    pub(super) fn run(&self, sequence: &mut Sequence, ids: &[u32]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        self.check(sequence, ids)?;
        ids.chunks(self.max_batch).try_for_each(|piece| {
            self.pass(&mut [(&mut *sequence, piece)], WantedLogits::None, Leave::Any, &mut |_| {})
        })
    }

    /// Whether a sequence is this engine's.
    pub(crate) fn owns(&self, sequence: &Sequence) -> Result<()> {
        if sequence.engine == self.id {
            return Ok(());
        }
        Err(Error::Invalid("the sequence belongs to another engine".to_owned()))
    }

    /// Whether a sequence can take these tokens.
    pub(super) fn check(&self, sequence: &Sequence, ids: &[u32]) -> Result<()> {
        self.owns(sequence)?;
        sequence.is_whole()?;
        self.check_tokens(sequence.tokens.len(), ids)
    }

    fn check_tokens(&self, past: usize, ids: &[u32]) -> Result<()> {
        self.in_its_process()?;
        if ids.is_empty() {
            return Err(Error::Invalid(
                "there are no tokens to run, where at least one was expected".to_owned(),
            ));
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.plan.vocabulary) {
            return Err(Error::Invalid(format!(
                "the token {id} is outside the vocabulary, where ids below {} were expected",
                self.plan.vocabulary
            )));
        }
        let wanted = past + ids.len();
        if wanted > self.context {
            return Err(Error::ContextFull { wanted, room: self.context });
        }
        Ok(())
    }
}
