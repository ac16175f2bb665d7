//! Weights to blocks: the other direction, for who writes files.
//!
//! A format leaves open which scales a block gets, and with them how much of its weights survives. The plain way takes
//! scales that just reach the largest weight. Here each group of weights tries a range of scales, with and without
//! clipping what is largest, and takes the one with the least squared error, where larger weights count for more, as
//! they move a layer's output more ([`fit`]). In formats whose groups' scales are themselves quantised, the error is
//! then brought down again with what the scales can really be ([`supers`]).

pub(crate) mod codebook;
mod fit;
pub(crate) mod grid;
pub(crate) mod single;
pub(crate) mod supers;

use herald_api::DType;

use crate::floats::{F16, Float};
use crate::{Block, Unpacked, dispatch};

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

/// Whether [`quantize_row`] writes rows of `dtype`: some types are only read.
#[must_use]
pub fn is_writable(dtype: DType) -> bool {
    dispatch!(dtype, float F => true, block B => B::QUANTIZE.is_some())
}

/// The largest magnitude of a weight that [`quantize_row`] puts into rows of `dtype`: what its floats, or its blocks'
/// scales, have room for.
#[must_use]
pub fn largest(dtype: DType) -> f32 {
    dispatch!(dtype, float F => F::MAX, block B => F16::MAX)
}

/// Writes `weights` as a row of `dtype`: floats to the nearest, ties to even; blocks with the least error found.
///
/// # Errors
///
/// Where a weight is no number or larger than [`largest`] says. `row` is then left as it was.
///
/// # Panics
///
/// Where `row` isn't as long as `weights.len()` weights of `dtype` are, or `dtype` isn't one that [`is_writable`].
pub fn quantize_row(dtype: DType, weights: &[f32], row: &mut [u8]) -> Result<(), Unstorable> {
    quantize_row_for(dtype, weights, None, row)
}

/// As [`quantize_row`], where the square of each weight's error counts by the importance of its column: in a matrix, the mean
/// square of the activations that it is multiplied with. Only their proportions matter; what is no positive number counts
/// little.
///
/// # Errors
///
/// See [`quantize_row`].
///
/// # Panics
///
/// See [`quantize_row`]; and where there isn't an importance for each weight.
pub fn quantize_row_for(
    dtype: DType,
    weights: &[f32],
    importance: Option<&[f32]>,
    row: &mut [u8],
) -> Result<(), Unstorable> {
    assert!(
        importance.is_none_or(|importance| importance.len() == weights.len()),
        "an importance for each of {} weights",
        weights.len()
    );
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
    dispatch!(dtype, float F => floats::<F>(weights, row), block B => blocks::<B>(weights, importance, row));
    Ok(())
}

fn floats<F: Float>(weights: &[f32], row: &mut [u8]) {
    for (place, &weight) in bytemuck::cast_slice_mut::<u8, F>(row).iter_mut().zip(weights) {
        *place = F::from_f32(weight);
    }
}

fn blocks<B: Block>(weights: &[f32], importance: Option<&[f32]>, row: &mut [u8]) {
    let Some(quantize) = B::QUANTIZE else {
        panic!("{} is only read, and was to be written", B::DTYPE);
    };
    let blocks = bytemuck::cast_slice_mut::<u8, B>(row);
    let mut columns = [0.0; LARGEST_BLOCK];
    let columns = &mut columns[..B::Unpacked::LEN];
    for (index, (place, weights)) in blocks.iter_mut().zip(weights.chunks_exact(B::Unpacked::LEN)).enumerate()
    {
        let columns = importance.map(|importance| {
            to_proportions(&importance[index * columns.len()..][..columns.len()], columns);
            &*columns
        });
        *place = quantize(weights, columns);
    }
}

/// Weights of the largest block.
const LARGEST_BLOCK: usize = 256;

/// The least importance, as a part of a block's mean: a column that a text never used must not become arbitrary.
const LEAST_IMPORTANCE: f32 = 1e-6;

/// Importances as parts of their mean.
fn to_proportions(importance: &[f32], columns: &mut [f32]) {
    let usable = |importance: f32| if importance > 0.0 && importance.is_finite() { importance } else { 0.0 };
    let sum: f64 = importance.iter().map(|&importance| f64::from(usable(importance))).sum();
    let mean = sum / importance.len() as f64;
    for (column, &importance) in columns.iter_mut().zip(importance) {
        *column = if mean > 0.0 {
            ((f64::from(usable(importance)) / mean) as f32).max(LEAST_IMPORTANCE)
        } else {
            1.0
        };
    }
}

/// A group's weights as an array.
pub(crate) fn group<const N: usize>(weights: &[f32]) -> [f32; N] {
    let mut group = [0.0; N];
    group.copy_from_slice(weights);
    group
}
