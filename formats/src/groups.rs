//! The arithmetic that all block formats share, so that a format is only a description of its bits.
//!
//! Unpacked, every format is the same thing: groups of `SIZE` integer codes `q`, each group with a scale `s` and
//! perhaps an offset `o`, for weights `s q` or `s q + o`.
//!
//! Dot products run in [`LANES`] independent sums, which only meet at a row's end. This is what lets a compiler keep
//! them in vector registers, and it loses less to rounding than one running sum would.

use super::Block;

/// Partial sums kept side by side: eight registers of SSE or NEON, four of AVX.
pub const LANES: usize = 32;

/// The partial sums of a dot product, in which weight `i` of a row adds to sum `i % LANES`.
pub type Lanes = [f32; LANES];

/// What a block unpacks to: [`Symmetric`] or [`Affine`].
pub trait Unpacked {
    /// Weights in the block.
    const LEN: usize;

    /// Whether groups have offsets.
    const OFFSETS: bool;

    /// Writes the block's weights to `out`, whose length the caller makes [`Unpacked::LEN`].
    fn dequantize(&self, out: &mut [f32]);

    /// Adds the products of the block's weights and the activations `x`, [`Unpacked::LEN`] of them, to `sums`, where
    /// the block's first weight belongs to sum 0.
    fn accumulate(&self, x: &[f32], sums: &mut Lanes);
}

/// Weights `scale * code`, in groups of `SIZE`.
#[derive(Clone, Debug)]
pub struct Symmetric<const SIZE: usize, const GROUPS: usize> {
    /// The codes, in the order of the weights.
    pub codes: [[i8; SIZE]; GROUPS],
    /// Each group's scale.
    pub scales: [f32; GROUPS],
}

/// Weights `scale * code + offset`, in groups of `SIZE`.
#[derive(Clone, Debug)]
pub struct Affine<const SIZE: usize, const GROUPS: usize> {
    /// The codes, in the order of the weights.
    pub codes: [[i8; SIZE]; GROUPS],
    /// Each group's scale.
    pub scales: [f32; GROUPS],
    /// Each group's offset: what a code of 0 stands for.
    pub offsets: [f32; GROUPS],
}

impl<const SIZE: usize, const GROUPS: usize> Unpacked for Symmetric<SIZE, GROUPS> {
    const LEN: usize = SIZE * GROUPS;
    const OFFSETS: bool = false;

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        let groups = self.codes.iter().zip(&self.scales);
        for ((codes, &scale), out) in groups.zip(out.as_chunks_mut::<SIZE>().0) {
            for (out, &code) in out.iter_mut().zip(codes) {
                *out = scale * f32::from(code);
            }
        }
    }

    #[inline(always)]
    fn accumulate(&self, x: &[f32], sums: &mut Lanes) {
        let groups = self.codes.iter().zip(&self.scales);
        for (group, ((codes, &scale), x)) in groups.zip(x.as_chunks::<SIZE>().0).enumerate() {
            let sums = lanes_of_group::<SIZE>(sums, group);
            for ((sum, &code), &x) in sums.iter_mut().zip(codes).zip(x) {
                *sum += scale * f32::from(code) * x;
            }
        }
    }
}

impl<const SIZE: usize, const GROUPS: usize> Unpacked for Affine<SIZE, GROUPS> {
    const LEN: usize = SIZE * GROUPS;
    const OFFSETS: bool = true;

    #[inline(always)]
    fn dequantize(&self, out: &mut [f32]) {
        let groups = self.codes.iter().zip(&self.scales).zip(&self.offsets);
        for (((codes, &scale), &offset), out) in groups.zip(out.as_chunks_mut::<SIZE>().0) {
            dequantize_affine_group(codes, scale, offset, out);
        }
    }

    #[inline(always)]
    fn accumulate(&self, x: &[f32], sums: &mut Lanes) {
        let groups = self.codes.iter().zip(&self.scales).zip(&self.offsets);
        for (group, (((codes, &scale), &offset), x)) in groups.zip(x.as_chunks::<SIZE>().0).enumerate() {
            let sums = lanes_of_group::<SIZE>(sums, group);
            for ((sum, &code), &x) in sums.iter_mut().zip(codes).zip(x) {
                *sum += (scale * f32::from(code) + offset) * x;
            }
        }
    }
}

/// Writes the weights of a row of blocks.
pub(super) fn dequantize<B: Block>(blocks: &[B], out: &mut [f32]) {
    for (block, out) in blocks.iter().zip(out.chunks_exact_mut(B::Unpacked::LEN)) {
        block.unpack().dequantize(out);
    }
}

/// The dot product of a row of blocks with activations.
pub(super) fn dot<B: Block>(blocks: &[B], x: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    for (block, x) in blocks.iter().zip(x.chunks_exact(B::Unpacked::LEN)) {
        block.unpack().accumulate(x, &mut sums);
    }
    add_lanes(sums)
}

/// The sum of the lanes, in pairs.
pub(super) fn add_lanes(mut sums: Lanes) -> f32 {
    let mut len = LANES;
    while len > 1 {
        len /= 2;
        let (low, high) = sums.split_at_mut(len);
        for (low, high) in low.iter_mut().zip(high) {
            *low += *high;
        }
    }
    sums[0]
}

/// The lanes that a group's weights add to.
#[inline(always)]
fn lanes_of_group<const SIZE: usize>(sums: &mut Lanes, group: usize) -> &mut [f32; SIZE] {
    const { assert!(LANES.is_multiple_of(SIZE)) };
    &mut sums.as_chunks_mut::<SIZE>().0[group % (LANES / SIZE)]
}

/// Not inlined: LLVM would otherwise vectorise over the groups of a block, gathering a byte from each, which takes more
/// than twice as long.
#[inline(never)]
fn dequantize_affine_group<const SIZE: usize>(
    codes: &[i8; SIZE],
    scale: f32,
    offset: f32,
    out: &mut [f32; SIZE],
) {
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = scale * f32::from(code) + offset;
    }
}
