//! Activations of 8 bits, with a scale for each 32, and outliers.
//!
//! A group's step follows from its largest activation, and language models have a few that are many times as large as the
//! rest: 8 bits of those leave the others few (arXiv 2208.07339). So the largest quads of a token's every 512 columns are
//! its *outliers*: each is `codes * scale` in 8 bits of its own, and only what that leaves over is in the group. It takes a few
//! more multiply-adds, and less than a quarter of the error remains. Which they are depends on the token alone.
//!
//! Tokens are quantised in tiles of `N`, side by side:
//!
//! ```text
//! for each group of 32 columns    codes [8 quads, N, 4 int8], or for tile registers [N, 8 quads, 4 int8] · scales [N] ·
//!                                 the scales times -UNITS [N] · for formats with minima, the sum of the activations that
//!                                 the codes and outliers stand for, of each half or the group [N];
//!                                 for others what their int32 sums begin with instead
//! for each outlier                quad [N] · codes [N, 4 int8] · scales [N] · the scales times -UNITS [N] · what its int32
//!                                 sum begins with [N]
//! at the end                      powers [N]
//! ```
//!
//! where an activation is about `code * scale * power`, and the outlier's with it. A sum begins with the sum of the codes
//! times the weight format's offset, with its sign turned. The power is 1, except for very small and very large tokens.
//!
//! Where there are [`Simd::FLOAT_SUMS`], a sum needs no conversion to a float: it begins at the bits of [`UNITS`], a float whose
//! neighbours are 1 apart, so that the sum's bits are always those of the float `UNITS + sum`. One instruction makes the product
//! of it, `fma(UNITS + sum, scale, -UNITS * scale) = sum * scale`, rounded once, since the last term is exact: scales have two
//! bits less than floats. Elsewhere sums begin at 0, and are converted and scaled: the same to the bit.

use std::marker::PhantomData;

use super::Extent;
use crate::matmul::Sums;
use crate::packed::{Format, GROUP, quad_offset};
use crate::simd::{LANES, Simd, Task};

/// The largest code.
const MAX_CODE: f32 = i8::MAX as f32;

/// Quads of a group's columns.
pub(crate) const QUADS: usize = GROUP / 4;

/// Columns whose outliers are chosen together.
const BLOCK: usize = 512;

/// Outliers of as many columns.
const BLOCK_OUTLIERS: usize = 3;

/// Vectors of a block's columns.
const BLOCK_VECTORS: usize = BLOCK / LANES;

/// Groups that are quantised together.
const FOUR: usize = 4;

/// What is smaller counts as zero, so that quotients stay finite. A token's largest is at least 2^40 times as large.
const TINY: f32 = f32::from_bits((127 - 100) << 23);

/// The largest rounding error of an activation, as a share of the token's largest: half a step of the codes, and what the
/// quotient may be off before it is rounded.
pub(crate) const STEP: f32 = 0.51 / MAX_CODE;

/// `1.5 * 2^23`: what a sum is added to, which is less than a third of it.
const UNITS: f32 = f32::from_bits(UNITS_BITS as u32);
const UNITS_BITS: i32 = 0x4b40_0000;

/// The bits that sums begin at.
pub(crate) const fn zero_bits<S: Simd>() -> i32 {
    if S::FLOAT_SUMS { UNITS_BITS } else { 0 }
}

/// The bits that scales have.
const SCALE_BITS: i32 = !3;

/// The numbers of a group, for each token of a tile: its quads, and these.
pub(crate) const SCALE: usize = QUADS;
pub(crate) const SHIFT: usize = QUADS + 1;
pub(crate) const SUMS: usize = QUADS + 2;

/// The number of the activation format for a format of weights.
pub(crate) const fn id<S: Simd, F: Format>() -> u32 {
    256 + quad_offset::<S, F>() as u32 * 4 + F::HALVES as u32 * 2 + F::MINS as u32
}

/// An outlier's numbers, for each token of a tile.
pub(crate) struct Outlier;

