//! Blocks of groups whose scales are small integers, times one float16 number for the block.
//!
//! Rounding a group's scale changes which codes are best, and the codes which scales are. So each group picks among the
//! integers around its own best scale, by the error that they really give, and then the block's number is fitted to
//! all codes and scales at once.

use half::f16;

use super::fit::{self, Line, Offsets};
use super::grid::{Grid, round, rounded, sums};
use super::group;

/// Times that the block's numbers are fitted to its codes.
const REFINEMENTS: usize = 2;

/// Weights `d scale code`.
pub(crate) struct Symmetric<const SIZE: usize, const GROUPS: usize> {
    pub(crate) d: f16,
    pub(crate) scales: [f32; GROUPS],
    pub(crate) codes: [[f32; SIZE]; GROUPS],
}

/// Weights `d scale code - dmin minimum`.
pub(crate) struct Affine<const SIZE: usize, const GROUPS: usize> {
    pub(crate) d: f16,
    pub(crate) dmin: f16,
    pub(crate) scales: [f32; GROUPS],
    pub(crate) minima: [f32; GROUPS],
    pub(crate) codes: [[f32; SIZE]; GROUPS],
}

/// The block with codes of `G` and scales from `-reach` to `reach - 1`.
pub(crate) fn symmetric<G: Grid, const SIZE: usize, const GROUPS: usize>(
    weights: &[f32],
    columns: Option<&[f32]>,
    reach: i32,
) -> Symmetric<SIZE, GROUPS> {
    let x: [[f32; SIZE]; GROUPS] = std::array::from_fn(|i| group(&weights[SIZE * i..][..SIZE]));
    let w: [[f32; SIZE]; GROUPS] =
        std::array::from_fn(|i| fit::importance(&x[i], columns.map(|columns| &columns[SIZE * i..][..SIZE])));
    let ideal: [f32; GROUPS] = std::array::from_fn(|i| fit::scale::<G, SIZE>(&x[i], &w[i]));
    let reach = reach as f32;
    // The largest scale gets the integer of largest magnitude.
    let largest = ideal.iter().fold(0.0_f32, |most, &s| if s.abs() > most.abs() { s } else { most });
    let mut d = reaching(largest / -reach);
    let error = |group: usize, step: f32| {
        let inverse = if step == 0.0 { 0.0 } else { 1.0 / step };
        let [error] = sums::<SIZE, 1>(|i| {
            let off = x[group][i] - step * G::nearest(x[group][i] * inverse);
            [w[group][i] * off * off]
        });
        error
    };
    let mut scales = [0.0; GROUPS];
    let mut total = 0.0;
    for (group, scale) in scales.iter_mut().enumerate() {
        let middle = round(ideal[group] / d.to_f32());
        let near = [middle, middle - 1.0, middle + 1.0].map(|s| s.max(-reach).min(reach - 1.0));
        let (best, its) = least(near, |s| error(group, d.to_f32() * s));
        *scale = best;
        total += its;
    }
    let codes = |d: f16, scales: &[f32; GROUPS]| {
        let mut codes = [[0.0; SIZE]; GROUPS];
        for (group, codes) in codes.iter_mut().enumerate() {
            let step = d.to_f32() * scales[group];
            let inverse = if step == 0.0 { 0.0 } else { 1.0 / step };
            *codes = x[group].map(|x| G::nearest(x * inverse));
        }
        codes
    };
    for _ in 0..REFINEMENTS {
        let fitted = codes(d, &scales);
        let (mut xu, mut uu) = (0.0, 0.0);
        for group in 0..GROUPS {
            let of_group = sums::<SIZE, 2>(|i| {
                let u = scales[group] * fitted[group][i];
                [w[group][i] * x[group][i] * u, w[group][i] * u * u]
            });
            xu += of_group[0];
            uu += of_group[1];
        }
        let better = rounded(if uu > 0.0 { xu / uu } else { 0.0 });
        let its: f32 = (0..GROUPS).map(|group| error(group, better.to_f32() * scales[group])).sum();
        if its >= total {
            break;
        }
        (d, total) = (better, its);
    }
    Symmetric { d, scales, codes: codes(d, &scales) }
}

