//! Online softmax of a few rows whose scores lie side by side, slot after slot.

use super::{capped, rescale};
use crate::math::exp;
use crate::simd::{LANES, Simd};

/// At most sixteen rows and a tile's slots.
#[derive(Clone, Copy)]
pub(super) struct Scores<'a> {
    /// The slots that are visible to each row.
    pub(super) visible: &'a [[u32; 2]],
    /// Elements from one row to the next: whole vectors of slots.
    pub(super) width: usize,
    /// Multiplies scores, as does the scale of each slot's key.
    pub(super) scale: f32,
    pub(super) softcap: Option<f32>,
    /// The slots' scales of keys and of values, where they have any.
    pub(super) scales: Option<[&'a [f32]; 2]>,
}

/// Turns rows' products `[rows, width]` into their softmax weights: `exp(score - max)` times the value's scale, and zero for
/// invisible slots. Updates the rows' maxima and sums; returns what each row's output so far must be multiplied by.
///
/// Each step is done for all rows before the next, since a row's own steps wait for one another.
#[inline(always)]
pub(super) fn softmax_weights<S: Simd>(
    s: S,
    rows: &Scores<'_>,
    scores: &mut [f32],
    maxima: &mut [f32],
    sums: &mut [f32],
) -> [f32; LANES] {
    let Scores { visible, width, .. } = *rows;
    let n = visible.len();
    assert!(n <= LANES && width.is_multiple_of(LANES));
    let (maxima, sums) = (&mut maxima[..n], &mut sums[..n]);
    let (scores, _) = scores[..n * width].as_chunks_mut::<LANES>();
    // Usually every row sees everything.
    let masked = visible.iter().any(|visible| *visible != [0, width as u32]);
    let (mut largest, mut new_sums, mut factors) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    let vectors = width / LANES;
    for (row, visible) in visible.iter().enumerate() {
        let visible = visible.map(|slot| slot as usize);
        let mut max = s.splat(f32::NEG_INFINITY);
        for (at, to) in scores[row * vectors..(row + 1) * vectors].iter_mut().enumerate() {
            let scale = s.splat(rows.scale);
            let scale = match rows.scales {
                Some([keys, _]) => s.mul(s.load_first(&keys[at * LANES..]), scale),
                None => scale,
            };
            let score = capped(s, s.mul(s.load(to), scale), rows.softcap);
            let score =
                if masked { s.keep_range(score, f32::NEG_INFINITY, visible, at * LANES) } else { score };
            max = s.max(score, max);
            s.store(to, score);
        }
        largest[row] = s.max_lane(max);
    }
    let old = s.load_first(maxima);
    let max = s.max(s.load(&largest), old);
    let factor = rescale(s, old, max);
    s.store(&mut largest, max);
    s.store(&mut factors, factor);
    for (row, visible) in visible.iter().enumerate() {
        let visible = visible.map(|slot| slot as usize);
        let max = s.splat(largest[row]);
        let mut sum = s.zero();
        for (at, to) in scores[row * vectors..(row + 1) * vectors].iter_mut().enumerate() {
            let weight = exp(s, s.sub(s.load(to), max));
            let weight = if masked { s.keep_range(weight, 0.0, visible, at * LANES) } else { weight };
            sum = s.add(sum, weight);
            let weight = match rows.scales {
                Some([_, values]) => s.mul(weight, s.load_first(&values[at * LANES..])),
                None => weight,
            };
            // An invisible slot's scale may be NaN.
            let weight = if masked { s.keep_range(weight, 0.0, visible, at * LANES) } else { weight };
            s.store(to, weight);
        }
        new_sums[row] = s.sum(sum);
    }
    let sum = s.mul(s.load_first(sums), factor);
    s.store_first(sums, s.add(sum, s.load(&new_sums)));
    s.store_first(maxima, max);
    factors
}
