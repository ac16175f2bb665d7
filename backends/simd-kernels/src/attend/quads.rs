//! Few rows: four of them side by side in a vector, four elements of each. Keys become floats in memory, from where a load
//! repeats four of their elements for the four rows; values become floats as they are read. Their scales meet the
//! products.

use herald_layers::kernels::{Running, Tile};

use super::{Element, FOUR, scaled, span, worth};
use crate::ahead::Ahead;
use crate::lanes::{LANES, Lanes};
use crate::math::exp;

/// Quads of rows whose scores are summed at once.
const QUADS: usize = 4;

/// Attends; lengths are checked.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(super) unsafe fn attend<L: Lanes, E: Element>(
    tile: &Tile<'_, E>,
    running: &mut Running<'_>,
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
        let keys = E::widen::<L>(&tile.keys[..slots * tile.key_dim], floats);
        let [with_scores, with_values] = E::upcoming(tile);
        let mut ahead = Ahead::new(with_scores, slots.div_ceil(FOUR), tile.next.once);
        for first in (0..quads).step_by(QUADS) {
            let count = QUADS.min(quads - first);
            let queries = &tile.queries[first * chunks * FOUR * LANES..];
            let scores = &mut scores[first * FOUR * width..(first + count) * FOUR * width];
            let [begin, end] = span(&tile.visible[first * FOUR..rows.min((first + count) * FOUR)]);
            let seen = [begin, end];
            match count {
                4 => score_quads::<L, 4>(keys, tile.key_dim, queries, seen, width, scores, &mut ahead),
                3 => score_quads::<L, 3>(keys, tile.key_dim, queries, seen, width, scores, &mut ahead),
                2 => score_quads::<L, 2>(keys, tile.key_dim, queries, seen, width, scores, &mut ahead),
                _ => score_quads::<L, 1>(keys, tile.key_dim, queries, seen, width, scores, &mut ahead),
            }
        }
        for row in 0..rows {
            let scores = &mut scores[row * width..(row + 1) * width];
            if tile.visible[row][0] < tile.visible[row][1] {
                weigh_row::<L, E>(tile, row, scores, running);
            } else {
                scores.fill(0.0);
            }
        }
        let wide = L::TOKENS >= 12;
        let mut ahead = Ahead::new(with_values, slots, tile.next.once);
        let mut row = 0;
        while row < rows {
            row += match rows - row {
                12.. if wide => add_values::<L, E, 12, 2>(tile, row, width, scores, running, &mut ahead),
                6.. if wide => add_values::<L, E, 6, 4>(tile, row, width, scores, running, &mut ahead),
                3.. if wide => add_values::<L, E, 3, 4>(tile, row, width, scores, running, &mut ahead),
                3.. => add_values::<L, E, 3, 2>(tile, row, width, scores, running, &mut ahead),
                _ => add_values::<L, E, 1, 4>(tile, row, width, scores, running, &mut ahead),
            };
        }
    }
}

