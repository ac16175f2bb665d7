//! Products of tokens' activations with the rows of a weight matrix, as a backend offers them for one element type.
//!
//! A product goes in two steps, so that nothing is done twice: each token's activations are prepared once (say, as
//! integers) for all matrices that they meet, and then runs of rows, shared out over the workers, are multiplied with
//! all tokens. A backend may keep the weights in an order of its own, made once when the layer is.

use std::marker::PhantomData;
use std::ops::Range;

use herald_api::DType;

/// How one backend multiplies with weights of one element type.
#[derive(Clone, Copy, Debug)]
pub struct MatmulKernel {
    /// The element type.
    pub dtype: DType,
    /// Rows that stay together: a run of rows begins at a multiple of it.
    pub row_tile: usize,
    /// An order of the weights other than the file's, where the backend keeps one.
    pub packing: Option<Packing>,
    /// How a token's activations are prepared; `None`: products take them as they are.
    pub activations: Option<ActivationFormat>,
    /// Float32 elements of scratch memory that [`MatmulKernel::matmul`] may use for a run of rows of so many columns and
    /// at most so many tokens.
    pub scratch_len: fn(columns: usize, max_tokens: usize) -> usize,
    /// Multiplies a run of rows with all tokens.
    pub matmul: fn(&MatmulCall<'_>, scratch: &mut [f32], out: &mut OutputTile<'_>),
}

/// The backend's own order of weights.
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    /// Bytes that a matrix `[rows, columns]` takes.
    pub bytes: fn(rows: usize, columns: usize) -> usize,
    /// Packs the rows `run` of `rows` (bytes as in the file, of the whole matrix of `columns`) into `packed`, the bytes
    /// that [`Packing::bytes`] gives for as many rows.
    pub pack: fn(rows: &[u8], columns: usize, run: Range<usize>, packed: &mut [u8]),
}

/// The backend's own form of activations.
#[derive(Clone, Copy, Debug)]
pub struct ActivationFormat {
    /// Which preparation it is: types with the same number share their prepared activations.
    pub id: u32,
    /// Float32 elements that a prepared token takes.
    pub len: fn(columns: usize) -> usize,
    /// Tokens that are prepared together where so many are left: at least one, at most as many. A batch is cut into such
    /// tiles from its first token on.
    pub tile: fn(left: usize) -> usize,
    /// Prepares the activations `[n, columns]` of a tile of `n` tokens.
    pub quantize: fn(x: &[f32], columns: usize, prepared: &mut [f32]),
    /// The most that an activation is rounded by, as a share of the token's largest; tests bound errors with it.
    pub rounding: f32,
}

/// A run of rows and the tokens that it is multiplied with.
#[derive(Clone, Copy, Debug)]
pub struct MatmulCall<'a> {
    /// The rows, packed where the backend packs.
    pub rows: &'a [u8],
    /// How many.
    pub n_rows: usize,
    /// Their element type.
    pub dtype: DType,
    /// Elements of a row.
    pub columns: usize,
    /// Tokens.
    pub n_tokens: usize,
    /// Activations `[n_tokens, columns]`; prepared, where the backend prepares them: tile after tile, `len(columns)` for each
    /// token.
    pub x: &'a [f32],
    /// A bias for each row, where there is one.
    pub bias: Option<&'a [f32]>,
}

/// Where the products of a run of rows go: a part of each token's row of results.
#[derive(Debug)]
pub struct OutputTile<'a> {
    base: *mut f32,
    stride: usize,
    n_tokens: usize,
    n_rows: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

impl ActivationFormat {
    /// Prepares the activations `x` `[n_tokens, columns]` of a batch.
    pub fn quantize_all(&self, x: &[f32], columns: usize, prepared: &mut [f32]) {
        let len = (self.len)(columns);
        for tile in self.tiles(x.len() / columns) {
            let x = &x[tile.start * columns..tile.end * columns];
            (self.quantize)(x, columns, &mut prepared[tile.start * len..tile.end * len]);
        }
    }

    /// The tiles of a batch of so many tokens.
    pub(crate) fn tiles(&self, n_tokens: usize) -> impl Iterator<Item = Range<usize>> {
        let tile = self.tile;
        let mut first = 0;
        std::iter::from_fn(move || {
            let tile = (first < n_tokens).then(|| first..first + tile(n_tokens - first))?;
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

    /// `n_rows` results of each of `n_tokens` tokens, the first token's at `base`, each next one's `stride` elements on.
    ///
    /// # Safety
    /// All those elements are there for the lifetime `'a`, and nobody else reads or writes them meanwhile.
    pub(crate) unsafe fn strided(base: *mut f32, stride: usize, n_tokens: usize, n_rows: usize) -> Self {
        Self { base, stride, n_tokens, n_rows, borrowed: PhantomData }
    }

    /// The results of one token, `[n_rows]`.
    ///
    /// # Panics
    /// Where there is no such token.
    pub fn token(&mut self, token: usize) -> &mut [f32] {
        assert!(token < self.n_tokens, "the results of token {token} of {}", self.n_tokens);
        // SAFETY: whoever made this vouched for the elements; the borrow of self keeps other parts away.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(token * self.stride), self.n_rows) }
    }

    /// How many tokens.
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
