//! Integer-domain attention over pages of 64 slots of 4-bit codes: the codes are multiplied as they are.
//!
//! A key's element is `step_d * code + offset_d` with a step and an offset for each channel of the page, a value's
//! `step_s * code + offset_s` with those of its slot. So with `q` a row's query and `w` the weights of its softmax
//!
//! ```text
//! q . key_s            = sum_d (q_d step_d) code_sd  +  sum_d q_d offset_d
//! sum_s w_s value_s[d] = sum_s (w_s step_s) code_sd  +  sum_s w_s offset_s
//! ```
//!
//! What is in brackets is quantised to int16 with one scale for a row ([`STEP`]), and the sums with codes are exact in int32
//! in any order, so a row's result does not depend on the rows beside it. Keys are transposed so that slots lie side by
//! side: a row is multiplied with sixteen slots at a time, and then with sixteen channels of two slots' values.

use herald_api::{Q4_GROUP, Q4Rows};
use herald_layers::kernels::{OnlineSoftmax, Q4Tile};

use super::FOUR;
use super::q4::steps_and_offsets;
use super::softmax::{Scores, softmax_weights};
use crate::prefetch::Prefetcher;
use crate::simd::{LANES, Simd};

/// Slots of a page.
const SLOTS: usize = Q4_GROUP;

/// Pairs of slots.
const PAIRS: usize = SLOTS / 2;

/// Bytes of a row's codes that are transposed at a time: eight words of four bytes.
const RUN: usize = 32;

/// The longest keys, whose sums of products still fit in int32.
const MAX_KEY_DIM: usize = 4096;

/// The largest tile's rows.
const ROWS: usize = 12;

/// The largest code of a query or a weight.
const MAX_CODE: f32 = i16::MAX as f32;

/// The largest rounding error of a query's or weight's number, as a share of its row's largest: half a step of the codes, and
/// what the quotient may be off before it is rounded.
pub(crate) const STEP: f32 = 0.51 / MAX_CODE;

/// A row's largest number counts as at least this: the inverse of a smaller one may be infinite.
const SMALL: f32 = f32::from_bits((127 - 100) << 23);

/// The low half byte of each int16 of a pair.
const LOW_HALVES: i32 = 0x000f_000f;

/// Where the codes of 64 channels of a value lie, in two runs of 32 bytes.
mod place {
    /// In one run: the low halves of its bytes, then the high halves.
    pub(super) const BOTH: u8 = 0;
    /// In the low halves of two runs.
    pub(super) const LOW: u8 = 1;
    /// In the high halves of two runs.
    pub(super) const HIGH: u8 = 2;
}

/// Whether this module attends to pages of such a shape.
pub(super) fn fits(tile: &Q4Tile<'_>) -> bool {
    tile.slots == SLOTS
        && tile.key_dim.is_multiple_of(2 * RUN)
        && tile.key_dim <= MAX_KEY_DIM
        && (tile.value_dim == 2 * RUN || tile.value_dim.is_multiple_of(4 * RUN))
}

/// A page's numbers, and memory for a tile of rows.
struct Memory<'a> {
    /// Keys transposed: `[words of a key, 64]`, each word eight codes.
    words: &'a mut [f32],
    /// Each key channel's step, and its offset.
    key_steps: &'a mut [f32],
    key_offsets: &'a mut [f32],
    /// Of each group of value channels every slot's step, `[groups, 64]`, and its offset.
    value_steps: &'a mut [f32],
    value_offsets: &'a mut [f32],
    /// Each row's numbers before they are quantised, `[rows, 2 n]`.
    exact: &'a mut [f32],
    /// Each row's pairs of int16, `[rows, n]`.
    codes: &'a mut [f32],
    /// The same pairs interleaved, `[n, stride]`.
    pairs: &'a mut [f32],
    /// Scores, and then weights, `[rows, 64]`.
    scores: &'a mut [f32],
}

