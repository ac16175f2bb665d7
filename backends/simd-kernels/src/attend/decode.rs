//! Few rows: four of them side by side in a vector (a row block), four elements of each. Four elements of a key are repeated for
//! the four rows: where vectors are wide by shuffles, otherwise by broadcasting loads from keys that were widened to float32
//! in memory. Values are widened as they are read. The slots' scales multiply the products.

use herald_layers::kernels::{OnlineSoftmax, Tile};

use super::softmax::{Scores, softmax_weights};
use super::{Element, FOUR, span};
use crate::prefetch::Prefetcher;
use crate::simd::{LANES, Simd};

/// Row blocks whose scores are summed at once.
const ROW_BLOCKS: usize = 4;

/// Attends, with lengths as `attend_elements` checks them.
#[inline(always)]
pub(super) fn attend<S: Simd, E: Element>(
    s: S,
    tile: &Tile<'_, E>,
    running: &mut OnlineSoftmax<'_>,
    scratch: &mut [f32],
) {
    let rows = tile.visible.len();
    let slots = tile.key_scales.len();
    let row_blocks = rows.div_ceil(FOUR);
    let chunks = tile.key_dim.div_ceil(LANES);
    let width = slots.next_multiple_of(LANES);
    let (scores, floats) = scratch.split_at_mut(row_blocks * FOUR * width);
    let codes = &tile.keys[..slots * tile.key_dim];
    let floats = if S::WIDE { &[][..] } else { E::widen(s, codes, floats) };
    let keys = Keys { codes, floats, dim: tile.key_dim };
    let [with_scores, with_values] = E::upcoming(tile);
    // For a single row block, two fours of slots go at once.
    let steps = chunks * slots.div_ceil(if S::WIDE && row_blocks == 1 { 2 * FOUR } else { FOUR });
    let mut prefetcher = Prefetcher::new(with_scores, steps, tile.next.streaming);
    for first in (0..row_blocks).step_by(ROW_BLOCKS) {
        let count = ROW_BLOCKS.min(row_blocks - first);
        let queries = &tile.queries[first * chunks * FOUR * LANES..];
        let scores = &mut scores[first * FOUR * width..(first + count) * FOUR * width];
        let visible = span(&tile.visible[first * FOUR..rows.min((first + count) * FOUR)]);
        match count {
            4 => score_row_blocks::<S, E, 4, 1>(s, keys, queries, visible, width, scores, &mut prefetcher),
            3 => score_row_blocks::<S, E, 3, 1>(s, keys, queries, visible, width, scores, &mut prefetcher),
            2 => score_row_blocks::<S, E, 2, 1>(s, keys, queries, visible, width, scores, &mut prefetcher),
            _ if S::WIDE => {
                score_row_blocks::<S, E, 1, 2>(s, keys, queries, visible, width, scores, &mut prefetcher);
            }
            _ => score_row_blocks::<S, E, 1, 1>(s, keys, queries, visible, width, scores, &mut prefetcher),
        }
    }
    let rows_of_scores = Scores {
        visible: tile.visible,
        width,
        scale: tile.scale,
        softcap: tile.softcap,
        scales: Some([&tile.key_scales[..slots], &tile.value_scales[..slots]]),
    };
    let factors = softmax_weights(s, &rows_of_scores, scores, running.max, running.sum);
    let weights = Weights { scores, width, factors: &factors };
    let mut prefetcher = Prefetcher::new(with_values, slots, tile.next.streaming);
    let mut row = 0;
    while row < rows {
        row += match rows - row {
            12.. if S::WIDE => add_values::<S, E, 12, 2>(s, tile, row, weights, running.out, &mut prefetcher),
            6.. if S::WIDE => add_values::<S, E, 6, 4>(s, tile, row, weights, running.out, &mut prefetcher),
            3.. if S::WIDE => add_values::<S, E, 3, 4>(s, tile, row, weights, running.out, &mut prefetcher),
            3.. => add_values::<S, E, 3, 2>(s, tile, row, weights, running.out, &mut prefetcher),
            _ => add_values::<S, E, 1, 4>(s, tile, row, weights, running.out, &mut prefetcher),
        };
    }
}

/// Lays queries out as `[row blocks, key_dim / 4, 4 rows, 4 elements]`, with zeros in place of rows and elements beyond the last.
#[inline(always)]
pub(super) fn pack_queries(queries: &[f32], key_dim: usize, out: &mut [f32]) {
    let rows = queries.len() / key_dim;
    let chunks = key_dim.div_ceil(LANES);
    if !key_dim.is_multiple_of(LANES) || !rows.is_multiple_of(FOUR) {
        out.fill(0.0);
    }
    for (row, query) in queries.chunks_exact(key_dim).enumerate() {
        let block = &mut out[row / FOUR * chunks * FOUR * LANES..];
        let (fours, rest) = query.as_chunks::<FOUR>();
        for (query, out) in fours.iter().zip(block.chunks_exact_mut(LANES)) {
            out[row % FOUR * FOUR..][..FOUR].copy_from_slice(query);
        }
        if !rest.is_empty() {
            block[fours.len() * LANES + row % FOUR * FOUR..][..rest.len()].copy_from_slice(rest);
        }
    }
}

