//! MXFP4: 4-bit floats that share a power of two, as the OCP Microscaling Formats specification has them
//! (<https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf>).

use bytemuck::{Pod, Zeroable};
use herald_api::DType;

use super::Block;
use super::groups::Symmetric;
use super::iq4::{level_pairs, levels};
use super::legacy::pack_nibbles;
use super::quantize::grid::Grid;
use super::quantize::single;

/// Twice the value of each four-bit code, a float with a sign, two bits of exponent and one of mantissa (E2M1).
pub const LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// The levels of a byte's two codes.
static LEVEL_PAIRS: [u16; 256] = level_pairs(&LEVELS);

/// `w = 2^(e - 128) LEVELS[q]`: 32 weights, `q` of 4 bits.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Mxfp4 {
    /// The exponent `e` (E8M0). 255, which the specification calls NaN, is the next power of two, as ggml reads it.
    pub e: u8,
    /// The codes `q`, weights `i` and `i + 16` in the halves of byte `i`.
    pub codes: [u8; 16],
}

impl Block for Mxfp4 {
    const DTYPE: DType = DType::Mxfp4;
    const FILE_TYPE: u32 = 38;
    const FALLBACK: DType = DType::F16;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = Some(Self::quantize);
    type Unpacked = Symmetric<32, 1>;

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        Symmetric { codes: [levels(&self.codes, &LEVEL_PAIRS)], scales: [power(self.e)] }
    }

    fn scales(&self) -> [f32; 2] {
        [power(self.e), 0.0]
    }

    fn set_scales(&mut self, [scale, _]: [f32; 2]) {
        self.e = (scale.abs().log2().round() + 128.0).clamp(0.0, 254.0) as u8;
    }
}

impl Mxfp4 {
    fn quantize(weights: &[f32], columns: Option<&[f32]>) -> Self {
        let largest = weights.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        // With the first exponent the largest weight is within the levels, but not within their lower half.
        let within = (0..=u8::MAX - 1).find(|&e| largest <= power(e) * Floats::HIGH).unwrap_or(u8::MAX - 1);
        let exponents =
            [within, within.saturating_sub(1), within.saturating_sub(2), (within + 1).min(u8::MAX - 1)];
        let (e, levels) = single::scaled::<Floats, u8, 4>(weights, columns, exponents, power);
        Self { e, codes: pack_nibbles(&levels.map(code)) }
    }
}

/// The levels as a quantiser's grid.
struct Floats;

impl Grid for Floats {
    const LOW: f32 = -12.0;
    const HIGH: f32 = 12.0;
    const REACH: f32 = 4.0;

    #[inline(always)]
    fn nearest(v: f32) -> f32 {
        let mut level = 0.0;
        for (below, above) in LEVELS[..7].iter().zip(&LEVELS[1..8]) {
            let (below, above) = (f32::from(*below), f32::from(*above));
            level += if v.abs() > (below + above) / 2.0 { above - below } else { 0.0 };
        }
        level.copysign(v)
    }
}

/// The code of a level.
fn code(level: f32) -> u8 {
    let magnitude = LEVELS[..8].partition_point(|&other| f32::from(other) < level.abs()) as u8;
    if level < 0.0 { magnitude | 8 } else { magnitude }
}

/// `2^(e - 128)`.
#[inline(always)]
fn power(e: u8) -> f32 {
    // The two smallest are no normal numbers.
    let bits = if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 };
    f32::from_bits(bits)
}
