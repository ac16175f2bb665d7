//! Many rows: sixteen of them side by side, each in a lane. Keys and values are widened to float32 once for all rows, and
//! each of their elements is multiplied with whole vectors of rows.

use herald_layers::kernels::{OnlineSoftmax, Tile};

use super::{Element, FOUR, capped, rescale, span};
use crate::math::exp;
use crate::prefetch::prefetch;
use crate::simd::{LANES, Simd};
use crate::vectors::side_by_side;

/// Lays queries out as `[rows / 16, key_dim, 16]`, with zeros in place of rows beyond the last.
#[inline(always)]
pub(super) fn pack_queries<S: Simd>(s: S, queries: &[f32], key_dim: usize, out: &mut [f32]) {
    for (queries, out) in queries.chunks(LANES * key_dim).zip(out.chunks_exact_mut(LANES * key_dim)) {
        side_by_side(s, queries, [queries.len() / key_dim, key_dim, key_dim], out);
    }
}

/// Attends, with lengths as `attend_elements` checks them.
#[inline(always)]
pub(super) fn attend<S: Simd, E: Element>(
    s: S,
    tile: &Tile<'_, E>,
    running: &mut OnlineSoftmax<'_>,
    scratch: &mut [f32],
) {
    let Tile { key_dim, value_dim, .. } = *tile;
    let slots = tile.key_scales.len();
    let rows = tile.visible.len();
    let groups = rows.div_ceil(LANES);
    let visible = span(tile.visible);
    let (scores, rest) = scratch.split_at_mut(groups * slots * LANES);
    let (factors, floats) = rest.split_at_mut(groups * LANES);
    let keys = E::widen(s, &tile.keys[..slots * key_dim], floats);
    let mut first = 0;
    while first < groups {
        let queries = &tile.queries[first * LANES * key_dim..];
        let scores = &mut scores[first * LANES * slots..];
        first += match groups - first {
            3.. if S::WIDE => score::<S, 3, 8>(s, queries, keys, key_dim, visible, scores),
            2 if S::WIDE => score::<S, 2, 8>(s, queries, keys, key_dim, visible, scores),
            _ if S::WIDE => score::<S, 1, 8>(s, queries, keys, key_dim, visible, scores),
            _ => score::<S, 1, 4>(s, queries, keys, key_dim, visible, scores),
        };
    }
    prefetch(tile.next.keys);
    for (group, (scores, factors)) in
        scores.chunks_exact_mut(slots * LANES).zip(factors.as_chunks_mut().0).enumerate()
    {
        softmax_weights(s, tile, group * LANES, visible, scores, running, factors);
    }
    prefetch(tile.next.values);
    let values = E::widen(s, &tile.values[..slots * value_dim], floats);
    let mut row = 0;
    while row < rows {
        let weights = Weights { scores, factors, slots, row };
        row += match rows - row {
            6.. if S::WIDE => add_values::<S, 6, 4>(s, weights, values, value_dim, visible, running),
            4.. if S::WIDE => add_values::<S, 4, 4>(s, weights, values, value_dim, visible, running),
            6.. => add_values::<S, 6, 1>(s, weights, values, value_dim, visible, running),
            _ => add_values::<S, 1, 4>(s, weights, values, value_dim, visible, running),
        };
    }
}

/// Products of `16 G` rows with the keys of slots `begin..end`, into `[G, slots, 16]`, `N` slots at a time. Returns `G`.
#[inline(always)]
fn score<S: Simd, const G: usize, const N: usize>(
    s: S,
    queries: &[f32],
    keys: &[f32],
    key_dim: usize,
    [begin, end]: [usize; 2],
    scores: &mut [f32],
) -> usize {
    let mut slot = begin;
    while slot + N <= end {
        score_slots::<S, G, N>(s, queries, keys, key_dim, slot, scores);
        slot += N;
    }
    while slot < end {
        score_slots::<S, G, 1>(s, queries, keys, key_dim, slot, scores);
        slot += 1;
    }
    G
}

/// Products of `16 G` rows with the keys of `N` slots.
#[inline(always)]
fn score_slots<S: Simd, const G: usize, const N: usize>(
    s: S,
    queries: &[f32],
    keys: &[f32],
    key_dim: usize,
    slot: usize,
    scores: &mut [f32],
) {
    let slots = keys.len() / key_dim;
    assert!(queries.len() >= G * key_dim * LANES && slot + N <= slots);
    let (queries, keys) = (queries.as_ptr(), keys[slot * key_dim..].as_ptr());
    // In the order in which `decode` sums the lanes of a quarter.
    // SAFETY: as many queries and keys are there: asserted above.
    let (even, odd) = unsafe {
        let even = sums::<S, G, N>(s, queries, keys, key_dim, 0);
        let even = plus(s, even, sums(s, queries, keys, key_dim, 2));
        let odd = sums::<S, G, N>(s, queries, keys, key_dim, 1);
        (even, plus(s, odd, sums(s, queries, keys, key_dim, 3)))
    };
    let (scores, _) = scores.as_chunks_mut();
    for (group, sums) in plus(s, even, odd).into_iter().enumerate() {
        for (to, sum) in scores[group * slots + slot..][..N].iter_mut().zip(sums) {
            s.store(to, sum);
        }
    }
}

