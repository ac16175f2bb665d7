//! Weights for tests: rows of every element type, and what float64 makes of them.

use std::sync::Arc;

use half::f16;
use herald_api::import::{SharedBytes, SharedWeight};
use herald_api::{DType, WeightRole};
use ndarray::Array2;

use super::values::Values;
use crate::Kernels;
use herald_formats::{
    Affine, Block, Symmetric, dequantize_row,
    iq4::{Iq4Nl, Iq4Xs},
    k_quants::{Q2K, Q3K, Q4K, Q5K, Q6K},
    legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0},
};

/// Where a block of a quantised type keeps its float16 numbers.
fn halves(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::F32 | DType::F16 | DType::Bf16 => &[],
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 | DType::Iq4Nl | DType::Iq4Xs => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => &[0, 2],
        DType::Q2K => &[80, 82],
        DType::Q3K => &[108],
        DType::Q6K => &[208],
    }
}

/// A row of `len` weights, none larger than about `limit`: each block with its own scales, and any codes.
pub(super) fn random_row(dtype: DType, len: usize, limit: f32, values: &mut Values) -> Vec<u8> {
    let mut float = || values.between(-limit, limit);
    match dtype {
        DType::F32 => return (0..len).flat_map(|_| float().to_le_bytes()).collect(),
        DType::F16 => return (0..len).flat_map(|_| f16::from_f32(float()).to_le_bytes()).collect(),
        DType::Bf16 => return (0..len).flat_map(|_| half::bf16::from_f32(float()).to_le_bytes()).collect(),
        _ => {}
    }
    let mut row = values.bytes(len / dtype.block_len() * dtype.block_bytes());
    let mut weights = vec![0.0_f32; dtype.block_len()];
    for block in row.chunks_exact_mut(dtype.block_bytes()) {
        // Scales of 1 show how large the codes are; scales after that make them as large as they may be.
        let set = |block: &mut [u8], scale: &mut dyn FnMut() -> f32| {
            for &at in halves(dtype) {
                block[at..at + 2].copy_from_slice(&f16::from_f32(scale()).to_le_bytes());
            }
        };
        set(block, &mut || 1.0);
        dequantize_row(dtype, block, &mut weights);
        let largest = weights.iter().fold(1.0, |largest: f32, weight| largest.max(weight.abs()));
        set(block, &mut || {
            let sign = if values.coin() { 1.0 } else { -1.0 };
            sign * values.between(0.5, 1.0) * limit / largest
        });
    }
    row
}

/// A row as it may lie in any file, but without infinities and NaN: every float in it is smaller than 2.
pub(super) fn finite_row(dtype: DType, len: usize, values: &mut Values) -> Vec<u8> {
    let mut row = values.bytes(len / dtype.block_len() * dtype.block_bytes());
    for block in row.chunks_exact_mut(dtype.block_bytes()) {
        // Without the exponent's top bit, in the float's last byte.
        match dtype {
            DType::F32 => block[3] &= 0xbf,
            DType::F16 | DType::Bf16 => block[1] &= 0xbf,
            _ => halves(dtype).iter().for_each(|at| block[at + 1] &= 0xbf),
        }
    }
    row
}

/// The sizes of a row's weights before scale and offset meet: `|scale * code| + |offset|`. Kernels may sum codes and
/// offsets apart, so this is what their rounding errors are relative to.
pub(super) fn sizes(dtype: DType, row: &[u8], len: usize) -> Vec<f64> {
    match dtype {
        DType::F32 | DType::F16 | DType::Bf16 => {
            let mut weights = vec![0.0; len];
            dequantize_row(dtype, row, &mut weights);
            weights.into_iter().map(|weight| f64::from(weight).abs()).collect()
        }
        DType::Q4_0 => block_sizes::<Q4_0>(row),
        DType::Q4_1 => block_sizes::<Q4_1>(row),
        DType::Q5_0 => block_sizes::<Q5_0>(row),
        DType::Q5_1 => block_sizes::<Q5_1>(row),
        DType::Q8_0 => block_sizes::<Q8_0>(row),
        DType::Q2K => block_sizes::<Q2K>(row),
        DType::Q3K => block_sizes::<Q3K>(row),
        DType::Q4K => block_sizes::<Q4K>(row),
        DType::Q5K => block_sizes::<Q5K>(row),
        DType::Q6K => block_sizes::<Q6K>(row),
        DType::Iq4Nl => block_sizes::<Iq4Nl>(row),
        DType::Iq4Xs => block_sizes::<Iq4Xs>(row),
    }
}

