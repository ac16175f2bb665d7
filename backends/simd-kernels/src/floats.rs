//! Products with plain floats (float32, float16, bfloat16): packed column by column, sixteen rows side by side, and
//! multiplied with activations as they are, one fused multiply-add a column and row, column after column, whatever the
//! number of tokens.

use herald_layers::matmul::{MatmulCall, OutputTile};

use crate::prefetch::Stream;
use crate::simd::{LANES, Simd};

/// A float type of weights.
pub(crate) trait Float: 'static {
    /// Bytes of an element.
    const BYTES: usize;

    /// Sixteen of them as float32.
    ///
    /// # Safety
    /// As for [`Simd`]; sixteen elements are there.
    unsafe fn load<L: Simd>(from: *const u8) -> L::F;
}

pub(crate) struct F32;
pub(crate) struct F16;
pub(crate) struct Bf16;

impl Float for F32 {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load<L: Simd>(from: *const u8) -> L::F {
        // SAFETY: the caller vouches.
        unsafe { L::load(from.cast()) }
    }
}

impl Float for F16 {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<L: Simd>(from: *const u8) -> L::F {
        // SAFETY: the caller vouches.
        unsafe { L::load_f16(from) }
    }
}

impl Float for Bf16 {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<L: Simd>(from: *const u8) -> L::F {
        // SAFETY: the caller vouches.
        unsafe { L::load_bf16(from) }
    }
}

/// Bytes of a packed matrix.
pub(crate) fn packed_bytes<T: Float>(rows: usize, columns: usize) -> usize {
    rows.div_ceil(LANES) * columns * LANES * T::BYTES
}

/// Packs rows `run` (a row tile, or its first rows) of a matrix as it lies in the file.
pub(crate) fn pack<T: Float>(rows: &[u8], columns: usize, run: std::ops::Range<usize>, packed: &mut [u8]) {
    let row_bytes = columns * T::BYTES;
    for (lane, row) in run.enumerate() {
        let row = &rows[row * row_bytes..(row + 1) * row_bytes];
        for (element, column) in row.chunks_exact(T::BYTES).zip(packed.chunks_exact_mut(LANES * T::BYTES)) {
            column[lane * T::BYTES..(lane + 1) * T::BYTES].copy_from_slice(element);
        }
    }
}

/// Tokens of the next tile.
fn tile_len<L: Simd>(left: usize) -> usize {
    match left {
        12.. if L::NR >= 12 => 12,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// Multiplies a run of packed rows with tokens.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn matmul<L: Simd, T: Float>(run: &MatmulCall<'_>, out: &mut OutputTile<'_>) {
    let row_tile_bytes = run.columns * LANES * T::BYTES;
    let granules = run.n_rows.div_ceil(LANES);
    assert!(
        run.rows.len() >= granules * row_tile_bytes
            && run.x.len() >= run.n_tokens * run.columns
            && run.bias.is_none_or(|bias| bias.len() >= run.n_rows)
            && out.n_rows() >= run.n_rows,
        "a product of {} tokens with {} rows of {} has slices too short",
        run.n_tokens,
        run.n_rows,
        run.columns
    );
    // Tokens that aren't one tile read a row tile again.
    let once = run.n_tokens == tile_len::<L>(run.n_tokens);
    let stream = Stream::new(&run.rows[..granules * row_tile_bytes], once);
    for row_tile in 0..granules {
        let rows = run.rows[row_tile * row_tile_bytes..].as_ptr();
        let mut first = 0;
        while first < run.n_tokens {
            // SAFETY: the row tile's bytes are there, and the tokens; the caller vouches for the instruction set.
            first += unsafe {
                match tile_len::<L>(run.n_tokens - first) {
                    12 => tile::<L, T, 12>(run, stream, rows, row_tile, first, out),
                    4 => tile::<L, T, 4>(run, stream, rows, row_tile, first, out),
                    2 => tile::<L, T, 2>(run, stream, rows, row_tile, first, out),
                    _ => tile::<L, T, 1>(run, stream, rows, row_tile, first, out),
                }
            };
        }
    }
}

/// A row tile with `N` tokens from `first` on. Returns `N`.
///
/// # Safety
/// As for [`Simd`]; `rows` points to the row tile, and the tokens are there.
#[inline(always)]
unsafe fn tile<L: Simd, T: Float, const N: usize>(
    run: &MatmulCall<'_>,
    stream: Stream,
    rows: *const u8,
    row_tile: usize,
    first: usize,
    out: &mut OutputTile<'_>,
) -> usize {
    let columns = run.columns;
    let x = run.x[first * columns..(first + N) * columns].as_ptr();
    let lanes = row_tile * LANES..run.n_rows.min((row_tile + 1) * LANES);
    // SAFETY: columns stay within the row tile and the tokens, and only as many lanes as there are rows are stored.
    unsafe {
        let mut acc = [L::zero(); N];
        for column in 0..columns {
            let at = rows.add(column * LANES * T::BYTES);
            stream.read(at, LANES * T::BYTES);
            let weights = T::load::<L>(at);
            for (token, acc) in acc.iter_mut().enumerate() {
                *acc = L::fma(weights, L::splat(*x.add(token * columns + column)), *acc);
            }
        }
        for (token, mut acc) in acc.into_iter().enumerate() {
            if let Some(bias) = run.bias {
                acc = L::add(acc, L::load_first(bias[lanes.clone()].as_ptr(), lanes.len()));
            }
            let out = &mut out.token(first + token)[lanes.clone()];
            L::store_first(out.as_mut_ptr(), acc, lanes.len());
        }
    }
    N
}