/// Products over every fourth element from `first` on.
///
/// # Safety
/// `queries` is `[G, key_dim, 16]`, and `keys` is `[N, key_dim]`.
#[inline(always)]
unsafe fn sums<S: Simd, const G: usize, const N: usize>(
    s: S,
    queries: *const f32,
    keys: *const f32,
    key_dim: usize,
    first: usize,
) -> [[S::F; N]; G] {
    let mut acc = [[s.zero(); N]; G];
    for element in (first..key_dim).step_by(FOUR) {
        let mut query = [s.zero(); G];
        for (group, query) in query.iter_mut().enumerate() {
            // SAFETY: as the caller promises.
            *query = unsafe { s.load_ptr(queries.add((group * key_dim + element) * LANES)) };
        }
        for n in 0..N {
            // SAFETY: as the caller promises.
            let key = s.splat(unsafe { *keys.add(n * key_dim + element) });
            for (acc, query) in acc.iter_mut().zip(query) {
                acc[n] = s.fma(key, query, acc[n]);
            }
        }
    }
    acc
}

#[inline(always)]
fn plus<S: Simd, const G: usize, const N: usize>(
    s: S,
    mut a: [[S::F; N]; G],
    b: [[S::F; N]; G],
) -> [[S::F; N]; G] {
    for (a, b) in a.as_flattened_mut().iter_mut().zip(b.as_flattened()) {
        *a = s.add(*a, *b);
    }
    a
}

/// Turns sixteen rows' products `[slots, 16]` into their softmax weights: `exp(score - max)` times the value's scale, and
/// zero for invisible slots. Updates the rows' maxima and sums; what each row's output so far must be multiplied by goes to
/// `factors`.
#[inline(always)]
fn softmax_weights<S: Simd, E>(
    s: S,
    tile: &Tile<'_, E>,
    row: usize,
    [begin, end]: [usize; 2],
    scores: &mut [f32],
    running: &mut OnlineSoftmax<'_>,
    factors: &mut [f32; LANES],
) {
    let rows = row..tile.visible.len().min(row + LANES);
    let (key_scales, value_scales) = (&tile.key_scales[..end], &tile.value_scales[..end]);
    let scores = &mut scores.as_chunks_mut::<LANES>().0[..end];
    let visible = &tile.visible[rows.clone()];
    let mut bounds = [[0.0_f32; LANES]; 2];
    for (lane, [begin, end]) in visible.iter().enumerate() {
        (bounds[0][lane], bounds[1][lane]) = (*begin as f32, *end as f32);
    }
    // Usually every row sees everything.
    let masked = visible.iter().any(|visible| visible.map(|slot| slot as usize) != [begin, end]);
    let mask = masked.then_some([s.load(&bounds[0]), s.load(&bounds[1])]);
    let mut max = s.splat(f32::NEG_INFINITY);
    for (slot, (to, scale)) in scores.iter_mut().zip(key_scales).enumerate().skip(begin) {
        let score = s.mul(s.load(to), s.splat(scale * tile.scale));
        let score = keep_visible(s, capped(s, score, tile.softcap), f32::NEG_INFINITY, slot, mask);
        max = s.max(score, max);
        s.store(to, score);
    }
    let (old_max, old_sum) = (&mut running.max[rows.clone()], &mut running.sum[rows]);
    let old = s.load_first(old_max);
    let max = s.max(max, old);
    // In the order in which `decode` sums: every sixteenth slot by itself, and then these.
    let mut sums = [s.zero(); LANES];
    for first in (begin / LANES * LANES..end).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let slot = first + lane;
            if slot < begin || slot >= end {
                continue;
            }
            let weight = exp(s, s.sub(s.load(&scores[slot]), max));
            let weight = keep_visible(s, weight, 0.0, slot, mask);
            *sum = s.add(*sum, weight);
            let weight = s.mul(weight, s.splat(value_scales[slot]));
            // An invisible slot's scale may be NaN.
            s.store(&mut scores[slot], keep_visible(s, weight, 0.0, slot, mask));
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] = s.add(sums[lane], sums[lane + width]);
        }
        width /= 2;
    }
    let factor = rescale(s, old, max);
    s.store_first(old_max, max);
    s.store_first(old_sum, s.add(s.mul(s.load_first(old_sum), factor), sums[0]));
    s.store(factors, factor);
}

