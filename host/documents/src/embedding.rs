//! Embedding vectors of texts, from the model's own activations.
//!
//! A token's vector is its activations after the last block. In every text a few elements are many times larger than all
//! others (massive activations, arXiv 2402.17762), so each element is repositiond by its signed square root (power
//! normalisation, as in doi.org/10.1007/978-3-642-15561-1_11), and the vector is scaled to length 1. A window's vector is
//! the mean over its tokens, each of which attends to the chunk before it (late chunking, arXiv 2409.04701). Vectors of all
//! texts share a direction, which says nothing: their mean is subtracted before the cosine (arXiv 1702.01417).
//!
//! A language model is not trained for this: docs/MEMORY.md says what was measured, and what that does not mean.

use herald::NeuroEngine;
use herald::Result;

/// Tokens of a window: each window of a chunk has its own vector.
const WINDOW: usize = 128;

/// The vectors `[n_windows, hidden]` of some tokens, each the mean over a window; one window unless `windowed`.
pub(super) fn vectors(engine: &NeuroEngine, ids: &[u32], windowed: bool) -> Result<Vec<f32>> {
    let hidden = engine.plan().hidden;
    // The first token of a sequence is an attention sink: its activations don't represent it.
    let bos = engine.tokenizer().prompt_bos();
    let first = bos.map_or(1.min(ids.len().saturating_sub(1)), |_| 1);
    let ids: Vec<u32> = bos.into_iter().chain(ids.iter().copied()).collect();
    let n_tokens = ids.len() - first;
    // Tokens after the last whole window belong to it.
    let n_windows = if windowed { (n_tokens / WINDOW).max(1) } else { 1 };
    let mut sums = vec![0.0_f64; n_windows * hidden];
    let mut counts = vec![0_usize; n_windows];
    let mut position = 0_usize;
    engine.hidden_states(&ids, usize::MAX, &mut |row| {
        let Some(token) = position.checked_sub(first) else {
            position += 1;
            return;
        };
        position += 1;
        let window = (token / WINDOW).min(n_windows - 1);
        let root = |x: f32| f64::from(x.signum() * x.abs().sqrt());
        let length = row.iter().map(|x| f64::from(x.abs())).sum::<f64>().sqrt();
        if length > 0.0 && length.is_finite() {
            let sum = &mut sums[window * hidden..(window + 1) * hidden];
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += root(*x) / length);
            counts[window] += 1;
        }
    })?;
    let means = sums.chunks_exact(hidden).zip(&counts).flat_map(|(sum, count)| {
        let count = (*count).max(1) as f64;
        sum.iter().map(move |sum| (sum / count) as f32)
    });
    Ok(means.collect())
}

/// The mean of vectors.
pub(super) fn mean<'v>(vectors: impl Iterator<Item = &'v [f32]>, hidden: usize) -> Vec<f32> {
    let (mut sum, mut count) = (vec![0.0_f64; hidden], 0_usize);
    for vector in vectors {
        sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += f64::from(*x));
        count += 1;
    }
    sum.into_iter().map(|sum| (sum / count.max(1) as f64) as f32).collect()
}

/// The cosine between `a - mean` and `b - mean`.
pub(super) fn cosine(a: &[f32], b: &[f32], mean: &[f32]) -> f32 {
    let (mut product, mut a2, mut b2) = (0.0_f32, 0.0_f32, 0.0_f32);
    for ((a, b), mean) in a.iter().zip(b).zip(mean) {
        let (a, b) = (a - mean, b - mean);
        product += a * b;
        a2 += a * a;
        b2 += b * b;
    }
    let lengths = (a2 * b2).sqrt();
    if lengths > 0.0 { product / lengths } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_taken_after_subtracting_the_mean() {
        let vectors = [[1.0, 0.0, 10.0], [0.0, 1.0, 10.0], [-1.0, -1.0, 10.0]];
        let mean = mean(vectors.iter().map(|vector| &vector[..]), 3);
        assert_eq!(mean, [0.0, 0.0, 10.0]);
        assert!((cosine(&vectors[0], &vectors[1], &mean)).abs() < 1e-6, "they are at right angles there");
        assert!((cosine(&vectors[0], &[2.0, 0.0, 10.0], &mean) - 1.0).abs() < 1e-6);
        assert_eq!(cosine(&mean, &vectors[0], &mean), 0.0, "a zero vector has no direction");
    }
}
