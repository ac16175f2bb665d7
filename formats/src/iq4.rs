//! Four-bit formats whose codes are not evenly spaced: a code is an index into sixteen fixed levels, closer together
//! near zero, where most weights are.

use bytemuck::{Pod, Zeroable};
use herald_api::DType;

use super::Block;
use super::floats::{F16, Float};
use super::groups::Symmetric;
use super::legacy::pack_nibbles;
use super::quantize::grid::Grid;
use super::quantize::{single, supers};

/// The levels, one for each four-bit code.
pub const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// `w = d LEVELS[q]`: 32 weights, `q` of 4 bits.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Iq4Nl {
    /// The scale `d`.
    pub d: F16,
    /// The codes `q`, weights `i` and `i + 16` in the halves of byte `i`.
    pub codes: [u8; 16],
}

/// `w = (d (s - 32)) LEVELS[q]`: 8 groups of 32 weights, `q` of 4 bits, `s` of 6.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Iq4Xs {
    /// The scale `d` of the scales.
    pub d: F16,
    /// The scales' high two bits, group `i`'s at shift `2 i` of a little-endian 16-bit word.
    pub scales_high: [u8; 2],
    /// The scales' low four bits, groups `2 i` and `2 i + 1` in the halves of byte `i`.
    pub scales_low: [u8; 4],
    /// The codes `q`: 16 bytes a group, weights `i` and `i + 16` in the halves of byte `i`.
    pub codes: [[u8; 16]; 8],
}

impl Block for Iq4Nl {
    const DTYPE: DType = DType::Iq4Nl;
    const FILE_TYPE: u32 = 25;
    const FALLBACK: DType = DType::F16;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = Some(Self::quantize);
    type Unpacked = Symmetric<32, 1>;

    block_scales!(d);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        Symmetric { codes: [levels(&self.codes, &LEVEL_PAIRS)], scales: [self.d.to_f32()] }
    }
}

impl Iq4Nl {
    fn quantize(weights: &[f32], columns: Option<&[f32]>) -> Self {
        let (d, levels) = single::symmetric::<Levels>(weights, columns);
        Self { d, codes: pack_nibbles(&levels.map(index)) }
    }
}

impl Block for Iq4Xs {
    const DTYPE: DType = DType::Iq4Xs;
    const FILE_TYPE: u32 = 30;
    const FALLBACK: DType = DType::Iq4Nl;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = Some(Self::quantize);
    type Unpacked = Symmetric<32, 8>;

    block_scales!(d);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        let d = self.d.to_f32();
        let scales_high = u16::from_le_bytes(self.scales_high);
        let mut codes = [[0; 32]; 8];
        for (codes, packed) in codes.iter_mut().zip(&self.codes) {
            *codes = levels(packed, &LEVEL_PAIRS);
        }
        Symmetric {
            codes,
            scales: std::array::from_fn(|i| {
                let low = (self.scales_low[i / 2] >> (4 * (i % 2))) & 0x0f;
                let high = ((scales_high >> (2 * i)) & 3) as u8;
                d * f32::from((low | (high << 4)) as i8 - 32)
            }),
        }
    }
}

impl Iq4Xs {
    fn quantize(weights: &[f32], columns: Option<&[f32]>) -> Self {
        let block = supers::symmetric::<Levels, 32, 8>(weights, columns, 32);
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
            codes: block.codes.map(|levels| pack_nibbles(&levels.map(index))),
        }
    }
}

/// The levels of 32 codes, two to a byte.
#[inline(always)]
pub(super) fn levels(codes: &[u8; 16], pairs: &[u16; 256]) -> [i8; 32] {
    let pairs = codes.map(|byte| pairs[usize::from(byte)]);
    let mut levels = [0; 32];
    for (i, pair) in pairs.into_iter().enumerate() {
        let [low, high] = pair.to_le_bytes();
        levels[i] = low as i8;
        levels[i + 16] = high as i8;
    }
    levels
}

/// The levels of a byte's two codes, the low half's in the low byte: one lookup, and one insertion into a register,
/// for two weights.
pub(super) const fn level_pairs(levels: &[i8; 16]) -> [u16; 256] {
    let mut pairs = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = u16::from_le_bytes([levels[byte & 0x0f] as u8, levels[byte >> 4] as u8]);
        byte += 1;
    }
    pairs
}

static LEVEL_PAIRS: [u16; 256] = level_pairs(&LEVELS);

/// The levels as a quantiser's grid.
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

/// The code of a level.
fn index(level: f32) -> u8 {
    LEVELS.partition_point(|&other| f32::from(other) < level) as u8
}
