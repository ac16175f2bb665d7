//! From a model's logits to the next token.
//!
//! A model gives one number for each token of its vocabulary; which token to take is the user's choice, by
//! [`SamplerConfig`]. [`Sampler`] applies it, in llama.cpp's default order:
//!
//! 1. logit bias, repetition penalty, presence and frequency penalties, DRY;
//! 2. with a temperature of 0: the best logit. Otherwise the filters top-n-sigma, top-k, locally typical, top-p, min-p, XTC, each
//!    over the probabilities of what the one before it left;
//! 3. temperature, and a draw among the tokens that remain.
//!
//! With mirostat, which chooses how many tokens remain, the filters have no effect.
//!
//! A sampler belongs to one sequence: it holds that sequence's history for the penalties, and its random numbers.
//!
//! ```
//! use herald_sampler::{Sampler, SamplerConfig};
//!
//! let config = SamplerConfig { temperature: 0.8, top_k: 40, seed: Some(7), ..SamplerConfig::default() };
//! let mut sampler = Sampler::new(config, 4)?;
//! let sampled = sampler.sample(&[0.1, 2.0, -1.0, 0.5])?;
//! assert!(sampled.token < 4 && sampled.logprob < 0.0);
//! # Ok::<(), herald_sampler::SamplerError>(())
//! ```

mod config;
mod dry;
mod error;
mod filters;
mod mirostat;
mod penalties;
mod random;
mod softmax;
#[cfg(test)]
mod tests;

pub use config::SamplerConfig;
pub use error::SamplerError;

use filters::Candidate;
use mirostat::Mirostat;
use penalties::History;
use random::Uniform;
use softmax::{BLOCK, Summary};

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Its id.
    pub token: u32,
    /// Its natural log-probability under the model's own distribution: the log-softmax of the logits as the model
    /// gave them, before bias, penalties, filters and temperature.
    pub logprob: f32,
    /// The [`top_logprobs`](SamplerConfig::top_logprobs) most probable tokens under the same distribution, best first,
    /// the lower id first among equals. Fewer where fewer have a probability above zero.
    pub top: Vec<(u32, f32)>,
}

/// Which random numbers come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplerState {
    /// The seed in use.
    pub seed: u64,
    /// How many numbers have been drawn.
    pub draws: u64,
}

/// Chooses the tokens of one sequence.
#[derive(Clone, Debug)]
pub struct Sampler {
    config: SamplerConfig,
    vocab_size: usize,
    seed: u64,
    uniform: Uniform,
    history: History,
    mirostat: Mirostat,
    // Buffers of the last call, kept for the next.
    adjusted: Vec<f32>,
    candidates: Vec<Candidate>,
    block_sums: Vec<f64>,
}

impl Sampler {
    /// A sampler for a model with `vocab_size` tokens.
    ///
    /// # Errors
    /// A field of the configuration is out of range; no seed was set and the operating system gave none.
    pub fn new(config: SamplerConfig, vocab_size: usize) -> Result<Self, SamplerError> {
        config.validate(vocab_size)?;
        let seed = match config.seed {
            Some(seed) => seed,
            // 32 bits, as every program's numbers hold them, but for the one by which llama.cpp's clients mean any.
            None => getrandom::u32()
                .map(|seed| u64::from(seed % u32::MAX))
                .map_err(|error| SamplerError::NoEntropy(error.to_string()))?,
        };
        let mirostat = Mirostat::new(&config);
        Ok(Self {
            config,
            vocab_size,
            seed,
            mirostat,
            uniform: Uniform::new(seed),
            history: History::default(),
            adjusted: Vec::new(),
            candidates: Vec::new(),
            block_sums: Vec::new(),
        })
    }

    /// The seed in use: the configured one, or the one that the operating system gave.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Which random numbers come next.
    #[must_use]
    pub fn state(&self) -> SamplerState {
        SamplerState { seed: self.seed, draws: self.uniform.draws() }
    }