/// Attends, to a page that [`fits`].
#[inline(always)]
pub(super) fn attend<S: Simd>(s: S, tile: &Q4Tile<'_>, running: &mut OnlineSoftmax<'_>, scratch: &mut [f32]) {
    let Q4Tile { key_dim, value_dim, .. } = *tile;
    let (rows, groups) = (tile.visible.len(), value_dim / Q4_GROUP);
    assert!(
        fits(tile)
            && tile.queries.len() >= rows * key_dim
            && tile.keys.codes.len() >= SLOTS * key_dim / 2
            && tile.keys.pairs.len() >= key_dim
            && tile.values.codes.len() >= SLOTS * value_dim / 2
            && tile.values.pairs.len() >= SLOTS * groups
            && tile.visible.iter().all(|[begin, end]| begin <= end && *end as usize <= SLOTS)
            && running.max.len() >= rows
            && running.sum.len() >= rows
            && running.out.len() >= rows * value_dim,
        "a page of 4-bit codes before {rows} queries of {key_dim} has slices too short"
    );
    let (words, rest) = scratch.split_at_mut(SLOTS * key_dim / 8);
    let (key_steps, rest) = rest.split_at_mut(key_dim);
    let (key_offsets, rest) = rest.split_at_mut(key_dim);
    let (value_steps, rest) = rest.split_at_mut(SLOTS * groups);
    let (value_offsets, rest) = rest.split_at_mut(SLOTS * groups);
    let longest = key_dim.max(SLOTS);
    let (exact, rest) = rest.split_at_mut(ROWS * longest);
    let (codes, rest) = rest.split_at_mut(ROWS * longest / 2);
    let (pairs, rest) = rest.split_at_mut(ROWS * longest / 2);
    let scores = &mut rest[..ROWS * SLOTS];
    let mut memory =
        Memory { words, key_steps, key_offsets, value_steps, value_offsets, exact, codes, pairs, scores };
    read_pairs(s, &tile.keys.pairs[..key_dim], 1, [memory.key_steps, memory.key_offsets]);
    let values = &tile.values.pairs[..SLOTS * groups];
    read_pairs(s, values, groups, [memory.value_steps, memory.value_offsets]);
    // Widths that the compiler knows make for simple addresses.
    match key_dim / 2 {
        32 => transpose_keys(s, tile.keys, 32, memory.words),
        64 => transpose_keys(s, tile.keys, 64, memory.words),
        width => transpose_keys(s, tile.keys, width, memory.words),
    }
    let mut prefetchers = [
        Prefetcher::new(tile.next.keys, key_dim / 8, tile.next.streaming),
        Prefetcher::new(tile.next.values, PAIRS / FOUR, tile.next.streaming),
    ];
    attend_all(s, tile, &mut memory, running, &mut prefetchers);
}

