//! Formats of less than two bits: eight weights of -1, 0 or 1 at a time, as a point of a codebook, moved up or down by an
//! eighth.
//!
//! Eight times the sum of both is a code of one of six levels: -9, -7, -1, 1, 7 and 9.

use bytemuck::{Pod, Zeroable};
use herald_api::DType;

use super::Block;
use super::codebooks::TERNARY_2048;
use super::floats::{F16, Float};
use super::groups::Symmetric;
use super::iq2::odd_scale;

/// `w = d (2 s + 1) (g + m)`: 8 groups of 32 weights, `s` of 3 bits, `m` of 1/8 or -1/8, `g` eight at a time from the
/// codebook.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Iq1S {
    /// The scale `d` of the scales.
    pub d: F16,
    /// The low eight bits of the indices of each group's four points.
    pub low: [[u8; 4]; 8],
    /// Little-endian, for each group: the high three bits of the four indices, the scale `s`, and whether `m` is negative.
    pub high: [[u8; 2]; 8],
}

/// `w = d (2 s + 1) (g + m)`: 16 groups of 16 weights, `s` of 3 bits, `g` eight at a time from the codebook, with an `m` of
/// 1/8 or -1/8 for each eight.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Iq1M {
    /// The low eight bits of each point's index.
    pub low: [u8; 32],
    /// For each point, in halves of bytes: the high three bits of its index, and whether `m` is negative.
    pub high: [u8; 16],
    /// Four little-endian words, each of four scales `s` and four bits of the scale `d` of the scales.
    pub scales: [[u8; 2]; 4],
}

impl Block for Iq1S {
    const DTYPE: DType = DType::Iq1S;
    const FILE_TYPE: u32 = 24;
    const FALLBACK: DType = DType::Iq4Nl;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = None;
    type Unpacked = Symmetric<32, 8>;

    block_scales!(d);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        let words = self.high.map(u16::from_le_bytes);
        let point = |i: usize| {
            let high = words[i / 4] >> (3 * (i % 4)) & 7;
            moved(self.low[i / 4][i % 4], high, words[i / 4] >> 15 != 0)
        };
        Symmetric {
            codes: bytemuck::cast::<[[i8; 8]; 32], _>(std::array::from_fn(point)),
            scales: words.map(|word| odd_scale(self.d, 0.125, (word >> 12 & 7) as u8)),
        }
    }
}

impl Block for Iq1M {
    const DTYPE: DType = DType::Iq1M;
    const FILE_TYPE: u32 = 31;
    const FALLBACK: DType = DType::Iq4Nl;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = None;
    type Unpacked = Symmetric<16, 16>;

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        let (d, words) = (self.d(), self.scales.map(u16::from_le_bytes));
        let point = |i: usize| {
            let half = self.high[i / 2] >> (4 * (i % 2));
            moved(self.low[i], u16::from(half & 7), half & 8 != 0)
        };
        Symmetric {
            codes: bytemuck::cast::<[[i8; 8]; 32], _>(std::array::from_fn(point)),
            scales: std::array::from_fn(|i| odd_scale(d, 0.125, (words[i / 4] >> (3 * (i % 4)) & 7) as u8)),
        }
    }

    fn scales(&self) -> [f32; 2] {
        [self.d().to_f32(), 0.0]
    }

    fn set_scales(&mut self, [scale, _]: [f32; 2]) {
        let d = u16::from_le_bytes(F16::from_f32(scale).0);
        for (i, word) in self.scales.iter_mut().enumerate() {
            word[1] = word[1] & 0x0f | ((d >> (4 * i) & 0x0f) as u8) << 4;
        }
    }
}

impl Iq1M {
    /// The scale `d` of the scales: bits `4 i` and on are the highest of word `i`.
    #[inline(always)]
    #[must_use]
    pub fn d(&self) -> F16 {
        let [a, b, c, d] = self.scales.map(|[_, high]| high >> 4);
        F16([a | b << 4, c | d << 4])
    }
}

/// Eight times a point's coordinates, moved.
#[inline(always)]
fn moved(low: u8, high: u16, down: bool) -> [i8; 8] {
    let by = if down { -1 } else { 1 };
    TERNARY_2048[usize::from(low) | usize::from(high & 7) << 8].map(|g| 8 * g + by)
}
