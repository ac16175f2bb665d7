//! Many rows: sixteen of them side by side, a lane each. Keys and values are read as floats once for all rows, and each
//! of their elements meets whole vectors of rows.

use herald_layers::kernels::{OnlineSoftmax, Tile};

use super::{Element, FOUR, rescale, scaled, span};
use crate::math::exp;
use crate::prefetch::prefetch;
use crate::simd::{LANES, Simd};

/// Queries as `[rows / 16, key_dim, 16]`, with zeros where there are no more.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(super) unsafe fn pack_queries<L: Simd>(queries: &[f32], key_dim: usize, out: &mut [f32]) {
    for (queries, out) in queries.chunks(LANES * key_dim).zip(out.chunks_exact_mut(LANES * key_dim)) {
        let rows = queries.len() / key_dim;
        if rows < LANES {
            out.fill(0.0);
        }
        let (fours, columns) = (rows / FOUR * FOUR, key_dim / LANES * LANES);
        for row in (0..fours).step_by(FOUR) {
            for column in (0..columns).step_by(LANES) {
                // SAFETY: four rows of sixteen columns are there, and their places in `out`.
                unsafe {
                    let at = |n: usize| L::load(queries.as_ptr().add((row + n) * key_dim + column));
                    let turned = L::transpose_quarters([at(0), at(1), at(2), at(3)]);
                    for (n, turned) in turned.into_iter().enumerate() {
                        let to = out.as_mut_ptr().add((column + n) * LANES + row);
                        L::store_quarters(to, FOUR * LANES, turned);
                    }
                }
            }
        }
        for row in 0..rows {
            for column in if row < fours { columns } else { 0 }..key_dim {
                out[column * LANES + row] = queries[row * key_dim + column];
            }
        }
    }
}

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
    let Tile { key_dim, value_dim, .. } = *tile;
    let slots = tile.key_scales.len();
    let rows = tile.visible.len();
    let groups = rows.div_ceil(LANES);
    let seen = span(tile.visible);
    let (scores, rest) = scratch.split_at_mut(groups * slots * LANES);
    let (kept, wide) = rest.split_at_mut(groups * LANES);
    // SAFETY: the caller vouches for the instruction set; slices have these lengths.
    unsafe {
        let keys = E::widen::<L>(&tile.keys[..slots * key_dim], wide);
        let mut first = 0;
        while first < groups {
            let queries = &tile.queries[first * LANES * key_dim..];
            let scores = &mut scores[first * LANES * slots..];
            first += match groups - first {
                3.. if L::NR >= 12 => score::<L, 3, 8>(queries, keys, key_dim, slots, seen, scores),
                2 if L::NR >= 12 => score::<L, 2, 8>(queries, keys, key_dim, slots, seen, scores),
                _ if L::NR >= 12 => score::<L, 1, 8>(queries, keys, key_dim, slots, seen, scores),
                _ => score::<L, 1, 4>(queries, keys, key_dim, slots, seen, scores),
            };
        }
        prefetch(tile.next.keys);
        for (group, (scores, kept)) in
            scores.chunks_exact_mut(slots * LANES).zip(kept.chunks_exact_mut(LANES)).enumerate()
        {
            softmax_weights::<L, E>(tile, group * LANES, seen, scores, running, kept);
        }
        prefetch(tile.next.values);
        let values = E::widen::<L>(&tile.values[..slots * value_dim], wide);
        let mut row = 0;
        while row < rows {
            let weights = Weights { scores, kept, slots, row };
            row += match rows - row {
                6.. if L::NR >= 12 => add::<L, 6, 4>(weights, values, value_dim, seen, running),
                4.. if L::NR >= 12 => add::<L, 4, 4>(weights, values, value_dim, seen, running),
                6.. => add::<L, 6, 1>(weights, values, value_dim, seen, running),
                _ => add::<L, 1, 4>(weights, values, value_dim, seen, running),
            };
        }
    }
}

/// Products of `16 G` rows with the keys of slots `begin..end`, into `[G, slots, 16]`, `S` slots at a time. Returns `G`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn score<L: Simd, const G: usize, const S: usize>(
    queries: &[f32],
    keys: &[f32],
    key_dim: usize,
    slots: usize,
    [begin, end]: [usize; 2],
    scores: &mut [f32],
) -> usize {
    let mut slot = begin;
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        while slot + S <= end {
            score_slots::<L, G, S>(queries, keys, key_dim, slots, slot, scores);
            slot += S;
        }
        while slot < end {
            score_slots::<L, G, 1>(queries, keys, key_dim, slots, slot, scores);
            slot += 1;
        }
    }
    G
}

