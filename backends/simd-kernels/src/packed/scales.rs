//! How the scales (and minima) of sixteen rows are packed.

use super::Parts;
use crate::simd::{LANES, Simd};

/// Bytes of one float16 number of every row.
const HALF: usize = 2 * LANES;

/// The scales of a group of sixteen rows, and what a code of zero stands for.
pub(crate) struct Scales<L: Simd> {
    /// Of the group's two halves.
    pub(crate) scale: [L::F; 2],
    /// Of the group's two halves; not used where the format has none.
    pub(crate) min: [L::F; 2],
}

/// A way of packing.
pub(crate) trait Scaling: 'static {
    /// Whether the halves of a group have scales of their own.
    const HALVES: bool;
    /// Whether there are minima.
    const MINS: bool;
    /// Bytes at a block's beginning.
    const HEADER_BYTES: usize = if Self::MINS { 2 * HALF } else { HALF };
    /// Bytes of a group, after its codes.
    const GROUP_BYTES: usize;

    /// Packs a row's own numbers of a block.
    fn pack_header(numbers: [[u8; 2]; 2], lane: usize, packed: &mut [u8]) {
        for (index, number) in numbers.iter().enumerate().take(Self::HEADER_BYTES / HALF) {
            packed[index * HALF + 2 * lane..][..2].copy_from_slice(number);
        }
    }

    /// Packs a row's small integers of a group.
    fn pack_group(parts: &Parts, group: usize, lane: usize, packed: &mut [u8]);

    /// The scales of a group.
    ///
    /// # Safety
    /// As for [`Simd`]; `header` points to the block's header, `group` to the group's own.
    unsafe fn load<L: Simd>(header: *const u8, group: *const u8) -> Scales<L>;
}

/// A block is a group, with a scale of its own.
pub(crate) struct BlockScale;

impl Scaling for BlockScale {
    const HALVES: bool = false;
    const MINS: bool = false;
    const GROUP_BYTES: usize = 0;

    fn pack_group(_: &Parts, _: usize, _: usize, _: &mut [u8]) {}

    #[inline(always)]
    unsafe fn load<L: Simd>(header: *const u8, _: *const u8) -> Scales<L> {
        // SAFETY: the caller vouches.
        unsafe { Scales { scale: [L::load_f16(header); 2], min: [L::zero(); 2] } }
    }
}

/// A block is a group, with a scale and a minimum of its own.
pub(crate) struct BlockScaleAndMin;

impl Scaling for BlockScaleAndMin {
    const HALVES: bool = false;
    const MINS: bool = true;
    const GROUP_BYTES: usize = 0;

    fn pack_group(_: &Parts, _: usize, _: usize, _: &mut [u8]) {}

    #[inline(always)]
    unsafe fn load<L: Simd>(header: *const u8, _: *const u8) -> Scales<L> {
        // SAFETY: the caller vouches.
        unsafe { Scales { scale: [L::load_f16(header); 2], min: [L::load_f16(header.add(HALF)); 2] } }
    }
}

/// Groups with signed scales.
pub(crate) struct ScaledSigned;

impl Scaling for ScaledSigned {
    const HALVES: bool = false;
    const MINS: bool = false;
    const GROUP_BYTES: usize = LANES;

    fn pack_group(parts: &Parts, group: usize, lane: usize, packed: &mut [u8]) {
        let [[scale, _], _] = parts.of_group(group);
        packed[lane] = scale as i8 as u8;
    }

    #[inline(always)]
    unsafe fn load<L: Simd>(header: *const u8, group: *const u8) -> Scales<L> {
        // SAFETY: the caller vouches.
        unsafe {
            let scale = L::mul(L::load_f16(header), L::load_i8(group));
            Scales { scale: [scale; 2], min: [L::zero(); 2] }
        }
    }
}

/// Halves of groups with signed scales.
pub(crate) struct ScaledHalves;

impl Scaling for ScaledHalves {
    const HALVES: bool = true;
    const MINS: bool = false;
    const GROUP_BYTES: usize = 2 * LANES;

    fn pack_group(parts: &Parts, group: usize, lane: usize, packed: &mut [u8]) {
        let [[first, second], _] = parts.of_group(group);
        packed[lane] = first as i8 as u8;
        packed[LANES + lane] = second as i8 as u8;
    }

    #[inline(always)]
    unsafe fn load<L: Simd>(header: *const u8, group: *const u8) -> Scales<L> {
        // SAFETY: the caller vouches.
        unsafe {
            let d = L::load_f16(header);
            let scale = [L::mul(d, L::load_i8(group)), L::mul(d, L::load_i8(group.add(LANES)))];
            Scales { scale, min: [L::zero(); 2] }
        }
    }
}

/// Groups with scales and minima, which are subtracted.
pub(crate) struct ScaledMins;

impl Scaling for ScaledMins {
    const HALVES: bool = false;
    const MINS: bool = true;
    const GROUP_BYTES: usize = 2 * LANES;

    fn pack_group(parts: &Parts, group: usize, lane: usize, packed: &mut [u8]) {
        let [[scale, _], [offset, _]] = parts.of_group(group);
        packed[lane] = scale as u8;
        packed[LANES + lane] = (-offset) as u8;
    }

    #[inline(always)]
    unsafe fn load<L: Simd>(header: *const u8, group: *const u8) -> Scales<L> {
        // SAFETY: the caller vouches.
        unsafe {
            let (d, dmin) = (L::load_f16(header), L::neg(L::load_f16(header.add(HALF))));
            let (scale, min) = (L::mul(d, L::load_u8(group)), L::mul(dmin, L::load_u8(group.add(LANES))));
            Scales { scale: [scale; 2], min: [min; 2] }
        }
    }
}

/// Halves of groups with scales and minima, which are subtracted.
pub(crate) struct ScaledHalvesAndMins;

impl Scaling for ScaledHalvesAndMins {
    const HALVES: bool = true;
    const MINS: bool = true;
    const GROUP_BYTES: usize = 4 * LANES;

    fn pack_group(parts: &Parts, group: usize, lane: usize, packed: &mut [u8]) {
        let [scales, offsets] = parts.of_group(group);
        let bytes = scales.into_iter().chain(offsets.map(|offset| -offset));
        for (index, byte) in bytes.enumerate() {
            packed[index * LANES + lane] = byte as u8;
        }
    }

    #[inline(always)]
    unsafe fn load<L: Simd>(header: *const u8, group: *const u8) -> Scales<L> {
        // SAFETY: the caller vouches.
        unsafe {
            let (d, dmin) = (L::load_f16(header), L::neg(L::load_f16(header.add(HALF))));
            let byte = |index: usize| L::load_u8(group.add(index * LANES));
            Scales {
                scale: [L::mul(d, byte(0)), L::mul(d, byte(1))],
                min: [L::mul(dmin, byte(2)), L::mul(dmin, byte(3))],
            }
        }
    }
}
