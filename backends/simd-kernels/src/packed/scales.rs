//! How the scales (and minima) of sixteen rows are packed.

use super::Parts;
use crate::matmul::{Sums, SumsOf};
use crate::simd::{LANES, Simd};

/// One float16 of every row.
pub(crate) type Halves = [u8; 2 * LANES];

/// One small integer of every row.
type Ints = [u8; LANES];

/// The scales of a group of sixteen rows, and what a code of zero stands for.
pub(crate) struct Scales<S: Simd> {
    /// Of the group's two halves.
    pub(crate) scale: [S::F; 2],
    /// Of the group's two halves; not used where the format has none.
    pub(crate) min: [S::F; 2],
}

/// A way of packing scales.
pub(crate) trait Scaling: 'static {
    /// Whether each half of a group has its own scale, and whether there are minima.
    type Sums: Sums;
    /// Bytes of a block's header: by default, one float16 of every row, or two.
    const HEADER_BYTES: usize = (1 + <Self::Sums as Sums>::MINS as usize) * size_of::<Halves>();
    /// Bytes of a group, after its codes.
    const GROUP_BYTES: usize;

    /// Packs a row's own numbers of a block.
    fn pack_header(numbers: [[u8; 2]; 2], lane: usize, packed: &mut [u8]) {
        for (number, halves) in numbers.iter().zip(packed[..Self::HEADER_BYTES].chunks_exact_mut(2 * LANES)) {
            halves[2 * lane..][..2].copy_from_slice(number);
        }
    }

    /// Packs a row's small integers of a group.
    fn pack_group(parts: &Parts, group: usize, lane: usize, packed: &mut [u8]);

    /// The scales of a group, from the block's header and the group's bytes.
    fn load<S: Simd>(s: S, header: &[u8], group: &[u8]) -> Scales<S>;
}

/// A block's groups all have its float16 scale (and minimum), which is in the header.
pub(crate) struct BlockScale<const MINS: bool>;

impl<const MINS: bool> Scaling for BlockScale<MINS> {
    type Sums = SumsOf<false, MINS>;

    const GROUP_BYTES: usize = 0;

    fn pack_group(_: &Parts, _: usize, _: usize, _: &mut [u8]) {}

    #[inline(always)]
    fn load<S: Simd>(s: S, header: &[u8], _: &[u8]) -> Scales<S> {
        let (header, _): (&[Halves], _) = header.as_chunks();
        let min = if MINS { s.load_f16(&header[1]) } else { s.zero() };
        Scales { scale: [s.load_f16(&header[0]); 2], min: [min; 2] }
    }
}

/// A block is one group, whose scale is a power of two: the header has its exponent, with a bias of 128.
pub(crate) struct BlockExponent;

impl Scaling for BlockExponent {
    type Sums = SumsOf<false, false>;

    const HEADER_BYTES: usize = LANES;
    const GROUP_BYTES: usize = 0;

    fn pack_header(numbers: [[u8; 2]; 2], lane: usize, packed: &mut [u8]) {
        packed[lane] = numbers[0][0];
    }

    fn pack_group(_: &Parts, _: usize, _: usize, _: &mut [u8]) {}

    #[inline(always)]
    fn load<S: Simd>(s: S, header: &[u8], _: &[u8]) -> Scales<S> {
        let (header, _): (&[Ints], _) = header.as_chunks();
        let exponent = s.sub(s.load_u8(&header[0]), s.splat(128.0));
        Scales { scale: [s.scale_by_power(s.splat(1.0), exponent); 2], min: [s.zero(); 2] }
    }
}

/// Both halves of groups have an 8-bit float as their scale, E4M3; there is no header.
pub(crate) struct SmallFloats;

impl Scaling for SmallFloats {
    type Sums = SumsOf<true, false>;

    const HEADER_BYTES: usize = 0;
    const GROUP_BYTES: usize = 2 * LANES;

    /// The parts' scales are the floats' bits here, as numbers.
    fn pack_group(parts: &Parts, group: usize, lane: usize, packed: &mut [u8]) {
        let [scales, _] = parts.of_group(group);
        for (floats, scale) in packed.chunks_exact_mut(LANES).zip(scales) {
            floats[lane] = scale as u8;
        }
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, _: &[u8], group: &[u8]) -> Scales<S> {
        let (floats, _): (&[Ints], _) = group.as_chunks();
        // Codes are twice what they stand for.
        let half = |floats: &Ints| s.mul(s.load_e4m3(floats), s.splat(0.5));
        Scales { scale: [half(&floats[0]), half(&floats[1])], min: [s.zero(); 2] }
    }
}

/// Groups, or the `HALVES` of groups, with integer scales in units of `2^-POWER` of the block's: int8, or where there are
/// `MINS` uint8, and then as many minima, which are subtracted.
pub(crate) struct GroupScales<const HALVES: bool, const MINS: bool, const POWER: u32 = 0>;

impl<const HALVES: bool, const MINS: bool, const POWER: u32> Scaling for GroupScales<HALVES, MINS, POWER> {
    type Sums = SumsOf<HALVES, MINS>;

    const GROUP_BYTES: usize = (1 + HALVES as usize) * (1 + MINS as usize) * LANES;

    fn pack_group(parts: &Parts, group: usize, lane: usize, packed: &mut [u8]) {
        let count = 1 + usize::from(HALVES);
        let units = (1 << POWER) as f32;
        let [scales, offsets] = parts.of_group(group).map(|numbers| numbers.map(|number| number * units));
        let scales =
            scales.into_iter().take(count).map(|scale| if MINS { scale as u8 } else { scale as i8 as u8 });
        let mins = offsets.into_iter().take(count).map(|offset| (-offset) as u8);
        for (ints, int) in packed.chunks_exact_mut(LANES).zip(scales.chain(mins)) {
            ints[lane] = int;
        }
    }

    #[inline(always)]
    fn load<S: Simd>(s: S, header: &[u8], group: &[u8]) -> Scales<S> {
        let ((header, _), (ints, _)): ((&[Halves], _), (&[Ints], _)) =
            (header.as_chunks(), group.as_chunks());
        let second = usize::from(HALVES);
        let d = s.load_f16(&header[0]);
        let d = if POWER == 0 { d } else { s.mul(d, s.splat(1.0 / (1 << POWER) as f32)) };
        if !MINS {
            let first = s.mul(d, s.load_i8(&ints[0]));
            let scale = [first, if HALVES { s.mul(d, s.load_i8(&ints[1])) } else { first }];
            return Scales { scale, min: [s.zero(); 2] };
        }
        let dmin = s.neg(s.load_f16(&header[1]));
        let (scale, min) = (s.mul(d, s.load_u8(&ints[0])), s.mul(dmin, s.load_u8(&ints[1 + second])));
        if !HALVES {
            return Scales { scale: [scale; 2], min: [min; 2] };
        }
        Scales { scale: [scale, s.mul(d, s.load_u8(&ints[1]))], min: [min, s.mul(dmin, s.load_u8(&ints[3]))] }
    }
}
