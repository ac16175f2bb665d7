//! Products of quads on AArch64, whose instructions want bytes with a sign on both sides.

use std::arch::aarch64::*;
use std::arch::asm;

use super::quads::QuadDot;

type I = [int32x4_t; 4];

/// With NEON alone: products are summed as int16 for as long as they fit.
#[derive(Clone, Copy)]
pub(crate) struct Widening;

/// With FEAT_DotProd.
#[derive(Clone, Copy)]
pub(crate) struct DotProduct;

/// With FEAT_I8MM.
#[derive(Clone, Copy)]
pub(crate) struct Matrix;

impl QuadDot<I> for Widening {
    const BYTES_FIT: bool = false;

    #[inline(always)]
    unsafe fn dot_quads<const N: usize, const Q: usize>(
        sums: &mut [I; N],
        codes: &[I; Q],
        x: &[[f32; N]; Q],
        run: usize,
    ) {
        #[inline]
        #[target_feature(enable = "neon")]
        fn compiled<const N: usize, const Q: usize>(
            sums: &mut [I; N],
            codes: &[I; Q],
            x: &[[f32; N]; Q],
            run: usize,
        ) {
            for (token, sums) in sums.iter_mut().enumerate() {
                // Each int16 sums one product of a quad, where x86's sum two.
                for (codes, x) in codes.chunks(2 * run.max(1)).zip(x.chunks(2 * run.max(1))) {
                    for (register, sum) in sums.iter_mut().enumerate() {
                        *sum = vaddq_s32(*sum, of_run(codes, x, register, token));
                    }
                }
            }
        }

        /// The sums of a run's products, of a register of the codes and a token.
        #[inline]
        #[target_feature(enable = "neon")]
        fn of_run<const N: usize>(codes: &[I], x: &[[f32; N]], register: usize, token: usize) -> int32x4_t {
            let (mut low, mut high) = (vdupq_n_s16(0), vdupq_n_s16(0));
            for (codes, x) in codes.iter().zip(x) {
                let codes = vreinterpretq_s8_s32(codes[register]);
                let x = vreinterpretq_s8_f32(vdupq_n_f32(x[token]));
                low = vmlal_s8(low, vget_low_s8(codes), vget_low_s8(x));
                high = vmlal_high_s8(high, codes, x);
            }
            vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high))
        }
        // SAFETY: the caller promises that the CPU has the features.
        unsafe { compiled(sums, codes, x, run) }
    }
}

/// Adds the dot products of a register of quads with a token's quad, number `LANE` of a register, to its sums.
///
/// By the instruction itself: compilers offer no stable function for it. Without the feature among the kernels' own, since
/// functions without it would not inline this.
///
/// # Safety
/// The CPU has FEAT_DotProd.
#[inline(always)]
unsafe fn dot<const LANE: usize>(sums: &mut int32x4_t, quads: int32x4_t, x: float32x4_t) {
    // SAFETY: the instruction touches the registers named here alone, and the caller promises that the CPU has it.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sums:v}.4s, {quads:v}.16b, {x:v}.4b[{lane}]",
            sums = inout(vreg) *sums,
            quads = in(vreg) quads,
            x = in(vreg) x,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
}

/// Adds the dot products of a vector of quads with a token's quad to its sums; see [`dot`].
///
/// # Safety
/// The CPU has FEAT_DotProd.
#[inline(always)]
unsafe fn dot_all<const LANE: usize>(sums: &mut I, quads: &I, x: float32x4_t) {
    for (sums, quads) in sums.iter_mut().zip(quads) {
        // SAFETY: as the caller promises.
        unsafe { dot::<LANE>(sums, *quads, x) }
    }
}

/// `sums[n] +=` the products of a vector of quads with token `n`'s.
///
/// # Safety
/// The CPU has FEAT_DotProd.
#[inline(always)]
unsafe fn dot_products<const N: usize>(sums: &mut [I; N], quads: &I, x: &[f32; N]) {
    // SAFETY: the caller promises that the CPU has the instructions. Where there are four tokens, their sums are seen as what they
    // are, as an array whose length is known, so that they stay in registers.
    unsafe {
        if N == 4 {
            let sums = &mut *sums.as_mut_ptr().cast::<[I; 4]>();
            let x = vld1q_f32(x.as_ptr());
            dot_all::<0>(&mut sums[0], quads, x);
            dot_all::<1>(&mut sums[1], quads, x);
            dot_all::<2>(&mut sums[2], quads, x);
            dot_all::<3>(&mut sums[3], quads, x);
        } else {
            for (sums, x) in sums.iter_mut().zip(x) {
                dot_all::<0>(sums, quads, vdupq_n_f32(*x));
            }
        }
    }
}

impl QuadDot<I> for DotProduct {
    const BYTES_FIT: bool = true;

