//! Formats of about three bits: four magnitudes of eight levels at a time, as a point of a codebook, and their signs.

use std::sync::LazyLock;

use bytemuck::{Pod, Zeroable};
use herald_api::DType;

use super::Block;
use super::codebooks::{FOUR_256, FOUR_512, ODD_LEVELS};
use super::floats::{F16, Float};
use super::groups::Symmetric;
use super::iq2::{even_signs, half, halves, odd_scale, signed};
use super::quantize::codebook::{self, Codebook};

/// `w = d (2 s + 1) / 4 g`: 8 groups of 32 weights, `s` of 4 bits, `g` four at a time from a codebook of 256 points.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Iq3Xxs {
    /// The scale `d` of the scales.
    pub d: F16,
    /// The indices of each group's eight points.
    pub points: [[u8; 8]; 8],
    /// Little-endian, for each group: the signs of each two points in 7 bits, the eighth making the number of minuses even,
    /// then the scale `s`.
    pub signs_and_scales: [[u8; 4]; 8],
}

/// `w = d (2 s + 1) g`: 8 groups of 32 weights, `s` of 4 bits, `g` four at a time from a codebook of 512 points.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Iq3S {
    /// The scale `d` of the scales.
    pub d: F16,
    /// The low eight bits of the indices of each group's eight points.
    pub low: [[u8; 8]; 8],
    /// The ninth bits: group `i`'s in byte `i`, point `j`'s at shift `j`.
    pub high: [u8; 8],
    /// The signs of each eight weights: a set bit is a minus.
    pub signs: [u8; 32],
    /// The scales `s`: groups `2 i` and `2 i + 1` in the halves of byte `i`.
    pub scales: [u8; 4],
}

impl Block for Iq3Xxs {
    const DTYPE: DType = DType::Iq3Xxs;
    const FILE_TYPE: u32 = 23;
    const FALLBACK: DType = DType::Iq4Nl;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = None;
    type Unpacked = Symmetric<32, 8>;

    block_scales!(d);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        let words = self.signs_and_scales.map(u32::from_le_bytes);
        let point = |i: usize| {
            let signs = even_signs((words[i / 8] >> (7 * (i % 8 / 2))) as u8);
            signed(FOUR_256[usize::from(self.points[i / 8][i % 8])], signs >> (4 * (i % 2)))
        };
        Symmetric {
            codes: bytemuck::cast::<[[i8; 4]; 64], _>(std::array::from_fn(point)),
            scales: words.map(|word| odd_scale(self.d, 0.25, (word >> 28) as u8)),
        }
    }
}

impl Block for Iq3S {
    const DTYPE: DType = DType::Iq3S;
    const FILE_TYPE: u32 = 26;
    const FALLBACK: DType = DType::Iq4Nl;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = Some(Self::quantize);
    type Unpacked = Symmetric<32, 8>;

    block_scales!(d);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        let point = |i: usize| {
            let high = usize::from(self.high[i / 8] >> (i % 8) & 1);
            signed(FOUR_512[usize::from(self.low[i / 8][i % 8]) | high << 8], half(&self.signs, i))
        };
        Symmetric {
            codes: bytemuck::cast::<[[i8; 4]; 64], _>(std::array::from_fn(point)),
            scales: std::array::from_fn(|i| odd_scale(self.d, 1.0, half(&self.scales, i))),
        }
    }
}

impl Iq3S {
    fn quantize(weights: &[f32], columns: Option<&[f32]>) -> Self {
        static BOOK: LazyLock<Codebook<4>> = LazyLock::new(|| Codebook::new(&FOUR_512, &ODD_LEVELS));
        let block = codebook::quantize::<4, 32, 8>(&BOOK, 1.0, weights, columns);
        let points = block.points.as_chunks::<8>().0;
        let high = |group: &[u16; 8]| {
            group.iter().enumerate().fold(0, |bits, (i, point)| bits | ((point >> 8) as u8) << i)
        };
        Self {
            d: F16::from(block.d),
            low: std::array::from_fn(|i| points[i].map(|point| point as u8)),
            high: std::array::from_fn(|i| high(&points[i])),
            signs: block.signs,
            scales: halves(&block.scales),
        }
    }
}
