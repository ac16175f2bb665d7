//! The "K" formats: super-blocks of 256 weights, whose groups of 16 or 32 have small integer scales (and minima) of
//! their own, scaled in turn by one or two float16 numbers for the whole block.
//!
//! Codes lie in planes: byte `l` of a run of 32 bytes holds, at growing shifts, the codes of weight `l` of successive
//! runs of 32 weights. So one shift and one mask give 32 neighbouring weights.

use bytemuck::{Pod, Zeroable};
use herald_api::DType;

use super::Block;
use super::floats::{F16, Float};
use super::groups::{Affine, Symmetric};
use super::quantize::grid::Even;
use super::quantize::supers;

/// `w = (d s) q - (dmin m)`: 16 groups of 16 weights, `q` of 2 bits, `s` and `m` of 4.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Q2K {
    /// Each group's `s` in the low half, its `m` in the high half.
    pub scales: [u8; 16],
    /// The codes `q`: 32 bytes for each 128 weights, run `j` of 32 weights at shift `2 j`.
    pub codes: [[u8; 32]; 2],
    /// The scale `d` of the scales.
    pub d: F16,
    /// The scale `dmin` of the minima.
    pub dmin: F16,
}

/// `w = (d (s - 32)) (q - 4)`: 16 groups of 16 weights, `q` of 3 bits, `s` of 6.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Q3K {
    /// The codes' third bits: run `j` of 32 weights, of 8, at shift `j`.
    pub high: [u8; 32],
    /// The codes' low two bits: 32 bytes for each 128 weights, run `j` of 32 weights at shift `2 j`.
    pub low: [[u8; 32]; 2],
    /// The scales `s`. Their low four bits: groups `i` and `i + 8` in the halves of byte `i`. Their high two bits:
    /// group `i` in byte `8 + i % 4` at shift `2 (i / 4)`.
    pub scales: [u8; 12],
    /// The scale `d` of the scales.
    pub d: F16,
}

/// `w = (d s) q - (dmin m)`: 8 groups of 32 weights, `q` of 4 bits, `s` and `m` of 6.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Q4K {
    /// The scale `d` of the scales.
    pub d: F16,
    /// The scale `dmin` of the minima.
    pub dmin: F16,
    /// The scales `s` and the minima `m`.
    pub scales: ScalesAndMinima,
    /// The codes `q`: 32 bytes for each two groups, the first in the low halves, the second in the high halves.
    pub codes: [[u8; 32]; 4],
}

/// `w = (d s) q - (dmin m)`: 8 groups of 32 weights, `q` of 5 bits, `s` and `m` of 6.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Q5K {
    /// The scale `d` of the scales.
    pub d: F16,
    /// The scale `dmin` of the minima.
    pub dmin: F16,
    /// The scales `s` and the minima `m`.
    pub scales: ScalesAndMinima,
    /// The codes' fifth bits: group `j` at shift `j`.
    pub high: [u8; 32],
    /// The codes' low four bits: 32 bytes for each two groups, the first in the low halves, the second in the high.
    pub low: [[u8; 32]; 4],
}

/// `w = (d s) (q - 32)`: 16 groups of 16 weights, `q` of 6 bits, `s` a signed byte.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Q6K {
    /// The codes' low four bits: 64 bytes for each 128 weights, the first 64 in the low halves, the others in the
    /// high halves.
    pub low: [[[u8; 32]; 2]; 2],
    /// The codes' high two bits: 32 bytes for each 128 weights, run `j` of 32 weights at shift `2 j`.
    pub high: [[u8; 32]; 2],
    /// The scales `s`.
    pub scales: [i8; 16],
    /// The scale `d` of the scales.
    pub d: F16,
}

/// The 6-bit scales and minima of 8 groups, in 12 bytes.
///
/// Bytes 0 to 3 hold the scales of groups 0 to 3 in their low six bits, bytes 4 to 7 the minima of those. Bytes 8 to
/// 11 hold the low four bits of groups 4 to 7, scale in the low half, minimum in the high half; the two missing bits
/// are the top ones of bytes 0 to 3 (scales) and 4 to 7 (minima).
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ScalesAndMinima(pub [u8; 12]);