    /// Goes on with the random numbers of another sampler.
    pub fn go_on_from(&mut self, state: SamplerState) {
        self.seed = state.seed;
        self.uniform = Uniform::after(state.seed, state.draws);
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// Records a token of the prompt, for the repetition penalty.
    ///
    /// # Errors
    /// The token is outside the vocabulary.
    pub fn accept(&mut self, token: u32) -> Result<(), SamplerError> {
        if token as usize >= self.vocab_size {
            return Err(SamplerError::UnknownToken { token, vocab_size: self.vocab_size });
        }
        self.history.push(token, false, &self.config);
        Ok(())
    }

    /// Forgets all tokens and starts the random numbers anew, as if just made with [`Sampler::seed`].
    pub fn reset(&mut self) {
        self.history.clear();
        self.mirostat = Mirostat::new(&self.config);
        self.uniform = Uniform::new(self.seed);
    }

    /// Chooses a token from `logits`, one for each token of the vocabulary, and records it as generated. A logit may
    /// be -inf (never chosen).
    ///
    /// # Errors
    /// The wrong number of logits; NaN or +inf among them; none that may be drawn. Nothing is recorded then.
    pub fn sample(&mut self, logits: &[f32]) -> Result<Sampled, SamplerError> {
        let sampled = self.draw(logits, None)?;
        self.record(&sampled);
        Ok(sampled)
    }

    /// As [`Sampler::sample`], among some tokens only: those whose bit `token % 32` of word `token / 32` of `allowed` is set.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn sample_allowed(&mut self, logits: &[f32], allowed: &[u32]) -> Result<Sampled, SamplerError> {
        let sampled = self.draw(logits, Some(allowed))?;
        self.record(&sampled);
        Ok(sampled)
    }

    /// Chooses a token without recording it.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn draw(&mut self, logits: &[f32], allowed: Option<&[u32]>) -> Result<Sampled, SamplerError> {
        if logits.len() != self.vocab_size {
            return Err(SamplerError::LogitsLength { found: logits.len(), expected: self.vocab_size });
        }
        let raw = Summary::of(logits, "")?;
        let token = if allowed.is_some() || self.history.adjusts(&self.config) {
            let mut adjusted = std::mem::take(&mut self.adjusted);
            adjusted.clear();
            adjusted.extend_from_slice(logits);
            self.history.adjust(&self.config, &mut adjusted);
            if let Some(allowed) = allowed {
                ban_others(&mut adjusted, allowed);
            }
            let cause = match allowed {
                Some(_) => " once the bias is added and the tokens that may not come are left out",
                None => " once the bias is added",
            };
            let chosen = Summary::of(&adjusted, cause).map(|summary| self.choose(&adjusted, &summary));
            self.adjusted = adjusted;
            chosen?
        } else {
            self.choose(logits, &raw)
        };
        let top = self.top(logits, &raw);
        Ok(Sampled { token, logprob: raw.logprob(logits[token as usize]), top })
    }

    /// Records a token as generated.
    pub fn record(&mut self, sampled: &Sampled) {
        self.history.push(sampled.token, true, &self.config);
        self.mirostat.learn(&self.config);
    }

    fn top(&mut self, logits: &[f32], raw: &Summary) -> Vec<(u32, f32)> {
        if self.config.top_logprobs == 0 {
            return Vec::new();
        }
        filters::collect_top_k(logits, self.config.top_logprobs as usize, &mut self.candidates);
        self.candidates.iter().map(|candidate| (candidate.token, raw.logprob(candidate.logit))).collect()
    }

    fn choose(&mut self, logits: &[f32], summary: &Summary) -> u32 {
        if self.config.temperature == 0.0 {
            summary.best
        } else if self.config.mirostat > 0 {
            self.mirostat.cut(&self.config, logits, &mut self.candidates);
            let token = self.draw_candidate();
            self.mirostat.observe(token, &self.candidates);
            token
        } else if self.filter(logits, summary) {
            self.draw_candidate()
        } else {
            self.draw_from_all(logits, summary)
        }
    }

    /// Applies the filters, which leave the candidates; false where none is on.
    fn filter(&mut self, logits: &[f32], summary: &Summary) -> bool {
        let SamplerConfig { top_k, typical_p, top_p, min_p, top_n_sigma, .. } = self.config;
        let top_k = (top_k > 0 && (top_k as usize) < logits.len()).then_some(top_k as usize);
        let has_xtc = self.config.xtc_probability > 0.0 && self.config.xtc_threshold <= 0.5;
        let sigma = (top_n_sigma > 0.0).then(|| filters::sigma_threshold(logits, summary.max, top_n_sigma));
        let least = sigma.unwrap_or(f32::MIN);
        let candidates = &mut self.candidates;

        let mut total;
        if let Some(k) = top_k {
            filters::collect_top_k(logits, k, candidates);
            candidates.retain(|candidate| candidate.logit >= least);
            total = filters::weigh(candidates, 1.0);
        } else if typical_p < 1.0 || sigma.is_some() || has_xtc {
            filters::collect_at_least(logits, least, candidates);
            total = filters::weigh(candidates, 1.0);
        } else if top_p < 1.0 || min_p > 0.0 {
            // Most tokens are too improbable to remain: leave them out by their logit alone.
            let in_top_p = filters::least_weight_in_top_p(f64::from(top_p), summary.sum, logits.len());
            let least = if top_p < 1.0 { in_top_p } else { f64::from(min_p) };
            // The slack covers the rounding of `ln` and of the weights, so that the filters proper decide.
            let threshold = f64::from(summary.max) + least.ln() - 0.01;
            filters::collect_at_least(logits, threshold as f32, candidates);
            filters::weigh(candidates, 1.0);
            total = summary.sum;
        } else {
            return false;
        }

        if typical_p < 1.0 {
            filters::typical(candidates, f64::from(typical_p), total);
            total = candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
        }
        if top_p < 1.0 {
            filters::top_p(candidates, f64::from(top_p), total);
        }
        if min_p > 0.0 {
            filters::min_p(candidates, min_p);
        }
        if has_xtc && self.uniform.next() < f64::from(self.config.xtc_probability) {
            filters::xtc(&mut self.candidates, self.config.xtc_threshold);
        }
        true
    }

    /// Draws from the candidates, of which there is at least one.
    fn draw_candidate(&mut self) -> u32 {
        let total = filters::weigh(&mut self.candidates, self.config.temperature);
        let weights = self.candidates.iter().map(|candidate| f64::from(candidate.weight));
        self.candidates[pick(weights, self.uniform.next() * total)].token
    }

    /// Draws from the whole vocabulary: first a block, by the sums of their weights, then a token of it.
    fn draw_from_all(&mut self, logits: &[f32], summary: &Summary) -> u32 {
        let (max, temperature) = (summary.max, self.config.temperature);
        self.block_sums.clear();
        self.block_sums
            .extend(logits.chunks(BLOCK).map(|block| softmax::sum_of_exp(block, max, temperature)));
        let total: f64 = self.block_sums.iter().sum();
        let target = self.uniform.next() * total;
        let chosen = pick(self.block_sums.iter().copied(), target);
        let before: f64 = self.block_sums[..chosen].iter().sum();
        let block = &logits[chosen * BLOCK..];
        let block = &block[..block.len().min(BLOCK)];
        let weights =
            block.iter().map(|logit| f64::from(softmax::exp_nonpositive((logit - max) / temperature)));
        (chosen * BLOCK + pick(weights, target - before)) as u32
    }
}