/// Sixteen elements as float32, or those that there are and zeros.
#[inline(always)]
fn load_padded<S: Simd, E: Element>(s: S, from: &[E]) -> S::F {
    if let Some(from) = from.first_chunk() {
        return E::load(s, from);
    }
    let mut last = [E::default(); LANES];
    last[..from.len()].copy_from_slice(from);
    E::load(s, &last)
}

/// A tile's keys `[slots, dim]`.
#[derive(Clone, Copy)]
struct Keys<'a, E> {
    codes: &'a [E],
    /// As float32; empty where vectors are wide.
    floats: &'a [f32],
    dim: usize,
}

impl<E: Element> Keys<'_, E> {
    /// `count` elements from `at` on (and zeros after them), each four of them repeated in all quarters of a vector: where
    /// vectors are wide by shuffles, since broadcasting loads take longer there.
    ///
    /// # Safety
    /// The elements are there, in `floats` too where vectors aren't wide.
    #[inline(always)]
    unsafe fn quarters<S: Simd>(&self, s: S, at: usize, count: usize) -> [S::F; FOUR] {
        if S::WIDE {
            // SAFETY: as the caller promises.
            let elements = unsafe { self.codes.get_unchecked(at..at + count) };
            return s.each_quarter(load_padded(s, elements));
        }
        // SAFETY: as the caller promises.
        let elements = unsafe { self.floats.get_unchecked(at..at + count) };
        let Some([a, b, c, d]) = elements.as_chunks().0.first_chunk() else {
            return s.each_quarter(load_padded(s, elements));
        };
        [s.load_quarter(a), s.load_quarter(b), s.load_quarter(c), s.load_quarter(d)]
    }
}

/// Products of `N` row blocks with the keys of slots `begin..end` (and a few more, to whole fours), into
/// `[4 * N, width]`, `FOURS` fours of slots at a time.
#[inline(always)]
fn score_row_blocks<S: Simd, E: Element, const N: usize, const FOURS: usize>(
    s: S,
    keys: Keys<'_, E>,
    queries: &[f32],
    [begin, end]: [usize; 2],
    width: usize,
    scores: &mut [f32],
    prefetcher: &mut Prefetcher<'_>,
) {
    let slots = keys.codes.len() / keys.dim;
    let chunks = keys.dim.div_ceil(LANES);
    assert!(
        queries.len() >= N * chunks * FOUR * LANES
            && scores.len() >= N * FOUR * width
            && width.is_multiple_of(LANES)
            && end <= slots
            && slots <= width
            && (S::WIDE || keys.floats.len() == keys.codes.len())
    );
    let (full, rest) = (keys.dim / LANES, keys.dim % LANES);
    let step = FOURS * FOUR;
    for slot in (begin / step * step..end).step_by(step) {
        // The slots' sums side by side: a single one would wait for each of its additions.
        let mut sums = [[[s.zero(); FOUR]; N]; FOURS];
        let mut places = [[0; FOUR]; FOURS];
        for (lane, place) in places.as_flattened_mut().iter_mut().enumerate() {
            *place = (slot + lane).min(slots - 1) * keys.dim;
        }
        // SAFETY: chunks are within the queries, places are those of slots, and whole fours of slots are within `width`.
        unsafe {
            for chunk in 0..full {
                prefetcher.step();
                add_chunk::<S, E, N, FOURS>(s, &mut sums, keys, places, queries, [chunk, chunks], LANES);
            }
            if rest > 0 {
                prefetcher.step();
                add_chunk::<S, E, N, FOURS>(s, &mut sums, keys, places, queries, [full, chunks], rest);
            }
            for (four, sums) in sums.into_iter().enumerate() {
                for (block, sums) in sums.into_iter().enumerate() {
                    let to = scores.as_mut_ptr().add(block * FOUR * width + slot + four * FOUR);
                    s.store_quarters(to, width, s.sum_quarters(sums));
                }
            }
        }
    }
}

/// Adds the products of `N` row blocks with `count` elements of the keys that begin at `places`: those of chunk number
/// `chunk` of `chunks`.
///
/// # Safety
/// `queries` is `[N, chunks, 4, 16]`, and each key has these elements.
#[inline(always)]
unsafe fn add_chunk<S: Simd, E: Element, const N: usize, const FOURS: usize>(
    s: S,
    sums: &mut [[[S::F; FOUR]; N]; FOURS],
    keys: Keys<'_, E>,
    places: [[usize; FOUR]; FOURS],
    queries: &[f32],
    [chunk, chunks]: [usize; 2],
    count: usize,
) {
    let mut query = [[s.zero(); FOUR]; N];
    for (block, query) in query.iter_mut().enumerate() {
        for (four, query) in query.iter_mut().enumerate() {
            let at = (block * chunks + chunk) * FOUR + four;
            // SAFETY: as the caller promises.
            *query = unsafe { s.load_ptr(queries.as_ptr().add(at * LANES)) };
        }
    }
    for (sums, places) in sums.iter_mut().zip(places) {
        for (lane, place) in places.into_iter().enumerate() {
            // SAFETY: as the caller promises.
            let key = unsafe { keys.quarters(s, place + chunk * LANES, count) };
            for (sums, query) in sums.iter_mut().zip(query) {
                for (key, query) in key.into_iter().zip(query) {
                    sums[lane] = s.fma(key, query, sums[lane]);
                }
            }
        }
    }
}

