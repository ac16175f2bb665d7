//! Weight matrices, and their products with activations.

use std::ops::Range;

use herald_api::{ActivationPrecision, AlignedBytes, DType, Pack, PackStore, Parallel, Result, Weight};

use crate::disjoint_slice::DisjointSlice;
use crate::kernels::Kernels;
use crate::matmul::{MatmulCall, MatmulKernel, Packing};
use crate::observed;
use crate::paging;
use crate::parallel::ParallelExt;
use crate::scratch::{PerWorker, Scratch};
use herald_formats::RowKernels;

/// Tokens from which on it pays off to wake the workers for quantising a batch's activations.
const SHARE_FROM_TOKENS: usize = 8;

/// Matrices that [`matmul`] takes at once: the outputs sit in an array, since a forward call allocates nothing.
const MAX_MATRICES: usize = 6;

/// A weight matrix `[rows, columns]`, with a bias where there is one.
pub(crate) struct Linear<'w> {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    kernel: MatmulKernel,
    /// As they lie in the model's file.
    bytes: &'w [u8],
    /// As the backend packs them, where it does.
    packed: Option<Packed<'w>>,
    bias: Option<Vec<f32>>,
}

/// Weights as the backend packs them.
enum Packed<'w> {
    /// In the layer's own memory.
    Own(AlignedBytes),
    /// Where the host keeps them.
    Kept(&'w [u8]),
}

impl Packed<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Kept(bytes) => bytes,
        }
    }
}

/// One matrix of several that are multiplied with the same activations, and where the results go.
pub(crate) struct Product<'p, 'w> {
    pub(crate) linear: &'p Linear<'w>,
    /// `[n_tokens, rows]`.
    pub(crate) out: &'p mut [f32],
}

impl<'w> Linear<'w> {
    /// A matrix of the model's file, not yet packed.
    pub(crate) fn new(
        kernels: &'static Kernels,
        weight: &Weight<'w>,
        activations: ActivationPrecision,
    ) -> Self {
        Self {
            rows: weight.rows,
            columns: weight.columns,
            kernel: (kernels.matmul)(weight.dtype, activations),
            bytes: weight.bytes,
            packed: None,
            bias: None,
        }
    }

    pub(crate) fn set_bias(&mut self, bias: Option<Vec<f32>>) {
        self.bias = bias;
    }

    /// Has the weights packed as the backend wants them, where it does: by the host's store, or packed now. Row tiles are shared out over
    /// the workers.
    ///
    /// # Errors
    /// Where there is no memory for them.
    pub(crate) fn pack(&mut self, parallel: &Parallel<'_>, packs: Option<&PackStore<'w, '_>>) -> Result<()> {
        let Some(packing) = self.kernel.packing else { return Ok(()) };
        let len = (packing.bytes)(self.rows, self.columns);
        // A form is a number for each element type, since that alone decides how a backend packs.
        let form = u64::from(self.kernel.dtype.code());
        // A store that fails is as good as none.
        let kept = packs.and_then(|packs| Some((packs, packs.take(self.bytes, form, len).ok()?)));
        self.packed = Some(match kept {
            Some((_, Pack::Filled(packed))) => Packed::Kept(packed),
            Some((packs, Pack::Empty(memory))) => {
                self.pack_into(packing, parallel, memory);
                Packed::Kept(packs.fill(memory))
            }
            None => {
                let mut packed = AlignedBytes::zeroed(len)?;
                self.pack_into(packing, parallel, &mut packed);
                Packed::Own(packed)
            }
        });
        Ok(())
    }

    fn pack_into(&self, packing: Packing, parallel: &Parallel<'_>, packed: &mut [u8]) {
        let row_tile = self.kernel.row_tile;
        parallel.for_chunks(packed, (packing.bytes)(row_tile, self.columns), &|index, packed, _| {
            let first = index * row_tile;
            (packing.pack)(self.bytes, self.columns, first..self.rows.min(first + row_tile), packed);
        });
    }

    /// Has the system begin to read the weights, where they lie in a file that isn't in memory.
    pub(crate) fn ask_ahead(&self) {
        match &self.packed {
            Some(Packed::Own(_)) => {}
            Some(Packed::Kept(packed)) => paging::ask_for(packed),
            None => paging::ask_for(self.bytes),
        }
    }

    /// Bytes of the backend's own copy of the weights, in memory of its own.
    pub(crate) fn packed_bytes(&self) -> usize {
        match &self.packed {
            Some(Packed::Own(packed)) => packed.len(),
            Some(Packed::Kept(_)) | None => 0,
        }
    }