/// The block with codes from 0 to `most`, and scales and minima from 0 to `reach`.
pub(crate) fn affine<const SIZE: usize, const GROUPS: usize>(
    weights: &[f32],
    columns: Option<&[f32]>,
    most: f32,
    reach: f32,
) -> Affine<SIZE, GROUPS> {
    let x: [[f32; SIZE]; GROUPS] = std::array::from_fn(|i| group(&weights[SIZE * i..][..SIZE]));
    let w: [[f32; SIZE]; GROUPS] =
        std::array::from_fn(|i| fit::importance(&x[i], columns.map(|columns| &columns[SIZE * i..][..SIZE])));
    let ideal: [Line; GROUPS] = std::array::from_fn(|i| fit::line(&x[i], &w[i], most, Offsets::Negative));
    let steepest = ideal.iter().fold(0.0_f32, |most, line| most.max(line.scale));
    let lowest = ideal.iter().fold(0.0_f32, |most, line| most.max(-line.offset));
    let (mut d, mut dmin) = (reaching(steepest / reach), reaching(lowest / reach));
    let line = |d: f16, dmin: f16, scale: f32, minimum: f32| Line {
        scale: d.to_f32() * scale,
        offset: -(dmin.to_f32() * minimum),
    };
    let error = |group: usize, line: Line| {
        let inverse = if line.scale > 0.0 { 1.0 / line.scale } else { 0.0 };
        let [error] = sums::<SIZE, 1>(|i| {
            let q = round(((x[group][i] - line.offset) * inverse).max(0.0).min(most));
            let off = x[group][i] - line.scale * q - line.offset;
            [w[group][i] * off * off]
        });
        error
    };
    let (mut scales, mut minima) = ([0.0; GROUPS], [0.0; GROUPS]);
    let mut total = 0.0;
    for group in 0..GROUPS {
        let (s, m) = (round(ideal[group].scale / d.to_f32()), round(-ideal[group].offset / dmin.to_f32()));
        let near: [(f32, f32); 9] = std::array::from_fn(|i| {
            let (s, m) = (s + [0.0, -1.0, 1.0][i / 3], m + [0.0, -1.0, 1.0][i % 3]);
            (s.max(0.0).min(reach), m.max(0.0).min(reach))
        });
        let ((s, m), its) = least(near, |(s, m)| error(group, line(d, dmin, s, m)));
        (scales[group], minima[group]) = (s, m);
        total += its;
    }
    let codes = |d: f16, dmin: f16| {
        let mut codes = [[0.0; SIZE]; GROUPS];
        for (group, codes) in codes.iter_mut().enumerate() {
            let line = line(d, dmin, scales[group], minima[group]);
            *codes = x[group].map(|x| line.code(x, most));
        }
        codes
    };
    for _ in 0..REFINEMENTS {
        let fitted = codes(d, dmin);
        // Least squares for x = d u - dmin v.
        let mut all = [0.0; 5];
        for group in 0..GROUPS {
            let of_group = sums::<SIZE, 5>(|i| {
                let (x, w) = (x[group][i], w[group][i]);
                let (u, v) = (scales[group] * fitted[group][i], minima[group]);
                [w * u * u, w * u * v, w * v * v, w * x * u, w * x * v]
            });
            all.iter_mut().zip(of_group).for_each(|(sum, of_group)| *sum += of_group);
        }
        let [uu, uv, vv, xu, xv] = all;
        let det = uu * vv - uv * uv;
        if det <= 0.0 {
            break;
        }
        let better = (rounded((xu * vv - xv * uv) / det), rounded((xu * uv - xv * uu) / det));
        if better.0 <= f16::ZERO || better.1 < f16::ZERO {
            break;
        }
        let its: f32 = (0..GROUPS)
            .map(|group| error(group, line(better.0, better.1, scales[group], minima[group])))
            .sum();
        if its >= total {
            break;
        }
        ((d, dmin), total) = (better, its);
    }
    Affine { d, dmin, scales, minima, codes: codes(d, dmin) }
}

/// The float16 nearest to `v`, but away from zero where the nearest is so coarse (below 2^-14) that multiples of it
/// could fall short of those of `v`; never zero.
pub(super) fn reaching(v: f32) -> f16 {
    let nearest = rounded(v);
    if nearest.is_normal() || f32::abs(nearest.to_f32()) >= v.abs() && nearest != f16::ZERO {
        return nearest;
    }
    f16::from_bits(nearest.to_bits() + 1)
}

/// The candidate of least error; of several, the first.
pub(super) fn least<T: Copy, const N: usize>(candidates: [T; N], error: impl Fn(T) -> f32) -> (T, f32) {
    let mut best = (candidates[0], error(candidates[0]));
    for &candidate in &candidates[1..] {
        let its = error(candidate);
        if its < best.1 {
            best = (candidate, its);
        }
    }
    best
}
