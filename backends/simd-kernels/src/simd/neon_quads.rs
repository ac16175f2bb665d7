//! Products of quads on AArch64, whose instructions want bytes with a sign on both sides.

use std::arch::aarch64::*;
use std::arch::asm;

use super::LANES;
use super::quads::QuadDot;

type I = [int32x4_t; 4];

/// How products of a panel's quads are added up.
pub(crate) trait PanelDot: QuadDot<I> {
    /// See [`super::Simd::BLOCKS`].
    const BLOCKS: bool = false;

    /// See [`super::Simd::dot_panel`].
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn dot_panel<const N: usize, const Q: usize>(
        sums: &mut [I; N],
        quads: &[[f32; LANES]; Q],
        x: &[[f32; N]; Q],
        run: usize,
    );
}

#[inline]
#[target_feature(enable = "neon")]
fn load(quads: &[f32; LANES]) -> I {
    let (registers, _) = quads.as_chunks::<4>();
    // SAFETY: four elements are there each time.
    let load = |index: usize| unsafe { vreinterpretq_s32_f32(vld1q_f32(registers[index].as_ptr())) };
    [load(0), load(1), load(2), load(3)]
}

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

impl PanelDot for Widening {
    #[inline(always)]
    unsafe fn dot_panel<const N: usize, const Q: usize>(
        sums: &mut [I; N],
        quads: &[[f32; LANES]; Q],
        x: &[[f32; N]; Q],
        run: usize,
    ) {
        // SAFETY: as the caller promises.
        unsafe { Self::dot_quads(sums, &quads.each_ref().map(|quads| load(quads)), x, run) }
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

impl PanelDot for DotProduct {
    #[inline(always)]
    unsafe fn dot_panel<const N: usize, const Q: usize>(
        sums: &mut [I; N],
        quads: &[[f32; LANES]; Q],
        x: &[[f32; N]; Q],
        _run: usize,
    ) {
        // Not all loaded at once: there are not as many registers.
        for (quads, x) in quads.iter().zip(x) {
            // SAFETY: the caller promises that the CPU has the instructions.
            unsafe { dot_products(sums, &load(quads), x) }
        }
    }
}

impl QuadDot<I> for Matrix {
    const BYTES_FIT: bool = true;

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
}

impl PanelDot for Matrix {
    const BLOCKS: bool = true;

    #[inline(always)]
    unsafe fn dot_panel<const N: usize, const Q: usize>(
        sums: &mut [I; N],
        quads: &[[f32; LANES]; Q],
        x: &[[f32; N]; Q],
        _run: usize,
    ) {
        // SAFETY: the caller promises that the CPU has the instructions. Where there are four or two tokens, they are seen as what
        // they are, as arrays whose length is known, so that they stay in registers.
        unsafe {
            let registers = |x: *const f32| vreinterpretq_s32_f32(vld1q_f32(x));
            match N {
                4 => {
                    let sums = &mut *sums.as_mut_ptr().cast::<[I; 4]>();
                    let begin = [two_tokens(sums[0][0], sums[1][0]), two_tokens(sums[2][0], sums[3][0])];
                    let products = block_products(quads, begin, |pair| {
                        let [a, b] = [&x[2 * pair], &x[2 * pair + 1]].map(|x| registers(x.as_ptr()));
                        [vzip1q_s32(a, b), vzip2q_s32(a, b)]
                    });
                    let [a, b] = of_tokens(&products[0]);
                    let [c, d] = of_tokens(&products[1]);
                    *sums = [a, b, c, d];
                }
                2 => {
                    let sums = &mut *sums.as_mut_ptr().cast::<[I; 2]>();
                    let begin = [two_tokens(sums[0][0], sums[1][0])];
                    // Two quads of two tokens each lie one after the other.
                    let (x, _) = x.as_flattened().as_chunks::<4>();
                    let products = block_products(quads, begin, |pair| {
                        let x = registers(x[pair].as_ptr());
                        [two_tokens(x, vextq_s32::<2>(x, x))]
                    });
                    *sums = of_tokens(&products[0]);
                }
                _ => {
                    for (token, sums) in sums.iter_mut().enumerate() {
                        // One token twice, since few tiles have so few.
                        let products = block_products(quads, [sums[0]], |pair| {
                            let [a, b] = [x[2 * pair][token], x[2 * pair + 1][token]].map(|x| vdupq_n_f32(x));
                            [two_tokens(vreinterpretq_s32_f32(a), vreinterpretq_s32_f32(b))]
                        });
                        [*sums, _] = of_tokens(&products[0]);
                    }
                }
            }
        }
    }
}

/// A register's lanes in turn with another's: what two tokens have each, for two rows.
#[inline]
#[target_feature(enable = "neon")]
fn two_tokens(a: int32x4_t, b: int32x4_t) -> int32x4_t {
    vzip1q_s32(a, b)
}

/// The products of blocks with `T` twos of tokens, added to `first`. Each register is of two rows: the first with both tokens,
/// then the second. `x` gives the twos' quads `2 pair` and `2 pair + 1`.
///
/// # Safety
/// The CPU has FEAT_I8MM.
#[inline(always)]
unsafe fn block_products<const T: usize, const Q: usize>(
    blocks: &[[f32; LANES]; Q],
    first: [int32x4_t; T],
    x: impl Fn(usize) -> [int32x4_t; T],
) -> [[int32x4_t; 8]; T] {
    let mut sums = first.map(|first| [first; 8]);
    for (pair, blocks) in blocks.as_chunks::<2>().0.iter().enumerate() {
        let x = x(pair);
        // SAFETY: the CPU has NEON.
        let blocks = unsafe { [load(&blocks[0]), load(&blocks[1])] };
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
