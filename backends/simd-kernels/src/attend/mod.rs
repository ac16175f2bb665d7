//! A tile of attention: queries that share a KV head, against a run of slots of a page of int16 or 4-bit codes.
//!
//! Few rows of queries (decode) go side by side in quarters of a vector, four elements of each (`decode`); many (prefill)
//! have a lane each (`prefill`). Both do the same float operations in the same order for every row, so a token's results
//! do not depend on the tokens beside it.

mod decode;
mod prefill;
mod q4;
mod q4_integer;
mod softmax;

use herald_layers::kernels::{OnlineSoftmax, Tile};

pub(crate) use q4::attend_q4;
pub(crate) use q4_integer::STEP;

use crate::math::exp;
use crate::prefetch::prefetch;
use crate::simd::{LANES, Simd};

/// Elements of a row that are summed by themselves before all are summed; and rows that share a vector in `decode`.
const FOUR: usize = 4;

/// Rows from which on each has a lane.
const MANY: usize = LANES;

/// What keys and values are made of.
pub(crate) trait Element: Copy + Default {
    /// Sixteen elements as floats.
    ///
    /// # Safety
    /// As for [`Simd`]; sixteen can be read.
    unsafe fn load<L: Simd>(from: *const Self) -> L::F;

    /// All as floats, in `to` where they aren't yet.
    ///
    /// # Safety
    /// As for [`Simd`].
    unsafe fn widen<'a, L: Simd>(from: &'a [Self], to: &'a mut [f32]) -> &'a [f32];

    /// The memory to ask for while a tile's scores are made, and while its values are added.
    fn upcoming<'a>(tile: &Tile<'a, Self>) -> [&'a [u8]; 2];
}

impl Element for i16 {
    #[inline(always)]
    unsafe fn load<L: Simd>(from: *const Self) -> L::F {
        // SAFETY: the caller vouches.
        unsafe { L::load_i16(from) }
    }

    #[inline(always)]
    unsafe fn widen<'a, L: Simd>(from: &'a [Self], to: &'a mut [f32]) -> &'a [f32] {
        let to = &mut to[..from.len()];
        let (sixteens, rest) = from.as_chunks::<LANES>();
        for (out, codes) in to.chunks_exact_mut(LANES).zip(sixteens) {
            // SAFETY: the caller vouches; sixteen of each.
            unsafe { L::store(out.as_mut_ptr(), L::load_i16(codes.as_ptr())) };
        }
        for (out, code) in to[from.len() - rest.len()..].iter_mut().zip(rest) {
            *out = f32::from(*code);
        }
        to
    }

    #[inline(always)]
    fn upcoming<'a>(tile: &Tile<'a, Self>) -> [&'a [u8]; 2] {
        // What is asked for should still be in the first cache when it is read.
        [bytemuck::cast_slice(tile.values), tile.next.keys]
    }
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<L: Simd>(from: *const Self) -> L::F {
        // SAFETY: the caller vouches.
        unsafe { L::load(from) }
    }

    #[inline(always)]
    unsafe fn widen<'a, L: Simd>(from: &'a [Self], _: &'a mut [f32]) -> &'a [f32] {
        from
    }

    #[inline(always)]
    fn upcoming<'a>(tile: &Tile<'a, Self>) -> [&'a [u8]; 2] {
        // Its own elements were made just now.
        [tile.next.keys, tile.next.values]
    }
}

/// Lays queries out; see [`herald_layers::Kernels::pack_queries`].
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn pack_queries<L: Simd>(queries: &[f32], key_dim: usize, out: &mut [f32]) {
    // SAFETY: the caller vouches.
    unsafe {
        if queries.len() / key_dim < MANY {
            decode::pack_queries(queries, key_dim, out);
        } else {
            prefill::pack_queries::<L>(queries, key_dim, out);
        }
    }
}

/// Attends; see [`herald_layers::Kernels::attend`].
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn attend<L: Simd, E: Element>(
    tile: &Tile<'_, E>,
    running: &mut OnlineSoftmax<'_>,
    scratch: &mut [f32],
) {
    let Tile { key_dim, value_dim, .. } = *tile;
    let rows = tile.visible.len();
    let slots = tile.key_scales.len();
    assert!(
        tile.queries.len() >= Tile::<E>::packed_queries_len(rows, key_dim)
            && tile.keys.len() >= slots * key_dim
            && tile.values.len() >= slots * value_dim
            && tile.value_scales.len() >= slots
            && tile.visible.iter().all(|[begin, end]| begin <= end && *end as usize <= slots)
            && running.max.len() >= rows
            && running.sum.len() >= rows
            && running.out.len() >= rows * value_dim
            && scratch.len() >= scratch_len::<E>(rows, slots, key_dim.max(value_dim)),
        "a tile of {rows} queries of {key_dim} and {slots} slots has slices too short"
    );
    for scales in tile.next.scales {
        prefetch(scales);
    }
    // SAFETY: the caller vouches for the instruction set; lengths are checked above.
    unsafe {
        if rows < MANY {
            decode::attend::<L, E>(tile, running, scratch);
        } else {
            prefill::attend::<L, E>(tile, running, scratch);
        }
    }
}

