//! A tile of attention: queries that share a KV head, against a run of slots of a page of int16 or 4-bit codes.
//!
//! Few rows of queries ([`decode`]) go four to a vector, four elements of each; many ([`prefill`]) get a lane each. Both do
//! the same float operations in the same order for every row, so a token's results do not depend on the tokens beside it.
//! Pages of 4-bit codes go to [`q4_integer`] where they have the usual shape, and are otherwise dequantised ([`q4`]).

mod decode;
mod prefill;
mod q4;
mod q4_integer;
mod softmax;

use herald_layers::kernels::{OnlineSoftmax, Q4Tile, Tile};

pub(crate) use q4_integer::STEP;

use crate::math::exp;
use crate::prefetch::prefetch;
use crate::simd::{LANES, Simd};

/// Elements of a row that are summed by themselves before all are summed, and rows that share a vector in [`decode`].
const FOUR: usize = 4;

/// Rows from which on each has a lane.
const MANY: usize = LANES;

/// What keys and values are made of.
pub(crate) trait Element: Copy + Default {
    /// Sixteen elements as float32.
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::F;

    /// All as float32, in `to` where they aren't already.
    fn widen<'a, S: Simd>(s: S, from: &'a [Self], to: &'a mut [f32]) -> &'a [f32];

    /// The memory to prefetch while a tile's scores are computed, and while its values are added.
    fn upcoming<'a>(tile: &Tile<'a, Self>) -> [&'a [u8]; 2];
}

impl Element for i16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::F {
        s.load_i16(from)
    }

    #[inline(always)]
    fn widen<'a, S: Simd>(s: S, from: &'a [Self], to: &'a mut [f32]) -> &'a [f32] {
        let to = &mut to[..from.len()];
        let ((vectors, rest), (outs, out_rest)) = (from.as_chunks(), to.as_chunks_mut());
        for (out, codes) in outs.iter_mut().zip(vectors) {
            s.store(out, s.load_i16(codes));
        }
        for (out, code) in out_rest.iter_mut().zip(rest) {
            *out = f32::from(*code);
        }
        to
    }

    #[inline(always)]
    fn upcoming<'a>(tile: &Tile<'a, Self>) -> [&'a [u8]; 2] {
        // What is prefetched should still be in the first cache when it is read.
        [bytemuck::cast_slice(tile.values), tile.next.keys]
    }
}

impl Element for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, from: &[Self; LANES]) -> S::F {
        s.load(from)
    }

    #[inline(always)]
    fn widen<'a, S: Simd>(_: S, from: &'a [Self], _: &'a mut [f32]) -> &'a [f32] {
        from
    }

    #[inline(always)]
    fn upcoming<'a>(tile: &Tile<'a, Self>) -> [&'a [u8]; 2] {
        // The tile's own elements were dequantised just now, so they are in the cache.
        [tile.next.keys, tile.next.values]
    }
}

/// Lays queries out; see [`herald_layers::Kernels::pack_queries`].
#[inline(always)]
pub(crate) fn pack_queries<S: Simd>(s: S, queries: &[f32], key_dim: usize, out: &mut [f32]) {
    if queries.len() / key_dim < MANY {
        decode::pack_queries(queries, key_dim, out);
    } else {
        prefill::pack_queries(s, queries, key_dim, out);
    }
}

/// Attends over int16 codes; see [`herald_layers::Kernels::attend`].
#[inline(always)]
pub(crate) fn attend<S: Simd>(s: S, tile: &Tile<'_>, running: &mut OnlineSoftmax<'_>, scratch: &mut [f32]) {
    attend_elements(s, tile, running, scratch);
}

/// Attends over 4-bit codes; see [`herald_layers::Kernels::attend_q4`].
#[inline(always)]
pub(crate) fn attend_q4<S: Simd>(
    s: S,
    tile: &Q4Tile<'_>,
    running: &mut OnlineSoftmax<'_>,
    scratch: &mut [f32],
) {
    if q4_integer::fits(tile) {
        for scales in tile.next.scales {
            prefetch(scales);
        }
        return q4_integer::attend(s, tile, running, scratch);
    }
    let rows = tile.visible.len();
    let (queries, scratch) = scratch.split_at_mut(Tile::<f32>::packed_queries_len(rows, tile.key_dim));
    pack_queries(s, &tile.queries[..rows * tile.key_dim], tile.key_dim, queries);
    tile.attend_with(
        queries,
        running,
        scratch,
        #[inline(always)]
        |pairs, keys, values| q4::dequantize(s, tile, pairs, keys, values),
        #[inline(always)]
        |tile, running, scratch| attend_elements(s, tile, running, scratch),
    );
}

