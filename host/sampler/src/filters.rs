//! The filters: which tokens remain for the draw.
//!
//! None sorts the vocabulary. A filter that needs the best tokens selects a few, sorts those, and goes on only where
//! they do not suffice. What remains is always in an order that the logits alone decide, so a seed's draw does too.

use std::cmp::Ordering;

use super::softmax::exp_nonpositive;

/// Logits that are looked over at once, as vectors, for one that counts: most runs have none.
const RUN: usize = 64;

/// A token that may yet be drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) token: u32,
    pub(super) logit: f32,
    /// Its probability times a factor that all candidates share.
    pub(super) weight: f32,
}

/// Best first: by logit, the lower id first among equals. No logit here is NaN.
fn best_first(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.token.cmp(&b.token))
}

/// Fills `candidates` with the tokens whose logit is at least `threshold` and not -inf, by id. Weights are not set.
pub(super) fn collect_at_least(logits: &[f32], threshold: f32, candidates: &mut Vec<Candidate>) {
    let threshold = threshold.max(f32::MIN);
    candidates.clear();
    for (index, run) in logits.chunks(RUN).enumerate() {
        if !run.iter().fold(false, |any, &logit| any | (logit >= threshold)) {
            continue;
        }
        for (token, &logit) in (index * RUN..).zip(run) {
            if logit >= threshold {
                candidates.push(Candidate { token: token as u32, logit, weight: 0.0 });
            }
        }
    }
}

/// Fills `candidates` with the `k` best of those that are not -inf, best first. Weights are not set.
pub(super) fn collect_top_k(logits: &[f32], k: usize, candidates: &mut Vec<Candidate>) {
    // Room for more than `k` spreads the cost of a selection over many tokens.
    let room = k.saturating_mul(2).max(256);
    candidates.clear();
    let mut threshold = f32::NEG_INFINITY;
    for (index, run) in logits.chunks(RUN).enumerate() {
        // An equal of the k-th best has a higher id than it, so it loses.
        if !run.iter().fold(false, |any, &logit| any | (logit > threshold)) {
            continue;
        }
        for (token, &logit) in (index * RUN..).zip(run) {
            if logit > threshold {
                candidates.push(Candidate { token: token as u32, logit, weight: 0.0 });
                if candidates.len() == room {
                    threshold = keep_best(candidates, k);
                }
            }
        }
    }
    if candidates.len() > k {
        keep_best(candidates, k);
    }
    candidates.sort_unstable_by(best_first);
}

/// Keeps the `k` best (`k` is less than there are), in any order, and returns the worst logit kept.
fn keep_best(candidates: &mut Vec<Candidate>, k: usize) -> f32 {
    let (_, worst, _) = candidates.select_nth_unstable_by(k.saturating_sub(1), best_first);
    let threshold = worst.logit;
    candidates.truncate(k);
    threshold
}

/// Sets each weight to `exp((logit - max) / temperature)`, where `max` is the largest logit; returns their sum.
pub(super) fn weigh(candidates: &mut [Candidate], temperature: f32) -> f64 {
    let max = candidates.iter().fold(f32::NEG_INFINITY, |max, candidate| max.max(candidate.logit));
    let mut sum = 0.0;
    for candidate in candidates {
        candidate.weight = exp_nonpositive((candidate.logit - max) / temperature);
        sum += f64::from(candidate.weight);
    }
    sum
}

/// Top-p: keeps the best candidates until their weights reach `p` of `total`; best first.
pub(super) fn top_p(candidates: &mut Vec<Candidate>, p: f64, total: f64) {
    keep_until(candidates, p * total, best_first);
}

/// The weight that a token needs to be among the top `p` of `count` tokens with weights of `total`: all those below it
/// weigh less than `1 - p` of the total together, so the tokens from it up reach `p` without them.
pub(super) fn least_weight_in_top_p(p: f64, total: f64, count: usize) -> f64 {
    (1.0 - p) * total / count as f64
}

/// Locally typical: keeps the candidates whose surprise is nearest to the entropy until their weights reach `p` of
/// `total`; nearest first.
///
/// The distance is `|-ln p_i - H|`. With `ln p_i = l_i - c`, the entropy is `c - sum(p_j l_j)`, and `c` cancels.
pub(super) fn typical(candidates: &mut Vec<Candidate>, p: f64, total: f64) {
    let sum: f64 = candidates.iter().map(|c| f64::from(c.weight) * f64::from(c.logit)).sum();
    let mean = sum / total;
    let distance = |candidate: &Candidate| (mean - f64::from(candidate.logit)).abs();
    keep_until(candidates, p * total, |a, b| {
        distance(a).partial_cmp(&distance(b)).unwrap_or(Ordering::Equal).then(a.token.cmp(&b.token))
    });
}

/// Min-p: keeps the candidates that weigh at least `p` times the heaviest, in the order they had.
pub(super) fn min_p(candidates: &mut Vec<Candidate>, p: f32) {
    let heaviest = candidates.iter().fold(0.0f32, |max, candidate| max.max(candidate.weight));
    candidates.retain(|candidate| candidate.weight >= p * heaviest);
}

/// Top-n-sigma: the least logit that stays, `n` standard deviations of all logits that are not -inf below the best.
pub(super) fn sigma_threshold(logits: &[f32], max: f32, n: f32) -> f32 {
    let (mut count, mut sum, mut squares) = (0.0_f64, 0.0_f64, 0.0_f64);
    for logit in logits.iter().filter(|logit| logit.is_finite()) {
        // Relative to the best, so that squares stay exact enough.
        let x = f64::from(*logit) - f64::from(max);
        count += 1.0;
        sum += x;
        squares += x * x;
    }
    let mean = sum / f64::max(count, 1.0);
    let variance = (squares / f64::max(count, 1.0) - mean * mean).max(0.0);
    (f64::from(max) - f64::from(n) * variance.sqrt()) as f32
}

/// XTC: leaves out the candidates of at least this probability but the least probable of them, where there are several.
pub(super) fn xtc(candidates: &mut Vec<Candidate>, threshold: f32) {
    let total = weigh(candidates, 1.0);
    let least = f64::from(threshold) * total;
    let is_likely = |candidate: &Candidate| f64::from(candidate.weight) >= least;
    // The one that comes last of those stays.
    let last = candidates.iter().filter(|c| is_likely(c)).max_by(|a, b| best_first(a, b)).map(|c| c.token);
    candidates.retain(|candidate| !is_likely(candidate) || Some(candidate.token) == last);
}

/// Keeps the first candidates in this order (a total one) until their weights reach `target`, and at least one.
fn keep_until(
    candidates: &mut Vec<Candidate>,
    target: f64,
    order: impl Fn(&Candidate, &Candidate) -> Ordering,
) {
    let mut sorted = 0;
    let mut take = 64;
    let mut weight = 0.0;
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let count = rest.len().min(take);
        if count < rest.len() {
            rest.select_nth_unstable_by(count, &order);
        }
        rest[..count].sort_unstable_by(&order);
        for (index, candidate) in rest[..count].iter().enumerate() {
            weight += f64::from(candidate.weight);
            if weight >= target {
                candidates.truncate(sorted + index + 1);
                return;
            }
        }
        sorted += count;
        take *= 8;
    }
}
