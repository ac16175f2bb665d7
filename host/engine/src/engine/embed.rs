//! Embeddings: what a model makes of whole texts, pooled from the hidden states of their tokens.

use herald_api::AlignedBytes;
use herald_api::LayerParams;
use herald_api::import::{Forward, LayerHandle, Lent};

use super::interrupt::Leave;
use super::pass::{HEAD_TOKENS, WantedLogits, failed, name_of};
use super::{NeuroEngine, Sequence};
use crate::error::{Error, Result};
use crate::model::Pooling;
use crate::stop::Stop;

/// How [`NeuroEngine::embed_texts`] makes embeddings.
#[derive(Clone, Debug, Default)]
pub struct EmbedOptions {
    /// How the hidden states of a text's tokens become one; `None`: as [`NeuroEngine::pooling`] says.
    pub pooling: Option<Pooling>,
    /// Whether embeddings are scaled to length 1.
    pub normalize: bool,
    /// Ends the work.
    pub stop: Option<Stop>,
}

/// Scales a vector to length 1, unless it is all zeros.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

/// A text's embedding in the making.
struct Pool {
    pooling: Pooling,
    sum: Vec<f64>,
    n_tokens: usize,
    /// Tokens to leave out.
    skipped: usize,
}

impl Pool {
    /// Takes the next token's hidden state in.
    fn take(&mut self, state: &[f32]) {
        if self.skipped > 0 {
            self.skipped -= 1;
            return;
        }
        let is_first = self.n_tokens == 0;
        self.n_tokens += 1;
        match self.pooling {
            Pooling::Cls if !is_first => return,
            Pooling::Last => self.sum.fill(0.0),
            _ => {}
        }
        self.sum.iter_mut().zip(state).for_each(|(sum, x)| *sum += f64::from(*x));
    }

    fn embedding(self) -> Vec<f32> {
        let count = if self.pooling == Pooling::Mean { self.n_tokens.max(1) as f64 } else { 1.0 };
        self.sum.into_iter().map(|sum| (sum / count) as f32).collect()
    }
}

impl NeuroEngine {
    /// How the model's embeddings are pooled: as the file says, or the mean.
    #[must_use]
    pub fn pooling(&self) -> Pooling {
        self.plan.pooling.unwrap_or(Pooling::Mean)
    }

    /// Elements of an embedding: the hidden size, unless matrices follow after pooling.
    #[must_use]
    pub fn embedding_len(&self) -> usize {
        self.dense.last().map_or(self.plan.hidden, LayerHandle::output_width)
    }

    /// The embeddings `[embedding_len]` of texts, in order. Each text is run as a prompt would be, with what the model puts before and
    /// after it. Of a language model that was not made to embed, the token before every text (BOS) is run and left out.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`], and where a text has no tokens.
    pub fn embed_texts(&self, texts: &[&str], options: &EmbedOptions) -> Result<Vec<Vec<f32>>> {
        let encode = |text: &&str| self.tokenizer.encode_prompt(text, false);
        let ids = texts.iter().map(encode).collect::<Result<Vec<_>>>()?;
        let is_made_for_it = self.plan.pooling.is_some() || !self.plan.has_head();
        let before = self.tokenizer.prompt_bos().filter(|_| !is_made_for_it);
        let skipped = usize::from(before.is_some());
        if let Some(empty) = ids.iter().position(|ids| ids.len() <= skipped) {
            let which = if texts.len() == 1 { String::new() } else { format!(" {}", empty + 1) };
            return Err(Error::Invalid(format!("the text{which} is empty, where some text was expected")));
        }
        let ids: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
        self.embed_with(&ids, skipped, options)
    }

    /// As [`NeuroEngine::embed_texts`], of texts that are given by their tokens, with what the model puts before and after.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`].
    pub fn embed_ids(&self, texts: &[&[u32]], options: &EmbedOptions) -> Result<Vec<Vec<f32>>> {
        self.embed_with(texts, 0, options)
    }

    fn embed_with(&self, texts: &[&[u32]], skipped: usize, options: &EmbedOptions) -> Result<Vec<Vec<f32>>> {
        let pooling = options.pooling.unwrap_or_else(|| self.pooling());
        let mut embeddings = self.embed_from(texts, skipped, pooling, options.stop.as_ref())?;
        if options.normalize {
            embeddings.iter_mut().for_each(|embedding| normalize(embedding));
        }
        Ok(embeddings)
    }

    /// The embeddings `[embedding_len]` of texts, each given by its tokens with what the model puts before and after: pooled from the
    /// hidden states that [`NeuroEngine::states_to_pool`] gives, and not normalised. Texts run together as far as they fit into
    /// a pass. `stop` ends the work.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`].
    pub fn embed(&self, texts: &[&[u32]], pooling: Pooling, stop: Option<&Stop>) -> Result<Vec<Vec<f32>>> {
        self.embed_from(texts, 0, pooling, stop)
    }

