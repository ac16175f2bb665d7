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

/// The dot products of a vector of quads with a token's quad, lane `$lane` of a register, added to the token's sums.
///
/// By the instruction itself: compilers offer no function for it yet. Without the feature among the kernels' own: functions
/// without it would not inline this.
macro_rules! dot {
    ($sums:expr, $codes:expr, $x:expr, $lane:literal) => {{
        let [a, b, c, d] = $sums;
        asm!(
            ".arch_extension dotprod",
            concat!("sdot {a:v}.4s, {p:v}.16b, {x:v}.4b[", $lane, "]"),
            concat!("sdot {b:v}.4s, {q:v}.16b, {x:v}.4b[", $lane, "]"),
            concat!("sdot {c:v}.4s, {r:v}.16b, {x:v}.4b[", $lane, "]"),
            concat!("sdot {d:v}.4s, {s:v}.16b, {x:v}.4b[", $lane, "]"),
            a = inout(vreg) *a,
            b = inout(vreg) *b,
            c = inout(vreg) *c,
            d = inout(vreg) *d,
            p = in(vreg) $codes[0],
            q = in(vreg) $codes[1],
            r = in(vreg) $codes[2],
            s = in(vreg) $codes[3],
            x = in(vreg) $x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }};
}

/// `sums[n] +=` the products of a vector of quads with token `n`'s.
///
/// # Safety
/// The CPU has FEAT_DotProd.
#[inline(always)]
unsafe fn dot_products<const N: usize>(sums: &mut [I; N], codes: &I, x: &[f32; N]) {
    // SAFETY: the instructions touch the registers named here alone, and the caller promises that the CPU has them. Where there are
    // four tokens, they are seen as what they are, as an array whose length is known, so that they stay in registers.
    unsafe {
        if N == 4 {
            let sums = &mut *sums.as_mut_ptr().cast::<[I; 4]>();
            let x = vld1q_f32(x.as_ptr());
            dot!(&mut sums[0], codes, x, 0);
            dot!(&mut sums[1], codes, x, 1);
            dot!(&mut sums[2], codes, x, 2);
            dot!(&mut sums[3], codes, x, 3);
        } else {
            for (sums, x) in sums.iter_mut().zip(x) {
                dot!(sums, codes, *x, 0);
            }
        }
    }
}

macro_rules! by_dot_products {
    ($($type:ty),*) => {$(
        impl QuadDot<I> for $type {
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
    )*};
}

by_dot_products!(DotProduct, Matrix);