/// Products of `16 G` rows with the keys of `S` slots.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn score_slots<L: Simd, const G: usize, const S: usize>(
    queries: &[f32],
    keys: &[f32],
    key_dim: usize,
    slots: usize,
    slot: usize,
    scores: &mut [f32],
) {
    assert!(
        queries.len() >= G * key_dim * LANES
            && slot + S <= slots
            && keys.len() >= slots * key_dim
            && scores.len() >= G * slots * LANES
    );
    // SAFETY: slots, elements and rows are there.
    unsafe {
        let keys = keys.as_ptr().add(slot * key_dim);
        // In the order in which `decode` sums the lanes of a quarter.
        let even = sums::<L, G, S>(queries.as_ptr(), keys, key_dim, 0);
        let even = plus::<L, G, S>(even, sums::<L, G, S>(queries.as_ptr(), keys, key_dim, 2));
        let odd = sums::<L, G, S>(queries.as_ptr(), keys, key_dim, 1);
        let odd = plus::<L, G, S>(odd, sums::<L, G, S>(queries.as_ptr(), keys, key_dim, 3));
        for (group, sums) in plus::<L, G, S>(even, odd).into_iter().enumerate() {
            for (n, sum) in sums.into_iter().enumerate() {
                L::store(scores.as_mut_ptr().add((group * slots + slot + n) * LANES), sum);
            }
        }
    }
}

/// Products over every fourth element from one on.
///
/// # Safety
/// As for [`Simd`]; there are `[G, key_dim, 16]` queries and `S` keys.
#[inline(always)]
unsafe fn sums<L: Simd, const G: usize, const S: usize>(
    queries: *const f32,
    keys: *const f32,
    key_dim: usize,
    from: usize,
) -> [[L::F; S]; G] {
    // SAFETY: the caller vouches.
    unsafe {
        let mut acc = [[L::zero(); S]; G];
        for element in (from..key_dim).step_by(FOUR) {
            let mut query = [L::zero(); G];
            for (group, query) in query.iter_mut().enumerate() {
                *query = L::load(queries.add((group * key_dim + element) * LANES));
            }
            for slot in 0..S {
                let key = L::splat(*keys.add(slot * key_dim + element));
                for (acc, query) in acc.iter_mut().zip(query) {
                    acc[slot] = L::fma(key, query, acc[slot]);
                }
            }
        }
        acc
    }
}

/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn plus<L: Simd, const G: usize, const S: usize>(
    mut a: [[L::F; S]; G],
    b: [[L::F; S]; G],
) -> [[L::F; S]; G] {
    for (a, b) in a.as_flattened_mut().iter_mut().zip(b.as_flattened()) {
        // SAFETY: the caller vouches.
        *a = unsafe { L::add(*a, *b) };
    }
    a
}

/// Makes sixteen rows' products their weights: `exp(score - max)` times the value's scale, and nothing where a row
/// doesn't see. What was seen before is to be multiplied by `kept`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn softmax_weights<L: Simd, E>(
    tile: &Tile<'_, E>,
    row: usize,
    [begin, end]: [usize; 2],
    scores: &mut [f32],
    running: &mut OnlineSoftmax<'_>,
    kept: &mut [f32],
) {
    let visible = &tile.visible[row..tile.visible.len().min(row + LANES)];
    let count = visible.len();
    let slots = tile.key_scales.len();
    let (key_scales, value_scales) = (&tile.key_scales[..slots], &tile.value_scales[..slots]);
    assert!(scores.len() >= slots * LANES && kept.len() >= LANES && begin <= end && end <= slots);
    let mut bounds = [[0.0_f32; LANES]; 2];
    for (lane, [begin, end]) in visible.iter().enumerate() {
        (bounds[0][lane], bounds[1][lane]) = (*begin as f32, *end as f32);
    }
    // Mostly all see everything.
    let masked = visible.iter().any(|seen| seen.map(|place| place as usize) != [begin, end]);
    // SAFETY: slots are within the scores, rows within the states.
    unsafe {
        let bounds = bounds.map(|bounds| L::load(bounds.as_ptr()));
        let mask = masked.then_some(bounds);
        let mut max = L::splat(f32::NEG_INFINITY);
        for (slot, scale) in key_scales.iter().enumerate().take(end).skip(begin) {
            let to = scores.as_mut_ptr().add(slot * LANES);
            let score = scaled::<L, E>(tile, L::load(to), L::splat(scale * tile.scale));
            let score = keep::<L>(score, f32::NEG_INFINITY, slot, mask);
            max = L::max(score, max);
            L::store(to, score);
        }
        let old = L::load_first(running.max[row..].as_ptr(), count);
        let max = L::max(max, old);
        // In the order in which `decode` sums: every sixteenth slot by itself, and then these.
        let mut sums = [L::zero(); LANES];
        for first in (begin / LANES * LANES..end).step_by(LANES) {
            for (lane, sum) in sums.iter_mut().enumerate() {
                let slot = first + lane;
                if slot < begin || slot >= end {
                    continue;
                }
                let to = scores.as_mut_ptr().add(slot * LANES);
                let weight = keep::<L>(exp::<L>(L::sub(L::load(to), max)), 0.0, slot, mask);
                *sum = L::add(*sum, weight);
                let weight = L::mul(weight, L::splat(value_scales[slot]));
                L::store(to, keep::<L>(weight, 0.0, slot, mask));
            }
        }
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                sums[lane] = L::add(sums[lane], sums[lane + width]);
            }
            width /= 2;
        }
        let rescale = rescale::<L>(old, max);
        let sum = L::load_first(running.sum[row..].as_ptr(), count);
        L::store_first(running.max[row..].as_mut_ptr(), max, count);
        L::store_first(running.sum[row..].as_mut_ptr(), L::add(L::mul(sum, rescale), sums[0]), count);
        L::store(kept.as_mut_ptr(), rescale);
    }
}

