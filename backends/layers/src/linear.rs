//! Products of activations with weight matrices.

use herald_api::{AlignedBytes, Parallel, Result, Weight};

use crate::disjoint_slice::DisjointSlice;
use crate::kernels::Kernels;
use crate::matmul::{MatmulCall, MatmulKernel};
use crate::quant::RowKernels;

/// Elements that workers' shares of scratch memory are aligned to: a cache line.
const ALIGN: usize = 16;

/// Tokens from which on a batch's activations are prepared by all workers.
const SHARE_FROM: usize = 8;

/// A weight matrix `[rows, columns]`, with a bias where there is one.
pub(crate) struct Linear<'w> {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    products: MatmulKernel,
    /// As they lie in the model's file.
    bytes: &'w [u8],
    /// As the backend wants them, where that is another order.
    packed: Option<AlignedBytes>,
    bias: Option<Vec<f32>>,
}

/// One matrix of several that are multiplied with the same activations, and where the results go.
pub(crate) struct Product<'p, 'w> {
    pub(crate) linear: &'p Linear<'w>,
    /// `[n_tokens, rows]`.
    pub(crate) out: &'p mut [f32],
}

impl<'w> Linear<'w> {
    /// A matrix of the model's file, not yet packed.
    pub(crate) fn new(kernels: &'static Kernels, weight: &Weight<'w>) -> Self {
        Self {
            rows: weight.rows,
            columns: weight.columns,
            products: (kernels.matmul)(weight.dtype),
            bytes: weight.bytes,
            packed: None,
            bias: None,
        }
    }

    pub(crate) fn set_bias(&mut self, bias: Option<Vec<f32>>) {
        self.bias = bias;
    }

    /// Brings the weights into the backend's order, where it has one. Runs of rows are shared out.
    ///
    /// # Errors
    /// Where there is no memory for them.
    pub(crate) fn pack(&mut self, parallel: &Parallel<'_>) -> Result<()> {
        let Some(packing) = self.products.packing else { return Ok(()) };
        let row_tile = self.products.row_tile;
        let row_tile_bytes = (packing.bytes)(row_tile, self.columns);
        let mut packed = AlignedBytes::zeroed((packing.bytes)(self.rows, self.columns))?;
        parallel.for_chunks(&mut packed, row_tile_bytes, &|index, packed, _| {
            let first = index * row_tile;
            let run = first..self.rows.min(first + row_tile);
            (packing.pack)(self.bytes, self.columns, run, packed);
        });
        self.packed = Some(packed);
        Ok(())
    }

    /// Bytes of the backend's own copy of the weights.
    pub(crate) fn packed_bytes(&self) -> usize {
        self.packed.as_ref().map_or(0, |packed| packed.len())
    }

    /// Float32 elements of scratch memory that [`multiply`] needs for each worker: a share of the prepared tokens, and
    /// what the backend's products work in.
    pub(crate) fn scratch_len(&self, max_tokens: usize) -> usize {
        let work = (self.products.scratch_len)(self.columns, max_tokens).next_multiple_of(ALIGN);
        (self.prepared_len() * max_tokens).next_multiple_of(ALIGN) + work + ALIGN
    }

    /// Float32 elements of a token's prepared activations; 0 where they are taken as they are.
    fn prepared_len(&self) -> usize {
        self.products.activations.map_or(0, |preparation| (preparation.len)(self.columns))
    }

    /// The granules `begin..end` of rows with all tokens.
    fn granules(
        &self,
        [begin, end]: [usize; 2],
        x: &[f32],
        n_tokens: usize,
        scratch: &mut [f32],
        out: &DisjointSlice<'_, f32>,
    ) {
        let row_tile = self.products.row_tile;
        let rows = begin * row_tile..self.rows.min(end * row_tile);
        let data = match (&self.packed, self.products.packing) {
            (Some(packed), Some(packing)) => {
                let row_tile_bytes = (packing.bytes)(row_tile, self.columns);
                &packed[begin * row_tile_bytes..packed.len().min(end * row_tile_bytes)]
            }
            _ => {
                let row_bytes = self.bytes.len() / self.rows;
                &self.bytes[rows.start * row_bytes..rows.end * row_bytes]
            }
        };
        let run = MatmulCall {
            rows: data,
            n_rows: rows.len(),
            dtype: self.products.dtype,
            columns: self.columns,
            n_tokens,
            x,
            bias: self.bias.as_ref().map(|bias| &bias[rows.clone()]),
        };
        // SAFETY: `multiply` gives each row to one worker, and `out` is `[n_tokens, rows]`.
        let mut results = unsafe { out.output_tile(rows.start, self.rows, n_tokens, rows.len()) };
        (self.products.matmul)(&run, scratch, &mut results);
    }