/// Elements of scratch memory: scores, a number of each row, and keys or values as floats where they aren't.
#[inline(always)]
fn scratch_len<E: Element>(rows: usize, slots: usize, dim: usize) -> usize {
    let wide = if size_of::<E>() == size_of::<f32>() { 0 } else { slots * dim };
    rows.next_multiple_of(LANES) * (slots.next_multiple_of(LANES) + 1) + wide
}

/// Merges what two states have seen; see [`herald_layers::Kernels::merge`].
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn merge<L: Simd>(into: &mut OnlineSoftmax<'_>, other: &OnlineSoftmax<'_>) {
    let rows = into.sum.len();
    let value_dim = into.out.len() / rows.max(1);
    assert!(
        into.max.len() == rows
            && other.max.len() == rows
            && other.sum.len() == rows
            && other.out.len() == into.out.len()
    );
    for row in (0..rows).step_by(LANES) {
        let count = LANES.min(rows - row);
        let (mut kept, mut added) = ([0.0; LANES], [0.0; LANES]);
        // SAFETY: the caller vouches for the instruction set; so many rows are there.
        unsafe {
            let old = L::load_first(into.max[row..].as_ptr(), count);
            let others = L::load_first(other.max[row..].as_ptr(), count);
            let max = L::max(old, others);
            let rescales = [rescale::<L>(old, max), rescale::<L>(others, max)];
            let sums = [into.sum[row..].as_ptr(), other.sum[row..].as_ptr()];
            let sums = [L::load_first(sums[0], count), L::load_first(sums[1], count)];
            let sum = L::fma(sums[1], rescales[1], L::mul(sums[0], rescales[0]));
            L::store_first(into.max[row..].as_mut_ptr(), max, count);
            L::store_first(into.sum[row..].as_mut_ptr(), sum, count);
            L::store(kept.as_mut_ptr(), rescales[0]);
            L::store(added.as_mut_ptr(), rescales[1]);
        }
        let places = row * value_dim..(row + count) * value_dim;
        let outs = into.out[places.clone()].chunks_exact_mut(value_dim);
        let others = other.out[places].chunks_exact(value_dim);
        for ((out, other), (kept, added)) in outs.zip(others).zip(kept.into_iter().zip(added)) {
            for (out, other) in out.iter_mut().zip(other) {
                *out = *out * kept + other * added;
            }
        }
    }
}

/// The slots that any of some rows sees.
#[inline(always)]
fn span(visible: &[[u32; 2]]) -> [usize; 2] {
    let seen = visible.iter().filter(|[begin, end]| begin < end);
    let begin = seen.clone().map(|[begin, _]| *begin).min().unwrap_or(0);
    let end = seen.map(|[_, end]| *end).max().unwrap_or(0);
    [begin as usize, end as usize]
}

/// What sums under the old maximum are rescale under the new one: nothing where nothing was seen.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn rescale<L: Simd>(old: L::F, new: L::F) -> L::F {
    // SAFETY: the caller vouches.
    unsafe {
        // Negative infinity less itself is no number, in place of which the second argument is taken.
        exp::<L>(L::max(L::sub(old, new), L::splat(-1e30)))
    }
}

/// Moves a tile's score products to the scale of its keys and of all, and caps them.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn scaled<L: Simd, E>(tile: &Tile<'_, E>, products: L::F, scales: L::F) -> L::F {
    // SAFETY: the caller vouches.
    unsafe { capped::<L>(L::mul(products, scales), tile.softcap) }
}

/// `cap * tanh(score / cap)`, where there is a cap.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn capped<L: Simd>(score: L::F, softcap: Option<f32>) -> L::F {
    match softcap {
        // SAFETY: the caller vouches.
        Some(cap) => unsafe { L::mul(L::splat(cap), crate::math::tanh::<L>(L::div(score, L::splat(cap)))) },
        None => score,
    }
}