/// The weights of a tile's rows.
#[derive(Clone, Copy)]
struct Weights<'a> {
    /// `[rows, width]`.
    scores: &'a [f32],
    width: usize,
    /// What each row's output so far must be multiplied by.
    factors: &'a [f32],
}

impl Weights<'_> {
    /// Those of the rows from `row` on.
    #[inline(always)]
    fn from(self, row: usize) -> Self {
        Self { scores: &self.scores[row * self.width..], factors: &self.factors[row..], ..self }
    }
}

/// Adds the values, weighted (by zero where a row doesn't see them), to `N` rows from `row` on, `ACROSS` vectors of a row
/// at a time. Returns `N`.
#[inline(always)]
fn add_values<S: Simd, E: Element, const N: usize, const ACROSS: usize>(
    s: S,
    tile: &Tile<'_, E>,
    row: usize,
    weights: Weights<'_>,
    out: &mut [f32],
    prefetcher: &mut Prefetcher<'_>,
) -> usize {
    let value_dim = tile.value_dim;
    let slots = span(&tile.visible[row..row + N]);
    let weights = weights.from(row);
    let out = &mut out[row * value_dim..(row + N) * value_dim];
    let mut column = 0;
    while column + ACROSS * LANES <= value_dim {
        add_columns::<S, E, N, ACROSS, true>(s, tile, slots, column, weights, out, prefetcher);
        column += ACROSS * LANES;
    }
    while column < value_dim {
        add_columns::<S, E, N, 1, false>(s, tile, slots, column, weights, out, prefetcher);
        column += LANES;
    }
    N
}

/// Adds columns of the values of slots `begin..end`, weighted, to the rows `out` `[N, value_dim]`: `ACROSS` vectors of them
/// where they are `FULL`; otherwise one, of which some columns may be missing.
#[inline(always)]
fn add_columns<S: Simd, E: Element, const N: usize, const ACROSS: usize, const FULL: bool>(
    s: S,
    tile: &Tile<'_, E>,
    [begin, end]: [usize; 2],
    column: usize,
    Weights { scores, width, factors }: Weights<'_>,
    out: &mut [f32],
    prefetcher: &mut Prefetcher<'_>,
) {
    let value_dim = tile.value_dim;
    assert!(
        tile.values.len() >= end * value_dim
            && scores.len() >= N * width
            && factors.len() >= N
            && end <= width
            && out.len() >= N * value_dim
            && column + if FULL { ACROSS * LANES } else { 1 } <= value_dim
            && (FULL || ACROSS == 1)
    );
    let count = LANES.min(value_dim - column);
    // SAFETY: the slots, rows and columns below are within the values, weights and output: asserted above.
    unsafe {
        let mut acc = [[s.zero(); ACROSS]; N];
        for (row, acc) in acc.iter_mut().enumerate() {
            for (part, acc) in acc.iter_mut().enumerate() {
                let from = out.as_ptr().add(row * value_dim + column + part * LANES);
                let out = if FULL {
                    s.load_ptr(from)
                } else {
                    s.load_first(std::slice::from_raw_parts(from, count))
                };
                *acc = s.mul(out, s.splat(factors[row]));
            }
        }
        for slot in begin..end {
            prefetcher.step();
            let mut value = [s.zero(); ACROSS];
            for (part, value) in value.iter_mut().enumerate() {
                let at = slot * value_dim + column + part * LANES;
                *value = if FULL {
                    E::load(s, &*tile.values.as_ptr().add(at).cast())
                } else {
                    load_padded(s, &tile.values[at..(slot + 1) * value_dim])
                };
            }
            for (row, acc) in acc.iter_mut().enumerate() {
                let weight = s.splat(*scores.as_ptr().add(row * width + slot));
                for (acc, value) in acc.iter_mut().zip(value) {
                    *acc = s.fma(weight, value, *acc);
                }
            }
        }
        for (row, acc) in acc.into_iter().enumerate() {
            for (part, acc) in acc.into_iter().enumerate() {
                let to = out.as_mut_ptr().add(row * value_dim + column + part * LANES);
                if FULL {
                    s.store_ptr(to, acc);
                } else {
                    s.store_first(std::slice::from_raw_parts_mut(to, count), acc);
                }
            }
        }
    }
}
