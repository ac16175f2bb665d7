//! Super-blocks of 256 weights.

use super::Quantize;
use super::grid::Even;
use super::supers;
use crate::floats::F16;
use crate::k_quants::{Q2K, Q3K, Q4K, Q5K, Q6K, ScalesAndMinima};

impl Quantize for Q2K {
    fn quantize(weights: &[f32]) -> Self {
        let block = supers::affine::<16, 16>(weights, 3.0, 15.0);
        let mut codes = [[0; 32]; 2];
        planes(block.codes.as_flattened(), |run, l, q| codes[run / 4][l] |= (q as u8) << (2 * (run % 4)));
        Self {
            scales: std::array::from_fn(|i| block.scales[i] as u8 | (block.minima[i] as u8) << 4),
            codes,
            d: F16::from(block.d),
            dmin: F16::from(block.dmin),
        }
    }
}

impl Quantize for Q3K {
    fn quantize(weights: &[f32]) -> Self {
        let block = supers::symmetric::<Even<-4, 3>, 16, 16>(weights, 32);
        let (mut high, mut low, mut scales) = ([0; 32], [[0; 32]; 2], [0; 12]);
        planes(block.codes.as_flattened(), |run, l, q| {
            let q = (q + 4.0) as u8;
            low[run / 4][l] |= (q & 3) << (2 * (run % 4));
            high[l] |= (q >> 2) << run;
        });
        for (i, scale) in block.scales.into_iter().enumerate() {
            let scale = (scale + 32.0) as u8;
            scales[i % 8] |= (scale & 0x0f) << (4 * (i / 8));
            scales[8 + i % 4] |= (scale >> 4) << (2 * (i / 4));
        }
        Self { high, low, scales, d: F16::from(block.d) }
    }
}

impl Quantize for Q4K {
    fn quantize(weights: &[f32]) -> Self {
        let block = supers::affine::<32, 8>(weights, 15.0, 63.0);
        let mut codes = [[0; 32]; 4];
        planes(block.codes.as_flattened(), |run, l, q| codes[run / 2][l] |= (q as u8) << (4 * (run % 2)));
        let scales = ScalesAndMinima::pack(block.scales.map(|s| s as u8), block.minima.map(|m| m as u8));
        Self { d: F16::from(block.d), dmin: F16::from(block.dmin), scales, codes }
    }
}

impl Quantize for Q5K {
    fn quantize(weights: &[f32]) -> Self {
        let block = supers::affine::<32, 8>(weights, 31.0, 63.0);
        let (mut high, mut low) = ([0; 32], [[0; 32]; 4]);
        planes(block.codes.as_flattened(), |run, l, q| {
            let q = q as u8;
            low[run / 2][l] |= (q & 0x0f) << (4 * (run % 2));
            high[l] |= (q >> 4) << run;
        });
        let scales = ScalesAndMinima::pack(block.scales.map(|s| s as u8), block.minima.map(|m| m as u8));
        Self { d: F16::from(block.d), dmin: F16::from(block.dmin), scales, high, low }
    }
}

impl Quantize for Q6K {
    fn quantize(weights: &[f32]) -> Self {
        let block = supers::symmetric::<Even<-32, 31>, 16, 16>(weights, 128);
        let (mut low, mut high) = ([[[0; 32]; 2]; 2], [[0; 32]; 2]);
        planes(block.codes.as_flattened(), |run, l, q| {
            let (q, half, run) = ((q + 32.0) as u8, run / 4, run % 4);
            low[half][run % 2][l] |= (q & 0x0f) << (4 * (run / 2));
            high[half][l] |= (q >> 4) << (2 * run);
        });
        Self { low, high, scales: block.scales.map(|s| s as i8), d: F16::from(block.d) }
    }
}

/// Calls with each code, the number of its run of 32 and its place in it.
fn planes(codes: &[f32], mut put: impl FnMut(usize, usize, f32)) {
    for (i, &q) in codes.iter().enumerate() {
        put(i / 32, i % 32, q);
    }
}
