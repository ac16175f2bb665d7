//! Products with weight matrices of every element type, as layers use them: packed where the backend packs, with activations
//! in the backend's format where it has one, a run of rows at a time.

use herald_api::{ActivationPrecision, AlignedBytes, DType};
use ndarray::{Array2, ArrayView2, Axis};
use proptest::prelude::*;

use super::super::bounds::{Expected, TINY, check_all, gamma};
use super::super::values::{Spread, Values};
use super::super::weights::{finite_row, sizes};
use super::super::{Case, property};
use super::CASES;
use crate::Kernels;
use crate::matmul::{MatmulCall, OutputTile, Packing};
use herald_formats::dequantize_row;

#[derive(Clone, Debug)]
struct Shape {
    rows: usize,
    /// Blocks of a row, or runs of 13 plain floats.
    blocks: usize,
    n_tokens: usize,
    /// Granules of rows that the run leaves out at the beginning.
    skip: usize,
    bias: bool,
    /// Bytes that the weights lie after the beginning of their memory.
    before: usize,
    spread: Spread,
    seed: u64,
}

fn shapes() -> impl Strategy<Value = Shape> {
    (
        (1_usize..70, 1_usize..5, prop_oneof![6 => 1_usize..9, 2 => 9_usize..40, 1 => 60_usize..80]),
        (0_usize..3, any::<bool>(), 0_usize..4),
        (Spread::any(), any::<u64>()),
    )
        .prop_map(|((rows, blocks, n_tokens), (skip, bias, before), (spread, seed))| Shape {
            rows,
            blocks,
            n_tokens,
            skip,
            bias,
            before,
            spread,
            seed,
        })
}

pub(in super::super) fn check(kernels: &'static Kernels) {
    for (dtype, precision) in
        DType::ALL.into_iter().flat_map(|dtype| ActivationPrecision::ALL.map(|of| (dtype, of)))
    {
        let what = format!("{}: products of {precision:?} activations with {dtype}", kernels.name);
        property(&what, CASES / 2, shapes(), |shape| product(kernels, dtype, precision, &shape));
    }
}

/// Memory for a backend's floats, aligned as layers align it; holds NaN.
struct Floats(AlignedBytes);

impl Floats {
    fn nan(len: usize) -> Self {
        let mut bytes = AlignedBytes::zeroed(len * size_of::<f32>()).expect("there is memory for a test");
        bytes.fill(0xff);
        Self(bytes)
    }

    fn as_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.0)
    }
}

/// A matrix packed row tile by row tile, as workers do.
fn pack(packing: Packing, row_tile: usize, bytes: &[u8], [rows, columns]: [usize; 2]) -> Vec<u8> {
    let mut packed = Vec::new();
    for begin in (0..rows).step_by(row_tile) {
        let run = begin..rows.min(begin + row_tile);
        let mut tile =
            AlignedBytes::zeroed((packing.bytes)(row_tile, columns)).expect("there is memory for a test");
        (packing.pack)(bytes, columns, run, &mut tile);
        packed.extend_from_slice(&tile);
    }
    assert_eq!(packed.len(), (packing.bytes)(rows, columns), "packed row tile by row tile");
    packed
}

/// The weights of some rows, and what their roundings are measured by: [rows, columns] each.
fn dequantized(dtype: DType, rows: &[u8], row_bytes: usize, columns: usize) -> (Array2<f64>, Array2<f64>) {
    let shape = (rows.len() / row_bytes, columns);
    let (mut weights, mut weight_sizes) = (Array2::zeros(shape), Array2::zeros(shape));
    let mut floats = vec![0.0; columns];
    for (row, data) in rows.chunks_exact(row_bytes).enumerate() {
        dequantize_row(dtype, data, &mut floats);
        for (column, (float, size)) in floats.iter().zip(sizes(dtype, data, columns)).enumerate() {
            weights[(row, column)] = f64::from(*float);
            weight_sizes[(row, column)] = size;
        }
    }
    (weights, weight_sizes)
}

