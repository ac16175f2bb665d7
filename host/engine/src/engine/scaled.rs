//! Matrices with a factor of their own. NVFP4's scales are 8-bit floats, which can't hold every magnitude, so files have one more
//! scale for a whole matrix, or for each expert's, in a tensor beside it. The ABI has no place for those: such a matrix goes to plugins in
//! float16, which holds the products to one part in 4,096.

use std::ops::Range;

use herald_api::DType;

use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo};

/// Weights in a block, its bytes, and how many of these are scales, each of 16 weights.
const WEIGHTS: usize = 64;
const BYTES: usize = 36;
const GROUPS: usize = 4;

/// Twice the value of each code: a float of 4 bits with a sign, two bits of exponent and one of mantissa (E2M1).
const LEVELS: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// The rows `[columns]` of an NVFP4 tensor as float16, each multiplied by its matrix's factor out of the tensor `scale`.
pub(super) fn rows(gguf: &Gguf, tensor: &TensorInfo, rows: Range<usize>, scale: &str) -> Result<Vec<u8>> {
    let factors = factors(gguf, scale)?;
    let columns = tensor.dims().first().copied().unwrap_or(1);
    let n_rows: usize = tensor.dims().iter().skip(1).product();
    let rows_each = (n_rows / factors.len().max(1)).max(1);
    let row_bytes = columns / WEIGHTS * BYTES;
    let bytes = gguf.bytes(tensor);
    let mut halves = Vec::with_capacity(rows.len() * columns * 2);
    for row in rows {
        let factor = factors.get(row / rows_each).copied().unwrap_or(1.0);
        for block in bytes[row * row_bytes..(row + 1) * row_bytes].chunks_exact(BYTES) {
            let (scales, codes) = block.split_at(GROUPS);
            for (scale, codes) in scales.iter().zip(codes.chunks_exact(WEIGHTS / GROUPS / 2)) {
                let unit = e4m3(*scale) / 2.0 * factor;
                let low = codes.iter().map(|byte| byte & 0x0f);
                for code in low.chain(codes.iter().map(|byte| byte >> 4)) {
                    halves.extend(half(unit * LEVELS[usize::from(code)]).to_le_bytes());
                }
            }
        }
    }
    if halves.chunks_exact(2).any(|half| half[1] & 0x7c == 0x7c) {
        let name = tensor.name();
        return Err(Error::Invalid(format!(
            "{scale} makes weights of {name} larger than {}, which is as large as HERALD computes them with",
            65504
        )));
    }
    Ok(halves)
}

/// The factors in a tensor.
fn factors(gguf: &Gguf, name: &str) -> Result<Vec<f32>> {
    let tensor = gguf.tensor(name).filter(|tensor| tensor.dtype() == DType::F32);
    let tensor =
        tensor.ok_or_else(|| Error::Invalid(format!("the model has no tensor {name} of type F32")))?;
    let words = gguf.bytes(tensor).chunks_exact(4);
    Ok(words.map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect())
}

/// A float of 8 bits without a sign, and 3 of them mantissa (bias 7); 0x7f is zero, as ggml reads it.
fn e4m3(bits: u8) -> f32 {
    let bits = bits & 0x7f;
    let (exponent, mantissa) = (i32::from(bits >> 3), f32::from(bits & 7));
    match (bits, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => mantissa / 8.0 * 2.0_f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2.0_f32.powi(exponent - 7),
    }
}

/// The nearest float16 (IEEE 754 binary16, ties to even); infinity above its range.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = f32::from_bits(bits & 0x7fff_ffff);
    // Adding this shifts the bits that float16 doesn't have out of the sum, rounding to even.
    if magnitude < 2.0_f32.powi(-14) {
        let steps = magnitude + 2.0_f32.powi(-1);
        return sign | (steps.to_bits() - 0.5_f32.to_bits()) as u16;
    }
    let bits = magnitude.to_bits();
    let rounded = bits + 0x0fff + ((bits >> 13) & 1);
    let exponent_moved = (rounded >> 13).saturating_sub(112 << 10);
    sign | exponent_moved.min(0x7c00) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_the_nearest() {
        let cases = [
            (0.0, 0x0000),
            (-0.0, 0x8000),
            (1.0, 0x3c00),
            (-2.0, 0xc000),
            (65504.0, 0x7bff),
            (65520.0, 0x7c00),
            (1e9, 0x7c00),
            (2.0_f32.powi(-14), 0x0400),
            (2.0_f32.powi(-24), 0x0001),
            (2.0_f32.powi(-25), 0x0000),
            (1.5 * 2.0_f32.powi(-24), 0x0002),
            (1.0 + 1.0 / 2048.0, 0x3c00),
            (1.0 + 3.0 / 2048.0, 0x3c02),
            (0.1, 0x2e66),
        ];
        for (value, expected) in cases {
            assert_eq!(half(value), expected, "{value}");
        }
    }

    #[test]
    fn scales_are_ggmls() {
        for (bits, expected) in
            [(0, 0.0), (1, 2.0_f32.powi(-9)), (8, 2.0_f32.powi(-6)), (0x38, 1.0), (0x7e, 448.0), (0x7f, 0.0)]
        {
            assert_eq!(e4m3(bits), expected, "{bits:#x}");
        }
    }
}