/// Queries as `[quads, key_dim / 4, 4 rows, 4 elements]`, with zeros where there are no more.
#[inline(always)]
pub(super) fn arrange(queries: &[f32], key_dim: usize, out: &mut [f32]) {
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
/// As for [`Lanes`]; `at` is within the row.
#[inline(always)]
unsafe fn codes<L: Lanes, E: Element>(row: &[E], at: usize) -> L::F {
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

/// Products of `N` quads of rows with the keys of slots `begin..end` (and a few more, to whole fours), into
/// `[4 * N, width]`.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
unsafe fn score_quads<L: Lanes, const N: usize>(
    keys: &[f32],
    key_dim: usize,
    queries: &[f32],
    [begin, end]: [usize; 2],
    width: usize,
    scores: &mut [f32],
    ahead: &mut Ahead<'_>,
) {
    let slots = keys.len() / key_dim;
    let fours = key_dim.div_ceil(FOUR);
    let chunks = key_dim.div_ceil(LANES);
    assert!(queries.len() >= N * chunks * FOUR * LANES && scores.len() >= N * FOUR * width && end <= slots);
    let whole = key_dim / FOUR;
    for slot in (begin / FOUR * FOUR..end).step_by(FOUR) {
        ahead.step();
        let key = |lane: usize| &keys[(slot + lane).min(slots - 1) * key_dim..][..key_dim];
        let keys = [key(0), key(1), key(2), key(3)];
        // SAFETY: fours and quads are within the keys and queries; the scores have room for whole sixteens of slots.
        unsafe {
            // The four slots' sums side by side: one alone would wait for each of its additions.
            let mut sums = [[L::zero(); FOUR]; N];
            for four in 0..whole {
                let keys = keys.map(|key| L::load_quarter(key.as_ptr().add(four * FOUR)));
                add_four::<L, N>(&mut sums, keys, queries, chunks, four);
            }
            if whole < fours {
                let keys = keys.map(|key| {
                    let mut last = [0.0; FOUR];
                    last[..key_dim % FOUR].copy_from_slice(&key[whole * FOUR..]);
                    L::load_quarter(last.as_ptr())
                });
                add_four::<L, N>(&mut sums, keys, queries, chunks, whole);
            }
            for (quad, sums) in sums.into_iter().enumerate() {
                let to = scores.as_mut_ptr().add(quad * FOUR * width + slot);
                L::store_quarters(to, width, L::sum_quarters(sums));
            }
        }
    }
}

/// Adds the products of `N` quads of rows with four elements of four keys.
///
/// # Safety
/// As for [`Lanes`]; the four are within the queries.
#[inline(always)]
unsafe fn add_four<L: Lanes, const N: usize>(
    sums: &mut [[L::F; FOUR]; N],
    keys: [L::F; FOUR],
    queries: &[f32],
    chunks: usize,
    four: usize,
) {
    for (quad, sums) in sums.iter_mut().enumerate() {
        // SAFETY: the caller vouches.
        unsafe {
            let query = L::load(queries.as_ptr().add((quad * chunks * FOUR + four) * LANES));
            for (sum, key) in sums.iter_mut().zip(keys) {
                *sum = L::fma(key, query, *sum);
            }
        }
    }
}

/// Makes a row's products its weights: `exp(score - max)` times the value's scale, and nothing where it doesn't see;
/// moves what was seen before to the new maximum.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
unsafe fn weigh_row<L: Lanes, E>(
    tile: &Tile<'_, E>,
    row: usize,
    scores: &mut [f32],
    running: &mut Running<'_>,
) {
    let [begin, end] = tile.visible[row];
    let slots = tile.key_scales.len();
    let (first, last) = (begin as usize / LANES * LANES, (end as usize).next_multiple_of(LANES));
    scores[..first].fill(0.0);
    scores[last..].fill(0.0);
    // SAFETY: places are within the row and the scales.
    unsafe {
        let scale = L::splat(tile.scale);
        let mut max = L::splat(f32::NEG_INFINITY);
        for at in (first..last).step_by(LANES) {
            let to = scores.as_mut_ptr().add(at);
            let key_scales = L::load_first(tile.key_scales.as_ptr().add(at), LANES.min(slots - at));
            let score = scaled::<L, E>(tile, L::load(to), L::mul(key_scales, scale));
            let score = L::keep(score, f32::NEG_INFINITY, [begin as usize, end as usize], at);
            max = L::max(score, max);
            L::store(to, score);
        }
        let old = running.max[row];
        let max = old.max(L::max_lane(max));
        let mut sum = L::zero();
        for at in (first..last).step_by(LANES) {
            let to = scores.as_mut_ptr().add(at);
            let weight = exp::<L>(L::sub(L::load(to), L::splat(max)));
            let weight = L::keep(weight, 0.0, [begin as usize, end as usize], at);
            sum = L::add(sum, weight);
            let value_scales = L::load_first(tile.value_scales.as_ptr().add(at), LANES.min(slots - at));
            let weight = L::keep(L::mul(weight, value_scales), 0.0, [begin as usize, end as usize], at);
            L::store(to, weight);
        }
        let kept = L::max_lane(worth::<L>(L::splat(old), L::splat(max)));
        running.max[row] = max;
        running.sum[row] = running.sum[row] * kept + L::sum(sum);
        if kept != 1.0 {
            let out = &mut running.out[row * tile.value_dim..(row + 1) * tile.value_dim];
            out.iter_mut().for_each(|value| *value *= kept);
        }
    }
}

/// Adds the values, weighted (by nothing where a row doesn't see them), to `N` rows from `row` on, `ACROSS` vectors of a
/// row at a time. Returns `N`.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
unsafe fn add_values<L: Lanes, E: Element, const N: usize, const ACROSS: usize>(
    tile: &Tile<'_, E>,
    row: usize,
    width: usize,
    weights: &[f32],
    running: &mut Running<'_>,
    ahead: &mut Ahead<'_>,
) -> usize {
    let value_dim = tile.value_dim;
    let slots = span(&tile.visible[row..row + N]);
    let weights = &weights[row * width..(row + N) * width];
    let out = &mut running.out[row * value_dim..(row + N) * value_dim];
    let mut column = 0;
    // SAFETY: the caller vouches for the instruction set; columns are within the rows.
    unsafe {
        while column + ACROSS * LANES <= value_dim {
            add_columns::<L, E, N, ACROSS, true>(tile, slots, column, weights, width, out, ahead);
            column += ACROSS * LANES;
        }
        while column < value_dim {
            add_columns::<L, E, N, 1, false>(tile, slots, column, weights, width, out, ahead);
            column += LANES;
        }
    }
    N
}

/// Adds columns of the values of slots `begin..end`, weighted, to the rows `out` `[N, value_dim]`. All columns are there
/// where they are `WHOLE`; otherwise some may be missing.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
unsafe fn add_columns<L: Lanes, E: Element, const N: usize, const ACROSS: usize, const WHOLE: bool>(
    tile: &Tile<'_, E>,
    [begin, end]: [usize; 2],
    column: usize,
    weights: &[f32],
    width: usize,
    out: &mut [f32],
    ahead: &mut Ahead<'_>,
) {
    let value_dim = tile.value_dim;
    assert!(
        tile.values.len() >= end * value_dim
            && weights.len() >= N * width
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
                *acc = if WHOLE { L::load(from) } else { L::load_first(from, count) };
            }
        }
        for slot in begin..end {
            ahead.step();
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
                let weight = L::splat(*weights.as_ptr().add(row * width + slot));
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
