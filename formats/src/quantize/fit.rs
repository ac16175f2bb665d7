//! The search for a group's scale, or scale and offset: candidates around those that just reach the largest weights;
//! for the codes that each gives, the best scale by least squares; then codes and scale in turn until little changes.

use super::grid::{Grid, round, sums};
use super::group;

/// Candidates on either side of the plain one.
const CANDIDATES: i32 = 8;
/// Times that codes and scale are fitted to each other, after the best candidate is known.
const REFINEMENTS: usize = 3;
/// Magnitudes that every format rounds to zero, since the smallest step of a float16 scale is 2^-24.
pub(super) const NOTHING: f32 = 1.0 / (1_u64 << 40) as f32;

/// How much each weight's error counts: as its column says; where nobody knows, more for those that are large beside the rest
/// of their group.
pub(super) fn importance<const N: usize>(x: &[f32; N], columns: Option<&[f32]>) -> [f32; N] {
    if let Some(columns) = columns {
        return group(columns);
    }
    let [squares] = sums::<N, 1>(|i| [x[i] * x[i]]);
    let rms = (squares / N as f32).sqrt();
    if rms < NOTHING {
        return [1.0; N];
    }
    x.map(|x| 1.0 + x.abs() / rms)
}

/// The scale `s` with the least `sum(w (x - s q)^2)` that was found, where each `q` is the value of `G` nearest to
/// `x / s`. 0 for weights that are too small for any.
pub(super) fn scale<G: Grid, const N: usize>(x: &[f32; N], w: &[f32; N]) -> f32 {
    let extreme = x.iter().fold(0.0_f32, |extreme, &x| if x.abs() > extreme.abs() { x } else { extreme });
    if extreme.abs() < NOTHING {
        return 0.0;
    }
    let products = |inverse: f32| {
        sums::<N, 2>(|i| {
            let q = G::nearest(x[i] * inverse);
            [w[i] * x[i] * q, w[i] * q * q]
        })
    };
    // For given codes the best scale is xq / qq, and xq^2 / qq what it takes off the error.
    let (mut best, mut gain) = (0.0, 0.0);
    for end in [G::LOW, G::HIGH] {
        for step in -CANDIDATES..=CANDIDATES {
            let reach = end.signum() * G::REACH * step as f32 / CANDIDATES as f32;
            let [xq, qq] = products((end + reach) / extreme);
            if qq > 0.0 && xq * xq > gain * qq {
                (best, gain) = (xq / qq, xq * xq / qq);
            }
        }
    }
    for _ in 0..REFINEMENTS {
        let [xq, qq] = products(1.0 / best);
        if !(qq > 0.0 && xq * xq > gain * qq) {
            break;
        }
        (best, gain) = (xq / qq, xq * xq / qq);
    }
    best
}

/// What offsets a format has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Offsets {
    /// All.
    Any,
    /// None above zero.
    Negative,
}

/// A scale and an offset.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    /// What a step of the code adds; never negative.
    pub(super) scale: f32,
    /// What a code of 0 stands for.
    pub(super) offset: f32,
}

impl Line {
    /// The code of `x` from 0 to `most`.
    #[inline(always)]
    pub(super) fn code(self, x: f32, most: f32) -> f32 {
        let inverse = if self.scale > 0.0 { 1.0 / self.scale } else { 0.0 };
        round(((x - self.offset) * inverse).max(0.0).min(most))
    }
}

/// The line `s q + o` with the least `sum(w (x - s q - o)^2)` that was found, with codes `q` from 0 to `most`.
pub(super) fn line<const N: usize>(x: &[f32; N], w: &[f32; N], most: f32, offsets: Offsets) -> Line {
    let mut low = x.iter().fold(f32::INFINITY, |low, &x| low.min(x));
    let mut high = x.iter().fold(f32::NEG_INFINITY, |high, &x| high.max(x));
    if offsets == Offsets::Negative {
        (low, high) = (low.min(0.0), high.max(0.0));
    }
    if high - low < NOTHING {
        return Line { scale: 0.0, offset: low };
    }
    let [sw, sx, sxx] = sums::<N, 3>(|i| [w[i], w[i] * x[i], w[i] * x[i] * x[i]]);
    // The best line for the codes that one gives, and its error.
    let refit = |line: Line| {
        let inverse = 1.0 / line.scale;
        let [sq, sqq, sxq] = sums::<N, 3>(|i| {
            let q = round(((x[i] - line.offset) * inverse).max(0.0).min(most));
            [w[i] * q, w[i] * q * q, w[i] * x[i] * q]
        });
        let det = sw * sqq - sq * sq;
        let mut fitted = Line { scale: 0.0, offset: 0.0 };
        if det > 0.0 {
            fitted = Line { scale: (sw * sxq - sq * sx) / det, offset: (sqq * sx - sq * sxq) / det };
        }
        if offsets == Offsets::Negative && (det <= 0.0 || fitted.offset > 0.0) {
            fitted = Line { scale: sxq / sqq.max(f32::MIN_POSITIVE), offset: 0.0 };
        }
        let error = sxx - fitted.scale * sxq - fitted.offset * sx;
        (fitted, if fitted.scale > 0.0 { error } else { f32::INFINITY })
    };
    let plain = Line { scale: (high - low) / most, offset: low };
    let (mut best, mut error) = (plain, f32::INFINITY);
    for step in -CANDIDATES..=CANDIDATES {
        let steps = most + step as f32 / CANDIDATES as f32;
        // Short of the whole range, the codes are put in its middle; with the offset at an end, they begin there.
        for offset in [low, (low + high) / 2.0 - (high - low) / steps * most / 2.0] {
            if offsets == Offsets::Negative && offset > 0.0 {
                continue;
            }
            let (line, its) = refit(Line { scale: (high - low) / steps, offset });
            if its < error {
                (best, error) = (line, its);
            }
        }
    }
    for _ in 0..REFINEMENTS {
        let (line, its) = refit(best);
        if its >= error {
            break;
        }
        (best, error) = (line, its);
    }
    best
}
