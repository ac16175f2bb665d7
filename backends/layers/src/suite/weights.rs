//! Weights for tests: rows of every element type, and what float64 makes of them.

use std::ops::Range;
use std::sync::Arc;

use herald_api::import::{SharedBytes, SharedWeight};
use herald_api::{ActivationPrecision, DType, WeightRole};
use herald_formats::floats::Float;
use herald_formats::{Affine, Block, Symmetric, Unpacked, dequantize_row, dispatch};
use ndarray::{Array2, s};

use super::values::Values;
use crate::Kernels;

/// A row of `len` weights, none larger than about `limit`: each block with its own scales, and any codes.
pub(super) fn random_row(dtype: DType, len: usize, limit: f32, values: &mut Values) -> Vec<u8> {
    let bytes = len / dtype.block_len() * dtype.block_bytes();
    dispatch!(dtype,
        float F => {
            let mut row = vec![0; bytes];
            let floats: &mut [F] = bytemuck::cast_slice_mut(&mut row);
            floats.fill_with(|| F::from_f32(values.between(-limit, limit)));
            row
        },
        block B => {
            let mut row = values.bytes(bytes);
            let blocks: &mut [B] = bytemuck::cast_slice_mut(&mut row);
            blocks.iter_mut().for_each(|block| randomize_scales(block, limit, values));
            row
        },
    )
}

/// Gives a block random scales with which no weight is larger than about `limit`.
fn randomize_scales<B: Block>(block: &mut B, limit: f32, values: &mut Values) {
    // Scales of 1 show how large the codes are; scales after that make them as large as they may be.
    let mut weights = vec![0.0_f32; B::Unpacked::LEN];
    block.set_scales([1.0, 1.0]);
    block.unpack().dequantize(&mut weights);
    let largest = weights.iter().fold(1.0, |largest: f32, weight| largest.max(weight.abs()));
    let mut scale = || {
        let sign = if values.coin() { 1.0 } else { -1.0 };
        sign * values.between(0.5, 1.0) * limit / largest
    };
    block.set_scales([scale(), if B::Unpacked::OFFSETS { scale() } else { 0.0 }]);
}

/// A row as it may lie in any file, but without infinities and NaN: every float in it is smaller than 2.
pub(super) fn finite_row(dtype: DType, len: usize, values: &mut Values) -> Vec<u8> {
    /// The number itself or, where it is too large, its reciprocal.
    fn small(value: f32) -> f32 {
        if value.is_nan() {
            return 1.0;
        }
        if value.abs() < 2.0 { value } else { 1.0 / value }
    }
    let mut row = values.bytes(len / dtype.block_len() * dtype.block_bytes());
    dispatch!(dtype,
        float F => for float in bytemuck::cast_slice_mut::<u8, F>(&mut row) {
            *float = F::from_f32(small(float.to_f32()));
        },
        block B => for block in bytemuck::cast_slice_mut::<u8, B>(&mut row) {
            block.set_scales(block.scales().map(small));
        },
    );
    row
}

/// The sizes of a row's weights before scale and offset meet: `|scale * code| + |offset|`. Kernels may sum codes and
/// offsets apart, so this is what their rounding errors are relative to.
pub(super) fn sizes(dtype: DType, row: &[u8], len: usize) -> Vec<f64> {
    dispatch!(dtype,
        float F => {
            let mut weights = vec![0.0; len];
            dequantize_row(F::DTYPE, row, &mut weights);
            weights.into_iter().map(|weight| f64::from(weight).abs()).collect()
        },
        block B => bytemuck::cast_slice::<u8, B>(row).iter().flat_map(|block| block.unpack().sizes()).collect(),
    )
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

impl Matrix {
    /// Some of the rows.
    pub(super) fn rows(&self, range: Range<usize>) -> Self {
        let of = |matrix: &Array2<f64>| matrix.slice(s![range.clone(), ..]).to_owned();
        Self { value: of(&self.value), size: of(&self.size), step: self.step }
    }
}

/// What a backend's products with weights of a type round activations by, as a share of a token's largest.
pub(super) fn activation_step(kernels: &Kernels, dtype: DType) -> f64 {
    (kernels.matmul)(dtype, ActivationPrecision::Int16)
        .activations
        .map_or(0.0, |preparation| f64::from(preparation.rounding))
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