/// Attends from all rows: from as many at once, and for few of them to as many slots at once, as the registers have room
/// for sums.
#[inline(always)]
fn attend_all<S: Simd>(
    s: S,
    tile: &Q4Tile<'_>,
    memory: &mut Memory<'_>,
    running: &mut OnlineSoftmax<'_>,
    prefetchers: &mut [Prefetcher<'_>; 2],
) {
    let rows = tile.visible.len();
    let mut row = 0;
    if S::WIDE {
        while rows - row >= 12 {
            row += attend_rows::<S, 12, 1>(s, tile, row, memory, running, prefetchers);
        }
        if rows - row >= 8 {
            row += attend_rows::<S, 8, 2>(s, tile, row, memory, running, prefetchers);
        }
        if rows - row >= 4 {
            row += attend_rows::<S, 4, 4>(s, tile, row, memory, running, prefetchers);
        }
        match rows - row {
            3 => attend_rows::<S, 3, 4>(s, tile, row, memory, running, prefetchers),
            2 => attend_rows::<S, 2, 4>(s, tile, row, memory, running, prefetchers),
            1 => attend_rows::<S, 1, 4>(s, tile, row, memory, running, prefetchers),
            _ => 0,
        };
    } else {
        while rows - row >= 4 {
            row += attend_rows::<S, 4, 1>(s, tile, row, memory, running, prefetchers);
        }
        match rows - row {
            3 => attend_rows::<S, 3, 1>(s, tile, row, memory, running, prefetchers),
            2 => attend_rows::<S, 2, 2>(s, tile, row, memory, running, prefetchers),
            1 => attend_rows::<S, 1, 4>(s, tile, row, memory, running, prefetchers),
            _ => 0,
        };
    }
}

/// Steps and offsets as float32: of `groups` that take turns in `pairs`, one group after the other.
#[inline(always)]
fn read_pairs<S: Simd>(s: S, pairs: &[[u16; 2]], groups: usize, outs: [&mut [f32]; 2]) {
    let each = pairs.len() / groups;
    let [steps, offsets] = outs;
    for (at, pairs) in pairs.chunks_exact(LANES).enumerate() {
        let numbers = steps_and_offsets(s, pairs);
        for (numbers, out) in numbers.into_iter().zip([&mut *steps, &mut *offsets]) {
            if groups == 1 {
                s.store(&mut out.as_chunks_mut().0[at], numbers);
                continue;
            }
            let mut sixteen = [0.0; LANES];
            s.store(&mut sixteen, numbers);
            for (index, number) in sixteen.into_iter().enumerate() {
                let index = at * LANES + index;
                out[index % groups * each + index / groups] = number;
            }
        }
    }
}

/// Keys of `width` bytes, whole runs, as `[width / 4, 64]` words.
#[inline(always)]
fn transpose_keys<S: Simd>(s: S, keys: Q4Rows<'_>, width: usize, words: &mut [f32]) {
    assert!(keys.codes.len() >= SLOTS * width && words.len() >= SLOTS * width / 4);
    let codes = keys.codes.as_ptr();
    for run in 0..width / RUN {
        for first in (0..SLOTS).step_by(LANES) {
            // SAFETY: sixteen slots' runs are within the codes, and their words' places within `words`: asserted above.
            unsafe {
                let codes = codes.add(first * width + run * RUN);
                let low = eight_words(s, codes, width);
                let high = eight_words(s, codes.add(2 * FOUR * width), width);
                for (n, (low, high)) in low.into_iter().zip(high).enumerate() {
                    for (word, slots) in [n, FOUR + n].into_iter().zip(s.split_quarters(low, high)) {
                        let word = run * RUN / 4 + word;
                        s.store_ptr(words.as_mut_ptr().add(word * SLOTS + first), slots);
                    }
                }
            }
        }
    }
}

/// The first eight words of eight rows of bytes: quarters 0 and 2 of vector `n` are the words `n`, the other quarters the
/// words `4 + n`.
///
/// # Safety
/// There are eight rows of at least 32 bytes, `width` apart.
#[inline(always)]
unsafe fn eight_words<S: Simd>(s: S, rows: *const u8, width: usize) -> [S::F; FOUR] {
    let mut twos = [s.zero(); FOUR];
    for (row, two) in twos.iter_mut().enumerate() {
        // SAFETY: as the caller promises.
        *two = unsafe { s.load_two(&*rows.add(row * width).cast(), &*rows.add((row + FOUR) * width).cast()) };
    }
    s.transpose_quarters(twos)
}

/// Words from one pair of `rows` rows to the next.
const fn stride(rows: usize) -> usize {
    rows.next_multiple_of(FOUR)
}

/// Attends from `N` rows, with `ACROSS` vectors of slots at once. Returns `N`.
#[inline(always)]
fn attend_rows<S: Simd, const N: usize, const ACROSS: usize>(
    s: S,
    tile: &Q4Tile<'_>,
    row: usize,
    memory: &mut Memory<'_>,
    running: &mut OnlineSoftmax<'_>,
    [with_scores, with_values]: &mut [Prefetcher<'_>; 2],
) -> usize {
    let Q4Tile { key_dim, value_dim, .. } = *tile;
    let Memory { key_steps, key_offsets, value_steps, value_offsets, exact, codes, pairs, scores, .. } =
        memory;
    let queries = &tile.queries[row * key_dim..(row + N) * key_dim];
    let quantized = quantize_rows::<S, N, true>(s, queries, [key_steps, key_offsets], exact, codes);
    interleave_pairs::<S, N>(s, codes, key_dim / 2, pairs);
    score::<S, N, ACROSS>(s, memory.words, pairs, key_dim, &quantized, scores, with_scores);
    let rows = row..row + N;
    let rows_of_scores = Scores {
        visible: &tile.visible[rows.clone()],
        width: SLOTS,
        scale: tile.scale,
        softcap: tile.softcap,
        scales: None,
    };
    let (max, sum) = (&mut running.max[rows.clone()], &mut running.sum[rows]);
    let factors = softmax_weights(s, &rows_of_scores, scores, max, sum);
    let out = &mut running.out[row * value_dim..(row + N) * value_dim];
    for group in 0..value_dim / Q4_GROUP {
        let slots = group * SLOTS..(group + 1) * SLOTS;
        let numbers = [&value_steps[slots.clone()], &value_offsets[slots]];
        let weights = quantize_rows::<S, N, false>(s, &scores[..N * SLOTS], numbers, exact, codes);
        interleave_pairs::<S, N>(s, codes, PAIRS, pairs);
        let add = Add { codes: tile.values.codes, weights, factors, value_dim, group };
        if value_dim == Q4_GROUP {
            add_values::<S, N, { place::BOTH }>(s, &add, pairs, out, with_values);
        } else if group < value_dim / Q4_GROUP / 2 {
            add_values::<S, N, { place::LOW }>(s, &add, pairs, out, with_values);
        } else {
            add_values::<S, N, { place::HIGH }>(s, &add, pairs, out, with_values);
        }
    }
    N
}

/// What rows' sums with codes become scores or values with, row by row.
#[derive(Clone, Copy)]
struct QuantizedRows {
    /// The value of a code's unit.
    scales: [f32; LANES],
    /// Sum of the numbers times their offsets.
    offsets: [f32; LANES],
}

/// Quantises rows of numbers times their steps, in order, or with the middle two of every four `SWAPPED`. A row's numbers
/// are whole vectors, as many as there are steps and offsets.
#[inline(always)]
fn quantize_rows<S: Simd, const N: usize, const SWAPPED: bool>(
    s: S,
    numbers: &[f32],
    [steps, offsets]: [&[f32]; 2],
    exact: &mut [f32],
    codes: &mut [f32],
) -> QuantizedRows {
    let len = steps.len();
    assert!(
        len.is_multiple_of(LANES)
            && offsets.len() == len
            && numbers.len() == N * len
            && exact.len() >= N * len
            && codes.len() >= N * len / 2
    );
    let ((steps, _), (offsets, _)) = (steps.as_chunks(), offsets.as_chunks());
    let ((numbers, _), (exact, _)) = (numbers.as_chunks(), exact.as_chunks_mut());
    let (codes, _) = codes.as_chunks_mut::<{ LANES / 2 }>();
    let len = len / LANES;
    let (mut largest, mut sums, mut inverses) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    let mut scales = [0.0; LANES];
    // Each step for all rows before the next: a row's own steps wait for one another.
    for row in 0..N {
        let (mut max, mut sum) = (s.zero(), s.zero());
        let numbers = &numbers[row * len..(row + 1) * len];
        let exact = &mut exact[row * len..(row + 1) * len];
        for (((number, exact), step), offset) in numbers.iter().zip(exact).zip(steps).zip(offsets) {
            let number = s.load(number);
            let product = s.mul(number, s.load(step));
            max = s.max(s.abs(product), max);
            sum = s.fma(number, s.load(offset), sum);
            s.store(exact, product);
        }
        (largest[row], sums[row]) = (s.max_lane(max), s.sum(sum));
    }
    // A NaN or infinity here also reaches `sums`, so it can't be lost.
    let largest = s.max(s.load(&largest), s.splat(SMALL));
    s.store(&mut inverses, s.div(s.splat(MAX_CODE), largest));
    s.store(&mut scales, s.mul(largest, s.splat(1.0 / MAX_CODE)));
    for (row, inverse) in inverses.into_iter().enumerate().take(N) {
        let exact = &exact[row * len..(row + 1) * len];
        for (codes, exact) in codes[row * len..(row + 1) * len].iter_mut().zip(exact) {
            let code = s.mul(s.load(exact), s.splat(inverse));
            let codes = bytemuck::must_cast_mut(codes);
            if SWAPPED { s.store_i16_swapped(codes, code) } else { s.store_i16(codes, code) }
        }
    }
    QuantizedRows { scales, offsets: sums }
}

/// Interleaves rows of `n` pairs, whole vectors, to `[n, stride]`.
#[inline(always)]
fn interleave_pairs<S: Simd, const N: usize>(s: S, rows: &[f32], n: usize, pairs: &mut [f32]) {
    let stride = stride(N);
    assert!(n.is_multiple_of(LANES) && rows.len() >= stride * n && pairs.len() >= stride * n);
    for first in (0..N).step_by(FOUR) {
        for at in (0..n).step_by(LANES) {
            // SAFETY: `rows` has whole fours of rows (past the last, whatever was there before) of at least `at + 16`
            // pairs, and `pairs` as many, `stride` apart: asserted above.
            unsafe {
                let mut fours = [s.zero(); FOUR];
                for (row, four) in fours.iter_mut().enumerate() {
                    *four = s.load_ptr(rows.as_ptr().add((first + row) * n + at));
                }
                for (index, quarters) in s.transpose_quarters(fours).into_iter().enumerate() {
                    let to = pairs.as_mut_ptr().add((at + index) * stride + first);
                    s.store_quarters(to, FOUR * stride, quarters);
                }
            }
        }
    }
}

/// Scores of `N` rows with all keys, `[N, 64]`.
#[inline(always)]
fn score<S: Simd, const N: usize, const ACROSS: usize>(
    s: S,
    words: &[f32],
    pairs: &[f32],
    key_dim: usize,
    queries: &QuantizedRows,
    scores: &mut [f32],
    prefetcher: &mut Prefetcher<'_>,
) {
    let (stride, count) = (stride(N), key_dim / 8);
    assert!(words.len() >= count * SLOTS && pairs.len() >= key_dim / 2 * stride && scores.len() >= N * SLOTS);
    for first in (0..SLOTS).step_by(ACROSS * LANES) {
        let mut sums = [[s.splat_i(0); N]; ACROSS];
        for word in 0..count {
            prefetcher.step();
            // A word's low halves are channels of the key's first half, and its high ones of the second.
            // SAFETY: there are `4 * count` pairs of `N` rows, `stride` apart: asserted above.
            let [low, next_low, high, next_high] = unsafe {
                let at = |pair: usize| &*pairs.as_ptr().add(pair * stride).cast::<[f32; N]>();
                [at(2 * word), at(2 * word + 1), at(2 * (count + word)), at(2 * (count + word) + 1)]
            };
            for (at, sums) in sums.iter_mut().enumerate() {
                // SAFETY: there are `count` words of 64 slots: asserted above.
                let codes = s.load_bits(unsafe {
                    &*words.as_ptr().add(word * SLOTS + first + at * LANES).cast::<[f32; LANES]>()
                });
                let mask = s.splat_i(LOW_HALVES);
                s.dot_add(sums, s.and(codes, mask), low);
                s.dot_add(sums, s.and(s.shr(codes, 4), mask), high);
                s.dot_add(sums, s.and(s.shr(codes, 8), mask), next_low);
                s.dot_add(sums, s.and(s.shr(codes, 12), mask), next_high);
            }
        }
        for (at, sums) in sums.into_iter().enumerate() {
            for (n, sum) in sums.into_iter().enumerate() {
                let (scale, offset) = (s.splat(queries.scales[n]), s.splat(queries.offsets[n]));
                let score = s.fma(s.to_float(sum), scale, offset);
                // SAFETY: the scores are `[N, 64]`: asserted above.
                unsafe { s.store_ptr(scores.as_mut_ptr().add(n * SLOTS + first + at * LANES), score) };
            }
        }
    }
}

/// What [`add_values`] adds.
struct Add<'a> {
    /// The page's codes of values.
    codes: &'a [u8],
    weights: QuantizedRows,
    /// What each row's output so far must be multiplied by.
    factors: [f32; LANES],
    value_dim: usize,
    group: usize,
}

/// Adds a group of the values' channels, weighted by `pairs`, to `N` rows. `PLACE` is where their codes lie.
#[inline(always)]
fn add_values<S: Simd, const N: usize, const PLACE: u8>(
    s: S,
    add: &Add<'_>,
    pairs: &[f32],
    out: &mut [f32],
    prefetcher: &mut Prefetcher<'_>,
) {
    let (width, stride) = (add.value_dim / 2, stride(N));
    // The group's first byte of a row, and the distance from the first run to the second.
    let (begin, next) = match PLACE {
        place::BOTH => (0, 0),
        _ => (add.group * Q4_GROUP % width, RUN),
    };
    assert!(
        add.codes.len() >= SLOTS * width
            && begin + next + RUN <= width
            && pairs.len() >= PAIRS * stride
            && out.len() >= N * add.value_dim
            && (add.group + 1) * Q4_GROUP <= add.value_dim
    );
    let (out, _) = out.as_chunks_mut();
    for half in 0..2 {
        let high = PLACE == place::HIGH || (PLACE == place::BOTH && half == 1);
        // SAFETY: there are 64 slots of `width` bytes, which the run is within, and as many pairs: asserted above.
        let sums = unsafe {
            let from = add.codes.as_ptr().add(begin + half * next);
            if N > FOUR {
                // One after the other, as the registers have room for the sums of one.
                let first = weighted::<S, N, true, false>(s, from, width, high, pairs, prefetcher);
                [first[0], weighted::<S, N, false, true>(s, from, width, high, pairs, prefetcher)[1]]
            } else {
                weighted::<S, N, true, true>(s, from, width, high, pairs, prefetcher)
            }
        };
        let channel = add.group * Q4_GROUP + half * RUN;
        for n in 0..N {
            let (scale, offset) = (s.splat(add.weights.scales[n]), s.splat(add.weights.offsets[n]));
            let sums = s.in_order([s.to_float(sums[0][n]), s.to_float(sums[1][n])]);
            for (at, sum) in sums.into_iter().enumerate() {
                let to = &mut out[(n * add.value_dim + channel) / LANES + at];
                let before = s.fma(s.load(to), s.splat(add.factors[n]), offset);
                s.store(to, s.fma(sum, scale, before));
            }
        }
    }
}

/// Sums of the half bytes of 32 bytes of each slot, weighted by `pairs`: of the first or second vector of
/// [`Simd::byte_pairs`], or both.
///
/// # Safety
/// There are 64 slots of at least 32 bytes, `width` apart, and a pair of weights of each two.
#[inline(always)]
unsafe fn weighted<S: Simd, const N: usize, const FIRST: bool, const SECOND: bool>(
    s: S,
    from: *const u8,
    width: usize,
    high: bool,
    pairs: &[f32],
    prefetcher: &mut Prefetcher<'_>,
) -> [[S::I; N]; 2] {
    let (mut first, mut second) = ([s.splat_i(0); N], [s.splat_i(0); N]);
    for pair in 0..PAIRS {
        if pair % FOUR == 0 {
            prefetcher.step();
        }
        // SAFETY: as the caller promises.
        let (mut codes, pairs) = unsafe {
            let from = from.add(2 * pair * width);
            let codes = s.byte_pairs(&*from.cast(), &*from.add(width).cast());
            (codes, &*pairs.as_ptr().add(pair * stride(N)).cast())
        };
        if high {
            codes = [s.shr(codes[0], 4), s.shr(codes[1], 4)];
        }
        if FIRST {
            s.dot_add(&mut first, s.and(codes[0], s.splat_i(LOW_HALVES)), pairs);
        }
        if SECOND {
            s.dot_add(&mut second, s.and(codes[1], s.splat_i(LOW_HALVES)), pairs);
        }
    }
    [first, second]
}