    #[inline(always)]
    unsafe fn dot_quads<const N: usize, const Q: usize>(
        sums: &mut [I; N],
        codes: &[I; Q],
        x: &[[f32; N]; Q],
        _run: usize,
    ) {
        for (codes, x) in codes.iter().zip(x) {
            // SAFETY: the caller promises that the CPU has the instructions.
            unsafe { dot_products(sums, codes, x) }
        }
    }
}

impl QuadDot<I> for Matrix {
    const BYTES_FIT: bool = true;
    const BLOCKS: bool = true;

    #[inline(always)]
    unsafe fn dot_quads<const N: usize, const Q: usize>(
        sums: &mut [I; N],
        codes: &[I; Q],
        x: &[[f32; N]; Q],
        run: usize,
    ) {
        // SAFETY: CPUs that have FEAT_I8MM have FEAT_DotProd too, and the kernels ask for both.
        unsafe { DotProduct::dot_quads(sums, codes, x, run) }
    }

    #[inline(always)]
    unsafe fn dot_blocks<const N: usize, const Q: usize>(
        first: [I; N],
        blocks: &[I; Q],
        x: &[[f32; N]; Q],
    ) -> [I; N] {
        let mut sums = first;
        // SAFETY: the caller promises that the CPU has the instructions. Where there are four tokens, they are seen as what they
        // are, as arrays whose length is known, so that they stay in registers.
        unsafe {
            if N == 4 {
                let (first, x) = (&*first.as_ptr().cast::<[I; 4]>(), &*x.as_ptr().cast::<[[f32; 4]; Q]>());
                let products = block_products(blocks, first_of_two(first), |pair| {
                    let [a, b] = [&x[2 * pair], &x[2 * pair + 1]]
                        .map(|x| vreinterpretq_s32_f32(vld1q_f32(x.as_ptr())));
                    [vzip1q_s32(a, b), vzip2q_s32(a, b)]
                });
                let sums = &mut *sums.as_mut_ptr().cast::<[I; 4]>();
                for (sums, products) in sums.as_chunks_mut::<2>().0.iter_mut().zip(products) {
                    *sums = of_tokens(&products);
                }
            } else {
                for (token, sums) in sums.iter_mut().enumerate() {
                    // One token twice, since few tiles have so few.
                    let begin = [vzip1q_s32(first[token][0], first[token][0])];
                    let products = block_products(blocks, begin, |pair| {
                        let [a, b] = [x[2 * pair][token], x[2 * pair + 1][token]]
                            .map(|x| vreinterpretq_s32_f32(vdupq_n_f32(x)));
                        [vzip1q_s32(a, b)]
                    });
                    [*sums, _] = of_tokens(&products[0]);
                }
            }
        }
        sums
    }
}

/// What the products of two tokens with two rows begin with, of the first two tokens and the next.
#[inline]
#[target_feature(enable = "neon")]
fn first_of_two([a, b, c, d]: &[I; 4]) -> [int32x4_t; 2] {
    [vzip1q_s32(a[0], b[0]), vzip1q_s32(c[0], d[0])]
}

/// The products of blocks with `T` twos of tokens, added to `first`. Each register is of two rows: the first with both tokens,
/// then the second. `x` gives the twos' quads `2 pair` and `2 pair + 1`.
///
/// # Safety
/// The CPU has FEAT_I8MM.
#[inline(always)]
unsafe fn block_products<const T: usize, const Q: usize>(
    blocks: &[I; Q],
    first: [int32x4_t; T],
    x: impl Fn(usize) -> [int32x4_t; T],
) -> [[int32x4_t; 8]; T] {
    let mut sums = first.map(|first| [first; 8]);
    for (pair, blocks) in blocks.as_chunks::<2>().0.iter().enumerate() {
        let x = x(pair);
        for (row, blocks) in blocks.as_flattened().iter().enumerate() {
            for (sums, x) in sums.iter_mut().zip(x) {
                // SAFETY: the instruction touches the registers named here alone, and the caller promises that the CPU has it.
                unsafe {
                    asm!(
                        ".arch_extension i8mm",
                        "smmla {sums:v}.4s, {blocks:v}.16b, {x:v}.16b",
                        sums = inout(vreg) sums[row],
                        blocks = in(vreg) *blocks,
                        x = in(vreg) x,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
            }
        }
    }
    sums
}

/// The sums of sixteen rows of each token, from those of two tokens with two rows.
#[inline]
#[target_feature(enable = "neon")]
fn of_tokens(products: &[int32x4_t; 8]) -> [I; 2] {
    let [a, b, c, d, e, f, g, h] = *products;
    [
        [vuzp1q_s32(a, b), vuzp1q_s32(c, d), vuzp1q_s32(e, f), vuzp1q_s32(g, h)],
        [vuzp2q_s32(a, b), vuzp2q_s32(c, d), vuzp2q_s32(e, f), vuzp2q_s32(g, h)],
    ]
}
