//! Pages of 64 slots of 4-bit codes, met as the whole numbers that they are.
//!
//! A key's element is `step_d * code + offset_d` with a step and an offset for each channel of the page, a value's
//! `step_s * code + offset_s` with those of its slot. So with `q` a row's query and `w` the weights of its softmax
//!
//! ```text
//! q . key_s            = sum_d (q_d step_d) code_sd  +  sum_d q_d offset_d
//! sum_s w_s value_s[d] = sum_s (w_s step_s) code_sd  +  sum_s w_s offset_s
//! ```
//!
//! What is in brackets is rounded to int16 with one scale for a row ([`STEP`]), and the sums with codes are exact in int32:
//! in whatever order, so that a row's result does not depend on the rows beside it. Keys are turned over, so that slots lie
//! side by side; a row meets sixteen slots at a time, and then sixteen channels of two slots' values.

use herald_api::{Q4_GROUP, Q4Rows};
use herald_layers::kernels::{OnlineSoftmax, Q4Tile};

use super::softmax::{Scores, softmax_weights};
use super::{FOUR, q4::halves};
use crate::prefetch::Prefetcher;
use crate::simd::{LANES, Simd};

/// Slots of a page.
const SLOTS: usize = Q4_GROUP;

/// Pairs of slots.
const PAIRS: usize = SLOTS / 2;

/// Bytes of a run of a row's codes that is turned over at a time: eight words of four bytes.
const RUN: usize = 32;

/// Elements of a key, at most: sums of so many products are within int32.
const MOST_ELEMENTS: usize = 4096;

/// The most rows of a tile.
const ROWS: usize = 12;

/// The largest code of a query or a weight.
const MOST: f32 = i16::MAX as f32;

/// Half a step of those codes, as a share of a row's largest, and what the quotient may be off before it is rounded.
pub(crate) const STEP: f32 = 0.51 / MOST;

/// Codes have no finer steps than those of a row with this largest number: the inverse of a smaller one may be infinite.
const SMALL: f32 = f32::from_bits((127 - 100) << 23);

/// Two half bytes as a pair of int16.
const HALVES: i32 = 0x000f_000f;

/// Where the codes of 64 channels of a value lie, in two runs of 32 bytes.
mod place {
    /// One run twice: the low halves of its bytes, then the high ones.
    pub(super) const BOTH: u8 = 0;
    /// The low halves of two runs.
    pub(super) const LOW: u8 = 1;
    /// The high halves of two runs.
    pub(super) const HIGH: u8 = 2;
}

/// Whether a page has the shape that is met here.
pub(super) fn fits(tile: &Q4Tile<'_>) -> bool {
    tile.slots == SLOTS
        && tile.key_dim.is_multiple_of(2 * RUN)
        && tile.key_dim <= MOST_ELEMENTS
        && (tile.value_dim == 2 * RUN || tile.value_dim.is_multiple_of(4 * RUN))
}

/// A page's numbers as they are met, and memory for a tile of rows.
struct Memory<'a> {
    /// Keys turned over: `[words of a key, 64]`, each word eight codes.
    words: &'a mut [f32],
    /// Of each channel of keys the step; and the offset.
    key_steps: &'a mut [f32],
    key_offsets: &'a mut [f32],
    /// Of each group of values' channels every slot's step, `[groups, 64]`; and the offset.
    value_steps: &'a mut [f32],
    value_offsets: &'a mut [f32],
    /// Numbers of each row before they are rounded, `[rows, 2 n]`.
    exact: &'a mut [f32],
    /// Pairs of int16 of each row, `[rows, n]`.
    codes: &'a mut [f32],
    /// The same pair by pair, `[n, stride]`.
    pairs: &'a mut [f32],
    /// Scores, and then weights, `[rows, 64]`.
    scores: &'a mut [f32],
}

