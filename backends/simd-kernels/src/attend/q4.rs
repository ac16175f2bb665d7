//! Pages of 4-bit codes: of the usual shapes as the whole numbers that they are (`q4_integer`); of others, a tile of one head is
//! read as floats into memory that stays in the nearest caches.

use herald_api::{Q4_GROUP, Q4Rows};
use herald_layers::kernels::{OnlineSoftmax, Q4Tile, Tile};

use super::{attend, pack_queries, q4_integer};
use crate::prefetch::prefetch;
use crate::simd::{LANES, Simd};

/// Attends over 4-bit codes; see [`herald_layers::Kernels::attend_q4`].
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn attend_q4<L: Simd>(
    tile: &Q4Tile<'_>,
    running: &mut OnlineSoftmax<'_>,
    scratch: &mut [f32],
) {
    if q4_integer::fits(tile) {
        for scales in tile.next.scales {
            prefetch(scales);
        }
        // SAFETY: the caller vouches.
        return unsafe { q4_integer::attend::<L>(tile, running, scratch) };
    }
    let rows = tile.visible.len();
    let (queries, scratch) = scratch.split_at_mut(Tile::<f32>::packed_queries_len(rows, tile.key_dim));
    // SAFETY: the caller vouches.
    unsafe { pack_queries::<L>(&tile.queries[..rows * tile.key_dim], tile.key_dim, queries) };
    tile.attend_with(
        queries,
        running,
        scratch,
        #[inline(always)]
        |pairs, keys, values| {
            // Each half of a row of codes in whole vectors.
            if [tile.key_dim, tile.value_dim].iter().all(|dim| dim.is_multiple_of(2 * LANES)) {
                // SAFETY: the caller vouches.
                unsafe {
                    widen_keys::<L>(tile.keys, tile.key_dim, tile.slots, pairs, keys);
                    widen_values::<L>(tile.values, tile.value_dim, tile.slots, values);
                }
            } else {
                tile.widen(pairs, keys, values);
            }
        },
        #[inline(always)]
        |tile, running, scratch| {
            // SAFETY: the caller vouches.
            unsafe { attend::<L, f32>(tile, running, scratch) }
        },
    );
}

/// Sixteen pairs' steps, and their offsets.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(super) unsafe fn halves<L: Simd>(pairs: &[[u16; 2]]) -> [L::F; 2] {
    let mut sixteen = [[0; 2]; LANES];
    let from = match pairs.first_chunk() {
        Some(whole) => whole,
        None => {
            sixteen[..pairs.len()].copy_from_slice(pairs);
            &sixteen
        }
    };
    // SAFETY: the caller vouches; there are sixteen.
    unsafe { L::load_f16_pairs(from.as_ptr()) }
}

/// Keys as `[slots, dim]`: channels have pairs of their own in each group of slots.
///
/// # Safety
/// As for [`Simd`]; half of `dim` is whole vectors.
#[inline(always)]
unsafe fn widen_keys<L: Simd>(
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
    let (steps, offsets) = pairs.split_at_mut(dim);
    for group in 0..slots.div_ceil(Q4_GROUP) {
        let pairs = &rows.pairs[group * dim..(group + 1) * dim];
        // SAFETY: slots and channels are within their slices.
        unsafe {
            for channel in (0..dim).step_by(LANES) {
                let [step, offset] = halves::<L>(&pairs[channel..]);
                L::store(steps.as_mut_ptr().add(channel), step);
                L::store(offsets.as_mut_ptr().add(channel), offset);
            }
            for channel in (0..width).step_by(LANES) {
                let (steps, offsets) = (steps.as_ptr().add(channel), offsets.as_ptr().add(channel));
                let (low_step, high_step) = (L::load(steps), L::load(steps.add(width)));
                let (low_offset, high_offset) = (L::load(offsets), L::load(offsets.add(width)));
                for slot in group * Q4_GROUP..slots.min((group + 1) * Q4_GROUP) {
                    let [low, high] = L::load_nibbles(rows.codes.as_ptr().add(slot * width + channel));
                    let to = out.as_mut_ptr().add(slot * dim + channel);
                    L::store(to, L::fma(low_step, low, low_offset));
                    L::store(to.add(width), L::fma(high_step, high, high_offset));
                }
            }
        }
    }
}

/// Values as `[slots, dim]`: groups of a slot's channels have pairs of their own.
///
/// # Safety
/// As for [`Simd`]; half of `dim` is whole vectors.
#[inline(always)]
unsafe fn widen_values<L: Simd>(rows: Q4Rows<'_>, dim: usize, slots: usize, out: &mut [f32]) {
    let (width, groups) = (dim / 2, dim.div_ceil(Q4_GROUP));
    let pairs = &rows.pairs[..slots * groups];
    assert!(out.len() >= slots * dim && rows.codes.len() >= slots * width);
    let (mut slot, mut group) = (0, 0);
    for pairs in pairs.chunks(LANES) {
        let (mut steps, mut offsets) = ([0.0; LANES], [0.0; LANES]);
        // SAFETY: sixteen of each; slots and channels are within their slices.
        unsafe {
            let [step, offset] = halves::<L>(pairs);
            L::store(steps.as_mut_ptr(), step);
            L::store(offsets.as_mut_ptr(), offset);
            for (step, offset) in steps.into_iter().zip(offsets).take(pairs.len()) {
                let (step, offset) = (L::splat(step), L::splat(offset));
                for channel in (group * Q4_GROUP..dim.min((group + 1) * Q4_GROUP)).step_by(LANES) {
                    let half = usize::from(channel >= width);
                    let from = rows.codes.as_ptr().add(slot * width + channel - half * width);
                    let codes = L::load_nibbles(from)[half];
                    L::store(out.as_mut_ptr().add(slot * dim + channel), L::fma(step, codes, offset));
                }
                group += 1;
                if group == groups {
                    (slot, group) = (slot + 1, 0);
                }
            }
        }
    }
}
