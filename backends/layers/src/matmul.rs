//! Matrix multiplication: tokens' activations with the rows of a weight matrix, as a backend offers it for one element type.
//!
//! It takes two steps, so that nothing is done twice. Each token's activations are brought into the kernel's format (say,
//! int16) once for all matrices that share it. Then runs of rows, shared out over the workers, are multiplied with all
//! tokens. A backend may pack the weights into its own layout when the layer is made.

use std::marker::PhantomData;
use std::ops::Range;

use herald_api::DType;

/// How one backend multiplies with weights of one element type.
#[derive(Clone, Copy, Debug)]
pub struct MatmulKernel {
    /// The element type.
    pub dtype: DType,
    /// Rows of a tile: every run of rows begins at a multiple of it.
    pub row_tile: usize,
    /// The backend's layout of the weights, where it isn't the file's.
    pub packing: Option<Packing>,
    /// The format that activations are quantised to; `None`: float32, as they are.
    pub activations: Option<ActivationFormat>,
    /// Float32 elements of scratch memory that [`MatmulKernel::matmul`] may use for a run of rows of `columns` elements and
    /// at most `max_tokens` tokens. More tokens never take less.
    pub scratch_len: fn(columns: usize, max_tokens: usize) -> usize,
    /// Multiplies a run of rows with all tokens.
    pub matmul: fn(&MatmulCall<'_>, scratch: &mut [f32], out: &mut OutputTile<'_>),
}

/// The backend's own layout of weights.
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    /// Bytes that a matrix `[rows, columns]` takes.
    pub bytes: fn(rows: usize, columns: usize) -> usize,
    /// Packs the rows `run` of the matrix `rows` (bytes as in the file, rows of `columns` elements) into `packed`, which has
    /// the bytes that [`Packing::bytes`] gives for that many rows.
    pub pack: fn(rows: &[u8], columns: usize, run: Range<usize>, packed: &mut [u8]),
}

/// The backend's own format of activations.
#[derive(Clone, Copy, Debug)]
pub struct ActivationFormat {
    /// Names the format: element types with the same `id` share quantised activations.
    pub id: u32,
    /// Float32 elements of room that a quantised token takes.
    pub len: fn(columns: usize) -> usize,
    /// Size of the next tile when `left` of a batch's tokens remain (1..=left). Tiles cut a batch from its first token on.
    pub tile: fn(n_tokens: usize, left: usize) -> usize,
    /// Quantises the activations `[n, columns]` of a tile of `n` tokens.
    pub quantize: fn(x: &[f32], columns: usize, quantized: &mut [f32]),
    /// Bound on an activation's rounding error, relative to the token's largest magnitude. Used by error bounds in tests.
    pub rounding: f32,
}

/// A run of rows and the tokens that it is multiplied with.
#[derive(Clone, Copy, Debug)]
pub struct MatmulCall<'a> {
    /// The rows, packed where the backend packs.
    pub rows: &'a [u8],
    /// Number of rows.
    pub n_rows: usize,
    /// Their element type.
    pub dtype: DType,
    /// Elements of a row.
    pub columns: usize,
    /// Tokens.
    pub n_tokens: usize,
    /// Activations `[n_tokens, columns]`; or where the backend has a format of activations, tile after tile in that format,
    /// `len(columns)` elements a token.
    pub x: &'a [f32],
    /// A bias for each row, where the matrix has one.
    pub bias: Option<&'a [f32]>,
}

/// Where a run of rows' results go: a part of each token's row of results.
#[derive(Debug)]
pub struct OutputTile<'a> {
    base: *mut f32,
    stride: usize,
    n_tokens: usize,
    n_rows: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

impl ActivationFormat {
    /// Quantises the activations `x` `[n_tokens, columns]` of a batch.
    pub fn quantize_all(&self, x: &[f32], columns: usize, quantized: &mut [f32]) {
        let len = (self.len)(columns);
        for tile in self.tiles(x.len() / columns) {
            let x = &x[tile.start * columns..tile.end * columns];
            (self.quantize)(x, columns, &mut quantized[tile.start * len..tile.end * len]);
        }
    }

    /// The tiles of a batch of `n_tokens` tokens.
    pub(crate) fn tiles(&self, n_tokens: usize) -> impl Iterator<Item = Range<usize>> {
        let tile = self.tile;
        let mut first = 0;
        std::iter::from_fn(move || {
            let tile = (first < n_tokens).then(|| first..first + tile(n_tokens, n_tokens - first))?;
            first = tile.end;
            Some(tile)
        })
    }
}

impl<'a> OutputTile<'a> {
    /// The results of all rows of a matrix: `out` is `[n_tokens, n_rows]`.
    #[must_use]
    pub fn whole(out: &'a mut [f32], n_rows: usize) -> Self {
        let n_tokens = out.len() / n_rows.max(1);
        Self { base: out.as_mut_ptr(), stride: n_rows, n_tokens, n_rows, borrowed: PhantomData }
    }

    /// `n_rows` results of each of `n_tokens` tokens: the first token's begin at `base`, each next token's `stride` elements
    /// later.
    ///
    /// # Safety
    /// All those elements are valid for the lifetime `'a`, in which nobody else reads or writes them.
    pub(crate) unsafe fn strided(base: *mut f32, stride: usize, n_tokens: usize, n_rows: usize) -> Self {
        Self { base, stride, n_tokens, n_rows, borrowed: PhantomData }
    }

    /// The results of one token, `[n_rows]`.
    ///
    /// # Panics
    /// Where there is no such token.
    #[inline]
    pub fn token(&mut self, token: usize) -> &mut [f32] {
        assert!(token < self.n_tokens, "the results of token {token} of {}", self.n_tokens);
        // SAFETY: the elements are there by the contract of the tile's constructor; borrowing self exclusively keeps other tokens' slices away.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(token * self.stride), self.n_rows) }
    }

    /// Number of tokens.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Results of each token.
    #[must_use]
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }
}