impl Outlier {
    /// Its quad: its first column's index by four.
    const QUAD: usize = 0;
    pub(crate) const CODES: usize = 1;
    pub(crate) const SCALE: usize = 2;
    pub(crate) const SHIFT: usize = 3;
    pub(crate) const FIRST_SUM: usize = 4;
    /// How many numbers.
    pub(crate) const LEN: usize = 5;

    /// The quad of a token's.
    #[inline(always)]
    pub(crate) fn quad<const N: usize>(outlier: &[[f32; N]; Self::LEN], token: usize) -> usize {
        outlier[Self::QUAD][token].to_bits() as usize
    }
}

/// Outliers of a token.
fn outliers(columns: usize) -> usize {
    columns / BLOCK * BLOCK_OUTLIERS + block_outliers(columns % BLOCK)
}

/// Outliers of a block of `columns`.
fn block_outliers(columns: usize) -> usize {
    (columns * BLOCK_OUTLIERS).div_ceil(BLOCK)
}

/// Tokens of a tile for tile registers.
pub(crate) const TILE: usize = 16;

/// Whether a tile of `n` tokens is for tile registers, and has each token's codes of a group side by side. For formats with two scales
/// in a group none is: vectors would have as much to scale as they have to multiply.
pub(crate) const fn is_for_registers<S: Simd, L: Sums>(n: usize) -> bool {
    S::TILES && !L::HALVES && n == TILE
}

/// Elements of a group for each token.
pub(crate) const fn group_len<L: Sums>() -> usize {
    SUMS + L::COUNT
}

/// Float32 elements of a quantised token.
pub(crate) fn len<L: Sums>(columns: usize) -> usize {
    columns / GROUP * group_len::<L>() + outliers(columns) * Outlier::LEN + 1
}

/// A quantised tile of `N` tokens.
pub(crate) struct Quantized<'x, const N: usize> {
    /// `[groups * group_len]`.
    pub(crate) groups: &'x [[f32; N]],
    pub(crate) outliers: &'x [[[f32; N]; Outlier::LEN]],
    pub(crate) powers: &'x [f32; N],
}

/// The parts of a tile of `N` tokens.
///
/// # Panics
/// Where the tile is too short.
#[inline(always)]
pub(crate) fn split<L: Sums, const N: usize>(tile: &[f32], columns: usize) -> Quantized<'_, N> {
    let (numbers, _) = tile.as_chunks::<N>();
    let (groups, ends) = numbers.split_at(columns / GROUP * group_len::<L>());
    let (outliers, powers) = ends.split_at(outliers(columns) * Outlier::LEN);
    Quantized { groups, outliers: outliers.as_chunks().0, powers: &powers[0] }
}

/// Quantises a tile of tokens, whose rows in `x` are whole groups, for weights of a format.
#[inline(always)]
pub(crate) fn quantize<S: Simd, F: Format>(s: S, x: &[f32], columns: usize, quantized: &mut [f32]) {
    let n = x.len() / columns;
    assert!(
        columns.is_multiple_of(GROUP)
            && x.len() == n * columns
            && quantized.len() >= n * len::<F::Sums>(columns),
        "room for a quantised tile"
    );
    let offset = quad_offset::<S, F>();
    s.apart(QuantizeTask { x, columns, quantized, offset, sums: PhantomData::<F::Sums> });
}

/// A tile to quantise. It depends on nothing of the format but its sums and its offset.
struct QuantizeTask<'q, L> {
    x: &'q [f32],
    columns: usize,
    quantized: &'q mut [f32],
    offset: i32,
    sums: PhantomData<L>,
}

