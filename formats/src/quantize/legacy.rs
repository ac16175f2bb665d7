//! Blocks of 32 weights with one scale.

use super::Quantize;
use super::fit::{self, Line, Offsets};
use super::grid::{Even, Grid, rounded};
use crate::floats::{F16, Float};
use crate::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

impl Quantize for Q4_0 {
    fn quantize(weights: &[f32]) -> Self {
        let (d, q) = symmetric::<Even<-8, 7>>(weights);
        Self { d, codes: nibbles(&q.map(|q| (q + 8.0) as u8)) }
    }
}

impl Quantize for Q4_1 {
    fn quantize(weights: &[f32]) -> Self {
        let (d, m, q) = affine(weights, 15.0);
        Self { d, m, codes: nibbles(&q) }
    }
}

impl Quantize for Q5_0 {
    fn quantize(weights: &[f32]) -> Self {
        let (d, q) = symmetric::<Even<-16, 15>>(weights);
        let q = q.map(|q| (q + 16.0) as u8);
        Self { d, high: fifth_bits(&q), low: nibbles(&q) }
    }
}

impl Quantize for Q5_1 {
    fn quantize(weights: &[f32]) -> Self {
        let (d, m, q) = affine(weights, 31.0);
        Self { d, m, high: fifth_bits(&q), low: nibbles(&q) }
    }
}

impl Quantize for Q8_0 {
    /// With 255 levels there is nothing to gain from another scale than the one that reaches the largest weight.
    fn quantize(weights: &[f32]) -> Self {
        let largest = weights.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let d = F16::from_f32(largest / 127.0);
        let codes = codes::<Even<-127, 127>>(&group(weights), d.to_f32());
        Self { d, codes: codes.map(|q| q as i8) }
    }
}

/// A block's weights as an array.
pub(super) fn group<const N: usize>(weights: &[f32]) -> [f32; N] {
    let mut group = [0.0; N];
    group.copy_from_slice(weights);
    group
}

/// The float16 scale, and the codes for it as it is once rounded.
pub(super) fn symmetric<G: Grid>(weights: &[f32]) -> (F16, [f32; 32]) {
    let x = group(weights);
    let d = F16::from(rounded(fit::scale::<G, 32>(&x, &fit::importance(&x))));
    (d, codes::<G>(&x, d.to_f32()))
}

fn codes<G: Grid>(x: &[f32; 32], scale: f32) -> [f32; 32] {
    if scale == 0.0 { [G::nearest(0.0); 32] } else { x.map(|x| G::nearest(x / scale)) }
}

fn affine(weights: &[f32], most: f32) -> (F16, F16, [u8; 32]) {
    let x = group(weights);
    let Line { scale, offset } = fit::line(&x, &fit::importance(&x), most, Offsets::Any);
    let (d, m) = (F16::from(rounded(scale)), F16::from(rounded(offset)));
    let line = Line { scale: d.to_f32(), offset: m.to_f32() };
    (d, m, x.map(|x| line.code(x, most) as u8))
}

/// The low four bits of codes `i` and `i + 16` in byte `i`.
pub(super) fn nibbles(q: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| (q[i] & 0x0f) | (q[i + 16] << 4))
}

fn fifth_bits(q: &[u8; 32]) -> [u8; 4] {
    std::array::from_fn(|byte| (0..8).fold(0, |bits, i| bits | ((q[8 * byte + i] >> 4) << i)))
}
