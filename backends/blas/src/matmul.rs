//! Products: a large batch's by BLAS, over panels of rows made float32; a small one's by the simd kernels.
//!
//! Weights are kept once, in the order in which the simd kernels pack them, and panels are unpacked from that. A small
//! batch's activations are prepared as those kernels take them; a large batch's stay as they are.

use herald_api::DType;
use herald_layers::kernels::Gemm;
use herald_layers::matmul::{ActivationFormat, MatmulCall, MatmulKernel, OutputTile};

use crate::library::Form;
use crate::{Chosen, chosen};

/// Float32 elements of a panel, of half a second-level cache: of 128 KiB to 1 MiB, what was fastest by a little.
const PANEL_LEN: usize = 128 << 10;

/// Tokens from which on BLAS multiplies. Measured (OpenBLAS on AVX-512, one thread, 1024 to 4096 columns): of 46 thousand
/// million multiply-adds a second that it comes to, it has 11 to 36 with 16 tokens, 24 to 42 with 32 and 36 to 44 with 64.
const BATCH_FROM: usize = 64;

/// Which preparation of activations this is.
const PREPARATION: u32 = 2;

/// Rows of a panel: whole row tiles.
fn panel_rows(columns: usize, row_tile: usize) -> usize {
    (PANEL_LEN / columns.max(1)).clamp(64, 512).next_multiple_of(row_tile)
}

/// What computes, where this backend was found to run.
fn in_use() -> &'static Chosen {
    chosen()
        .as_ref()
        .unwrap_or_else(|error| panic!("the blas backend was used where it doesn't run: {error}"))
}

/// How the simd kernels multiply with weights of a type.
fn of_simd(dtype: DType) -> MatmulKernel {
    (in_use().simd.kernels.matmul)(dtype)
}

/// How the simd kernels prepare activations, the same for all quantised types.
fn simd_preparation() -> Option<ActivationFormat> {
    of_simd(DType::Q8_0).activations
}

pub(crate) fn matmul(dtype: DType) -> MatmulKernel {
    let simd = of_simd(dtype);
    let preparation = simd.activations.map(|form| ActivationFormat {
        id: PREPARATION,
        len: prepared_len,
        tile: |left| left,
        quantize,
        rounding: form.rounding,
    });
    MatmulKernel { activations: preparation, scratch_len, matmul: multiply_rows, ..simd }
}

/// A token's activations take as much room prepared as not, or more where rows are very short.
fn prepared_len(columns: usize) -> usize {
    columns.max(simd_preparation().map_or(0, |form| (form.len)(columns)))
}

/// Prepares a whole batch, which is one tile to the layers: only so can its size be seen.
fn quantize(x: &[f32], columns: usize, prepared: &mut [f32]) {
    let n_tokens = x.len() / columns;
    match simd_preparation() {
        Some(form) if n_tokens < BATCH_FROM => {
            form.quantize_all(x, columns, &mut prepared[..n_tokens * (form.len)(columns)]);
        }
        _ => prepared[..x.len()].copy_from_slice(x),
    }
}

fn scratch_len(columns: usize, max_tokens: usize) -> usize {
    let few = max_tokens.min(BATCH_FROM - 1);
    let few =
        DType::ALL.into_iter().map(|dtype| (of_simd(dtype).scratch_len)(columns, few)).max().unwrap_or(0);
    let most_rows = panel_rows(columns, of_simd(DType::F32).row_tile);
    if max_tokens < BATCH_FROM { few } else { few.max(most_rows * (columns + max_tokens)) }
}

fn multiply_rows(run: &MatmulCall<'_>, scratch: &mut [f32], out: &mut OutputTile<'_>) {
    let MatmulCall { n_rows, columns, n_tokens, .. } = *run;
    let Chosen { library, simd, .. } = in_use();
    let products = of_simd(run.dtype);
    if n_tokens < BATCH_FROM {
        return (products.matmul)(run, scratch, out);
    }
    let (unpack, Some(packing)) = ((simd.unpack)(run.dtype), products.packing) else {
        panic!("the simd kernels keep no order of {} weights of their own", run.dtype)
    };
    let at_once = panel_rows(columns, products.row_tile);
    let row_tile_bytes = (packing.bytes)(products.row_tile, columns);
    let x = &run.x[..n_tokens * columns];
    let (panel, results) = scratch.split_at_mut(at_once * columns);
    for first in (0..n_rows).step_by(at_once) {
        let count = at_once.min(n_rows - first);
        let row_tiles = first / products.row_tile..(first + count).div_ceil(products.row_tile);
        // A last row tile's rows beyond the matrix's are zeros.
        let rows = row_tiles.len() * products.row_tile;
        let panel = &mut panel[..rows * columns];
        unpack(&run.rows[row_tiles.start * row_tile_bytes..row_tiles.end * row_tile_bytes], columns, panel);
        let results = &mut results[..n_tokens * rows];
        library.multiply(x, panel, Form::Columns, [n_tokens, rows, columns], results);
        for (token, results) in results.chunks_exact(rows).enumerate() {
            let out = &mut out.token(token)[first..first + count];
            out.copy_from_slice(&results[..count]);
            if let Some(bias) = run.bias {
                out.iter_mut().zip(&bias[first..]).for_each(|(out, bias)| *out += bias);
            }
        }
    }
}

pub(crate) fn gemm(call: &Gemm<'_>, out: &mut [f32]) {
    let Gemm { x, panel, n_tokens, rows, columns } = *call;
    in_use().library.multiply(x, panel, Form::Rows, [n_tokens, rows, columns], out);
}