/// `x` in the lanes of rows that see a slot; `other` in the rest.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn keep<L: Simd>(x: L::F, other: f32, slot: usize, seen: Option<[L::F; 2]>) -> L::F {
    match seen {
        // SAFETY: the caller vouches.
        Some(bounds) => unsafe { L::within(x, other, L::splat(slot as f32), bounds) },
        None => x,
    }
}

/// The weights of a tile's rows from one on.
#[derive(Clone, Copy)]
struct Weights<'a> {
    /// `[groups, slots, 16]`.
    scores: &'a [f32],
    /// What each row's sums so far are to be multiplied by.
    kept: &'a [f32],
    slots: usize,
    row: usize,
}

/// Adds the values, weighted, to `N` rows, `ACROSS` vectors of a row at a time. Returns `N`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn add<L: Simd, const N: usize, const ACROSS: usize>(
    weights: Weights<'_>,
    values: &[f32],
    value_dim: usize,
    seen: [usize; 2],
    running: &mut OnlineSoftmax<'_>,
) -> usize {
    let out = &mut running.out[weights.row * value_dim..(weights.row + N) * value_dim];
    let mut column = 0;
    // SAFETY: the caller vouches for the instruction set; columns are within the rows.
    unsafe {
        while column + ACROSS * LANES <= value_dim {
            add_columns::<L, N, ACROSS>(weights, values, value_dim, seen, column, ACROSS * LANES, out);
            column += ACROSS * LANES;
        }
        while column < value_dim {
            let count = LANES.min(value_dim - column);
            add_columns::<L, N, 1>(weights, values, value_dim, seen, column, count, out);
            column += count;
        }
    }
    N
}

/// A vector, or its first elements.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn load<L: Simd>(from: *const f32, whole: bool, count: usize) -> L::F {
    // SAFETY: the caller vouches.
    unsafe { if whole { L::load(from) } else { L::load_first(from, count) } }
}

/// Adds `count` columns of the values, weighted, to the rows `out` `[N, value_dim]`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn add_columns<L: Simd, const N: usize, const ACROSS: usize>(
    Weights { scores, kept, slots, row }: Weights<'_>,
    values: &[f32],
    value_dim: usize,
    [begin, end]: [usize; 2],
    column: usize,
    count: usize,
    out: &mut [f32],
) {
    assert!(
        scores.len() >= (row + N).div_ceil(LANES) * slots * LANES
            && kept.len() >= row + N
            && values.len() >= end * value_dim
            && end <= slots
            && out.len() >= N * value_dim
            && column + count <= value_dim
            && count <= ACROSS * LANES
    );
    let whole = count == ACROSS * LANES;
    // SAFETY: slots, rows and columns are within their slices: checked above.
    unsafe {
        let mut acc = [[L::zero(); ACROSS]; N];
        for (n, acc) in acc.iter_mut().enumerate() {
            let rescale = L::splat(kept[row + n]);
            for (part, acc) in acc.iter_mut().enumerate() {
                *acc = {
                    let from = out.as_ptr().add(n * value_dim + column + part * LANES);
                    L::mul(load::<L>(from, whole, count), rescale)
                };
            }
        }
        let mut places = [scores.as_ptr(); N];
        for (n, place) in places.iter_mut().enumerate() {
            *place = scores.as_ptr().add((row + n) / LANES * slots * LANES + (row + n) % LANES);
        }
        for slot in begin..end {
            let mut value = [L::zero(); ACROSS];
            for (part, value) in value.iter_mut().enumerate() {
                let from = values.as_ptr().add(slot * value_dim + column + part * LANES);
                *value = load::<L>(from, whole, count);
            }
            for (acc, place) in acc.iter_mut().zip(places) {
                let weight = L::splat(*place.add(slot * LANES));
                for (acc, value) in acc.iter_mut().zip(value) {
                    *acc = L::fma(weight, value, *acc);
                }
            }
        }
        for (n, acc) in acc.into_iter().enumerate() {
            for (part, acc) in acc.into_iter().enumerate() {
                let to = out.as_mut_ptr().add(n * value_dim + column + part * LANES);
                if whole { L::store(to, acc) } else { L::store_first(to, acc, count) }
            }
        }
    }
}