impl ScalesAndMinima {
    /// The scales, then the minima, of the 8 groups.
    #[inline(always)]
    fn unpack(&self) -> ([u8; 8], [u8; 8]) {
        let bytes = &self.0;
        let (mut scales, mut minima) = ([0; 8], [0; 8]);
        for i in 0..4 {
            let (scale, minimum, both) = (bytes[i], bytes[4 + i], bytes[8 + i]);
            scales[i] = scale & 0x3f;
            minima[i] = minimum & 0x3f;
            scales[4 + i] = (both & 0x0f) | ((scale >> 6) << 4);
            minima[4 + i] = (both >> 4) | ((minimum >> 6) << 4);
        }
        (scales, minima)
    }

    /// The bytes of these scales and minima, below 64.
    fn pack(scales: [u8; 8], minima: [u8; 8]) -> Self {
        let mut bytes = [0; 12];
        for i in 0..4 {
            bytes[i] = scales[i] | (scales[4 + i] >> 4) << 6;
            bytes[4 + i] = minima[i] | (minima[4 + i] >> 4) << 6;
            bytes[8 + i] = (scales[4 + i] & 0x0f) | minima[4 + i] << 4;
        }
        Self(bytes)
    }

    /// The groups' scales `d s` and offsets `-(dmin m)`.
    #[inline(always)]
    fn scaled(&self, d: F16, dmin: F16) -> ([f32; 8], [f32; 8]) {
        let (d, dmin) = (d.to_f32(), dmin.to_f32());
        let (scales, minima) = self.unpack();
        (scales.map(|s| d * f32::from(s)), minima.map(|m| -(dmin * f32::from(m))))
    }
}

impl Block for Q2K {
    const DTYPE: DType = DType::Q2K;
    const FILE_TYPE: u32 = 10;
    const FALLBACK: DType = DType::Iq4Nl;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = Some(Self::quantize);
    type Unpacked = Affine<16, 16>;

    block_scales!(d, dmin);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        Affine {
            codes: planes(|run, l| ((self.codes[run / 4][l] >> (2 * (run % 4))) & 3) as i8),
            scales: self.scales.map(|byte| d * f32::from(byte & 0x0f)),
            offsets: self.scales.map(|byte| -(dmin * f32::from(byte >> 4))),
        }
    }
}

impl Q2K {
    fn quantize(weights: &[f32], columns: Option<&[f32]>) -> Self {
        let block = supers::affine::<16, 16>(weights, columns, 3.0, 15.0);
        let mut codes = [[0; 32]; 2];
        each_code(block.codes.as_flattened(), |run, l, q| codes[run / 4][l] |= (q as u8) << (2 * (run % 4)));
        Self {
            scales: std::array::from_fn(|i| block.scales[i] as u8 | (block.minima[i] as u8) << 4),
            codes,
            d: F16::from(block.d),
            dmin: F16::from(block.dmin),
        }
    }
}

impl Block for Q3K {
    const DTYPE: DType = DType::Q3K;
    const FILE_TYPE: u32 = 11;
    const FALLBACK: DType = DType::Iq4Nl;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = Some(Self::quantize);
    type Unpacked = Symmetric<16, 16>;

    block_scales!(d);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        let d = self.d.to_f32();
        Symmetric {
            codes: planes(|run, l| {
                let low = (self.low[run / 4][l] >> (2 * (run % 4))) & 3;
                let high = (self.high[l] >> run) & 1;
                (low | (high << 2)) as i8 - 4
            }),
            scales: std::array::from_fn(|i| {
                let low = (self.scales[i % 8] >> (4 * (i / 8))) & 0x0f;
                let high = (self.scales[8 + i % 4] >> (2 * (i / 4))) & 3;
                d * f32::from((low | (high << 4)) as i8 - 32)
            }),
        }
    }
}

