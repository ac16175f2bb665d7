//! Blocks of 32 weights with one scale, and perhaps one offset.

use super::fit::{self, Line, Offsets};
use super::grid::{Grid, rounded};
use super::group;
use crate::floats::{F16, Float};

/// The float16 scale, and the codes for it as it is once rounded.
pub(crate) fn symmetric<G: Grid>(weights: &[f32]) -> (F16, [f32; 32]) {
    let x = group(weights);
    let d = F16::from(rounded(fit::scale::<G, 32>(&x, &fit::importance(&x))));
    (d, codes::<G>(&x, d.to_f32()))
}

/// The codes of weights for a scale.
pub(crate) fn codes<G: Grid>(x: &[f32; 32], scale: f32) -> [f32; 32] {
    if scale == 0.0 { [G::nearest(0.0); 32] } else { x.map(|x| G::nearest(x / scale)) }
}

/// The float16 scale and offset with codes from 0 to `most`, and the codes for them as they are once rounded.
pub(crate) fn affine(weights: &[f32], most: f32) -> (F16, F16, [u8; 32]) {
    let x = group(weights);
    let Line { scale, offset } = fit::line(&x, &fit::importance(&x), most, Offsets::Any);
    let (d, m) = (F16::from(rounded(scale)), F16::from(rounded(offset)));
    let line = Line { scale: d.to_f32(), offset: m.to_f32() };
    (d, m, x.map(|x| line.code(x, most) as u8))
}