    fn n_granules(&self) -> usize {
        self.rows.div_ceil(self.products.row_tile)
    }
}

/// Rows of an embedding: looked up, not multiplied.
pub(crate) struct Rows<'w> {
    bytes: &'w [u8],
    row_bytes: usize,
    row_kernels: RowKernels,
}

impl<'w> Rows<'w> {
    pub(crate) fn new(kernels: &'static Kernels, weight: &Weight<'w>) -> Self {
        Self {
            bytes: weight.bytes,
            row_bytes: weight.bytes.len() / weight.rows,
            row_kernels: (kernels.rows)(weight.dtype),
        }
    }

    /// Row `index` as float32.
    pub(crate) fn row(&self, index: usize, out: &mut [f32]) {
        let row = &self.bytes[index * self.row_bytes..(index + 1) * self.row_bytes];
        (self.row_kernels.dequantize)(row, out);
    }
}

/// Multiplies the activations `x` `[n_tokens, columns]` with several matrices at once: rows of all of them are shared out
/// over the workers. `scratch` holds for each worker the greatest [`Linear::scratch_len`] of them.
pub(crate) fn matmul(
    parallel: &Parallel<'_>,
    x: &[f32],
    n_tokens: usize,
    scratch: &mut [f32],
    products: &mut [Product<'_, '_>],
) {
    const MOST: usize = 3;
    assert!(products.len() <= MOST, "{} products at once", products.len());
    // Matrices of different types may want activations in different forms, each made once, one after the other.
    let mut done = [false; MOST];
    for first in 0..products.len() {
        if done[first] {
            continue;
        }
        let form = |product: &Product<'_, '_>| product.linear.products.activations.map(|form| form.id);
        let wanted = form(&products[first]);
        // No allocation in a forward call: the few outputs sit in an array.
        let mut jobs: [Option<(&Linear<'_>, DisjointSlice<'_, f32>)>; MOST] = [const { None }; MOST];
        for ((job, product), done) in jobs.iter_mut().zip(products.iter_mut()).zip(&mut done) {
            if !*done && form(product) == wanted {
                *done = true;
                *job = Some((product.linear, DisjointSlice::new(product.out)));
            }
        }
        matmul_same_format(parallel, x, n_tokens, scratch, &jobs);
    }
}

/// As [`multiply`], with one matrix.
pub(crate) fn multiply_one(
    parallel: &Parallel<'_>,
    linear: &Linear<'_>,
    x: &[f32],
    n_tokens: usize,
    scratch: &mut [f32],
    out: &mut [f32],
) {
    matmul(parallel, x, n_tokens, scratch, &mut [Product { linear, out }]);
}

/// Multiplies with matrices that take activations in the same form.
fn matmul_same_format(
    parallel: &Parallel<'_>,
    x: &[f32],
    n_tokens: usize,
    scratch: &mut [f32],
    jobs: &[Option<(&Linear<'_>, DisjointSlice<'_, f32>)>],
) {
    let Some((model, _)) = jobs.iter().flatten().next() else { return };
    let (columns, prepared_len) = (model.columns, model.prepared_len());
    let (prepared, work) = scratch.split_at_mut((prepared_len * n_tokens).next_multiple_of(ALIGN));
    let x: &[f32] = match model.products.activations {
        None => x,
        Some(form) => {
            let whole = DisjointSlice::new(&mut *prepared);
            let prepare = |tiles: std::ops::Range<usize>, _: usize| {
                for tile in form.tiles(n_tokens).skip(tiles.start).take(tiles.len()) {
                    let x = &x[tile.start * columns..tile.end * columns];
                    // SAFETY: each tile of tokens is one worker's.
                    let prepared = unsafe { whole.part(tile.start * prepared_len..tile.end * prepared_len) };
                    (form.quantize)(x, columns, prepared);
                }
            };
            let tiles = form.tiles(n_tokens).count();
            if n_tokens < SHARE_FROM || tiles == 1 {
                prepare(0..tiles, 0)
            } else {
                parallel.run(tiles, &prepare)
            }
            prepared
        }
    };
    let share = work.len() / parallel.workers() / ALIGN * ALIGN;
    let work = DisjointSlice::new(work);
    let total = jobs.iter().flatten().map(|(linear, _)| linear.n_granules()).sum();
    parallel.run(total, &|range, worker| {
        // SAFETY: no two tasks that run at once have the same worker.
        let scratch = unsafe { work.part(worker * share..(worker + 1) * share) };
        let mut first = 0;
        for (linear, out) in jobs.iter().flatten() {
            let begin = range.start.max(first) - first;
            let end = range.end.min(first + linear.n_granules()).max(first) - first;
            first += linear.n_granules();
            if begin < end {
                linear.granules([begin, end], x, n_tokens, scratch, out);
            }
        }
    });
}