/// Attends; the page [`fits`].
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(super) unsafe fn attend<L: Simd>(
    tile: &Q4Tile<'_>,
    running: &mut OnlineSoftmax<'_>,
    scratch: &mut [f32],
) {
    let Q4Tile { key_dim, value_dim, .. } = *tile;
    let (rows, groups) = (tile.visible.len(), value_dim / Q4_GROUP);
    assert!(
        tile.queries.len() >= rows * key_dim
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
    let most = key_dim.max(SLOTS);
    let (exact, rest) = rest.split_at_mut(ROWS * most);
    let (codes, rest) = rest.split_at_mut(ROWS * most / 2);
    let (pairs, rest) = rest.split_at_mut(ROWS * most / 2);
    let scores = &mut rest[..ROWS * SLOTS];
    let mut memory =
        Memory { words, key_steps, key_offsets, value_steps, value_offsets, exact, codes, pairs, scores };
    // SAFETY: the caller vouches for the instruction set; lengths are checked above.
    unsafe {
        read_pairs::<L>(&tile.keys.pairs[..key_dim], 1, [memory.key_steps, memory.key_offsets]);
        let values = &tile.values.pairs[..SLOTS * groups];
        read_pairs::<L>(values, groups, [memory.value_steps, memory.value_offsets]);
        // Widths that the compiler knows make for simple addresses.
        match key_dim / 2 {
            32 => turn_over::<L>(tile.keys, 32, memory.words),
            64 => turn_over::<L>(tile.keys, 64, memory.words),
            width => turn_over::<L>(tile.keys, width, memory.words),
        }
        let mut prefetcher = [
            Prefetcher::new(tile.next.keys, key_dim / 8, tile.next.streaming),
            Prefetcher::new(tile.next.values, PAIRS / FOUR, tile.next.streaming),
        ];
        // As many rows, and as many slots at once for few of them, as sums fit the registers.
        let mut row = 0;
        if L::NR >= 12 {
            while rows - row >= 12 {
                row += attend_rows::<L, 12, 1>(tile, row, &mut memory, running, &mut prefetcher);
            }
            if rows - row >= 8 {
                row += attend_rows::<L, 8, 2>(tile, row, &mut memory, running, &mut prefetcher);
            }
            if rows - row >= 4 {
                row += attend_rows::<L, 4, 4>(tile, row, &mut memory, running, &mut prefetcher);
            }
            match rows - row {
                3 => attend_rows::<L, 3, 4>(tile, row, &mut memory, running, &mut prefetcher),
                2 => attend_rows::<L, 2, 4>(tile, row, &mut memory, running, &mut prefetcher),
                1 => attend_rows::<L, 1, 4>(tile, row, &mut memory, running, &mut prefetcher),
                _ => 0,
            };
        } else {
            while rows - row >= 4 {
                row += attend_rows::<L, 4, 1>(tile, row, &mut memory, running, &mut prefetcher);
            }
            match rows - row {
                3 => attend_rows::<L, 3, 1>(tile, row, &mut memory, running, &mut prefetcher),
                2 => attend_rows::<L, 2, 2>(tile, row, &mut memory, running, &mut prefetcher),
                1 => attend_rows::<L, 1, 4>(tile, row, &mut memory, running, &mut prefetcher),
                _ => 0,
            };
        }
    }
}

/// Steps and offsets as floats: of `groups` that take turns in `pairs`, one group after the other.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn read_pairs<L: Simd>(pairs: &[[u16; 2]], groups: usize, outs: [&mut [f32]; 2]) {
    let each = pairs.len() / groups;
    let [steps, offsets] = outs;
    for (at, pairs) in pairs.chunks_exact(LANES).enumerate() {
        // SAFETY: the caller vouches; sixteen of each.
        unsafe {
            for (numbers, out) in halves::<L>(pairs).into_iter().zip([&mut *steps, &mut *offsets]) {
                if groups == 1 {
                    L::store(out[at * LANES..(at + 1) * LANES].as_mut_ptr(), numbers);
                    continue;
                }
                let mut sixteen = [0.0; LANES];
                L::store(sixteen.as_mut_ptr(), numbers);
                for (index, number) in sixteen.into_iter().enumerate() {
                    let index = at * LANES + index;
                    out[index % groups * each + index / groups] = number;
                }
            }
        }
    }
}

