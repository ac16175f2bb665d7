//! Fallbacks for backends without their own kernels: RoPE's angles, and products with rows as they lie in the file. Few
//! tokens read each row directly; many share a panel of rows dequantised to float32.

use crate::kernels::Gemm;
use crate::matmul::{MatmulCall, OutputTile};
use herald_formats::RowKernels;

/// With at least this many tokens, rows are dequantised once for all of them; with fewer, each product reads the row.
const BATCH_FROM_TOKENS: usize = 4;

/// Rows of a panel: their float32 copy stays in the second-level cache.
const PANEL_ROWS: usize = 32;

/// `[cos, sin]` of angles times a magnitude; see [`crate::Kernels::rope_angles`].
pub fn rope_angles(frequencies: &[f64], position: f64, magnitude: f64, out: &mut [[f32; 2]]) {
    for (out, frequency) in out.iter_mut().zip(frequencies) {
        let (sin, cos) = (position * frequency).sin_cos();
        *out = [(cos * magnitude) as f32, (sin * magnitude) as f32];
    }
}

/// Float32 elements of scratch memory that [`matmul`] uses.
#[must_use]
pub fn scratch_len(columns: usize, max_tokens: usize) -> usize {
    if max_tokens < BATCH_FROM_TOKENS { 0 } else { PANEL_ROWS * (columns + max_tokens) }
}

/// Multiplies a run of rows with float32 activations.
pub fn matmul(
    row_kernels: RowKernels,
    gemm: fn(&Gemm<'_>, &mut [f32]),
    run: &MatmulCall<'_>,
    scratch: &mut [f32],
    out: &mut OutputTile<'_>,
) {
    if run.n_tokens < BATCH_FROM_TOKENS {
        by_dot(row_kernels, run, out);
    } else {
        by_panel(row_kernels, gemm, run, scratch, out);
    }
}

/// Each row is read once for each token.
fn by_dot(row_kernels: RowKernels, run: &MatmulCall<'_>, out: &mut OutputTile<'_>) {
    let row_bytes = run.rows.len() / run.n_rows;
    for (token, x) in run.x.chunks_exact(run.columns).enumerate() {
        for (index, (row, out)) in run.rows.chunks_exact(row_bytes).zip(out.token(token)).enumerate() {
            *out = (row_kernels.dot)(row, x) + run.bias.map_or(0.0, |bias| bias[index]);
        }
    }
}

/// A panel of rows as float32 at a time.
fn by_panel(
    row_kernels: RowKernels,
    gemm: fn(&Gemm<'_>, &mut [f32]),
    run: &MatmulCall<'_>,
    scratch: &mut [f32],
    out: &mut OutputTile<'_>,
) {
    let MatmulCall { n_rows, columns, n_tokens, .. } = *run;
    let row_bytes = run.rows.len() / n_rows;
    let (panel, results) = scratch.split_at_mut(PANEL_ROWS * columns);
    for first in (0..n_rows).step_by(PANEL_ROWS) {
        let count = PANEL_ROWS.min(n_rows - first);
        let rows = run.rows[first * row_bytes..].chunks_exact(row_bytes);
        for (row, panel) in rows.zip(panel.chunks_exact_mut(columns).take(count)) {
            (row_kernels.dequantize)(row, panel);
        }
        let gemm_call = Gemm { x: run.x, panel: &panel[..count * columns], n_tokens, rows: count, columns };
        let results = &mut results[..n_tokens * count];
        gemm(&gemm_call, results);
        for (token, results) in results.chunks_exact(count).enumerate() {
            let out = &mut out.token(token)[first..first + count];
            match run.bias {
                Some(bias) => {
                    for ((out, result), bias) in out.iter_mut().zip(results).zip(&bias[first..]) {
                        *out = result + bias;
                    }
                }
                None => out.copy_from_slice(results),
            }
        }
    }
}
