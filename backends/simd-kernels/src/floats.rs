//! Matmuls with plain floats (float32, float16, bfloat16), packed column by column, sixteen rows side by side. Activations
//! stay as they are: one fused multiply-add for each column and row, column after column, whatever the number of tokens.

use bytemuck::Pod;
use herald_formats::floats::{Bf16, F16, F32};
use herald_layers::matmul::{MatmulCall, OutputTile};

use crate::prefetch::Stream;
use crate::simd::{LANES, Simd};

/// A float type of weights.
pub(crate) trait Float: 'static {
    /// Bytes of an element.
    const BYTES: usize;

    /// The bytes of sixteen elements: a packed column of a row tile.
    type Column: Pod;

    /// A column as float32.
    fn load<S: Simd>(s: S, from: &Self::Column) -> S::F;
}

impl Float for F32 {
    const BYTES: usize = 4;

    type Column = [u8; 4 * LANES];

    #[inline(always)]
    fn load<S: Simd>(s: S, from: &Self::Column) -> S::F {
        s.load_f32(from)
    }
}

impl Float for F16 {
    const BYTES: usize = 2;

    type Column = [u8; 2 * LANES];

    #[inline(always)]
    fn load<S: Simd>(s: S, from: &Self::Column) -> S::F {
        s.load_f16(from)
    }
}

impl Float for Bf16 {
    const BYTES: usize = 2;

    type Column = [u8; 2 * LANES];

    #[inline(always)]
    fn load<S: Simd>(s: S, from: &Self::Column) -> S::F {
        s.load_bf16(from)
    }
}

/// Bytes of a packed matrix.
pub(crate) fn packed_bytes<T: Float>(rows: usize, columns: usize) -> usize {
    rows.div_ceil(LANES) * columns * size_of::<T::Column>()
}

/// Packs rows `run` (a row tile, or its first rows) of a matrix as it lies in the file.
pub(crate) fn pack<T: Float>(rows: &[u8], columns: usize, run: std::ops::Range<usize>, packed: &mut [u8]) {
    let row_bytes = columns * T::BYTES;
    for (lane, row) in run.enumerate() {
        let row = &rows[row * row_bytes..(row + 1) * row_bytes];
        for (element, column) in
            row.chunks_exact(T::BYTES).zip(packed.chunks_exact_mut(size_of::<T::Column>()))
        {
            column[lane * T::BYTES..(lane + 1) * T::BYTES].copy_from_slice(element);
        }
    }
}

/// Tokens of the next tile, with `left` to go.
pub(crate) fn tile_len<S: Simd>(left: usize) -> usize {
    match left {
        left if left >= S::NR => S::NR,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// Multiplies a run of packed rows with tokens.
#[inline(always)]
pub(crate) fn matmul<S: Simd, T: Float>(s: S, run: &MatmulCall<'_>, _: &mut [f32], out: &mut OutputTile<'_>) {
    let row_tile_bytes = run.columns * size_of::<T::Column>();
    let row_tiles = run.n_rows.div_ceil(LANES);
    assert!(
        run.rows.len() >= row_tiles * row_tile_bytes
            && run.x.len() >= run.n_tokens * run.columns
            && run.bias.is_none_or(|bias| bias.len() >= run.n_rows)
            && out.n_rows() >= run.n_rows,
        "a product of {} tokens with {} rows of {} has slices too short",
        run.n_tokens,
        run.n_rows,
        run.columns
    );
    // More than one tile of tokens reads a row tile again.
    let once = run.n_tokens == tile_len::<S>(run.n_tokens);
    let stream = Stream::new(&run.rows[..row_tiles * row_tile_bytes], once);
    for row_tile in 0..row_tiles {
        let rows = &run.rows[row_tile * row_tile_bytes..][..row_tile_bytes];
        let rows: &[T::Column] = bytemuck::cast_slice(rows);
        let mut first = 0;
        while first < run.n_tokens {
            first += match tile_len::<S>(run.n_tokens - first) {
                12 => tile::<S, T, 12>(s, run, stream, rows, row_tile, first, out),
                4 => tile::<S, T, 4>(s, run, stream, rows, row_tile, first, out),
                2 => tile::<S, T, 2>(s, run, stream, rows, row_tile, first, out),
                _ => tile::<S, T, 1>(s, run, stream, rows, row_tile, first, out),
            };
        }
    }
}

/// The micro-kernel: a row tile with `N` tokens from `first` on. Returns `N`.
#[inline(always)]
fn tile<S: Simd, T: Float, const N: usize>(
    s: S,
    run: &MatmulCall<'_>,
    stream: Stream,
    rows: &[T::Column],
    row_tile: usize,
    first: usize,
    out: &mut OutputTile<'_>,
) -> usize {
    let columns = rows.len();
    let x: [&[f32]; N] = std::array::from_fn(|n| &run.x[(first + n) * columns..][..columns]);
    let lanes = row_tile * LANES..run.n_rows.min((row_tile + 1) * LANES);
    let mut acc = [s.zero(); N];
    // By index, since all slices have as many elements: so none is checked in the loop.
    for column in 0..columns {
        stream.read(std::ptr::from_ref(&rows[column]).cast(), size_of::<T::Column>());
        let weights = T::load(s, &rows[column]);
        for (acc, x) in acc.iter_mut().zip(x) {
            *acc = s.fma(weights, s.splat(x[column]), *acc);
        }
    }
    for (token, mut acc) in acc.into_iter().enumerate() {
        if let Some(bias) = run.bias {
            acc = s.add(acc, s.load_first(&bias[lanes.clone()]));
        }
        s.store_first(&mut out.token(first + token)[lanes.clone()], acc);
    }
    N
}
