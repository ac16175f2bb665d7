//! Formats of about two bits: eight magnitudes of 8, 25 or 43 at a time, as a point of a codebook, and their signs.

use std::sync::LazyLock;

use bytemuck::{Pod, Zeroable};
use herald_api::DType;

use super::Block;
use super::codebooks::{EIGHT_256, EIGHT_512, EIGHT_1024, THREE_LEVELS};
use super::floats::{F16, Float};
use super::groups::Symmetric;
use super::quantize::codebook::{self, Codebook};

/// `w = d (2 s + 1) / 8 g`: 8 groups of 32 weights, `s` of 4 bits, `g` eight at a time from a codebook of 256 points.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Iq2Xxs {
    /// The scale `d` of the scales.
    pub d: F16,
    /// The groups.
    pub groups: [Iq2XxsGroup; 8],
}

/// 32 weights of [`Iq2Xxs`].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Iq2XxsGroup {
    /// The indices of four points.
    pub points: [u8; 4],
    /// Little-endian: the signs of each point in 7 bits, see `even_signs`, then the scale `s`.
    pub signs_and_scale: [u8; 4],
}

/// `w = d (2 s + 1) / 8 g`: 16 groups of 16 weights, `s` of 4 bits, `g` eight at a time from a codebook of 512 points.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Iq2Xs {
    /// The scale `d` of the scales.
    pub d: F16,
    /// Little-endian, for each eight weights: the point's index in 9 bits, and signs in 7, see `even_signs`.
    pub points: [[u8; 2]; 32],
    /// The scales `s`: groups `2 i` and `2 i + 1` in the halves of byte `i`.
    pub scales: [u8; 8],
}

/// `w = d (2 s + 1) / 8 g`: 16 groups of 16 weights, `s` of 4 bits, `g` eight at a time from a codebook of 1024 points.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Iq2S {
    /// The scale `d` of the scales.
    pub d: F16,
    /// The low eight bits of each point's index.
    pub low: [u8; 32],
    /// The signs of each eight weights: a set bit is a minus.
    pub signs: [u8; 32],
    /// The high two bits of each point's index: point `i`'s in byte `i / 4` at shift `2 (i % 4)`.
    pub high: [u8; 8],
    /// The scales `s`: groups `2 i` and `2 i + 1` in the halves of byte `i`.
    pub scales: [u8; 8],
}

impl Block for Iq2Xxs {
    const DTYPE: DType = DType::Iq2Xxs;
    const FILE_TYPE: u32 = 19;
    const FALLBACK: DType = DType::Iq4Nl;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = None;
    type Unpacked = Symmetric<32, 8>;

    block_scales!(d);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        let words = self.groups.map(|group| u32::from_le_bytes(group.signs_and_scale));
        let point = |i: usize| {
            let index = usize::from(self.groups[i / 4].points[i % 4]);
            signed(EIGHT_256[index], even_signs((words[i / 4] >> (7 * (i % 4))) as u8))
        };
        Symmetric {
            codes: bytemuck::cast::<[[i8; 8]; 32], _>(std::array::from_fn(point)),
            scales: words.map(|word| odd_scale(self.d, 0.125, (word >> 28) as u8)),
        }
    }
}

impl Block for Iq2Xs {
    const DTYPE: DType = DType::Iq2Xs;
    const FILE_TYPE: u32 = 20;
    const FALLBACK: DType = DType::Iq4Nl;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = None;
    type Unpacked = Symmetric<16, 16>;

    block_scales!(d);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        let point = |[low, high]: [u8; 2]| {
            signed(EIGHT_512[usize::from(low) | usize::from(high & 1) << 8], even_signs(high >> 1))
        };
        Symmetric {
            codes: bytemuck::cast(self.points.map(point)),
            scales: std::array::from_fn(|i| odd_scale(self.d, 0.125, half(&self.scales, i))),
        }
    }
}

impl Block for Iq2S {
    const DTYPE: DType = DType::Iq2S;
    const FILE_TYPE: u32 = 28;
    const FALLBACK: DType = DType::Iq4Nl;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = Some(Self::quantize);
    type Unpacked = Symmetric<16, 16>;

    block_scales!(d);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        let point = |i: usize| {
            let high = usize::from(self.high[i / 4] >> (2 * (i % 4)) & 3);
            signed(EIGHT_1024[usize::from(self.low[i]) | high << 8], self.signs[i])
        };
        Symmetric {
            codes: bytemuck::cast::<[[i8; 8]; 32], _>(std::array::from_fn(point)),
            scales: std::array::from_fn(|i| odd_scale(self.d, 0.125, half(&self.scales, i))),
        }
    }
}

impl Iq2S {
    fn quantize(weights: &[f32], columns: Option<&[f32]>) -> Self {
        static BOOK: LazyLock<Codebook<8>> = LazyLock::new(|| Codebook::new(&EIGHT_1024, &THREE_LEVELS));
        let block = codebook::quantize::<8, 16, 16>(&BOOK, 0.125, weights, columns);
        let mut high = [0; 8];
        for (i, point) in block.points[..32].iter().enumerate() {
            high[i / 4] |= ((point >> 8) as u8) << (2 * (i % 4));
        }
        Self {
            d: F16::from(block.d),
            low: std::array::from_fn(|i| block.points[i] as u8),
            signs: block.signs,
            high,
            scales: halves(&block.scales),
        }
    }
}

/// `d (2 s + 1) unit`, where `unit` is a power of two: all steps are exact.
#[inline(always)]
pub(super) fn odd_scale(d: F16, unit: f32, s: u8) -> f32 {
    d.to_f32() * f32::from(2 * s + 1) * unit
}

/// Half byte `i`, the low one of each byte first.
#[inline(always)]
pub(super) fn half(bytes: &[u8], i: usize) -> u8 {
    (bytes[i / 2] >> (4 * (i % 2))) & 0x0f
}

/// Numbers of four bits, two to a byte, the low half first.
pub(super) fn halves<const N: usize>(numbers: &[u8]) -> [u8; N] {
    std::array::from_fn(|i| numbers[2 * i] | numbers[2 * i + 1] << 4)
}

/// The signs of eight weights from seven bits: the last one makes the number of minuses even. Bit 7 is not looked at.
#[inline(always)]
pub(super) fn even_signs(bits: u8) -> u8 {
    let bits = bits & 0x7f;
    bits | ((bits.count_ones() as u8 & 1) << 7)
}

/// Magnitudes with the signs of the lowest bits; a set bit is a minus.
#[inline(always)]
pub(super) fn signed<const N: usize>(magnitudes: [i8; N], signs: u8) -> [i8; N] {
    std::array::from_fn(|i| {
        let minus = -((signs >> i & 1) as i8);
        (magnitudes[i] ^ minus) - minus
    })
}
