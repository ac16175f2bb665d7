//! Formats whose codes are levels of a table.

use super::Quantize;
use super::grid::Grid;
use super::legacy::{nibbles, symmetric};
use super::supers;
use crate::floats::F16;
use crate::iq4::{Iq4Nl, Iq4Xs, LEVELS};

/// The table's values.
struct Levels;

impl Grid for Levels {
    const LOW: f32 = LEVELS[0] as f32;
    const HIGH: f32 = LEVELS[15] as f32;
    const REACH: f32 = 12.0;

    #[inline(always)]
    fn nearest(v: f32) -> f32 {
        // A sum over the steps that lie below, and no search, so that it can be done for many weights at once.
        let mut level = Self::LOW;
        for (below, above) in LEVELS.iter().zip(&LEVELS[1..]) {
            let (below, above) = (f32::from(*below), f32::from(*above));
            level += if v > (below + above) / 2.0 { above - below } else { 0.0 };
        }
        level
    }
}

impl Quantize for Iq4Nl {
    fn quantize(weights: &[f32]) -> Self {
        let (d, levels) = symmetric::<Levels>(weights);
        Self { d, codes: nibbles(&levels.map(index)) }
    }
}

impl Quantize for Iq4Xs {
    fn quantize(weights: &[f32]) -> Self {
        let block = supers::symmetric::<Levels, 32, 8>(weights, 32);
        let (mut scales_high, mut scales_low) = (0_u16, [0; 4]);
        for (i, scale) in block.scales.into_iter().enumerate() {
            let scale = (scale + 32.0) as u8;
            scales_low[i / 2] |= (scale & 0x0f) << (4 * (i % 2));
            scales_high |= u16::from(scale >> 4) << (2 * i);
        }
        Self {
            d: F16::from(block.d),
            scales_high: scales_high.to_le_bytes(),
            scales_low,
            codes: block.codes.map(|levels| nibbles(&levels.map(index))),
        }
    }
}

/// The code of a level.
fn index(level: f32) -> u8 {
    LEVELS.partition_point(|&other| f32::from(other) < level) as u8
}
