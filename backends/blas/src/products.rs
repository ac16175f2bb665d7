//! Products: panels of rows, made float32, times the whole batch.

use herald_api::DType;
use herald_layers::kernels::Gemm;
use herald_layers::plain;
use herald_layers::products::{Products, Results, RowRun};
use herald_layers::quant::row_kernels;

use crate::Chosen;

/// Bytes of a panel: well inside a second-level cache, beside what BLAS packs there itself.
const PANEL_BYTES: usize = 256 << 10;

/// Tokens from which on a panel pays: below, each product reads a row as it is.
const BATCH_FROM: usize = 8;

/// Rows of a panel.
fn panel_rows(columns: usize) -> usize {
    (PANEL_BYTES / size_of::<f32>() / columns.max(1)).clamp(16, 256)
}

pub(crate) fn products(dtype: DType) -> Products {
    Products { dtype, granule: 1, packing: None, preparation: None, scratch_len, multiply }
}

pub(crate) fn gemm(call: &Gemm<'_>, out: &mut [f32]) {
    sgemm(call.x, call.panel, [call.n_tokens, call.rows, call.columns], out);
}

fn sgemm(x: &[f32], panel: &[f32], sizes: [usize; 3], out: &mut [f32]) {
    match crate::chosen() {
        Ok(Chosen { library, .. }) => library.multiply(x, panel, sizes, out),
        Err(error) => panic!("the blas backend was used where it doesn't run: {error}"),
    }
}

fn scratch_len(columns: usize, max_tokens: usize) -> usize {
    let few = plain::scratch_len(columns, max_tokens.min(BATCH_FROM - 1));
    if max_tokens < BATCH_FROM { few } else { few.max(panel_rows(columns) * (columns + max_tokens)) }
}

fn multiply(run: &RowRun<'_>, scratch: &mut [f32], out: &mut Results<'_>) {
    let row_kernels = row_kernels(run.dtype);
    let RowRun { n_rows, columns, n_tokens, .. } = *run;
    if n_tokens < BATCH_FROM {
        plain::multiply(row_kernels, gemm, run, scratch, out);
        return;
    }
    let row_bytes = run.rows.len() / n_rows;
    let at_once = panel_rows(columns);
    let (panel, results) = scratch.split_at_mut(at_once * columns);
    for first in (0..n_rows).step_by(at_once) {
        let count = at_once.min(n_rows - first);
        let panel = &mut panel[..count * columns];
        let rows = run.rows[first * row_bytes..].chunks_exact(row_bytes);
        for (row, panel) in rows.zip(panel.chunks_exact_mut(columns)) {
            (row_kernels.dequantize)(row, panel);
        }
        let results = &mut results[..n_tokens * count];
        sgemm(run.x, panel, [n_tokens, count, columns], results);
        for (token, results) in results.chunks_exact(count).enumerate() {
            let out = &mut out.token(token)[first..first + count];
            out.copy_from_slice(results);
            if let Some(bias) = run.bias {
                out.iter_mut().zip(&bias[first..]).for_each(|(out, bias)| *out += bias);
            }
        }
    }
}
