//! Decoding speed by batch size.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::corpus;
use super::measurement::median;
use herald::Result;
use herald::{BatchEntry, NeuroEngine};

/// The batch sizes that throughput is measured at.
pub(super) const BATCHES: [usize; 5] = [1, 2, 4, 8, 16];

/// Tokens per second at each batch size, by round.
pub(super) struct Scaling {
    pub(super) rounds: Vec<[f64; BATCHES.len()]>,
    /// Whether the first sequence of each batch had the tokens that it has alone.
    pub(super) equal: bool,
}

impl Scaling {
    /// The speed of every round with the batch size `BATCHES[index]`.
    pub(super) fn at(&self, index: usize) -> Vec<f64> {
        self.rounds.iter().map(|round| round[index]).collect()
    }

    /// The median speed of each batch size.
    pub(super) fn medians(&self) -> [f64; BATCHES.len()] {
        std::array::from_fn(|index| median(&self.at(index)))
    }
}

/// Decodes greedily with a batch of sequences, each after its own prompt. Returns seconds and each sequence's tokens.
pub(super) fn decode(engine: &NeuroEngine, batch: usize, tokens: usize) -> Result<(f64, Vec<Vec<u32>>)> {
    let mut sequences = Vec::new();
    let mut next = Vec::new();
    for index in 0..batch {
        let mut ids = engine.tokenizer().encode_prompt(&corpus::prompt(index), false)?;
        ids.truncate(16);
        let mut sequence = engine.sequence()?;
        next.push(best(&engine.prefill(&mut sequence, &ids)?));
        sequences.push(sequence);
    }
    let vocabulary = engine.plan().vocabulary;
    let mut answers = vec![Vec::new(); batch];
    let start = Instant::now();
    for _ in 0..tokens {
        let mut parts: Vec<BatchEntry<'_>> = sequences
            .iter_mut()
            .zip(&next)
            .map(|(sequence, token)| BatchEntry { sequence, ids: std::slice::from_ref(token), logits: 1 })
            .collect();
        let sampled: Vec<AtomicU32> = (0..batch).map(|_| AtomicU32::new(0)).collect();
        let mut n_sampled = 0;
        engine.step(&mut parts, &mut |rows| {
            // The threads share the choice of tokens, as in the scheduler.
            engine.pool().run(rows.len() / vocabulary, &|range, _| {
                for row in range {
                    let token = best(&rows[row * vocabulary..(row + 1) * vocabulary]);
                    sampled[n_sampled + row].store(token, Ordering::Relaxed);
                }
            });
            n_sampled += rows.len() / vocabulary;
        })?;
        drop(parts);
        next = sampled.into_iter().map(AtomicU32::into_inner).collect();
        answers.iter_mut().zip(&next).for_each(|(answer, token)| answer.push(*token));
    }
    Ok((start.elapsed().as_secs_f64(), answers))
}

/// The token with the greatest logit.
fn best(logits: &[f32]) -> u32 {
    // 16 independent maxima, so that none waits for another.
    let mut maxima = [f32::NEG_INFINITY; 16];
    let (parts, rest) = logits.as_chunks::<16>();
    for part in parts {
        maxima.iter_mut().zip(part).for_each(|(max, logit)| *max = max.max(*logit));
    }
    let max = maxima.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|logit| *logit == max).unwrap_or(0) as u32
}
