//! Weights kept as plain floats of four or two bytes, and the float16 conversion that the scales of every block need.
//!
//! `half` converts float16 through an instruction where it finds one, but asks for it at each call, which no loop over
//! a row can afford; the conversion here only selects between values, so a compiler vectorises it on every machine.

use bytemuck::{Pod, Zeroable};
use herald_api::DType;

use super::groups::{LANES, add_lanes};

/// A float as it lies in a file.
pub trait Float: Pod {
    /// The element type.
    const DTYPE: DType;

    /// GGUF's number for files whose weights are of this type (`general.file_type`).
    const FILE_TYPE: u32;

    /// The largest number.
    const MAX: f32;

    /// The value, which float32 always holds exactly.
    fn to_f32(self) -> f32;

    /// The float nearest to a value; of two, the one whose last bit is 0.
    fn from_f32(value: f32) -> Self;
}

/// IEEE 754 binary32, little-endian.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct F32(pub [u8; 4]);

/// IEEE 754 binary16, little-endian: a sign, 5 bits of exponent (bias 15), 10 of mantissa.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct F16(pub [u8; 2]);

/// bfloat16, little-endian: the upper half of a binary32.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Bf16(pub [u8; 2]);

impl Float for F32 {
    const DTYPE: DType = DType::F32;
    const FILE_TYPE: u32 = 0;
    const MAX: f32 = f32::MAX;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_le_bytes(self.0)
    }

    fn from_f32(value: f32) -> Self {
        Self(value.to_le_bytes())
    }
}

impl Float for F16 {
    const DTYPE: DType = DType::F16;
    const FILE_TYPE: u32 = 1;
    const MAX: f32 = 65_504.0;

    /// Moves the fields to their places in a binary32, then mends the two exponents that mean something else.
    /// No operand is a float32 subnormal, so the result doesn't hang on the thread's flush-to-zero mode.
    #[inline(always)]
    fn to_f32(self) -> f32 {
        /// The difference of the two formats' exponent biases, in binary32's exponent field.
        const BIAS: u32 = (127 - 15) << 23;
        /// The exponent field of the smallest normal binary16, 2^-14, as a binary32.
        const SMALLEST_NORMAL: u32 = BIAS + (1 << 23);

        let bits = u32::from(u16::from_le_bytes(self.0));
        let sign = (bits & 0x8000) << 16;
        let magnitude = (bits & 0x7fff) << 13;
        let exponent = magnitude & (0x1f << 23);
        let normal = magnitude + BIAS;
        // Without an exponent the mantissa has no implied leading 1: put one in, and subtract what it is worth.
        let subnormal =
            (f32::from_bits(magnitude + SMALLEST_NORMAL) - f32::from_bits(SMALLEST_NORMAL)).to_bits();
        // Infinity and NaN have the largest exponent in both formats.
        let special = normal + BIAS;
        let value = if exponent == 0x1f << 23 { special } else { normal };
        let value = if exponent == 0 { subnormal } else { value };
        f32::from_bits(sign | value)
    }

    fn from_f32(value: f32) -> Self {
        half::f16::from_f32(value).into()
    }
}

impl From<half::f16> for F16 {
    fn from(value: half::f16) -> Self {
        Self(value.to_le_bytes())
    }
}

impl Float for Bf16 {
    const DTYPE: DType = DType::Bf16;
    const FILE_TYPE: u32 = 32;
    const MAX: f32 = f32::from_bits(0x7f7f_0000);

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(u16::from_le_bytes(self.0)) << 16)
    }

    fn from_f32(value: f32) -> Self {
        Self(half::bf16::from_f32(value).to_le_bytes())
    }
}

/// Writes a row of floats as float32.
pub(super) fn dequantize<F: Float>(row: &[F], out: &mut [f32]) {
    for (out, weight) in out.iter_mut().zip(row) {
        *out = weight.to_f32();
    }
}

/// The dot product of a row of floats with activations.
pub(super) fn dot<F: Float>(row: &[F], x: &[f32]) -> f32 {
    let (row, row_tail) = row.as_chunks::<LANES>();
    let (x, x_tail) = x.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (row, x) in row.iter().zip(x) {
        for lane in 0..LANES {
            sums[lane] += row[lane].to_f32() * x[lane];
        }
    }
    for (sum, (weight, x)) in sums.iter_mut().zip(row_tail.iter().zip(x_tail)) {
        *sum += weight.to_f32() * x;
    }
    add_lanes(sums)
}