/// Keys of `width` bytes as `[width / 4, 64]` words.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn turn_over<L: Simd>(keys: Q4Rows<'_>, width: usize, words: &mut [f32]) {
    assert!(keys.codes.len() >= SLOTS * width && words.len() >= SLOTS * width / 4);
    let codes = keys.codes.as_ptr();
    for run in 0..width / RUN {
        for first in (0..SLOTS).step_by(LANES) {
            // SAFETY: sixteen slots' runs are within the codes, and their words' places within the result.
            unsafe {
                let codes = codes.add(first * width + run * RUN);
                let low = eight::<L>(codes, width);
                let high = eight::<L>(codes.add(2 * FOUR * width), width);
                for (n, (low, high)) in low.into_iter().zip(high).enumerate() {
                    for (word, slots) in [n, FOUR + n].into_iter().zip(L::split_quarters(low, high)) {
                        let word = run * RUN / 4 + word;
                        L::store(words.as_mut_ptr().add(word * SLOTS + first), slots);
                    }
                }
            }
        }
    }
}

/// The first eight words of eight rows of bytes: in quarters 0 and 2 of vector `n` the words `n`, in the other quarters the
/// words `4 + n`.
///
/// # Safety
/// As for [`Simd`]; there are eight rows.
#[inline(always)]
unsafe fn eight<L: Simd>(rows: *const u8, width: usize) -> [L::F; FOUR] {
    // SAFETY: the caller vouches.
    unsafe {
        let mut twos = [L::zero(); FOUR];
        for (row, two) in twos.iter_mut().enumerate() {
            *two = L::load_two(rows.add(row * width).cast(), rows.add((row + FOUR) * width).cast());
        }
        L::transpose_quarters(twos)
    }
}

/// How far apart the pairs of so many rows lie, in words.
const fn stride(rows: usize) -> usize {
    rows.next_multiple_of(FOUR)
}

/// Attends from `N` rows, with `ACROSS` vectors of slots at once. Returns `N`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn attend_rows<L: Simd, const N: usize, const ACROSS: usize>(
    tile: &Q4Tile<'_>,
    row: usize,
    memory: &mut Memory<'_>,
    running: &mut OnlineSoftmax<'_>,
    [with_scores, with_values]: &mut [Prefetcher<'_>; 2],
) -> usize {
    let Q4Tile { key_dim, value_dim, .. } = *tile;
    let Memory { key_steps, key_offsets, value_steps, value_offsets, exact, codes, pairs, scores, .. } =
        memory;
    // SAFETY: the caller vouches for the instruction set; lengths are checked in `attend`.
    unsafe {
        let queries = &tile.queries[row * key_dim..(row + N) * key_dim];
        let rounded = quantize_rows::<L, N, true>(queries, [key_steps, key_offsets], exact, codes);
        interleave_pairs::<L, N>(codes, key_dim / 2, pairs);
        score::<L, N, ACROSS>(memory.words, pairs, key_dim, &rounded, scores, with_scores);
        let rows = row..row + N;
        let seen = Scores {
            visible: &tile.visible[rows.clone()],
            width: SLOTS,
            scale: tile.scale,
            softcap: tile.softcap,
            scales: None,
        };
        let kept =
            softmax_weights::<L>(&seen, scores, &mut running.max[rows.clone()], &mut running.sum[rows]);
        let out = &mut running.out[row * value_dim..(row + N) * value_dim];
        for group in 0..value_dim / Q4_GROUP {
            let slots = group * SLOTS..(group + 1) * SLOTS;
            let numbers = [&value_steps[slots.clone()], &value_offsets[slots]];
            let weights = quantize_rows::<L, N, false>(&scores[..N * SLOTS], numbers, exact, codes);
            interleave_pairs::<L, N>(codes, PAIRS, pairs);
            let add = Add { codes: tile.values.codes, weights, kept, value_dim, group };
            if value_dim == Q4_GROUP {
                add_values::<L, N, { place::BOTH }>(&add, pairs, out, with_values);
            } else if group < value_dim / Q4_GROUP / 2 {
                add_values::<L, N, { place::LOW }>(&add, pairs, out, with_values);
            } else {
                add_values::<L, N, { place::HIGH }>(&add, pairs, out, with_values);
            }
        }
    }
    N
}

/// What is left of rows' numbers beside their codes, row by row.
#[derive(Clone, Copy)]
struct QuantizedRows {
    /// What a code is rescale.
    scales: [f32; LANES],
    /// Sum of the numbers times their offsets.
    offsets: [f32; LANES],
}