/// `x` in the lanes of rows that see a slot; `other` in the rest.
#[inline(always)]
fn keep_visible<S: Simd>(s: S, x: S::F, other: f32, slot: usize, mask: Option<[S::F; 2]>) -> S::F {
    match mask {
        Some(bounds) => s.keep_between(x, other, s.splat(slot as f32), bounds),
        None => x,
    }
}

/// The weights of a tile's rows from `row` on.
#[derive(Clone, Copy)]
struct Weights<'a> {
    /// `[groups, slots, 16]`.
    scores: &'a [f32],
    /// What each row's output so far must be multiplied by.
    factors: &'a [f32],
    slots: usize,
    row: usize,
}

/// Adds the values, weighted, to `N` rows, `ACROSS` vectors of a row at a time. Returns `N`.
#[inline(always)]
fn add_values<S: Simd, const N: usize, const ACROSS: usize>(
    s: S,
    weights: Weights<'_>,
    values: &[f32],
    value_dim: usize,
    visible: [usize; 2],
    running: &mut OnlineSoftmax<'_>,
) -> usize {
    let out = &mut running.out[weights.row * value_dim..(weights.row + N) * value_dim];
    let mut column = 0;
    while column + ACROSS * LANES <= value_dim {
        add_columns::<S, N, ACROSS>(s, weights, values, value_dim, visible, [column, ACROSS * LANES], out);
        column += ACROSS * LANES;
    }
    while column < value_dim {
        let count = LANES.min(value_dim - column);
        add_columns::<S, N, 1>(s, weights, values, value_dim, visible, [column, count], out);
        column += count;
    }
    N
}

/// Adds `count` columns of the values from `column` on, weighted, to the rows `out` `[N, value_dim]`: `ACROSS` vectors, or fewer than
/// sixteen columns.
#[inline(always)]
fn add_columns<S: Simd, const N: usize, const ACROSS: usize>(
    s: S,
    Weights { scores, factors, slots, row }: Weights<'_>,
    values: &[f32],
    value_dim: usize,
    [begin, end]: [usize; 2],
    [column, count]: [usize; 2],
    out: &mut [f32],
) {
    let full = count == ACROSS * LANES;
    assert!(
        scores.len() >= (row + N).div_ceil(LANES) * slots * LANES
            && factors.len() >= row + N
            && values.len() >= end * value_dim
            && end <= slots
            && out.len() >= N * value_dim
            && column + count <= value_dim
            && (full || ACROSS == 1 && count <= LANES)
    );
    // SAFETY: the slots, rows and columns below are within the values, weights and output: asserted above.
    unsafe {
        let mut acc = [[s.zero(); ACROSS]; N];
        for (n, acc) in acc.iter_mut().enumerate() {
            let factor = s.splat(factors[row + n]);
            for (part, acc) in acc.iter_mut().enumerate() {
                let from = out.as_ptr().add(n * value_dim + column + part * LANES);
                *acc = s.mul(load(s, from, full, count), factor);
            }
        }
        let mut weights = [scores.as_ptr(); N];
        for (n, weights) in weights.iter_mut().enumerate() {
            *weights = scores.as_ptr().add((row + n) / LANES * slots * LANES + (row + n) % LANES);
        }
        for slot in begin..end {
            let mut value = [s.zero(); ACROSS];
            for (part, value) in value.iter_mut().enumerate() {
                let from = values.as_ptr().add(slot * value_dim + column + part * LANES);
                *value = load(s, from, full, count);
            }
            for (acc, weights) in acc.iter_mut().zip(weights) {
                let weight = s.splat(*weights.add(slot * LANES));
                for (acc, value) in acc.iter_mut().zip(value) {
                    *acc = s.fma(weight, value, *acc);
                }
            }
        }
        for (n, acc) in acc.into_iter().enumerate() {
            for (part, acc) in acc.into_iter().enumerate() {
                let to = out.as_mut_ptr().add(n * value_dim + column + part * LANES);
                if full {
                    s.store_ptr(to, acc);
                } else {
                    s.store_first(std::slice::from_raw_parts_mut(to, count), acc);
                }
            }
        }
    }
}

/// A vector where it is `full`; else its first `count` elements, and zeros.
///
/// # Safety
/// As many elements are readable there.
#[inline(always)]
unsafe fn load<S: Simd>(s: S, from: *const f32, full: bool, count: usize) -> S::F {
    // SAFETY: as the caller promises.
    unsafe { if full { s.load_ptr(from) } else { s.load_first(std::slice::from_raw_parts(from, count)) } }
}