fn product(kernels: &Kernels, dtype: DType, precision: ActivationPrecision, shape: &Shape) -> Case {
    let Shape { rows, n_tokens, spread, .. } = *shape;
    let columns = if dtype.block_len() == 1 { shape.blocks * 13 } else { shape.blocks * dtype.block_len() };
    let kernel = (kernels.matmul)(dtype, precision);
    let mut values = Values::new(shape.seed);
    let mut bytes = values.bytes(shape.before);
    for _ in 0..rows {
        bytes.extend(finite_row(dtype, columns, &mut values));
    }
    let bytes = &bytes[shape.before..];
    let row_bytes = bytes.len() / rows;
    let x = values.floats(n_tokens * columns, spread);
    let bias = shape.bias.then(|| values.many(rows, -1.0, 1.0));

    // The run: all rows from some row tile on.
    let first = (shape.skip * kernel.row_tile).min((rows - 1) / kernel.row_tile * kernel.row_tile);
    let n_rows = rows - first;
    let packed: Vec<u8>;
    let run_bytes = match kernel.packing {
        Some(packing) => {
            packed = pack(packing, kernel.row_tile, bytes, [rows, columns]);
            &packed[(packing.bytes)(first, columns)..]
        }
        None => &bytes[first * row_bytes..],
    };
    let mut aligned = AlignedBytes::zeroed(run_bytes.len()).expect("there is memory for a test");
    aligned.copy_from_slice(run_bytes);
    let mut quantized = Floats::nan(kernel.activations.map_or(0, |format| (format.len)(columns)) * n_tokens);
    let mut x_aligned = Floats::nan(x.len());
    x_aligned.as_mut().copy_from_slice(&x);
    let run_x: &[f32] = match kernel.activations {
        Some(format) => {
            format.quantize_all(&x, columns, quantized.as_mut());
            quantized.as_mut()
        }
        None => x_aligned.as_mut(),
    };
    let run = MatmulCall {
        rows: if kernel.packing.is_some() { &aligned } else { run_bytes },
        n_rows,
        dtype,
        columns,
        n_tokens,
        x: run_x,
        bias: bias.as_ref().map(|bias| &bias[first..]),
    };
    let mut scratch = Floats::nan((kernel.scratch_len)(columns, n_tokens));
    let mut out = vec![f32::NAN; n_tokens * n_rows];
    (kernel.matmul)(&run, scratch.as_mut(), &mut OutputTile::whole(&mut out, n_rows));

    let step = kernel.activations.map_or(0.0, |format| f64::from(format.rounding));
    let (weights, weight_sizes) =
        dequantized(dtype, &bytes[first * row_bytes..][..n_rows * row_bytes], row_bytes, columns);
    // Sums of each row and token for themselves would take most of the suite's time.
    let x =
        ArrayView2::from_shape((n_tokens, columns), &x).expect("the lengths are the shape's").mapv(f64::from);
    let roundings = x.map_axis(Axis(1), |x| x.fold(0.0_f64, |largest, x| largest.max(x.abs())) * step);
    let x_sizes = x.mapv(f64::abs) + roundings.view().insert_axis(Axis(1));
    let (values, sizes) = (x.dot(&weights.t()), x_sizes.dot(&weight_sizes.t()));
    let row_sizes = weight_sizes.sum_axis(Axis(1));
    for token in 0..n_tokens {
        let expected = (0..n_rows).map(|row| {
            let (value, size) = (values[(token, row)], sizes[(token, row)]);
            let bound =
                row_sizes[row] * roundings[token] + gamma(columns + 8) * size + (columns + 8) as f64 * TINY;
            let bias = bias.as_ref().map_or(0.0, |bias| f64::from(bias[first + row]));
            Expected { value: value + bias, bound: bound + gamma(1) * (value.abs() + bound + bias.abs()) }
        });
        check_all(&format!("token {token}"), &out[token * n_rows..(token + 1) * n_rows], expected)?;
    }
    Ok(())
}
