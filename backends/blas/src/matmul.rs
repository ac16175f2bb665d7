//! Matrix multiplication: a large batch through BLAS, over panels of rows dequantised to float32; a small one through the
//! simd kernels.
//!
//! Weights are kept once, as the simd kernels pack them, and panels are unpacked from that. A small batch's activations are
//! quantised to those kernels' format; a large batch's stay float32.

use herald_api::{ActivationPrecision, DType};
use herald_layers::kernels::Gemm;
use herald_layers::matmul::{ActivationFormat, MatmulCall, MatmulKernel, OutputTile};

use crate::library::Form;
use crate::{Chosen, chosen};

/// Float32 elements of a panel: 512 KiB, half a second-level cache, was slightly the fastest of 128 KiB to 1 MiB.
const PANEL_LEN: usize = 128 << 10;

/// BLAS multiplies batches of at least this many tokens. Measured (OpenBLAS on AVX-512, one thread, 1024 to 4096 columns):
/// of 46 GMAC/s at best, it reaches 11 to 36 with 16 tokens, 24 to 42 with 32 and 36 to 44 with 64.
const BATCH_FROM_TOKENS: usize = 64;

/// The `id` of this backend's format of activations.
const FORMAT_ID: u32 = 2;

/// Rows of a panel: whole row tiles.
fn panel_rows(columns: usize, row_tile: usize) -> usize {
    (PANEL_LEN / columns.max(1)).clamp(64, 512).next_multiple_of(row_tile)
}

/// What computes all but large products: a variant of the simd kernels.
pub(crate) use herald_simd_kernels::Variant as Beside;

/// The variant for this CPU.
///
/// # Errors
/// Where it runs none.
pub(crate) fn beside() -> herald_api::Result<&'static Beside> {
    herald_simd_kernels::chosen()
}

/// The library and kernels, once the probe has found that the backend runs.
fn in_use() -> &'static Chosen {
    chosen()
        .as_ref()
        .unwrap_or_else(|error| panic!("the blas backend was used where it doesn't run: {error}"))
}

/// The simd kernels' multiplication with weights of a type. Activations are always the finer ones, since large batches'
/// are float32.
fn of_simd(dtype: DType) -> MatmulKernel {
    (in_use().beside.kernels.matmul)(dtype, ActivationPrecision::Int16)
}

/// The simd kernels' format of activations, the same for all quantised types.
fn simd_format() -> Option<ActivationFormat> {
    of_simd(DType::Q8_0).activations
}

pub(crate) fn matmul(dtype: DType, _: ActivationPrecision) -> MatmulKernel {
    let simd = of_simd(dtype);
    let activations = simd.activations.map(|format| ActivationFormat {
        id: FORMAT_ID,
        len: quantized_len,
        tile: |_, left| left,
        quantize,
        rounding: format.rounding,
    });
    MatmulKernel { activations, scratch_len, matmul: multiply_rows, ..simd }
}

/// Room for a token's activations in either form; quantised ones take more where rows are very short.
fn quantized_len(columns: usize) -> usize {
    columns.max(simd_format().map_or(0, |format| (format.len)(columns)))
}

/// Quantises a small batch, and copies a large one. A batch is one tile to the layers, so that its size is known here.
fn quantize(x: &[f32], columns: usize, quantized: &mut [f32]) {
    let n_tokens = x.len() / columns;
    match simd_format() {
        Some(format) if n_tokens < BATCH_FROM_TOKENS => {
            format.quantize_all(x, columns, &mut quantized[..n_tokens * (format.len)(columns)]);
        }
        _ => quantized[..x.len()].copy_from_slice(x),
    }
}

fn scratch_len(columns: usize, max_tokens: usize) -> usize {
    let few = max_tokens.min(BATCH_FROM_TOKENS - 1);
    let few =
        DType::ALL.into_iter().map(|dtype| (of_simd(dtype).scratch_len)(columns, few)).max().unwrap_or(0);
    let rows = panel_rows(columns, of_simd(DType::F32).row_tile);
    if max_tokens < BATCH_FROM_TOKENS { few } else { few.max(rows * (columns + max_tokens)) }
}

fn multiply_rows(run: &MatmulCall<'_>, scratch: &mut [f32], out: &mut OutputTile<'_>) {
    let MatmulCall { n_rows, columns, n_tokens, .. } = *run;
    let Chosen { library, beside, .. } = in_use();
    let products = of_simd(run.dtype);
    if n_tokens < BATCH_FROM_TOKENS {
        return (products.matmul)(run, scratch, out);
    }
    let (unpack, Some(packing)) = (beside.unpack(run.dtype), products.packing) else {
        panic!("the simd kernels don't pack {} weights", run.dtype)
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
