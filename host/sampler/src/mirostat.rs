//! Mirostat: how many tokens remain follows from how surprising the text has been.
//!
//! [Basu et al. 2020](https://arxiv.org/abs/2007.14966): algorithm 1 of the paper is version 1; version 2 leaves its estimate of the
//! distribution's tail out and cuts by surprise at once.

use super::SamplerConfig;
use super::filters::{self, Candidate};

/// Tokens from which the first version estimates how fast probabilities fall.
const ESTIMATED: usize = 100;

/// What mirostat has learned.
#[derive(Clone, Debug)]
pub(super) struct Mirostat {
    /// The most surprise that a token may have, in bits.
    mu: f32,
    /// The last choice's surprise, in bits, until it is recorded.
    observed: Option<f32>,
}

impl Mirostat {
    pub(super) fn new(config: &SamplerConfig) -> Self {
        Self { mu: 2.0 * config.mirostat_tau, observed: None }
    }

    /// Fills `candidates` with the tokens that may be drawn, at least one.
    pub(super) fn cut(&self, config: &SamplerConfig, logits: &[f32], candidates: &mut Vec<Candidate>) {
        if config.mirostat == 1 {
            filters::collect_top_k(logits, ESTIMATED, candidates);
            let k = self.tokens_to_keep(candidates, logits.len(), config.temperature);
            filters::collect_top_k(logits, k, candidates);
            return;
        }
        filters::collect_at_least(logits, f32::MIN, candidates);
        let total = filters::weigh(candidates, config.temperature);
        let least = (total * f64::from(-self.mu).exp2()) as f32;
        // The likeliest token weighs 1.
        candidates.retain(|candidate| candidate.weight >= least.min(1.0));
    }

    /// How many of the best tokens have at most the surprise that is wanted, by Zipf's law with the exponent that the best ones show.
    fn tokens_to_keep(&self, best: &mut [Candidate], vocabulary: usize, temperature: f32) -> usize {
        filters::weigh(best, temperature);
        let (mut products, mut squares) = (0.0_f64, 0.0_f64);
        for (rank, pair) in best.windows(2).enumerate() {
            let (t, b) = (
                ((rank + 2) as f64 / (rank + 1) as f64).ln(),
                (f64::from(pair[0].weight) / f64::from(pair[1].weight)).ln(),
            );
            if b.is_finite() {
                products += t * b;
                squares += t * t;
            }
        }
        let exponent = products / squares;
        let epsilon = exponent - 1.0;
        let tail = 1.0 - (vocabulary as f64).powf(-epsilon);
        let k = (epsilon * f64::from(self.mu).exp2() / tail).powf(1.0 / exponent);
        // Not a number where there is one token, or all are alike.
        if k.is_finite() { (k as usize).clamp(1, vocabulary) } else { vocabulary.max(1) }
    }

    /// Takes note of a choice among weighed candidates.
    pub(super) fn observe(&mut self, token: u32, candidates: &[Candidate]) {
        let total: f64 = candidates.iter().map(|candidate| f64::from(candidate.weight)).sum();
        let chosen = candidates.iter().find(|candidate| candidate.token == token);
        self.observed = chosen.map(|chosen| -(f64::from(chosen.weight) / total).log2() as f32);
    }

    /// Learns from the last choice.
    pub(super) fn learn(&mut self, config: &SamplerConfig) {
        if let Some(observed) = self.observed.take().filter(|observed| observed.is_finite()) {
            self.mu -= config.mirostat_eta * (observed - config.mirostat_tau);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sampler;

    /// The mean surprise of many draws from one distribution comes to the target, which is what the paper promises.
    #[test]
    fn the_text_comes_to_the_target_of_surprise() {
        let logits: Vec<f32> = (1..2000).map(|rank| -1.1 * (rank as f32).ln()).collect();
        for (version, tau) in [(1, 3.0), (2, 3.0), (2, 5.0)] {
            let config = SamplerConfig {
                temperature: 1.0,
                mirostat: version,
                mirostat_tau: tau,
                seed: Some(5),
                ..SamplerConfig::default()
            };
            let mut sampler = Sampler::new(config, logits.len()).unwrap();
            for _ in 0..2000 {
                sampler.sample(&logits).unwrap();
            }
            let mut surprise = 0.0;
            for _ in 0..2000 {
                let sampled = sampler.draw(&logits, None).unwrap();
                surprise += f64::from(sampler.mirostat.observed.unwrap());
                sampler.record(&sampled);
            }
            let mean = surprise / 2000.0;
            assert!((mean - f64::from(tau)).abs() < 0.15, "version {version}, {tau}: {mean}");
        }
    }
}