impl<S: Simd, L: Sums> Task<S> for QuantizeTask<'_, L> {
    #[inline(always)]
    fn run(self, s: S) {
        let Self { x, columns, quantized, offset, sums: _ } = self;
        let n = x.len() / columns;
        let (groups, ends) = quantized.split_at_mut(columns / GROUP * group_len::<L>() * n);
        let (outliers, powers) = ends.split_at_mut(outliers(columns) * Outlier::LEN * n);
        // One for all: clearing it each time would take as long as quantising.
        let mut block = Block::new();
        for (token, x) in x.chunks_exact(columns).enumerate() {
            let extent = Extent::of(s, x.as_chunks().0);
            let mut groups = groups.chunks_mut(BLOCK / GROUP * group_len::<L>() * n);
            let mut outliers = outliers.chunks_mut(BLOCK_OUTLIERS * Outlier::LEN * n);
            let place = Place { n, token };
            for (index, x) in x.chunks(BLOCK).enumerate() {
                let (Some(groups), Some(outliers)) = (groups.next(), outliers.next()) else { break };
                let largest = block.fill(s, x, extent.power, index * BLOCK / 4);
                block.take_outliers(s, largest, outliers, place, offset);
                block.quantize::<S, L>(s, groups, place, offset);
            }
            powers[token] = if extent.finite { extent.inverse_power } else { f32::NAN };
        }
    }
}

/// One token of a tile of `n`.
#[derive(Clone, Copy)]
struct Place {
    n: usize,
    token: usize,
}

impl Place {
    /// Where the `index`th number is of those that each token has.
    #[inline(always)]
    fn at(self, index: usize) -> usize {
        index * self.n + self.token
    }
}

/// A token's columns whose outliers are chosen together.
struct Block {
    /// The activations, with zeros after them; less what the outliers stand for, once they are taken.
    x: [[f32; LANES]; BLOCK_VECTORS],
    /// Columns of it that the token has.
    columns: usize,
    /// The first quad of the token.
    first_quad: usize,
    /// What the outliers in each half of a group add up to.
    outlier_sums: [[f32; 2]; BLOCK / GROUP],
}

/// The steps of groups' codes: those of the first four lanes.
struct Steps {
    scales: [f32; LANES],
    /// The scales times -[`UNITS`].
    shifts: [f32; LANES],
    inverses: [f32; LANES],
}

/// The largest quads of each lane. A quad is a number that is compared as a float32: its largest magnitude, with the last bits replaced by
/// [`LAST_QUAD`] less its index. So of quads as large as each other (to a few millionths) the first counts as larger.
struct Largest<S: Simd> {
    first: S::F,
    second: S::F,
    third: S::F,
}

/// The index of a block's last quad: as many ones as an index has bits.
const LAST_QUAD: u32 = (BLOCK / 4 - 1) as u32;

/// What [`LAST_QUAD`] less the index is in each lane, for the first 64 columns: after [`Simd::transpose_quarters`], lane `4r + v` is that of
/// quad `4v + r`.
const LANE_QUADS: [f32; LANES] = {
    let mut quads = [0.0; LANES];
    let mut lane = 0;
    while lane < LANES {
        quads[lane] = f32::from_bits(LAST_QUAD - lane_of(lane) as u32);
        lane += 1;
    }
    quads
};

/// The lane of a quad of 64 columns, and the other way round.
const fn lane_of(quad: usize) -> usize {
    4 * (quad % 4) + quad / 4
}

impl Block {
    fn new() -> Self {
        Self {
            x: [[0.0; LANES]; BLOCK_VECTORS],
            columns: 0,
            first_quad: 0,
            outlier_sums: [[0.0; 2]; BLOCK / GROUP],
        }
    }

    /// Takes the next columns, times `power`. Returns their largest quads.
    #[inline(always)]
    fn fill<S: Simd>(&mut self, s: S, x: &[f32], power: f32, first_quad: usize) -> Largest<S> {
        self.columns = x.len();
        self.first_quad = first_quad;
        self.outlier_sums = [[0.0; 2]; BLOCK / GROUP];
        let power = s.splat(power);
        let mut largest = Largest { first: s.zero(), second: s.zero(), third: s.zero() };
        let (fours, _) = self.x.as_chunks_mut::<FOUR>();
        for (index, (to, x)) in fours.iter_mut().zip(x.chunks(FOUR * LANES)).enumerate() {
            if x.len() < FOUR * LANES {
                *to = [[0.0; LANES]; FOUR];
            }
            for (to, x) in to.iter_mut().zip(x.as_chunks().0) {
                s.store(to, s.mul(s.load(x), power));
            }
            let [a, b, c, d] = s.transpose_quarters(to.each_ref().map(|x| s.abs(s.load(x))));
            let mut quads = [0.0; LANES];
            s.store(&mut quads, s.max(s.max(a, b), s.max(c, d)));
            let magnitudes = s.and(s.load_bits(&quads), s.splat_i(!LAST_QUAD as i32));
            let indices = s.add_i(s.load_bits(&LANE_QUADS), s.splat_i(-((index * LANES) as i32)));
            s.store_bits(&mut quads, s.or(magnitudes, indices));
            let quads = s.load(&quads);
            largest.third = s.max(largest.third, s.min(largest.second, quads));
            largest.second = s.max(largest.second, s.min(largest.first, quads));
            largest.first = s.max(largest.first, quads);
        }
        largest
    }

