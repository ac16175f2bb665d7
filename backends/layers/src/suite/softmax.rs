//! Softmax attention in float64, and how far float32's may be from it.

use ndarray::{ArrayView1, ArrayView2, Axis};

use super::bounds::{Expected, FUNCTION, TINY, U, gamma};

/// A query-key product, scaled and capped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Score(pub(super) Expected);

/// `scale * query . key`, or of that `softcap * tanh(. / softcap)`, where the query and the key may be off by as much as
/// their errors say, and their product by `rounded` more.
pub(super) fn score(
    [query, query_error]: [ArrayView1<'_, f64>; 2],
    [key, key_error]: [ArrayView1<'_, f64>; 2],
    rounded: f64,
    scale: f64,
    softcap: Option<f64>,
) -> Score {
    let (mut sum, mut carried, mut sizes) = (0.0, rounded, 0.0);
    for (((q, k), q_error), k_error) in query.iter().zip(key).zip(query_error).zip(key_error) {
        sum += q * k;
        carried += q.abs() * k_error + q_error * k.abs() + q_error * k_error;
        sizes += (q.abs() + q_error) * (k.abs() + k_error);
    }
    let value = scale * sum;
    let terms = query.len() + 2;
    let bound = scale.abs() * (carried + gamma(terms) * sizes + terms as f64 * TINY);
    let Some(cap) = softcap else { return Score(Expected { value, bound }) };
    // tanh is nowhere steeper than 1, and nowhere larger. The quotient is rounded, the tanh, and the product; a constant
    // of the quotient's rounding: |z| / cosh(z)^2 is below 1/2.
    let capped = cap * (value / cap).tanh();
    let bound = bound.min(2.0 * cap) + cap * (U + FUNCTION + U);
    Score(Expected { value: capped, bound })
}

/// The attention of one query: the softmax of its scores over the values, which may be off by `errors`. An online softmax
/// takes the scores in `tiles` runs. Where values are codes with `steps`, each weight's part of a value may be off by the
/// largest weight's `steps`.
///
/// Off by `e_s` in each score's logarithm, weight `s` is between `exp(-e_s)` and `exp(e_s)` times itself before the sum
/// that they are divided by; that gives its least and its greatest share.
pub(super) fn attention(
    scores: &[Score],
    values: ArrayView2<'_, f64>,
    errors: ArrayView2<'_, f64>,
    steps: Option<ArrayView2<'_, f64>>,
    tiles: usize,
) -> Vec<Expected> {
    let width = values.len_of(Axis(1));
    if scores.is_empty() {
        return vec![Expected { value: 0.0, bound: 0.0 }; width];
    }
    let greatest = scores.iter().fold(f64::NEG_INFINITY, |max, score| max.max(score.0.value + score.0.bound));
    // In a weight's logarithm: its score's error; the rounding of `score - max` and of the differences of successive
    // maxima, which add up to `greatest - score`; an exp for each tile with a product and its own.
    let roundings = (tiles as f64 + 1.0) * (FUNCTION + 2.0 * U);
    let exact: Vec<f64> = scores.iter().map(|score| score.0.value).collect();
    let off =
        |score: &Score| score.0.bound + gamma(1) * (greatest - score.0.value + score.0.bound) + roundings;
    let low: Vec<f64> = scores.iter().map(|score| score.0.value - off(score)).collect();
    let high: Vec<f64> = scores.iter().map(|score| score.0.value + off(score)).collect();
    // The share of a slot whose weight's logarithm is `own` among the others'.
    let share = |slot: usize, own: f64, others: &[f64]| {
        let others = others.iter().enumerate().filter(|(other, _)| *other != slot);
        1.0 / (1.0 + others.map(|(_, other)| (other - own).exp()).sum::<f64>())
    };
    let shares: Vec<[f64; 2]> = (0..scores.len())
        .map(|slot| {
            let value = share(slot, exact[slot], &exact);
            let most = share(slot, high[slot], &low);
            let least = share(slot, low[slot], &high);
            [value, (most - value).max(value - least).max(0.0)]
        })
        .collect();
    // Sums and maxima, the final quotient and product; each term may vanish in an underflow of exp.
    let sums = gamma(2 * scores.len() + tiles + 3);
    (0..width)
        .map(|column| {
            let (mut value, mut bound) = (0.0, 0.0);
            for (([share, off], v), error) in
                shares.iter().zip(values.column(column)).zip(errors.column(column))
            {
                let most = (share + off).min(1.0);
                value += share * v;
                bound += off * v.abs() + most * error;
                bound += sums * most * (v.abs() + error);
                bound += 4.0 * TINY * (1.0 + v.abs());
            }
            if let Some(steps) = &steps {
                let parts = shares.iter().zip(steps.column(column));
                let largest = parts.fold(0.0_f64, |max, ([share, off], step)| max.max((share + off) * step));
                bound += scores.len() as f64 * largest;
            }
            Expected { value, bound }
        })
        .collect()
}
