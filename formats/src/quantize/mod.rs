//! Weights to blocks: the other direction, for who writes files.
//!
//! A format leaves open which scales a block gets, and with them how much of its weights survives. The plain way takes
//! scales that just reach the largest weight. Here each group of weights tries a range of scales, with and without
//! clipping what is largest, and takes the one with the least squared error, where larger weights count for more, as
//! they move a layer's output more ([`fit`]). In formats whose groups' scales are themselves quantised, the error is
//! then brought down again with what the scales can really be ([`supers`]).

mod fit;
mod grid;
mod iq4;
mod k_quants;
mod legacy;
mod supers;

use herald_api::DType;

use crate::floats::{Bf16, F16, F32, Float};
use crate::iq4::{Iq4Nl, Iq4Xs};
use crate::k_quants::{Q2K, Q3K, Q4K, Q5K, Q6K};
use crate::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use crate::{Block, Unpacked};

/// A block that can be made of weights.
trait Quantize: Block {
    /// The block that stands for `weights` best: [`Unpacked::LEN`] of them, of magnitudes that float16 holds.
    fn quantize(weights: &[f32]) -> Self;
}

/// A weight that a type has no room for. Displays as one sentence.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("weight {index} is {weight}; expected a magnitude of at most {}, the most that {dtype} holds", largest(*.dtype))]
pub struct Unstorable {
    /// Its position in the row.
    pub index: usize,
    /// Its value.
    pub weight: f32,
    /// The type.
    pub dtype: DType,
}

/// The largest magnitude of a weight that [`quantize_row`] puts into rows of `dtype`: what its floats, or its blocks'
/// scales, have room for.
#[must_use]
pub fn largest(dtype: DType) -> f32 {
    match dtype {
        DType::F32 => f32::MAX,
        DType::Bf16 => half::bf16::MAX.to_f32(),
        _ => half::f16::MAX.to_f32(),
    }
}

/// Writes `weights` as a row of `dtype`: floats to the nearest, ties to even; blocks with the least error found.
///
/// # Errors
///
/// Where a weight is no number or larger than [`largest`] says. `row` is then left as it was.
///
/// # Panics
///
/// Where `row` isn't as long as `weights.len()` weights of `dtype` are.
pub fn quantize_row(dtype: DType, weights: &[f32], row: &mut [u8]) -> Result<(), Unstorable> {
    assert!(
        dtype.row_bytes(weights.len()) == Some(row.len()),
        "a row of {} bytes doesn't hold exactly {} weights of type {dtype}",
        row.len(),
        weights.len()
    );
    let largest = largest(dtype);
    let fits = |weight: f32| weight.abs() <= largest;
    if let Some(index) = weights.iter().position(|&weight| !fits(weight)) {
        return Err(Unstorable { index, weight: weights[index], dtype });
    }
    match dtype {
        DType::F32 => floats::<F32>(weights, row),
        DType::F16 => floats::<F16>(weights, row),
        DType::Bf16 => floats::<Bf16>(weights, row),
        DType::Q4_0 => blocks::<Q4_0>(weights, row),
        DType::Q4_1 => blocks::<Q4_1>(weights, row),
        DType::Q5_0 => blocks::<Q5_0>(weights, row),
        DType::Q5_1 => blocks::<Q5_1>(weights, row),
        DType::Q8_0 => blocks::<Q8_0>(weights, row),
        DType::Q2K => blocks::<Q2K>(weights, row),
        DType::Q3K => blocks::<Q3K>(weights, row),
        DType::Q4K => blocks::<Q4K>(weights, row),
        DType::Q5K => blocks::<Q5K>(weights, row),
        DType::Q6K => blocks::<Q6K>(weights, row),
        DType::Iq4Nl => blocks::<Iq4Nl>(weights, row),
        DType::Iq4Xs => blocks::<Iq4Xs>(weights, row),
    }
    Ok(())
}

fn floats<F: Float>(weights: &[f32], row: &mut [u8]) {
    for (place, &weight) in bytemuck::cast_slice_mut::<u8, F>(row).iter_mut().zip(weights) {
        *place = F::from_f32(weight);
    }
}

fn blocks<B: Quantize>(weights: &[f32], row: &mut [u8]) {
    let blocks = bytemuck::cast_slice_mut::<u8, B>(row);
    for (place, weights) in blocks.iter_mut().zip(weights.chunks_exact(B::Unpacked::LEN)) {
        *place = B::quantize(weights);
    }
}