    /// Quantises the largest quads apart, and leaves what that leaves over.
    #[inline(always)]
    fn take_outliers<S: Simd>(
        &mut self,
        s: S,
        largest: Largest<S>,
        outliers: &mut [f32],
        place: Place,
        offset: i32,
    ) {
        let [mut firsts, mut seconds, mut thirds] = [[0.0; LANES]; BLOCK_OUTLIERS];
        s.store(&mut firsts, largest.first);
        s.store(&mut seconds, largest.second);
        s.store(&mut thirds, largest.third);
        let count = block_outliers(self.columns);
        for outlier in outliers.chunks_exact_mut(Outlier::LEN * place.n).take(count) {
            let index = LAST_QUAD - s.max_lane(s.load(&firsts)).to_bits() % (LAST_QUAD + 1);
            // Where activations aren't numbers, the index is of no quad.
            let quad = (index as usize).min(self.columns / 4 - 1);
            let lane = lane_of(quad % LANES);
            (firsts[lane], seconds[lane]) = (seconds[lane], thirds[lane]);
            let (sum, codes, scale) = self.take(quad);
            outlier[place.at(Outlier::QUAD)] = f32::from_bits((self.first_quad + quad) as u32);
            outlier[place.at(Outlier::CODES)] = codes;
            outlier[place.at(Outlier::SCALE)] = scale;
            outlier[place.at(Outlier::SHIFT)] = scale * -UNITS;
            outlier[place.at(Outlier::FIRST_SUM)] = f32::from_bits((zero_bits::<S>() - offset * sum) as u32);
        }
    }

    /// Quantises a quad by itself. Returns its codes' sum, their bits and their scale.
    #[inline(always)]
    fn take(&mut self, quad: usize) -> (i32, f32, f32) {
        let elements = &mut self.x.as_flattened_mut()[4 * quad..4 * quad + 4];
        let max = elements.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        let (inverse, scale) = if max > TINY { (MAX_CODE / max, max * (1.0 / MAX_CODE)) } else { (0.0, 0.0) };
        let scale = f32::from_bits(scale.to_bits() & SCALE_BITS as u32);
        let mut codes = [0_i8; 4];
        let mut sum = 0;
        for (x, to) in elements.iter_mut().zip(&mut codes) {
            let code = (*x * inverse).round_ties_even();
            *x -= code * scale;
            *to = code as i8;
            sum += i32::from(*to);
        }
        self.outlier_sums[quad / QUADS][quad % QUADS / (QUADS / 2)] += sum as f32 * scale;
        (sum, f32::from_bits(bytemuck::must_cast(codes)), scale)
    }

    /// Quantises the groups, four at once.
    #[inline(always)]
    fn quantize<S: Simd, L: Sums>(&self, s: S, groups: &mut [f32], place: Place, offset: i32) {
        let x = self.x.as_chunks::<{ 2 * FOUR }>().0.iter().zip(self.outlier_sums.as_chunks::<FOUR>().0);
        let fours = groups.chunks_mut(FOUR * group_len::<L>() * place.n);
        for (groups, (x, outlier_sums)) in fours.zip(x) {
            let mut numbers = [[0.0; SUMS + 2]; FOUR];
            Self::quantize_four::<S, L>(s, x, outlier_sums, offset, &mut numbers);
            // One after another first, and then to their places in the tile.
            for (group, numbers) in groups.chunks_exact_mut(group_len::<L>() * place.n).zip(&numbers) {
                let mut first = 0;
                if is_for_registers::<S, L>(place.n) {
                    group[place.token * QUADS..][..QUADS].copy_from_slice(&numbers[..QUADS]);
                    first = QUADS;
                }
                for index in first..group_len::<L>() {
                    group[place.at(index)] = numbers[index];
                }
            }
        }
    }

