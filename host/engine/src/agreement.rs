//! Whether a backend computes what the reference computes.
//!
//! Speed is worth nothing where the results are wrong, and a plugin that computes nothing is the fastest of all. So before a
//! backend is measured, its logits after a fixed prompt are compared with those of `cpu`, whose plain code is the reference.

use std::time::{Duration, Instant};

use crate::engine::NeuroEngine;
use crate::error::{Error, Result};
use crate::stop::Stop;

/// The backend that others are compared with.
pub const REFERENCE: &str = "cpu";

/// The largest relative error of logits that arithmetic explains. With int16 activations it is about 0.001, with llama.cpp's
/// int8 about 0.03, and a flipped choice of experts may add to it. Logits that have nothing to do with the reference's are at
/// 1 (all equal) and more.
pub const MAX_ERROR: f64 = 0.25;

/// Tokens of the prompts: single ones and batches may take different code. BLAS comes in at 64.
const PROMPTS: [usize; 3] = [1, 8, 72];

/// Single tokens after the last prompt.
const DECODED: usize = 3;

/// Logits after fixed prompts, and after single tokens that follow.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Logits of a token.
    pub vocabulary: usize,
    /// `[rows, vocabulary]`.
    pub logits: Vec<f32>,
}

/// Reproducible ids below `vocabulary`.
pub(crate) fn ids(count: usize, vocabulary: usize) -> Vec<u32> {
    (0..count).map(|index| (index * 7919 % vocabulary) as u32).collect()
}

impl Sample {
    /// Has an engine compute the sample, the short prompts first. `None`: it took longer than `limit`, or a longer prompt would, by
    /// what the shorter ones took.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`]; [`Error::Cancelled`] where `go_on` says so.
    pub fn of(
        engine: &NeuroEngine,
        limit: Duration,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Self>> {
        let vocabulary = engine.plan().vocabulary;
        let most = engine.max_batch().min(engine.context().saturating_sub(DECODED)).max(1);
        let mut sample = Self { vocabulary, logits: Vec::new() };
        let began = Instant::now();
        let stop = Stop::default().until(began.checked_add(limit));
        let mut per_token = Duration::ZERO;
        for tokens in PROMPTS {
            if !go_on() {
                return Err(Error::Cancelled);
            }
            let ids = ids(tokens.min(most), vocabulary);
            if began.elapsed() + per_token * ids.len() as u32 > limit {
                return Ok(None);
            }
            let start = Instant::now();
            let decoded = if tokens == PROMPTS[PROMPTS.len() - 1] { DECODED } else { 0 };
            match sample.add(engine, &ids, decoded.min(engine.context() - ids.len()), &stop) {
                Err(Error::Cancelled) if stop.is_late() => return Ok(None),
                added => added?,
            }
            per_token = start.elapsed() / ids.len() as u32;
        }
        Ok(Some(sample))
    }

    /// Adds the logits after a prompt, and after as many of its tokens once more, one by one.
    fn add(&mut self, engine: &NeuroEngine, ids: &[u32], decoded: usize, stop: &Stop) -> Result<()> {
        let mut sequence = engine.sequence()?;
        sequence.set_stop(Some(stop.clone()));
        self.logits.extend(engine.prefill(&mut sequence, ids)?);
        for id in &ids[..decoded.min(ids.len())] {
            self.logits.extend(engine.decode(&mut [(&mut sequence, *id)])?);
        }
        Ok(())
    }

    /// How far it is from the reference: of all rows the largest relative error, `|x - y| / |y|` of the vectors of logits less
    /// their means, since a constant that is added to all logits changes no probability.
    #[must_use]
    pub fn error(&self, reference: &Self) -> f64 {
        if self.vocabulary != reference.vocabulary || self.logits.len() != reference.logits.len() {
            return f64::INFINITY;
        }
        let rows = self.logits.chunks(self.vocabulary.max(1));
        let errors = rows.zip(reference.logits.chunks(self.vocabulary.max(1))).map(|(x, y)| row_error(x, y));
        // `max` would lose a NaN.
        errors.fold(0.0, |most, error| if error > most || error.is_nan() { error } else { most })
    }

    /// Whether it agrees with the reference's.
    ///
    /// # Errors
    /// One sentence with the figure.
    pub fn check(&self, reference: &Self) -> std::result::Result<(), String> {
        let error = self.error(reference);
        if error <= MAX_ERROR {
            return Ok(());
        }
        Err(format!(
            "it computes wrongly: its logits differ from those of {REFERENCE} by a relative error of {error:.3}, where at most \
             {MAX_ERROR} was expected"
        ))
    }
}

fn row_error(x: &[f32], y: &[f32]) -> f64 {
    // A token that is never chosen has the logit -inf in both.
    let pairs = || {
        x.iter().zip(y).filter(|(x, y)| x != y || x.is_finite()).map(|(x, y)| (f64::from(*x), f64::from(*y)))
    };
    let count = pairs().count().max(1) as f64;
    let (sum_x, sum_y) = pairs().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (wrong, all) = pairs().fold((0.0, 0.0), |(wrong, all), (x, y)| {
        let (x, y) = (x - mean_x, y - mean_y);
        (wrong + (x - y) * (x - y), all + y * y)
    });
    // Where the reference has no preference, neither may the other.
    if wrong == 0.0 { 0.0 } else { (wrong / all).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(logits: &[f32]) -> Sample {
        Sample { vocabulary: 4, logits: logits.to_vec() }
    }

    #[test]
    fn what_arithmetic_explains_passes_and_nothing_else() {
        let reference = sample(&[1.0, -2.0, 3.0, 0.5, 0.1, 0.2, 0.4, -0.3]);
        reference.check(&reference).expect("it agrees with itself");
        // A float16's and an int8's rounding.
        for step in [1.0 / 1024.0, 1.0 / 127.0] {
            let rounded: Vec<f32> = reference
                .logits
                .iter()
                .map(|x| x + step * if x.to_bits() & 8 == 0 { 1.0 } else { -1.0 })
                .collect();
            sample(&rounded).check(&reference).expect("rounding");
        }
        // A constant more for all, which no probability shows.
        let shifted: Vec<f32> = reference.logits.iter().map(|x| x + 5.0).collect();
        assert!(sample(&shifted).error(&reference) < 1e-6);
        let wrong: [Vec<f32>; 6] = [
            vec![0.0; 8],
            reference.logits.iter().map(|x| -x).collect(),
            reference.logits.iter().rev().copied().collect(),
            vec![f32::NAN; 8],
            [&reference.logits[..4], &[f32::INFINITY; 4]].concat(),
            reference.logits[..4].to_vec(),
        ];
        for logits in wrong {
            let sentence = sample(&logits).check(&reference).expect_err("it is wrong");
            assert!(sentence.contains("differ from those of cpu by a relative error of"), "{sentence}");
        }
    }

    #[test]
    fn logits_that_are_never_chosen_count_where_they_differ() {
        let reference = sample(&[1.0, f32::NEG_INFINITY, 3.0, 0.5]);
        assert!(reference.error(&reference) == 0.0);
        assert!(sample(&[1.0, 2.0, 3.0, 0.5]).check(&reference).is_err());
    }

    #[test]
    fn a_reference_without_preference_allows_none() {
        let flat = sample(&[2.0; 4]);
        assert!(sample(&[3.0; 4]).error(&flat) == 0.0);
        assert!(sample(&[3.0, 3.0, 3.0, 4.0]).check(&flat).is_err());
    }
}
