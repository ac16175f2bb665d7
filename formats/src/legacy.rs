//! The first block formats: 32 weights, each 4, 5 or 8 bits, with one float16 scale and perhaps one float16 minimum.
//!
//! Four-bit codes lie two to a byte: byte `i` holds weight `i` in its low half and weight `i + 16` in its high half.
//! Five-bit codes keep their fifth bits apart, weight `i`'s in bit `i` of a 32-bit word.

use bytemuck::{Pod, Zeroable};
use herald_api::DType;

use super::Block;
use super::floats::{F16, Float};
use super::groups::{Affine, Symmetric};
use super::quantize::grid::Even;
use super::quantize::{group, single};

/// `w = d (q - 8)`, with `q` of 4 bits.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Q4_0 {
    /// The scale `d`.
    pub d: F16,
    /// The codes `q`, weights `i` and `i + 16` in byte `i`.
    pub codes: [u8; 16],
}

/// `w = d q + m`, with `q` of 4 bits.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Q4_1 {
    /// The scale `d`.
    pub d: F16,
    /// The minimum `m`.
    pub m: F16,
    /// The codes `q`, weights `i` and `i + 16` in byte `i`.
    pub codes: [u8; 16],
}

/// `w = d (q - 16)`, with `q` of 5 bits.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Q5_0 {
    /// The scale `d`.
    pub d: F16,
    /// The codes' fifth bits, weight `i`'s in bit `i % 8` of byte `i / 8`.
    pub high: [u8; 4],
    /// The codes' low four bits, weights `i` and `i + 16` in byte `i`.
    pub low: [u8; 16],
}

/// `w = d q + m`, with `q` of 5 bits.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Q5_1 {
    /// The scale `d`.
    pub d: F16,
    /// The minimum `m`.
    pub m: F16,
    /// The codes' fifth bits, weight `i`'s in bit `i % 8` of byte `i / 8`.
    pub high: [u8; 4],
    /// The codes' low four bits, weights `i` and `i + 16` in byte `i`.
    pub low: [u8; 16],
}

/// `w = d q`, with `q` a signed byte.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Q8_0 {
    /// The scale `d`.
    pub d: F16,
    /// The codes `q`.
    pub codes: [i8; 32],
}

impl Block for Q4_0 {
    const DTYPE: DType = DType::Q4_0;
    const FILE_TYPE: u32 = 2;
    const FALLBACK: DType = DType::F16;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = Some(Self::quantize);
    type Unpacked = Symmetric<32, 1>;

    block_scales!(d);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        Symmetric { codes: [unpack_nibbles(&self.codes).map(|q| q as i8 - 8)], scales: [self.d.to_f32()] }
    }
}

impl Q4_0 {
    fn quantize(weights: &[f32], columns: Option<&[f32]>) -> Self {
        let (d, q) = single::symmetric::<Even<-8, 7>>(weights, columns);
        Self { d, codes: pack_nibbles(&q.map(|q| (q + 8.0) as u8)) }
    }
}

impl Block for Q4_1 {
    const DTYPE: DType = DType::Q4_1;
    const FILE_TYPE: u32 = 3;
    const FALLBACK: DType = DType::F16;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = Some(Self::quantize);
    type Unpacked = Affine<32, 1>;

    block_scales!(d, m);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        Affine {
            codes: [unpack_nibbles(&self.codes).map(|q| q as i8)],
            scales: [self.d.to_f32()],
            offsets: [self.m.to_f32()],
        }
    }
}

impl Q4_1 {
    fn quantize(weights: &[f32], columns: Option<&[f32]>) -> Self {
        let (d, m, q) = single::affine(weights, columns, 15.0);
        Self { d, m, codes: pack_nibbles(&q) }
    }
}

impl Block for Q5_0 {
    const DTYPE: DType = DType::Q5_0;
    const FILE_TYPE: u32 = 8;
    const FALLBACK: DType = DType::F16;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = Some(Self::quantize);
    type Unpacked = Symmetric<32, 1>;

    block_scales!(d);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        // Less 16, a byte's upper half is zero where the fifth bit is set, and the sign extended where it isn't.
        let codes = five_bits(&self.low, self.high, |set| (set ^ LOWEST_BITS) * 0xf0);
        Symmetric { codes: [codes], scales: [self.d.to_f32()] }
    }
}