    /// Float32 elements of a token's quantised activations; 0 where kernels take them as they are.
    fn quantized_len(&self) -> usize {
        self.kernel.activations.map_or(0, |format| (format.len)(self.columns))
    }

    fn n_row_tiles(&self) -> usize {
        self.rows.div_ceil(self.kernel.row_tile)
    }

    /// Multiplies a run of row tiles with all tokens.
    fn multiply_row_tiles(
        &self,
        tiles: Range<usize>,
        x: &[f32],
        n_tokens: usize,
        scratch: &mut [f32],
        out: &DisjointSlice<'_, f32>,
    ) {
        let row_tile = self.kernel.row_tile;
        let rows = tiles.start * row_tile..self.rows.min(tiles.end * row_tile);
        let data = match (&self.packed, self.kernel.packing) {
            (Some(packed), Some(packing)) => {
                let (packed, row_tile_bytes) = (packed.bytes(), (packing.bytes)(row_tile, self.columns));
                &packed[tiles.start * row_tile_bytes..packed.len().min(tiles.end * row_tile_bytes)]
            }
            _ => {
                let row_bytes = self.bytes.len() / self.rows;
                &self.bytes[rows.start * row_bytes..rows.end * row_bytes]
            }
        };
        let call = MatmulCall {
            rows: data,
            n_rows: rows.len(),
            dtype: self.kernel.dtype,
            columns: self.columns,
            n_tokens,
            x,
            bias: self.bias.as_ref().map(|bias| &bias[rows.clone()]),
        };
        // SAFETY: `matmul_same_format` gives each row tile to one worker, and `out` is `[n_tokens, rows]`.
        let mut tile = unsafe { out.output_tile(rows.start, self.rows, n_tokens, rows.len()) };
        (self.kernel.matmul)(&call, scratch, &mut tile);
    }
}

/// Rows of an embedding: looked up, not multiplied.
pub(crate) struct Rows<'w> {
    bytes: &'w [u8],
    row_bytes: usize,
    dtype: DType,
    row_kernels: RowKernels,
}

impl<'w> Rows<'w> {
    pub(crate) fn new(kernels: &'static Kernels, weight: &Weight<'w>) -> Self {
        Self {
            bytes: weight.bytes,
            row_bytes: weight.bytes.len() / weight.rows,
            dtype: weight.dtype,
            row_kernels: (kernels.rows)(weight.dtype),
        }
    }

    /// Elements that [`Rows::part`] needs memory for: those of whole blocks.
    pub(crate) fn part_len(&self, first: usize, len: usize) -> usize {
        let block = self.dtype.block_len();
        (first + len).next_multiple_of(block) - first / block * block
    }

    /// The elements `first..first + len` of row `index` as float32, in memory of [`Rows::part_len`].
    pub(crate) fn part<'o>(&self, index: usize, first: usize, len: usize, out: &'o mut [f32]) -> &'o [f32] {
        let (block, block_bytes) = (self.dtype.block_len(), self.dtype.block_bytes());
        let blocks = first / block..(first + len).div_ceil(block);
        let out = &mut out[..blocks.len() * block];
        let row = &self.bytes[index * self.row_bytes..(index + 1) * self.row_bytes];
        (self.row_kernels.dequantize)(&row[blocks.start * block_bytes..blocks.end * block_bytes], out);
        &out[first % block..][..len]
    }

    /// Row `index` as float32.
    pub(crate) fn row(&self, index: usize, out: &mut [f32]) {
        let row = &self.bytes[index * self.row_bytes..(index + 1) * self.row_bytes];
        (self.row_kernels.dequantize)(row, out);
    }
}

/// The buffers of a product.
struct Buffers<'s> {
    /// The activations of all tokens in the kernels' format, where they have one.
    quantized: &'s mut [f32],
    /// The kernels' own memory.
    workers: PerWorker<'s>,
    /// Elements of it that a worker has.
    worker_len: usize,
}

impl<'s> Buffers<'s> {
    /// Buffers for products of `n_tokens` tokens with any of these matrices.
    fn of<'l, 'w: 'l>(
        scratch: &mut Scratch<'s>,
        linears: impl Iterator<Item = &'l Linear<'w>> + Clone,
        n_tokens: usize,
        workers: usize,
    ) -> Self {
        let quantized_len = linears.clone().map(Linear::quantized_len).max().unwrap_or(0);
        let worker_len = linears.map(|linear| (linear.kernel.scratch_len)(linear.columns, n_tokens));
        let worker_len = worker_len.max().unwrap_or(0);
        Self {
            quantized: scratch.take(n_tokens * quantized_len),
            workers: scratch.per_worker(workers, |scratch| scratch.take::<f32>(worker_len)),
            worker_len,
        }
    }
}