/// Rounds rows of numbers times their steps to codes, in order, or with the middle two of every four `SWAPPED`. A row's
/// numbers are whole vectors, as many as there are steps and offsets.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn quantize_rows<L: Simd, const N: usize, const SWAPPED: bool>(
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
    let (mut largest, mut sums, mut inverses) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
    let mut scales = [0.0; LANES];
    // Step by step for all rows: each row's own steps wait for one another.
    // SAFETY: the caller vouches for the instruction set; places are within the slices.
    unsafe {
        for row in 0..N {
            let (mut max, mut sum) = (L::zero(), L::zero());
            for at in (0..len).step_by(LANES) {
                let number = L::load(numbers.as_ptr().add(row * len + at));
                let product = L::mul(number, L::load(steps.as_ptr().add(at)));
                max = L::max(L::abs(product), max);
                sum = L::fma(number, L::load(offsets.as_ptr().add(at)), sum);
                L::store(exact.as_mut_ptr().add(row * len + at), product);
            }
            (largest[row], sums[row]) = (L::max_lane(max), L::sum(sum));
        }
        // What is no finite number makes the other sum none either.
        let largest = L::max(L::load(largest.as_ptr()), L::splat(SMALL));
        L::store(inverses.as_mut_ptr(), L::div(L::splat(MOST), largest));
        L::store(scales.as_mut_ptr(), L::mul(largest, L::splat(1.0 / MOST)));
        for (row, inverse) in inverses.into_iter().enumerate().take(N) {
            for at in (0..len).step_by(LANES) {
                let code = L::mul(L::load(exact.as_ptr().add(row * len + at)), L::splat(inverse));
                let to = codes.as_mut_ptr().add((row * len + at) / 2).cast();
                if SWAPPED { L::store_i16_swapped(to, code) } else { L::store_i16(to, code) }
            }
        }
    }
    QuantizedRows { scales, offsets: sums }
}

/// Rows of `n` pairs as `[n, stride]`.
///
/// # Safety
/// As for [`Simd`]; `n` is whole vectors.
#[inline(always)]
unsafe fn interleave_pairs<L: Simd, const N: usize>(rows: &[f32], n: usize, pairs: &mut [f32]) {
    let stride = stride(N);
    assert!(n.is_multiple_of(LANES) && rows.len() >= stride * n && pairs.len() >= stride * n);
    for first in (0..N).step_by(FOUR) {
        for at in (0..n).step_by(LANES) {
            // SAFETY: four rows are there (past the last, what others have left), and their places in `pairs`.
            unsafe {
                let mut fours = [L::zero(); FOUR];
                for (row, four) in fours.iter_mut().enumerate() {
                    *four = L::load(rows.as_ptr().add((first + row) * n + at));
                }
                for (index, turned) in L::transpose_quarters(fours).into_iter().enumerate() {
                    let to = pairs.as_mut_ptr().add((at + index) * stride + first);
                    L::store_quarters(to, FOUR * stride, turned);
                }
            }
        }
    }
}

/// Products of `N` rows with all keys, `[N, 64]`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn score<L: Simd, const N: usize, const ACROSS: usize>(
    words: &[f32],
    pairs: &[f32],
    key_dim: usize,
    queries: &QuantizedRows,
    scores: &mut [f32],
    prefetcher: &mut Prefetcher<'_>,
) {
    let (stride, count) = (stride(N), key_dim / 8);
    assert!(words.len() >= count * SLOTS && pairs.len() >= key_dim / 2 * stride && scores.len() >= N * SLOTS);
    let pairs = pairs.as_ptr().cast::<i32>();
    for first in (0..SLOTS).step_by(ACROSS * LANES) {
        // SAFETY: words, pairs and slots are there: checked above.
        unsafe {
            let mut sums = [[L::splat_i(0); N]; ACROSS];
            for word in 0..count {
                prefetcher.step();
                // The word's low halves meet channels from the first half of the key, and the high ones from the second.
                let low = pairs.add(2 * word * stride);
                let high = pairs.add((2 * count + 2 * word) * stride);
                for (at, sums) in sums.iter_mut().enumerate() {
                    let from = words.as_ptr().add(word * SLOTS + first + at * LANES);
                    let codes = L::load_i(from.cast());
                    let mask = L::splat_i(HALVES);
                    L::dot_add(sums, L::and(codes, mask), low);
                    L::dot_add(sums, L::and(L::shr(codes, 4), mask), high);
                    L::dot_add(sums, L::and(L::shr(codes, 8), mask), low.add(stride));
                    L::dot_add(sums, L::and(L::shr(codes, 12), mask), high.add(stride));
                }
            }
            for (at, sums) in sums.into_iter().enumerate() {
                for (n, sum) in sums.into_iter().enumerate() {
                    let (scale, offset) = (L::splat(queries.scales[n]), L::splat(queries.offsets[n]));
                    let score = L::fma(L::to_float(sum), scale, offset);
                    L::store(scores.as_mut_ptr().add(n * SLOTS + first + at * LANES), score);
                }
            }
        }
    }
}

