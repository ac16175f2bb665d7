//! Pages of 4-bit codes of any shape: a tile of one head is dequantised into memory that stays in the nearest caches.

use herald_api::{Q4_GROUP, Q4Rows};
use herald_layers::kernels::Q4Tile;

use crate::simd::{LANES, Simd};

/// A tile's keys `[slots, key_dim]` and values `[slots, value_dim]` as float32, with `pairs` as memory for a group's.
#[inline(always)]
pub(super) fn dequantize<S: Simd>(
    s: S,
    tile: &Q4Tile<'_>,
    pairs: &mut [f32],
    keys: &mut [f32],
    values: &mut [f32],
) {
    // Each half of a row of codes in whole vectors.
    if [tile.key_dim, tile.value_dim].iter().all(|dim| dim.is_multiple_of(2 * LANES)) {
        dequantize_keys(s, tile.keys, tile.key_dim, tile.slots, pairs, keys);
        dequantize_values(s, tile.values, tile.value_dim, tile.slots, values);
    } else {
        tile.widen(pairs, keys, values);
    }
}

/// The steps and offsets of at most sixteen pairs of float16.
#[inline(always)]
pub(super) fn steps_and_offsets<S: Simd>(s: S, pairs: &[[u16; 2]]) -> [S::F; 2] {
    if let Some(pairs) = pairs.first_chunk() {
        return s.load_f16_pairs(pairs);
    }
    let mut sixteen = [[0; 2]; LANES];
    sixteen[..pairs.len()].copy_from_slice(pairs);
    s.load_f16_pairs(&sixteen)
}

/// Keys as `[slots, dim]`: in each group of slots, every channel has a step and an offset.
#[inline(always)]
fn dequantize_keys<S: Simd>(
    s: S,
    rows: Q4Rows<'_>,
    dim: usize,
    slots: usize,
    pairs: &mut [f32],
    out: &mut [f32],
) {
    let width = dim / 2;
    assert!(
        pairs.len() >= 2 * dim
            && out.len() >= slots * dim
            && rows.codes.len() >= slots * width
            && rows.pairs.len() >= slots.div_ceil(Q4_GROUP) * dim
    );
    let (steps, rest) = pairs.split_at_mut(dim);
    let (steps, offsets) = (steps.as_chunks_mut::<LANES>().0, rest[..dim].as_chunks_mut::<LANES>().0);
    let groups = out[..slots * dim].chunks_mut(Q4_GROUP * dim).zip(rows.codes.chunks(Q4_GROUP * width));
    for ((out, codes), pairs) in groups.zip(rows.pairs.chunks_exact(dim)) {
        for ((step, offset), pairs) in steps.iter_mut().zip(&mut *offsets).zip(pairs.as_chunks().0) {
            let numbers = s.load_f16_pairs(pairs);
            s.store(step, numbers[0]);
            s.store(offset, numbers[1]);
        }
        let (low_steps, high_steps) = steps.split_at(width / LANES);
        let (low_offsets, high_offsets) = offsets.split_at(width / LANES);
        for at in 0..width / LANES {
            let (low_step, high_step) = (s.load(&low_steps[at]), s.load(&high_steps[at]));
            let (low_offset, high_offset) = (s.load(&low_offsets[at]), s.load(&high_offsets[at]));
            for (out, codes) in out.chunks_exact_mut(dim).zip(codes.chunks_exact(width)) {
                let [low, high] = s.load_nibbles(&codes.as_chunks().0[at]);
                let (low_out, high_out) = out.split_at_mut(width);
                s.store(&mut low_out.as_chunks_mut().0[at], s.fma(low_step, low, low_offset));
                s.store(&mut high_out.as_chunks_mut().0[at], s.fma(high_step, high, high_offset));
            }
        }
    }
}

/// Values as `[slots, dim]`: in each slot, every group of channels has a step and an offset.
#[inline(always)]
fn dequantize_values<S: Simd>(s: S, rows: Q4Rows<'_>, dim: usize, slots: usize, out: &mut [f32]) {
    let (width, groups) = (dim / 2, dim.div_ceil(Q4_GROUP));
    let pairs = &rows.pairs[..slots * groups];
    let (codes, out) = (&rows.codes[..slots * width], &mut out[..slots * dim]);
    let (mut slot, mut group) = (0, 0);
    for pairs in pairs.chunks(LANES) {
        let (mut steps, mut offsets) = ([0.0; LANES], [0.0; LANES]);
        let [step, offset] = steps_and_offsets(s, pairs);
        s.store(&mut steps, step);
        s.store(&mut offsets, offset);
        for (step, offset) in steps.into_iter().zip(offsets).take(pairs.len()) {
            let (step, offset) = (s.splat(step), s.splat(offset));
            let (codes, _) = codes[slot * width..(slot + 1) * width].as_chunks();
            let (out, _) = out[slot * dim..(slot + 1) * dim].as_chunks_mut();
            let channels = group * Q4_GROUP..dim.min((group + 1) * Q4_GROUP);
            for at in channels.start / LANES..channels.end / LANES {
                let half = usize::from(at >= width / LANES);
                let codes = s.load_nibbles(&codes[at - half * (width / LANES)])[half];
                s.store(&mut out[at], s.fma(step, codes, offset));
            }
            group += 1;
            if group == groups {
                (slot, group) = (slot + 1, 0);
            }
        }
    }
}