impl Q3K {
    fn quantize(weights: &[f32], columns: Option<&[f32]>) -> Self {
        let block = supers::symmetric::<Even<-4, 3>, 16, 16>(weights, columns, 32);
        let (mut high, mut low, mut scales) = ([0; 32], [[0; 32]; 2], [0; 12]);
        each_code(block.codes.as_flattened(), |run, l, q| {
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

impl Block for Q4K {
    const DTYPE: DType = DType::Q4K;
    const FILE_TYPE: u32 = 14;
    const FALLBACK: DType = DType::Q5_0;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = Some(Self::quantize);
    type Unpacked = Affine<32, 8>;

    block_scales!(d, dmin);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        let (scales, offsets) = self.scales.scaled(self.d, self.dmin);
        let codes = planes(|run, l| ((self.codes[run / 2][l] >> (4 * (run % 2))) & 0x0f) as i8);
        Affine { codes, scales, offsets }
    }
}

impl Q4K {
    fn quantize(weights: &[f32], columns: Option<&[f32]>) -> Self {
        let block = supers::affine::<32, 8>(weights, columns, 15.0, 63.0);
        let mut codes = [[0; 32]; 4];
        each_code(block.codes.as_flattened(), |run, l, q| codes[run / 2][l] |= (q as u8) << (4 * (run % 2)));
        let scales = ScalesAndMinima::pack(block.scales.map(|s| s as u8), block.minima.map(|m| m as u8));
        Self { d: F16::from(block.d), dmin: F16::from(block.dmin), scales, codes }
    }
}

impl Block for Q5K {
    const DTYPE: DType = DType::Q5K;
    const FILE_TYPE: u32 = 16;
    const FALLBACK: DType = DType::Q5_1;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = Some(Self::quantize);
    type Unpacked = Affine<32, 8>;

    block_scales!(d, dmin);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        let (scales, offsets) = self.scales.scaled(self.d, self.dmin);
        let codes = planes(|run, l| {
            let low = (self.low[run / 2][l] >> (4 * (run % 2))) & 0x0f;
            let high = (self.high[l] >> run) & 1;
            (low | (high << 4)) as i8
        });
        Affine { codes, scales, offsets }
    }
}

impl Q5K {
    fn quantize(weights: &[f32], columns: Option<&[f32]>) -> Self {
        let block = supers::affine::<32, 8>(weights, columns, 31.0, 63.0);
        let (mut high, mut low) = ([0; 32], [[0; 32]; 4]);
        each_code(block.codes.as_flattened(), |run, l, q| {
            let q = q as u8;
            low[run / 2][l] |= (q & 0x0f) << (4 * (run % 2));
            high[l] |= (q >> 4) << run;
        });
        let scales = ScalesAndMinima::pack(block.scales.map(|s| s as u8), block.minima.map(|m| m as u8));
        Self { d: F16::from(block.d), dmin: F16::from(block.dmin), scales, high, low }
    }
}

impl Block for Q6K {
    const DTYPE: DType = DType::Q6K;
    const FILE_TYPE: u32 = 18;
    const FALLBACK: DType = DType::Q8_0;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = Some(Self::quantize);
    type Unpacked = Symmetric<16, 16>;

    block_scales!(d);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        let d = self.d.to_f32();
        Symmetric {
            codes: planes(|run, l| {
                let (half, run) = (run / 4, run % 4);
                let low = (self.low[half][run % 2][l] >> (4 * (run / 2))) & 0x0f;
                let high = (self.high[half][l] >> (2 * run)) & 3;
                (low | (high << 4)) as i8 - 32
            }),
            scales: self.scales.map(|s| d * f32::from(s)),
        }
    }
}

impl Q6K {
    fn quantize(weights: &[f32], columns: Option<&[f32]>) -> Self {
        let block = supers::symmetric::<Even<-32, 31>, 16, 16>(weights, columns, 128);
        let (mut low, mut high) = ([[[0; 32]; 2]; 2], [[0; 32]; 2]);
        each_code(block.codes.as_flattened(), |run, l, q| {
            let (q, half, run) = ((q + 32.0) as u8, run / 4, run % 4);
            low[half][run % 2][l] |= (q & 0x0f) << (4 * (run / 2));
            high[half][l] |= (q >> 4) << (2 * run);
        });
        Self { low, high, scales: block.scales.map(|s| s as i8), d: F16::from(block.d) }
    }
}

/// The 256 codes of a block, in groups of `SIZE`, from the code of weight `l` of each run of 32 weights.
#[inline(always)]
fn planes<const SIZE: usize, const GROUPS: usize>(code: impl Fn(usize, usize) -> i8) -> [[i8; SIZE]; GROUPS] {
    let mut codes = [[0; SIZE]; GROUPS];
    for (run, codes) in codes.as_flattened_mut().as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (l, slot) in codes.iter_mut().enumerate() {
            *slot = code(run, l);
        }
    }
    codes
}

/// Calls with each code, the number of its run of 32 and its place in it.
fn each_code(codes: &[f32], mut put: impl FnMut(usize, usize, f32)) {
    for (i, &q) in codes.iter().enumerate() {
        put(i / 32, i % 32, q);
    }
}