    /// As [`NeuroEngine::embed`], without the first `skipped` tokens of each text.
    fn embed_from(
        &self,
        texts: &[&[u32]],
        skipped: usize,
        pooling: Pooling,
        stop: Option<&Stop>,
    ) -> Result<Vec<Vec<f32>>> {
        let mut embeddings = Vec::with_capacity(texts.len());
        let mut rest = texts;
        while let Some((first, others)) = rest.split_first() {
            let mut n_tokens = first.len();
            let fits = |text: &&&[u32]| {
                n_tokens = n_tokens.saturating_add(text.len());
                n_tokens <= self.max_batch
            };
            let (together, after) = rest.split_at(1 + others.iter().take_while(fits).count());
            let pool = |_| Pool { pooling, sum: vec![0.0; self.plan.hidden], n_tokens: 0, skipped };
            let mut pools: Vec<Pool> = (0..together.len()).map(pool).collect();
            self.run_texts(together, stop, &mut |text, state| pools[text].take(state))?;
            for pool in pools {
                embeddings.push(self.through_dense(pool.embedding())?);
            }
            rest = after;
        }
        Ok(embeddings)
    }

    /// Gives each token's hidden state `[hidden]` after the last block to `each`, in order: what embeddings are pooled from. Of a
    /// model that says how, they are normed as the model's last norm does.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`].
    pub fn states_to_pool(&self, ids: &[u32], each: &mut dyn FnMut(&[f32])) -> Result<()> {
        self.run_texts(&[ids], None, &mut |_, state| each(state))
    }

    /// Runs texts that fit into one pass, or one text, and gives the hidden states to `each`, with the text's index.
    fn run_texts(
        &self,
        texts: &[&[u32]],
        stop: Option<&Stop>,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<()> {
        let hidden = self.plan.hidden;
        let is_head = |layer: &LayerHandle| matches!(layer.desc().params, LayerParams::Head(_));
        let n_layers = self.layers.iter().position(is_head).unwrap_or(self.layers.len());
        let mut sequences = Vec::with_capacity(texts.len());
        for text in texts {
            let mut sequence = self.sequence()?;
            sequence.set_stop(stop.cloned());
            self.check(&sequence, text)?;
            sequences.push(sequence);
        }
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        for start in (0..longest).step_by(self.max_batch) {
            let mut entries: Vec<(&mut Sequence, &[u32])> = Vec::with_capacity(texts.len());
            for (sequence, text) in sequences.iter_mut().zip(texts) {
                entries.push((sequence, &text[start..text.len().min(start + self.max_batch)]));
            }
            let lens: Vec<usize> = entries.iter().map(|(_, ids)| ids.len()).collect();
            let mut states = Vec::new();
            self.pass(&mut entries, WantedLogits::Hidden(n_layers), Leave::All, &mut |rows| {
                states.extend_from_slice(rows);
            })?;
            self.norm_states(&mut states)?;
            let mut rows = states.chunks_exact(hidden);
            for (text, len) in lens.into_iter().enumerate() {
                rows.by_ref().take(len).for_each(|row| each(text, row));
            }
        }
        Ok(())
    }

    /// Norms rows of hidden states, where the model has a norm for what is pooled.
    fn norm_states(&self, states: &mut [f32]) -> Result<()> {
        if let Some(norm) = &self.pooled_norm {
            states.copy_from_slice(&self.normed(norm, states)?);
        }
        Ok(())
    }

    /// Rows of activations `[n, hidden]` as a norm, a head without a matrix, gives them.
    pub(super) fn normed(&self, norm: &LayerHandle, rows: &[f32]) -> Result<Vec<f32>> {
        let mut normed = vec![0.0; rows.len()];
        let len = HEAD_TOKENS.min(self.max_batch) * self.plan.hidden;
        for (rows, normed) in rows.chunks(len).zip(normed.chunks_mut(len)) {
            self.apply(norm, rows, normed)?;
        }
        Ok(normed)
    }

    /// Takes a pooled vector through the matrices that follow, where the model has any.
    fn through_dense(&self, mut vector: Vec<f32>) -> Result<Vec<f32>> {
        for dense in &self.dense {
            let mut product = vec![0.0; dense.output_width()];
            self.apply(dense, &vector, &mut product)?;
            vector = product;
        }
        Ok(vector)
    }

    /// Runs a head over rows of activations.
    pub(super) fn apply(&self, head: &LayerHandle, input: &[f32], output: &mut [f32]) -> Result<()> {
        let mut scratch =
            AlignedBytes::zeroed(head.scratch_bytes()).map_err(|source| failed("scratch memory", source))?;
        let threads = Lent::new(&*self.pool);
        let forward = Forward {
            n_tokens: input.len() / head.desc().hidden,
            tokens: &[],
            positions: &[],
            input: Some(input),
            output,
            parallel: threads.parallel(),
        };
        head.forward(forward, None, &mut scratch).map_err(|source| failed(&name_of(head), source))
    }

    /// Whether a pass can give what is wanted of these sequences: a model whose tokens attend to later ones sees a text at once,
    /// and not every model has an output head.
    pub(super) fn check_pass(
        &self,
        entries: &[(&mut Sequence, &[u32])],
        wanted: &WantedLogits<'_>,
    ) -> Result<()> {
        if !self.plan.has_head() && !matches!(wanted, WantedLogits::Hidden(_) | WantedLogits::None) {
            return Err(Error::Invalid(format!(
                "the model ({}) makes embeddings and no text: it has no output head",
                self.plan.architecture
            )));
        }
        if self.plan.is_bidirectional() && entries.iter().any(|(sequence, _)| !sequence.tokens.is_empty()) {
            return Err(Error::Invalid(format!(
                "a text goes on, where all of it was expected at once (at most {} tokens): the model's tokens attend to later ones",
                self.max_batch
            )));
        }
        Ok(())
    }
}