/// Attends over elements that only need to be widened.
#[inline(always)]
fn attend_elements<S: Simd, E: Element>(
    s: S,
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
    if rows < MANY {
        decode::attend(s, tile, running, scratch);
    } else {
        prefill::attend(s, tile, running, scratch);
    }
}

/// Elements of scratch memory: scores, a number of each row, and keys or values as float32 where they aren't.
#[inline(always)]
fn scratch_len<E: Element>(rows: usize, slots: usize, dim: usize) -> usize {
    let floats = if size_of::<E>() == size_of::<f32>() { 0 } else { slots * dim };
    rows.next_multiple_of(LANES) * (slots.next_multiple_of(LANES) + 1) + floats
}

/// Merges the online softmax of the same rows over other slots; see [`herald_layers::Kernels::merge`].
#[inline(always)]
pub(crate) fn merge<S: Simd>(s: S, into: &mut OnlineSoftmax<'_>, other: &OnlineSoftmax<'_>) {
    let rows = into.sum.len();
    let value_dim = into.out.len() / rows.max(1);
    assert!(
        into.max.len() == rows
            && other.max.len() == rows
            && other.sum.len() == rows
            && other.out.len() == into.out.len()
    );
    for row in (0..rows).step_by(LANES) {
        let places = row..rows.min(row + LANES);
        let (max, sum) = (&mut into.max[places.clone()], &mut into.sum[places.clone()]);
        let (old, new) = (s.load_first(max), s.load_first(&other.max[places.clone()]));
        let greatest = s.max(old, new);
        let (rescale_old, rescale_new) = (rescale(s, old, greatest), rescale(s, new, greatest));
        let (old, new) = (s.load_first(sum), s.load_first(&other.sum[places.clone()]));
        s.store_first(max, greatest);
        s.store_first(sum, s.fma(new, rescale_new, s.mul(old, rescale_old)));
        let (mut factors, mut other_factors) = ([0.0; LANES], [0.0; LANES]);
        s.store(&mut factors, rescale_old);
        s.store(&mut other_factors, rescale_new);
        let places = places.start * value_dim..places.end * value_dim;
        let outs = into.out[places.clone()].chunks_exact_mut(value_dim);
        let others = other.out[places].chunks_exact(value_dim);
        for ((out, other), (old, new)) in outs.zip(others).zip(factors.into_iter().zip(other_factors)) {
            for (out, other) in out.iter_mut().zip(other) {
                *out = *out * old + other * new;
            }
        }
    }
}

/// The slots that are visible to any of some rows.
#[inline(always)]
fn span(visible: &[[u32; 2]]) -> [usize; 2] {
    let nonempty = visible.iter().filter(|[begin, end]| begin < end);
    let begin = nonempty.clone().map(|[begin, _]| *begin).min().unwrap_or(0);
    let end = nonempty.map(|[_, end]| *end).max().unwrap_or(0);
    [begin as usize, end as usize]
}

/// What rescales sums under an old maximum to a new one: `exp(old - new)`, and zero for rows that no slot was visible to.
#[inline(always)]
fn rescale<S: Simd>(s: S, old: S::F, new: S::F) -> S::F {
    // Negative infinity less itself is NaN, in place of which `max` gives its second argument.
    exp(s, s.max(s.sub(old, new), s.splat(-1e30)))
}

/// `cap * tanh(score / cap)`, where there is a cap.
#[inline(always)]
fn capped<S: Simd>(s: S, score: S::F, softcap: Option<f32>) -> S::F {
    match softcap {
        Some(cap) => s.mul(s.splat(cap), crate::math::tanh(s, s.div(score, s.splat(cap)))),
        None => score,
    }
}
