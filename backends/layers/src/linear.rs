//! Products of activations with weight matrices.

use std::ops::Range;

use herald_api::{Parallel, Weight};

use crate::kernels::{Gemm, Kernels};
use crate::quant::RowKernels;
use crate::shared::Shared;

/// Rows that one step of a batched product takes: their float32 copy stays in the second-level cache.
const PANEL_ROWS: usize = 32;

/// Tokens from which on rows are dequantised once for all of them; for fewer, each product reads the row as it is.
const BATCH_FROM: usize = 4;

/// A weight matrix `[rows, columns]` in the model's file, with a bias where there is one.
pub(crate) struct Linear<'w> {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    row_bytes: usize,
    bytes: &'w [u8],
    bias: Option<Vec<f32>>,
    row_kernels: RowKernels,
}

/// One matrix of several that are multiplied with the same activations, and where the results go.
pub(crate) struct Product<'p, 'w> {
    pub(crate) linear: &'p Linear<'w>,
    /// `[n_tokens, rows]`.
    pub(crate) out: &'p mut [f32],
}

impl<'w> Linear<'w> {
    pub(crate) fn new(kernels: &'static Kernels, weight: &Weight<'w>) -> Self {
        Self {
            rows: weight.rows,
            columns: weight.columns,
            row_bytes: weight.bytes.len() / weight.rows,
            bytes: weight.bytes,
            bias: None,
            row_kernels: (kernels.rows)(weight.dtype),
        }
    }

    pub(crate) fn set_bias(&mut self, bias: Option<Vec<f32>>) {
        self.bias = bias;
    }

    /// Row `index` as float32.
    pub(crate) fn row(&self, index: usize, out: &mut [f32]) {
        (self.row_kernels.dequantize)(self.row_data(index), out);
    }

    fn row_data(&self, index: usize) -> &'w [u8] {
        &self.bytes[index * self.row_bytes..(index + 1) * self.row_bytes]
    }

    /// Float32 elements of scratch memory that [`multiply`] needs for each worker.
    pub(crate) fn scratch_len(&self, max_tokens: usize) -> usize {
        if max_tokens < BATCH_FROM { 0 } else { PANEL_ROWS * (self.columns + max_tokens) }
    }

    /// Rows `rows` for few tokens: each row is read once for each token.
    fn rows_by_dot(&self, rows: Range<usize>, x: &[f32], out: &Shared<'_, f32>) {
        for row in rows {
            let data = self.row_data(row);
            let bias = self.bias.as_ref().map_or(0.0, |bias| bias[row]);
            for (token, x) in x.chunks_exact(self.columns).enumerate() {
                let value = (self.row_kernels.dot)(data, x) + bias;
                // SAFETY: `multiply` gives each row to one worker.
                unsafe { out.write(token * self.rows + row, value) };
            }
        }
    }

    /// Rows `rows` for many tokens: a panel of them as float32 at a time.
    fn rows_by_panel(
        &self,
        kernels: &Kernels,
        rows: Range<usize>,
        x: &[f32],
        scratch: &mut [f32],
        out: &Shared<'_, f32>,
    ) {
        let n_tokens = x.len() / self.columns;
        let (panel, results) = scratch.split_at_mut(PANEL_ROWS * self.columns);
        let mut begin = rows.start;
        while begin < rows.end {
            let count = PANEL_ROWS.min(rows.end - begin);
            for (offset, panel_row) in panel.chunks_exact_mut(self.columns).take(count).enumerate() {
                self.row(begin + offset, panel_row);
            }
            let gemm = Gemm {
                x,
                panel: &panel[..count * self.columns],
                n_tokens,
                rows: count,
                columns: self.columns,
            };
            let results = &mut results[..n_tokens * count];
            (kernels.gemm)(&gemm, results);
            for (token, results) in results.chunks_exact(count).enumerate() {
                let first = token * self.rows + begin;
                // SAFETY: `multiply` gives each row to one worker.
                let out = unsafe { out.part(first..first + count) };
                match &self.bias {
                    Some(bias) => {
                        for ((out, result), bias) in out.iter_mut().zip(results).zip(&bias[begin..]) {
                            *out = result + bias;
                        }
                    }
                    None => out.copy_from_slice(results),
                }
            }
            begin += count;
        }
    }
}

/// Multiplies the activations `x` `[n_tokens, columns]` with several matrices at once: rows of all of them are shared out
/// over the workers. `scratch` holds for each worker the greatest [`Linear::scratch_len`] of them.
pub(crate) fn multiply(
    kernels: &'static Kernels,
    parallel: &Parallel<'_>,
    x: &[f32],
    n_tokens: usize,
    scratch: &mut [f32],
    products: &mut [Product<'_, '_>],
) {
    const MOST: usize = 3;
    assert!(products.len() <= MOST, "{} products at once", products.len());
    let share = scratch.len() / parallel.workers();
    let scratch = Shared::new(scratch);
    // No allocation in a forward call: the few outputs sit in an array.
    let mut jobs: [Option<(&Linear<'_>, Shared<'_, f32>)>; MOST] = [const { None }; MOST];
    let mut total = 0;
    for (job, product) in jobs.iter_mut().zip(products.iter_mut()) {
        total += product.linear.rows;
        *job = Some((product.linear, Shared::new(product.out)));
    }
    parallel.run(total, &|range, worker| {
        let mut first = 0;
        for (linear, out) in jobs.iter().flatten() {
            let begin = range.start.max(first) - first;
            let end = range.end.min(first + linear.rows).max(first) - first;
            first += linear.rows;
            if begin >= end {
                continue;
            }
            if n_tokens < BATCH_FROM {
                linear.rows_by_dot(begin..end, x, out);
            } else {
                // SAFETY: no two tasks that run at once have the same worker.
                let scratch = unsafe { scratch.part(worker * share..(worker + 1) * share) };
                linear.rows_by_panel(kernels, begin..end, x, scratch, out);
            }
        }
    });
}