impl Q5_0 {
    fn quantize(weights: &[f32], columns: Option<&[f32]>) -> Self {
        let (d, q) = single::symmetric::<Even<-16, 15>>(weights, columns);
        let q = q.map(|q| (q + 16.0) as u8);
        Self { d, high: pack_fifth_bits(&q), low: pack_nibbles(&q) }
    }
}

impl Block for Q5_1 {
    const DTYPE: DType = DType::Q5_1;
    const FILE_TYPE: u32 = 9;
    const FALLBACK: DType = DType::F16;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = Some(Self::quantize);
    type Unpacked = Affine<32, 1>;

    block_scales!(d, m);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        Affine {
            codes: [five_bits(&self.low, self.high, |set| set << 4)],
            scales: [self.d.to_f32()],
            offsets: [self.m.to_f32()],
        }
    }
}

impl Q5_1 {
    fn quantize(weights: &[f32], columns: Option<&[f32]>) -> Self {
        let (d, m, q) = single::affine(weights, columns, 31.0);
        Self { d, m, high: pack_fifth_bits(&q), low: pack_nibbles(&q) }
    }
}

impl Block for Q8_0 {
    const DTYPE: DType = DType::Q8_0;
    const FILE_TYPE: u32 = 7;
    const FALLBACK: DType = DType::F16;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = Some(Self::quantize);
    type Unpacked = Symmetric<32, 1>;

    block_scales!(d);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        Symmetric { codes: [self.codes], scales: [self.d.to_f32()] }
    }
}

impl Q8_0 {
    /// With 255 levels there is nothing to gain from another scale than the one that reaches the largest weight.
    fn quantize(weights: &[f32], _: Option<&[f32]>) -> Self {
        let largest = weights.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let d = F16::from_f32(largest / 127.0);
        let codes = single::codes::<Even<-127, 127>>(&group(weights), d.to_f32());
        Self { d, codes: codes.map(|q| q as i8) }
    }
}

/// The low halves of 16 bytes, then their high halves.
#[inline(always)]
fn unpack_nibbles(bytes: &[u8; 16]) -> [u8; 32] {
    let mut codes = [0; 32];
    let (low, high) = codes.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        *low = byte & 0x0f;
        *high = byte >> 4;
    }
    codes
}

/// The low four bits of codes `i` and `i + 16` in byte `i`.
pub(super) fn pack_nibbles(q: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| (q[i] & 0x0f) | (q[i + 16] << 4))
}

/// The lowest bit of each byte of a word.
const LOWEST_BITS: u64 = 0x0101_0101_0101_0101;

/// Five-bit codes from their low four bits and their fifth ones, eight codes to a word: words are cheaper to put
/// together than single bytes. `fifth` turns the fifth bits, each the lowest of its code's byte, into what they add.
#[inline(always)]
fn five_bits(low: &[u8; 16], high: [u8; 4], fifth: impl Fn(u64) -> u64) -> [i8; 32] {
    let mut codes = [[0; 8]; 4];
    for (word, low) in low.as_chunks::<8>().0.iter().enumerate() {
        let low = u64::from_le_bytes(*low);
        for half in 0..2 {
            let nibbles = (low >> (4 * half)) & (0x0f * LOWEST_BITS);
            let run = 2 * half + word;
            codes[run] = (nibbles | fifth(spread_bits(high[run]))).to_le_bytes();
        }
    }
    bytemuck::cast(codes)
}

/// The bits of a byte, each in the lowest bit of a byte of its own, lowest first.
#[inline(always)]
fn spread_bits(byte: u8) -> u64 {
    let one_each = (u64::from(byte) * LOWEST_BITS) & 0x8040_2010_0804_0201;
    // Adding 127 carries into a byte's top bit where the byte isn't zero, and never out of it.
    ((one_each + 0x7f * LOWEST_BITS) >> 7) & LOWEST_BITS
}

/// The fifth bits of codes, code `i`'s in bit `i % 8` of byte `i / 8`.
fn pack_fifth_bits(q: &[u8; 32]) -> [u8; 4] {
    std::array::from_fn(|byte| (0..8).fold(0, |bits, i| bits | ((q[8 * byte + i] >> 4) << i)))
}
