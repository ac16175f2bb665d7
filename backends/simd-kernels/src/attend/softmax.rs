//! Scores of a few rows, slots side by side, become weights.

use super::{capped, rescale};
use crate::math::exp;
use crate::simd::{LANES, Simd};

/// At most sixteen rows and a tile's slots.
#[derive(Clone, Copy)]
pub(super) struct Scores<'a> {
    /// For each row the slots that it sees.
    pub(super) visible: &'a [[u32; 2]],
    /// From one row to the next: whole vectors of slots.
    pub(super) width: usize,
    /// Multiplies scores, beside the scale of each slot's key.
    pub(super) scale: f32,
    pub(super) softcap: Option<f32>,
    /// The slots' scales of keys and of values, where they have any.
    pub(super) scales: Option<[&'a [f32]; 2]>,
}

/// Makes rows' products `[rows, width]` their weights: `exp(score - max)` times the value's scale, and nothing where a row
/// doesn't see. Adds them to what the rows have seen before, the greatest scores and the sums; returns what each row's
/// values are to be multiplied by.
///
/// It goes step by step for all rows, since each row's own steps wait for one another.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(super) unsafe fn softmax_weights<L: Simd>(
    rows: &Scores<'_>,
    scores: &mut [f32],
    maxima: &mut [f32],
    totals: &mut [f32],
) -> [f32; LANES] {
    let Scores { visible, width, .. } = *rows;
    let n = visible.len();
    assert!(
        n <= LANES
            && width.is_multiple_of(LANES)
            && scores.len() >= n * width
            && maxima.len() >= n
            && totals.len() >= n
            && visible.iter().all(|[_, end]| *end as usize <= width)
    );
    // Mostly all see everything.
    let masked = visible.iter().any(|seen| *seen != [0, width as u32]);
    let (mut largest, mut sums, mut kept) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    // SAFETY: the caller vouches for the instruction set; places are within the rows.
    unsafe {
        for (row, seen) in visible.iter().enumerate() {
            let seen = seen.map(|place| place as usize);
            let mut max = L::splat(f32::NEG_INFINITY);
            for at in (0..width).step_by(LANES) {
                let to = scores.as_mut_ptr().add(row * width + at);
                let scale = L::splat(rows.scale);
                let scale = match rows.scales {
                    Some([keys, _]) => L::mul(sixteen::<L>(keys, at), scale),
                    None => scale,
                };
                let score = capped::<L>(L::mul(L::load(to), scale), rows.softcap);
                let score = if masked { L::keep(score, f32::NEG_INFINITY, seen, at) } else { score };
                max = L::max(score, max);
                L::store(to, score);
            }
            largest[row] = L::max_lane(max);
        }
        let old = L::load_first(maxima.as_ptr(), n);
        let max = L::max(L::load(largest.as_ptr()), old);
        let rescale = rescale::<L>(old, max);
        L::store(largest.as_mut_ptr(), max);
        L::store(kept.as_mut_ptr(), rescale);
        for (row, seen) in visible.iter().enumerate() {
            let seen = seen.map(|place| place as usize);
            let max = L::splat(largest[row]);
            let mut sum = L::zero();
            for at in (0..width).step_by(LANES) {
                let to = scores.as_mut_ptr().add(row * width + at);
                let weight = exp::<L>(L::sub(L::load(to), max));
                let weight = if masked { L::keep(weight, 0.0, seen, at) } else { weight };
                sum = L::add(sum, weight);
                let weight = match rows.scales {
                    Some([_, values]) => L::mul(weight, sixteen::<L>(values, at)),
                    None => weight,
                };
                // A scale that isn't seen may be no number.
                let weight = if masked { L::keep(weight, 0.0, seen, at) } else { weight };
                L::store(to, weight);
            }
            sums[row] = L::sum(sum);
        }
        let total = L::mul(L::load_first(totals.as_ptr(), n), rescale);
        L::store_first(totals.as_mut_ptr(), L::add(total, L::load(sums.as_ptr())), n);
        L::store_first(maxima.as_mut_ptr(), max, n);
    }
    kept
}

/// Sixteen elements, or those that there are.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn sixteen<L: Simd>(x: &[f32], at: usize) -> L::F {
    let x = &x[at..];
    // SAFETY: the caller vouches; no more are read than there are.
    unsafe { L::load_first(x.as_ptr(), x.len().min(LANES)) }
}