/// Bytes of scratch memory that [`matmul`] needs for up to `n_tokens` tokens and any of these matrices.
pub(crate) fn matmul_bytes<'l, 'w: 'l>(
    linears: impl IntoIterator<Item = &'l Linear<'w>, IntoIter: Clone>,
    n_tokens: usize,
    workers: usize,
) -> usize {
    Scratch::measure(|scratch| Buffers::of(scratch, linears.into_iter(), n_tokens, workers))
}

/// Multiplies the activations `x` `[n_tokens, columns]` with up to six matrices at once: row tiles of all of them are
/// shared out over the workers. `work` has the bytes that [`matmul_bytes`] tells.
pub(crate) fn matmul(
    parallel: &Parallel<'_>,
    x: &[f32],
    n_tokens: usize,
    work: &mut [u8],
    products: &mut [Product<'_, '_>],
) {
    assert!(products.len() <= MAX_MATRICES, "{} products at once", products.len());
    for Product { linear, .. } in products.iter() {
        observed::show(linear.bytes, linear.columns, &x[..n_tokens * linear.columns]);
    }
    // Matrices of different types may want activations in different formats; each is made once, one after the other.
    let mut done = [false; MAX_MATRICES];
    for first in 0..products.len() {
        if done[first] {
            continue;
        }
        let format = |product: &Product<'_, '_>| product.linear.kernel.activations.map(|format| format.id);
        let wanted = format(&products[first]);
        let mut jobs: [Option<Job<'_, '_>>; MAX_MATRICES] = [const { None }; MAX_MATRICES];
        for ((job, product), done) in jobs.iter_mut().zip(products.iter_mut()).zip(&mut done) {
            if !*done && format(product) == wanted {
                *done = true;
                *job = Some((product.linear, DisjointSlice::new(product.out)));
            }
        }
        matmul_same_format(parallel, x, n_tokens, work, &jobs);
    }
}

/// As [`matmul`], with one matrix.
pub(crate) fn matmul_one(
    parallel: &Parallel<'_>,
    linear: &Linear<'_>,
    x: &[f32],
    n_tokens: usize,
    work: &mut [u8],
    out: &mut [f32],
) {
    matmul(parallel, x, n_tokens, work, &mut [Product { linear, out }]);
}

/// A matrix, and where its results go.
type Job<'p, 'w> = (&'p Linear<'w>, DisjointSlice<'p, f32>);

/// Multiplies with matrices that take activations in the same format.
fn matmul_same_format(
    parallel: &Parallel<'_>,
    x: &[f32],
    n_tokens: usize,
    work: &mut [u8],
    jobs: &[Option<Job<'_, '_>>],
) {
    let linears = jobs.iter().flatten().map(|(linear, _)| *linear);
    let Some(linear) = linears.clone().next() else { return };
    let Buffers { quantized, mut workers, worker_len } =
        Buffers::of(&mut Scratch::new(work), linears.clone(), n_tokens, parallel.workers());
    let x = quantize(parallel, linear, x, n_tokens, quantized);
    let n_tiles = linears.map(Linear::n_row_tiles).sum();
    parallel.run_with(n_tiles, &mut workers, |range, mut scratch| {
        let scratch = scratch.take(worker_len);
        let mut first = 0;
        for (linear, out) in jobs.iter().flatten() {
            let begin = range.start.max(first) - first;
            let end = range.end.min(first + linear.n_row_tiles()).max(first) - first;
            first += linear.n_row_tiles();
            if begin < end {
                linear.multiply_row_tiles(begin..end, x, n_tokens, scratch, out);
            }
        }
    });
}

/// The activations of a batch in the format that a matrix's kernel takes.
fn quantize<'x>(
    parallel: &Parallel<'_>,
    linear: &Linear<'_>,
    x: &'x [f32],
    n_tokens: usize,
    quantized: &'x mut [f32],
) -> &'x [f32] {
    let Some(format) = linear.kernel.activations else { return x };
    let (columns, len) = (linear.columns, linear.quantized_len());
    let parts = DisjointSlice::new(&mut *quantized);
    let n_tiles = format.tiles(n_tokens).count();
    parallel.when(n_tokens >= SHARE_FROM_TOKENS && n_tiles > 1).run(n_tiles, &|range, _| {
        for tile in format.tiles(n_tokens).skip(range.start).take(range.len()) {
            let x = &x[tile.start * columns..tile.end * columns];
            // SAFETY: each tile of tokens is one worker's.
            let quantized = unsafe { parts.part(tile.start * len..tile.end * len) };
            (format.quantize)(x, columns, quantized);
        }
    });
    quantized
}