trait Sizes {
    fn sizes(&self) -> Vec<f64>;
}

impl<const SIZE: usize, const GROUPS: usize> Sizes for Symmetric<SIZE, GROUPS> {
    fn sizes(&self) -> Vec<f64> {
        let groups = self.codes.iter().zip(self.scales);
        groups
            .flat_map(|(codes, scale)| {
                codes.iter().map(move |code| (f64::from(scale) * f64::from(*code)).abs())
            })
            .collect()
    }
}

impl<const SIZE: usize, const GROUPS: usize> Sizes for Affine<SIZE, GROUPS> {
    fn sizes(&self) -> Vec<f64> {
        let groups = self.codes.iter().zip(self.scales).zip(self.offsets);
        groups
            .flat_map(|((codes, scale), offset)| {
                let offset = f64::from(offset).abs();
                codes.iter().map(move |code| (f64::from(scale) * f64::from(*code)).abs() + offset)
            })
            .collect()
    }
}

fn block_sizes<B: Block<Unpacked: Sizes>>(row: &[u8]) -> Vec<f64> {
    bytemuck::cast_slice::<u8, B>(row).iter().flat_map(|block| block.unpack().sizes()).collect()
}

/// A weight matrix in float64: what its bytes stand for, and the sizes that errors are relative to.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    /// `[rows, columns]`.
    pub(super) value: Array2<f64>,
    /// `[rows, columns]`.
    pub(super) size: Array2<f64>,
    /// The most that products round a token's activations by, as a share of its largest.
    pub(super) step: f64,
}

/// What a backend's products with weights of a type round activations by, as a share of a token's largest.
pub(super) fn activation_step(kernels: &Kernels, dtype: DType) -> f64 {
    (kernels.matmul)(dtype).activations.map_or(0.0, |preparation| f64::from(preparation.rounding))
}

/// A random weight `[rows, columns]`, as the host gives it and as the reference sees it.
pub(super) fn random_weight(
    role: WeightRole,
    dtype: DType,
    [rows, columns]: [usize; 2],
    limit: f32,
    values: &mut Values,
) -> (SharedWeight, Matrix) {
    // Weights lie at any alignment in a file.
    let before = values.below(4);
    let mut bytes = vec![0; before];
    let mut value = Array2::zeros((rows, columns));
    let mut size = Array2::zeros((rows, columns));
    let mut weights = vec![0.0; columns];
    for (mut value, mut size) in value.rows_mut().into_iter().zip(size.rows_mut()) {
        let row = random_row(dtype, columns, limit, values);
        dequantize_row(dtype, &row, &mut weights);
        value.iter_mut().zip(&weights).for_each(|(to, from)| *to = f64::from(*from));
        size.iter_mut().zip(sizes(dtype, &row, columns)).for_each(|(to, from)| *to = from);
        bytes.extend(row);
    }
    (shared(role, dtype, &[columns, rows], bytes, before), Matrix { value, size, step: 0.0 })
}

/// A weight whose bytes begin after the first `before`.
pub(super) fn shared(
    role: WeightRole,
    dtype: DType,
    dims: &[usize],
    bytes: Vec<u8>,
    before: usize,
) -> SharedWeight {
    let range = before..bytes.len();
    let data = SharedBytes::new(Arc::new(bytes), range);
    SharedWeight {
        role,
        name: format!("blk.3.{role:?}.weight"),
        dtype,
        dims: dims.iter().map(|dim| *dim as u64).collect(),
        data: data.expect("the range is the vector's own"),
    }
}

/// The types that a row of `columns` may have.
pub(super) fn dtypes(columns: usize) -> Vec<DType> {
    DType::ALL.into_iter().filter(|dtype| dtype.row_bytes(columns).is_some()).collect()
}
