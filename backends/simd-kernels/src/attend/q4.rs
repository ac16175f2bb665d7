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
        dim.is_multiple_of(2 * LANES)
            && pairs.len() >= 2 * dim
            && out.len() >= slots * dim
            && rows.codes.len() >= slots * width
            && rows.pairs.len() >= slots.div_ceil(Q4_GROUP) * dim
    );
    let (steps, offsets) = pairs.split_at_mut(dim);
    for group in 0..slots.div_ceil(Q4_GROUP) {
        let pairs = rows.pairs[group * dim..(group + 1) * dim].as_chunks().0;
        let (step_vectors, offset_vectors) = (steps.as_chunks_mut().0, offsets.as_chunks_mut().0);
        for ((pairs, steps), offsets) in pairs.iter().zip(step_vectors).zip(offset_vectors) {
            let [step, offset] = s.load_f16_pairs(pairs);
            s.store(steps, step);
            s.store(offsets, offset);
        }
        for channel in (0..width).step_by(LANES) {
            // SAFETY: channels are within the steps, offsets and rows, and slots within the codes and `out`: asserted above,
            // and each half of a row is whole vectors.
            unsafe {
                let (steps, offsets) = (steps.as_ptr().add(channel), offsets.as_ptr().add(channel));
                let (low_step, high_step) = (s.load_ptr(steps), s.load_ptr(steps.add(width)));
                let (low_offset, high_offset) = (s.load_ptr(offsets), s.load_ptr(offsets.add(width)));
                for slot in group * Q4_GROUP..slots.min((group + 1) * Q4_GROUP) {
                    let [low, high] =
                        s.load_nibbles(&*rows.codes.as_ptr().add(slot * width + channel).cast());
                    let to = out.as_mut_ptr().add(slot * dim + channel);
                    s.store_ptr(to, s.fma(low_step, low, low_offset));
                    s.store_ptr(to.add(width), s.fma(high_step, high, high_offset));
                }
            }
        }
    }
}

/// Values as `[slots, dim]`: in each slot, every group of channels has a step and an offset.
#[inline(always)]
fn dequantize_values<S: Simd>(s: S, rows: Q4Rows<'_>, dim: usize, slots: usize, out: &mut [f32]) {
    let (width, groups) = (dim / 2, dim.div_ceil(Q4_GROUP));
    assert!(dim.is_multiple_of(2 * LANES));
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
            for channel in (group * Q4_GROUP..dim.min((group + 1) * Q4_GROUP)).step_by(LANES) {
                let half = usize::from(channel >= width);
                // SAFETY: the slot is within the codes and `out`, which are as long as all slots, and the channels are
                // within the slot's row, each half of which is whole vectors.
                unsafe {
                    let from = codes.as_ptr().add(slot * width + channel - half * width);
                    let codes = s.load_nibbles(&*from.cast())[half];
                    s.store_ptr(out.as_mut_ptr().add(slot * dim + channel), s.fma(step, codes, offset));
                }
            }
            group += 1;
            if group == groups {
                (slot, group) = (slot + 1, 0);
            }
        }
    }
}
