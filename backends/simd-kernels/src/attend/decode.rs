//! Few rows: four of them side by side in a vector, four elements of each. Four elements of a key are repeated for the
//! four rows: by a load, from where keys became floats in memory, or in registers where vectors are wide. Values become floats as
//! they are read. Their scales meet the products.

use herald_layers::kernels::{OnlineSoftmax, Tile};

use super::softmax::{Scores, softmax_weights};
use super::{Element, FOUR, span};
use crate::prefetch::Prefetcher;
use crate::simd::{LANES, Simd};

/// Quads of rows whose scores are summed at once.
const QUADS: usize = 4;

/// Attends; lengths are checked.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(super) unsafe fn attend<L: Simd, E: Element>(
    tile: &Tile<'_, E>,
    running: &mut OnlineSoftmax<'_>,
    scratch: &mut [f32],
) {
    let rows = tile.visible.len();
    let slots = tile.key_scales.len();
    let quads = rows.div_ceil(FOUR);
    let chunks = tile.key_dim.div_ceil(LANES);
    let width = slots.next_multiple_of(LANES);
    let (scores, floats) = scratch.split_at_mut(quads * FOUR * width);
    // SAFETY: the caller vouches for the instruction set; slices have these lengths.
    unsafe {
        let wide = L::NR >= 12;
        let codes = &tile.keys[..slots * tile.key_dim];
        let floats = if wide { &[][..] } else { E::widen::<L>(codes, floats) };
        let keys = Keys { codes, floats };
        let [with_scores, with_values] = E::upcoming(tile);
        // Of one quad alone two fours of slots go at once.
        let steps = chunks * slots.div_ceil(if wide && quads == 1 { 2 * FOUR } else { FOUR });
        let mut prefetcher = Prefetcher::new(with_scores, steps, tile.next.streaming);
        let dim = tile.key_dim;
        for first in (0..quads).step_by(QUADS) {
            let count = QUADS.min(quads - first);
            let queries = &tile.queries[first * chunks * FOUR * LANES..];
            let scores = &mut scores[first * FOUR * width..(first + count) * FOUR * width];
            let seen = span(&tile.visible[first * FOUR..rows.min((first + count) * FOUR)]);
            match count {
                4 => score_quads::<L, E, 4, 1>(keys, dim, queries, seen, width, scores, &mut prefetcher),
                3 => score_quads::<L, E, 3, 1>(keys, dim, queries, seen, width, scores, &mut prefetcher),
                2 => score_quads::<L, E, 2, 1>(keys, dim, queries, seen, width, scores, &mut prefetcher),
                _ if wide => {
                    score_quads::<L, E, 1, 2>(keys, dim, queries, seen, width, scores, &mut prefetcher)
                }
                _ => score_quads::<L, E, 1, 1>(keys, dim, queries, seen, width, scores, &mut prefetcher),
            }
        }
        let seen = Scores {
            visible: tile.visible,
            width,
            scale: tile.scale,
            softcap: tile.softcap,
            scales: Some([&tile.key_scales[..slots], &tile.value_scales[..slots]]),
        };
        let kept = softmax_weights::<L>(&seen, scores, running.max, running.sum);
        let weights = Weights { scores, width, kept: &kept };
        let mut prefetcher = Prefetcher::new(with_values, slots, tile.next.streaming);
        let mut row = 0;
        while row < rows {
            row += match rows - row {
                12.. if wide => add_values::<L, E, 12, 2>(tile, row, weights, running.out, &mut prefetcher),
                6.. if wide => add_values::<L, E, 6, 4>(tile, row, weights, running.out, &mut prefetcher),
                3.. if wide => add_values::<L, E, 3, 4>(tile, row, weights, running.out, &mut prefetcher),
                3.. => add_values::<L, E, 3, 2>(tile, row, weights, running.out, &mut prefetcher),
                _ => add_values::<L, E, 1, 4>(tile, row, weights, running.out, &mut prefetcher),
            };
        }
    }
}

/// Queries as `[quads, key_dim / 4, 4 rows, 4 elements]`, with zeros where there are no more.
#[inline(always)]
pub(super) fn pack_queries(queries: &[f32], key_dim: usize, out: &mut [f32]) {
    let rows = queries.len() / key_dim;
    let chunks = key_dim.div_ceil(LANES);
    if !key_dim.is_multiple_of(LANES) || !rows.is_multiple_of(FOUR) {
        out.fill(0.0);
    }
    for (row, query) in queries.chunks_exact(key_dim).enumerate() {
        let quad = &mut out[row / FOUR * chunks * FOUR * LANES..];
        let (fours, rest) = query.as_chunks::<FOUR>();
        for (query, out) in fours.iter().zip(quad.chunks_exact_mut(LANES)) {
            out[row % FOUR * FOUR..][..FOUR].copy_from_slice(query);
        }
        if !rest.is_empty() {
            quad[fours.len() * LANES + row % FOUR * FOUR..][..rest.len()].copy_from_slice(rest);
        }
    }
}