    /// Quantises four groups, to the numbers that one token has of each.
    #[inline(always)]
    fn quantize_four<S: Simd, L: Sums>(
        s: S,
        x: &[[f32; LANES]; 2 * FOUR],
        outlier_sums: &[[f32; 2]; FOUR],
        offset: i32,
        numbers: &mut [[f32; SUMS + 2]; FOUR],
    ) {
        let Steps { scales, shifts, inverses } = Self::steps(s, x);
        let mut sums = [[s.zero(); FOUR]; 2];
        for (index, (x, numbers)) in x.as_chunks::<2>().0.iter().zip(numbers.iter_mut()).enumerate() {
            let inverse = s.splat(inverses[index]);
            let mut bytes = [[0_i8; LANES]; 2];
            for (half, (x, bytes)) in x.iter().zip(&mut bytes).enumerate() {
                let codes = s.round(s.mul(s.load(x), inverse));
                s.store_i8(bytes, codes);
                let sum = &mut sums[if L::HALVES { half } else { 0 }][index];
                *sum = s.add(*sum, codes);
            }
            let quads: [f32; QUADS] = bytemuck::must_cast(bytes);
            numbers[..QUADS].copy_from_slice(&quads);
            numbers[SCALE] = scales[index];
            numbers[SHIFT] = shifts[index];
        }
        for (half, sums) in sums.into_iter().enumerate().take(L::COUNT) {
            let sums = Self::whole_sums(s, sums);
            for (index, numbers) in numbers.iter_mut().enumerate() {
                let [first, second] = outlier_sums[index];
                let outliers = match (L::HALVES, half) {
                    (false, _) => first + second,
                    (true, 0) => first,
                    (true, _) => second,
                };
                numbers[SUMS + half] = if L::MINS {
                    sums[index] * scales[index] + outliers
                } else {
                    f32::from_bits((zero_bits::<S>() - offset * sums[index] as i32) as u32)
                };
            }
        }
    }

    /// The steps of four groups' codes.
    #[inline(always)]
    fn steps<S: Simd>(s: S, x: &[[f32; LANES]; 2 * FOUR]) -> Steps {
        let of = |group: usize| s.max(s.abs(s.load(&x[2 * group])), s.abs(s.load(&x[2 * group + 1])));
        let [a, b, c, d] = s.transpose_quarters([of(0), of(1), of(2), of(3)]);
        let [a, b, c, d] = s.each_quarter(s.max(s.max(a, b), s.max(c, d)));
        let max = s.max(s.max(a, b), s.max(c, d));
        let bounds = [s.splat(TINY), s.splat(f32::INFINITY)];
        let max_code = s.splat(MAX_CODE);
        let mut steps = Steps { scales: [0.0; LANES], shifts: [0.0; LANES], inverses: [0.0; LANES] };
        s.store(&mut steps.scales, s.keep_between(s.mul(max, s.splat(1.0 / MAX_CODE)), 0.0, max, bounds));
        let scales = s.and(s.load_bits(&steps.scales), s.splat_i(SCALE_BITS));
        s.store_bits(&mut steps.scales, scales);
        s.store(&mut steps.shifts, s.mul(s.of_bits(scales), s.splat(-UNITS)));
        s.store(&mut steps.inverses, s.keep_between(s.div(max_code, max), 0.0, max, bounds));
        steps
    }

    /// The sum of each of four vectors, whose elements are integers: the first four lanes.
    #[inline(always)]
    fn whole_sums<S: Simd>(s: S, x: [S::F; FOUR]) -> [f32; LANES] {
        let [a, b, c, d] = s.each_quarter(s.sum_quarters(x));
        let mut sums = [0.0; LANES];
        s.store(&mut sums, s.add(s.add(a, b), s.add(c, d)));
        sums
    }
}
