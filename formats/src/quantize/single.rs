//! Blocks of 32 weights with one scale, and perhaps one offset.

use super::fit::{self, Line, Offsets};
use super::grid::{Grid, rounded, sums};
use super::group;
use super::supers::least;
use crate::floats::{F16, Float};

/// The float16 scale, and the codes for it as it is once rounded.
pub(crate) fn symmetric<G: Grid>(weights: &[f32], columns: Option<&[f32]>) -> (F16, [f32; 32]) {
    let x = group(weights);
    let d = F16::from(rounded(fit::scale::<G, 32>(&x, &fit::importance(&x, columns))));
    (d, codes::<G>(&x, d.to_f32()))
}

/// Of some scales that a format has, the one that leaves the least error, and its codes.
pub(crate) fn scaled<G: Grid, T: Copy, const N: usize>(
    weights: &[f32],
    columns: Option<&[f32]>,
    scales: [T; N],
    value: impl Fn(T) -> f32,
) -> (T, [f32; 32]) {
    let x = group(weights);
    let w = fit::importance(&x, columns);
    let error = |scale: T| {
        let codes = codes::<G>(&x, value(scale));
        let [error] = sums::<32, 1>(|i| {
            let off = x[i] - value(scale) * codes[i];
            [w[i] * off * off]
        });
        error
    };
    let (scale, _) = least(scales, error);
    (scale, codes::<G>(&x, value(scale)))
}

/// The codes of weights for a scale.
pub(crate) fn codes<G: Grid>(x: &[f32; 32], scale: f32) -> [f32; 32] {
    if scale == 0.0 { [G::nearest(0.0); 32] } else { x.map(|x| G::nearest(x / scale)) }
}

/// The float16 scale and offset with codes from 0 to `most`, and the codes for them as they are once rounded.
pub(crate) fn affine(weights: &[f32], columns: Option<&[f32]>, most: f32) -> (F16, F16, [u8; 32]) {
    let x = group(weights);
    let Line { scale, offset } = fit::line(&x, &fit::importance(&x, columns), most, Offsets::Any);
    let (d, m) = (F16::from(rounded(scale)), F16::from(rounded(offset)));
    let line = Line { scale: d.to_f32(), offset: m.to_f32() };
    (d, m, x.map(|x| line.code(x, most) as u8))
}