/// Sixteen codes of a row, or those that are left, as floats.
///
/// # Safety
/// As for [`Simd`]; `at` is within the row.
#[inline(always)]
unsafe fn codes<L: Simd, E: Element>(row: &[E], at: usize) -> L::F {
    // SAFETY: no more than are left are read.
    unsafe {
        if row.len() - at >= LANES {
            return E::load::<L>(row.as_ptr().add(at));
        }
        let mut last = [E::default(); LANES];
        last[..row.len() - at].copy_from_slice(&row[at..]);
        E::load::<L>(last.as_ptr())
    }
}

/// A tile's keys as they lie there, and as floats.
#[derive(Clone, Copy)]
struct Keys<'a, E> {
    codes: &'a [E],
    floats: &'a [f32],
}

impl<E: Element> Keys<'_, E> {
    /// Sixteen elements from a place on (or `count`, and zeros), each four of them repeated in all quarters of a vector: where
    /// vectors are wide by turning them, since loads that repeat take longer there.
    ///
    /// # Safety
    /// As for [`Simd`]; so many are there.
    #[inline(always)]
    unsafe fn quarters<L: Simd>(&self, place: usize, count: usize) -> [L::F; FOUR] {
        // SAFETY: the caller vouches.
        unsafe {
            if L::NR >= 12 {
                let row = std::slice::from_raw_parts(self.codes.as_ptr().add(place), count);
                return L::each_quarter(codes::<L, E>(row, 0));
            }
            let floats = self.floats.as_ptr().add(place);
            if count < LANES {
                return L::each_quarter(codes::<L, f32>(std::slice::from_raw_parts(floats, count), 0));
            }
            [
                L::load_quarter(floats),
                L::load_quarter(floats.add(FOUR)),
                L::load_quarter(floats.add(2 * FOUR)),
                L::load_quarter(floats.add(3 * FOUR)),
            ]
        }
    }
}

/// Products of `N` quads of rows with the keys of slots `begin..end` (and a few more, to whole fours), into
/// `[4 * N, width]`, `FOURS` fours of slots at a time.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn score_quads<L: Simd, E: Element, const N: usize, const FOURS: usize>(
    keys: Keys<'_, E>,
    key_dim: usize,
    queries: &[f32],
    [begin, end]: [usize; 2],
    width: usize,
    scores: &mut [f32],
    prefetcher: &mut Prefetcher<'_>,
) {
    let slots = keys.codes.len() / key_dim;
    let chunks = key_dim.div_ceil(LANES);
    assert!(queries.len() >= N * chunks * FOUR * LANES && scores.len() >= N * FOUR * width && end <= slots);
    let (whole, rest) = (key_dim / LANES, key_dim % LANES);
    let step = FOURS * FOUR;
    for slot in (begin / step * step..end).step_by(step) {
        // SAFETY: fours and quads are within the keys and queries; the scores have room for whole sixteens of slots.
        unsafe {
            // The slots' sums side by side: one alone would wait for each of its additions.
            let mut sums = [[[L::zero(); FOUR]; N]; FOURS];
            let mut places = [[0; FOUR]; FOURS];
            for (lane, place) in places.as_flattened_mut().iter_mut().enumerate() {
                *place = (slot + lane).min(slots - 1) * key_dim;
            }
            for chunk in 0..whole {
                prefetcher.step();
                add_chunk::<L, E, N, FOURS>(&mut sums, keys, places, queries, [chunk, chunks], LANES);
            }
            if rest > 0 {
                prefetcher.step();
                add_chunk::<L, E, N, FOURS>(&mut sums, keys, places, queries, [whole, chunks], rest);
            }
            for (four, sums) in sums.into_iter().enumerate() {
                for (quad, sums) in sums.into_iter().enumerate() {
                    let to = scores.as_mut_ptr().add(quad * FOUR * width + slot + four * FOUR);
                    L::store_quarters(to, width, L::sum_quarters(sums));
                }
            }
        }
    }
}

