//! NVFP4: 4-bit floats as in [`mxfp4`](super::mxfp4), with an 8-bit float as the scale of each 16.

use bytemuck::{Pod, Zeroable};
use herald_api::DType;

use super::groups::Symmetric;
use super::mxfp4::LEVELS;
use super::{Block, f16_value};

/// `w = s / 2 LEVELS[q]`: 4 groups of 16 weights, `q` of 4 bits, `s` an [`E4M3`](e4m3).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Nvfp4 {
    /// The groups' scales `s`.
    pub scales: [u8; 4],
    /// The codes `q`: 8 bytes a group, weights `i` and `i + 8` in the halves of byte `i`.
    pub codes: [[u8; 8]; 4],
}

/// The largest scale's bits: the next are NaN.
const LARGEST: u8 = 0x7e;

impl Block for Nvfp4 {
    const DTYPE: DType = DType::Nvfp4;
    const FILE_TYPE: u32 = 39;
    const FALLBACK: DType = DType::Iq4Nl;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = None;
    type Unpacked = Symmetric<16, 4>;

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        let mut codes = [[0; 16]; 4];
        for (codes, bytes) in codes.iter_mut().zip(&self.codes) {
            for (i, byte) in bytes.iter().enumerate() {
                codes[i] = LEVELS[usize::from(byte & 0x0f)];
                codes[i + 8] = LEVELS[usize::from(byte >> 4)];
            }
        }
        Symmetric { codes, scales: self.scales.map(|s| e4m3(s) * 0.5) }
    }

    /// A block has none but its groups': this is the largest of them.
    fn scales(&self) -> [f32; 2] {
        [self.scales.map(e4m3).into_iter().fold(0.0, f32::max) * 0.5, 0.0]
    }

    /// The largest of the groups' scales becomes this one; the others keep their proportions to it as far as they can.
    fn set_scales(&mut self, [scale, _]: [f32; 2]) {
        let largest = self.scales()[0];
        for s in &mut self.scales {
            let part = if largest > 0.0 { e4m3(*s) * 0.5 / largest } else { 1.0 };
            *s = nearest(2.0 * part * scale.abs());
        }
    }
}

/// A float of 8 bits without a sign, and 3 of them mantissa (bias 7), as ggml reads it: 0x7f, which would be NaN, is zero, and
/// bit 7 counts in that alone.
#[inline(always)]
#[must_use]
pub fn e4m3(bits: u8) -> f32 {
    // A float16 with the same bits at the top of its exponent and mantissa is 2^8 times smaller.
    if bits == 0x7f { 0.0 } else { f16_value(u16::from(bits & 0x7f) << 7) * 256.0 }
}

/// The bits of the number nearest to `value`.
fn nearest(value: f32) -> u8 {
    let off = |bits: &u8| (e4m3(*bits) - value).abs();
    (0..=LARGEST).min_by(|a, b| off(a).total_cmp(&off(b))).unwrap_or(0)
}