/// What [`add_values`] adds.
struct Add<'a> {
    /// The page's codes of values.
    codes: &'a [u8],
    weights: QuantizedRows,
    /// What was seen before is multiplied by these.
    kept: [f32; LANES],
    value_dim: usize,
    group: usize,
}

/// Adds a group of the values' channels, weighted by `pairs`, to `N` rows. `PLACE` is where their codes lie.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn add_values<L: Simd, const N: usize, const PLACE: u8>(
    add: &Add<'_>,
    pairs: &[f32],
    out: &mut [f32],
    prefetcher: &mut Prefetcher<'_>,
) {
    let (width, stride) = (add.value_dim / 2, stride(N));
    // The group's first byte of a row, and from one of its halves to the other.
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
    let pairs = pairs.as_ptr().cast::<i32>();
    for half in 0..2 {
        let high = PLACE == place::HIGH || (PLACE == place::BOTH && half == 1);
        // SAFETY: slots, channels and rows are there: checked above.
        unsafe {
            let from = add.codes.as_ptr().add(begin + half * next);
            let sums = if N > FOUR {
                // One after the other, as the registers have room for one.
                let first = weighted::<L, N, true, false>(from, width, high, pairs, prefetcher);
                [first[0], weighted::<L, N, false, true>(from, width, high, pairs, prefetcher)[1]]
            } else {
                weighted::<L, N, true, true>(from, width, high, pairs, prefetcher)
            };
            for n in 0..N {
                let (scale, offset) = (L::splat(add.weights.scales[n]), L::splat(add.weights.offsets[n]));
                let sums = L::in_order([L::to_float(sums[0][n]), L::to_float(sums[1][n])]);
                for (at, sum) in sums.into_iter().enumerate() {
                    let channel = add.group * Q4_GROUP + half * RUN + at * LANES;
                    let to = out.as_mut_ptr().add(n * add.value_dim + channel);
                    let before = L::fma(L::load(to), L::splat(add.kept[n]), offset);
                    L::store(to, L::fma(sum, scale, before));
                }
            }
        }
    }
}

/// Sums of the halves of 32 bytes of each slot, weighted by `pairs`: of the first or second of [`Simd::byte_pairs`], or both.
///
/// # Safety
/// As for [`Simd`]; there are 64 slots of `width` bytes, and so many pairs.
#[inline(always)]
unsafe fn weighted<L: Simd, const N: usize, const FIRST: bool, const SECOND: bool>(
    from: *const u8,
    width: usize,
    high: bool,
    pairs: *const i32,
    prefetcher: &mut Prefetcher<'_>,
) -> [[L::I; N]; 2] {
    // SAFETY: the caller vouches.
    unsafe {
        let (mut first, mut second) = ([L::splat_i(0); N], [L::splat_i(0); N]);
        for pair in 0..PAIRS {
            if pair % FOUR == 0 {
                prefetcher.step();
            }
            let from = from.add(2 * pair * width);
            let mut codes = L::byte_pairs(from, from.add(width));
            if high {
                codes = [L::shr(codes[0], 4), L::shr(codes[1], 4)];
            }
            let pairs = pairs.add(pair * stride(N));
            if FIRST {
                L::dot_add(&mut first, L::and(codes[0], L::splat_i(HALVES)), pairs);
            }
            if SECOND {
                L::dot_add(&mut second, L::and(codes[1], L::splat_i(HALVES)), pairs);
            }
        }
        [first, second]
    }
}