/// Adds the products of `N` quads of rows with `count` elements of the keys at some places: of the chunk with this number of
/// so many.
///
/// # Safety
/// As for [`Simd`]; the chunk is within the queries, and its elements within the keys.
#[inline(always)]
unsafe fn add_chunk<L: Simd, E: Element, const N: usize, const FOURS: usize>(
    sums: &mut [[[L::F; FOUR]; N]; FOURS],
    keys: Keys<'_, E>,
    places: [[usize; FOUR]; FOURS],
    queries: &[f32],
    [chunk, chunks]: [usize; 2],
    count: usize,
) {
    // SAFETY: the caller vouches.
    unsafe {
        let mut query = [[L::zero(); FOUR]; N];
        for (quad, query) in query.iter_mut().enumerate() {
            for (four, query) in query.iter_mut().enumerate() {
                let at = (quad * chunks + chunk) * FOUR + four;
                *query = L::load(queries.as_ptr().add(at * LANES));
            }
        }
        for (sums, places) in sums.iter_mut().zip(places) {
            for (lane, place) in places.into_iter().enumerate() {
                let key = keys.quarters::<L>(place + chunk * LANES, count);
                for (sums, query) in sums.iter_mut().zip(query) {
                    for (key, query) in key.into_iter().zip(query) {
                        sums[lane] = L::fma(key, query, sums[lane]);
                    }
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
    /// What each row's sums so far are to be multiplied by.
    kept: &'a [f32],
}

impl Weights<'_> {
    /// Those of the rows from one on.
    #[inline(always)]
    fn from(self, row: usize) -> Self {
        Self { scores: &self.scores[row * self.width..], kept: &self.kept[row..], ..self }
    }
}

/// Adds the values, weighted (by nothing where a row doesn't see them), to `N` rows from `row` on, `ACROSS` vectors of a
/// row at a time. Returns `N`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn add_values<L: Simd, E: Element, const N: usize, const ACROSS: usize>(
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
    // SAFETY: the caller vouches for the instruction set; columns are within the rows.
    unsafe {
        while column + ACROSS * LANES <= value_dim {
            add_columns::<L, E, N, ACROSS, true>(tile, slots, column, weights, out, prefetcher);
            column += ACROSS * LANES;
        }
        while column < value_dim {
            add_columns::<L, E, N, 1, false>(tile, slots, column, weights, out, prefetcher);
            column += LANES;
        }
    }
    N
}

/// Adds columns of the values of slots `begin..end`, weighted, to the rows `out` `[N, value_dim]`. All columns are there
/// where they are `WHOLE`; otherwise some may be missing.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn add_columns<L: Simd, E: Element, const N: usize, const ACROSS: usize, const WHOLE: bool>(
    tile: &Tile<'_, E>,
    [begin, end]: [usize; 2],
    column: usize,
    Weights { scores, width, kept }: Weights<'_>,
    out: &mut [f32],
    prefetcher: &mut Prefetcher<'_>,
) {
    let value_dim = tile.value_dim;
    assert!(
        tile.values.len() >= end * value_dim
            && scores.len() >= N * width
            && kept.len() >= N
            && end <= width
            && out.len() >= N * value_dim
            && column + if WHOLE { ACROSS * LANES } else { 1 } <= value_dim
    );
    let count = LANES.min(value_dim - column);
    // SAFETY: slots and columns are within the tile, rows within the weights and the output: checked above.
    unsafe {
        let mut acc = [[L::zero(); ACROSS]; N];
        for (row, acc) in acc.iter_mut().enumerate() {
            for (part, acc) in acc.iter_mut().enumerate() {
                let from = out.as_ptr().add(row * value_dim + column + part * LANES);
                let out = if WHOLE { L::load(from) } else { L::load_first(from, count) };
                *acc = L::mul(out, L::splat(kept[row]));
            }
        }
        for slot in begin..end {
            prefetcher.step();
            let mut value = [L::zero(); ACROSS];
            for (part, value) in value.iter_mut().enumerate() {
                let at = slot * value_dim + column + part * LANES;
                *value = if WHOLE {
                    E::load::<L>(tile.values.as_ptr().add(at))
                } else {
                    codes::<L, E>(&tile.values[..(slot + 1) * value_dim], at)
                };
            }
            for (row, acc) in acc.iter_mut().enumerate() {
                let weight = L::splat(*scores.as_ptr().add(row * width + slot));
                for (acc, value) in acc.iter_mut().zip(value) {
                    *acc = L::fma(weight, value, *acc);
                }
            }
        }
        for (row, acc) in acc.into_iter().enumerate() {
            for (part, acc) in acc.into_iter().enumerate() {
                let to = out.as_mut_ptr().add(row * value_dim + column + part * LANES);
                if WHOLE { L::store(to, acc) } else { L::store_first(to, acc, count) }
            }
        }
    }
}