/// The natural log-probability of a token under the log-softmax of `logits`, and those of the `top` most probable tokens, best first.
///
/// # Errors
/// As [`Sampler::sample`]; the token is outside the vocabulary.
pub fn logprobs(logits: &[f32], token: u32, top: usize) -> Result<(f32, Vec<(u32, f32)>), SamplerError> {
    let vocab_size = logits.len();
    let logit = logits.get(token as usize).ok_or(SamplerError::UnknownToken { token, vocab_size })?;
    let summary = Summary::of(logits, "")?;
    let mut candidates = Vec::new();
    if top > 0 {
        filters::collect_top_k(logits, top, &mut candidates);
    }
    let top =
        candidates.iter().map(|candidate| (candidate.token, summary.logprob(candidate.logit))).collect();
    Ok((summary.logprob(*logit), top))
}

/// Bans all tokens but those whose bits are set.
fn ban_others(logits: &mut [f32], allowed: &[u32]) {
    for (index, logits) in logits.chunks_mut(u32::BITS as usize).enumerate() {
        let word = allowed.get(index).copied().unwrap_or(0);
        if word == u32::MAX {
            continue;
        }
        for (bit, logit) in logits.iter_mut().enumerate() {
            if word >> bit & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// The first index at which the running sum of `weights` exceeds `target`; where rounding keeps it from that, the last
/// one with a weight.
fn pick(weights: impl Iterator<Item = f64>, target: f64) -> usize {
    let mut sum = 0.0;
    let mut last = 0;
    for (index, weight) in weights.enumerate() {
        if weight > 0.0 {
            sum += weight;
            last = index;
            if sum > target {
                break;
            }
        }
    }
    last
}
