//! Products of quads on x86, whose instructions want bytes without a sign on one side: the weights'.

use std::arch::asm;
use std::arch::x86_64::*;

use super::quads::QuadDot;
use super::{avx2, avx512};

/// Gives a `QuadDot` by multiply-adds of bytes, whose sums of two products are int16: `$run` of them are added before they
/// are widened. Bytes that are too large for that are multiplied by halves.
macro_rules! by_multiply_adds {
    ($type:ty, $vector:ty, $features:literal, $splat:path, $and:path, $shift_right:path, $bytes:path, $pairs:path,
        $add_16:path, $add_32:path, $splat_16:path) => {
        impl QuadDot<$vector> for $type {
            const BYTES_FIT: bool = false;

            #[inline(always)]
            unsafe fn dot_quads<const N: usize, const Q: usize>(
                sums: &mut [$vector; N],
                codes: &[$vector; Q],
                x: &[[f32; N]; Q],
                run: usize,
            ) {
                #[inline]
                #[target_feature(enable = $features)]
                fn of_run<const N: usize>(
                    sums: &mut [$vector; N],
                    codes: &[$vector],
                    x: &[[f32; N]],
                    weight: i16,
                ) {
                    let Some((first, rest)) = codes.split_first() else { return };
                    let token = |x: &f32| $splat(x.to_bits() as i32);
                    let mut short = [*first; N];
                    for (short, x) in short.iter_mut().zip(&x[0]) {
                        *short = $bytes(*first, token(x));
                    }
                    for (codes, x) in rest.iter().zip(&x[1..]) {
                        for (short, x) in short.iter_mut().zip(x) {
                            *short = $add_16(*short, $bytes(*codes, token(x)));
                        }
                    }
                    for (sum, short) in sums.iter_mut().zip(short) {
                        *sum = $add_32(*sum, $pairs(short, $splat_16(weight)));
                    }
                }

                #[inline]
                #[target_feature(enable = $features)]
                fn compiled<const N: usize, const Q: usize>(
                    sums: &mut [$vector; N],
                    codes: &[$vector; Q],
                    x: &[[f32; N]; Q],
                    run: usize,
                ) {
                    if run == 0 {
                        let halves = $splat(0x0f0f_0f0f);
                        // As loops: a closure that `map` calls isn't inlined, and would go through memory.
                        let (mut low, mut high) = (*codes, *codes);
                        for (low, high) in low.iter_mut().zip(&mut high) {
                            (*low, *high) = ($and(*low, halves), $and($shift_right(*high), halves));
                        }
                        of_run(sums, &low, x, 1);
                        of_run(sums, &high, x, 16);
                        return;
                    }
                    for (codes, x) in codes.chunks(run).zip(x.chunks(run)) {
                        of_run(sums, codes, x, 1);
                    }
                }
                // SAFETY: the caller promises that the CPU has the features.
                unsafe { compiled(sums, codes, x, run) }
            }
        }
    };
}

/// An intrinsic of one register on both of a vector.
macro_rules! on_both {
    ($($name:ident = $function:ident $(::<$constant:literal>)? ($($argument:ident),*);)*) => {$(
        #[inline]
        #[target_feature(enable = "avx2")]
        fn $name($($argument: [__m256i; 2]),*) -> [__m256i; 2] {
            [$function $(::<$constant>)? ($($argument[0]),*), $function $(::<$constant>)? ($($argument[1]),*)]
        }
    )*};
}

on_both! {
    and_both = _mm256_and_si256(a, b);
    shift_both = _mm256_srli_epi32::<4>(a);
    bytes_both = _mm256_maddubs_epi16(a, b);
    pairs_both = _mm256_madd_epi16(a, b);
    add_16_both = _mm256_add_epi16(a, b);
    add_32_both = _mm256_add_epi32(a, b);
}

#[inline]
#[target_feature(enable = "avx2")]
fn splat_both(x: i32) -> [__m256i; 2] {
    [_mm256_set1_epi32(x); 2]
}

#[inline]
#[target_feature(enable = "avx2")]
fn splat_16_both(x: i16) -> [__m256i; 2] {
    [_mm256_set1_epi16(x); 2]
}

by_multiply_adds!(
    avx2::MultiplyAdd,
    [__m256i; 2],
    "avx2",
    splat_both,
    and_both,
    shift_both,
    bytes_both,
    pairs_both,
    add_16_both,
    add_32_both,
    splat_16_both
);

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn shift_512(x: __m512i) -> __m512i {
    _mm512_srli_epi32::<4>(x)
}

by_multiply_adds!(
    avx512::MultiplyAdd,
    __m512i,
    "avx512f,avx512bw",
    _mm512_set1_epi32,
    _mm512_and_si512,
    shift_512,
    _mm512_maddubs_epi16,
    _mm512_madd_epi16,
    _mm512_add_epi16,
    _mm512_add_epi32,
    _mm512_set1_epi16
);

impl QuadDot<[__m256i; 2]> for avx2::Vnni {
    const BYTES_FIT: bool = true;

    // Not by the intrinsic: compilers split it into a multiplication and an addition again.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dot_quads<const N: usize, const Q: usize>(
        sums: &mut [[__m256i; 2]; N],
        codes: &[[__m256i; 2]; Q],
        x: &[[f32; N]; Q],
        _run: usize,
    ) {
        for ([a, b], x) in codes.iter().zip(x) {
            for ([low, high], x) in sums.iter_mut().zip(x) {
                let x = _mm256_set1_epi32(x.to_bits() as i32);
                // SAFETY: the instruction only touches the registers named here, and the caller promises that the CPU has it.
                unsafe {
                    asm!(
                        "{{vex}} vpdpbusd {low}, {a}, {x}",
                        "{{vex}} vpdpbusd {high}, {b}, {x}",
                        low = inout(ymm_reg) *low,
                        high = inout(ymm_reg) *high,
                        a = in(ymm_reg) *a,
                        b = in(ymm_reg) *b,
                        x = in(ymm_reg) x,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
            }
        }
    }
}

/// VNNI's multiply-add of two vectors with each of some quads in memory, which are read once.
macro_rules! multiply_add_twice {
    ($first:expr, $second:expr, $codes:expr, $x:expr, $($a:ident $b:ident at $offset:literal),+) => {{
        let ([$($a),+], [$($b),+]) = ($first, $second);
        let _quad: __m512i;
        asm!(
            $(
                concat!("vpbroadcastd {t}, dword ptr [{x} + ", $offset, "]"),
                concat!("vpdpbusd {", stringify!($a), "}, {c}, {t}"),
                concat!("vpdpbusd {", stringify!($b), "}, {d}, {t}"),
            )+
            $($a = inout(zmm_reg) *$a, $b = inout(zmm_reg) *$b,)+
            c = in(zmm_reg) $codes[0],
            d = in(zmm_reg) $codes[1],
            t = out(zmm_reg) _quad,
            x = in(reg) $x,
            options(pure, readonly, nostack, preserves_flags)
        );
    }};
}

impl QuadDot<__m512i> for avx512::Vnni {
    const BYTES_FIT: bool = true;

    #[inline(always)]
    unsafe fn dot_quads<const N: usize, const Q: usize>(
        sums: &mut [__m512i; N],
        codes: &[__m512i; Q],
        x: &[[f32; N]; Q],
        _run: usize,
    ) {
        for (codes, x) in codes.iter().zip(x) {
            // SAFETY: the caller promises that the CPU has the instructions.
            unsafe { avx512::quad_multiply_adds(sums, *codes, x) }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn dot_quad_twice<const N: usize>(
        sums: &mut [[__m512i; N]; 2],
        codes: [__m512i; 2],
        x: &[f32; N],
    ) {
        let [first, second] = sums.each_mut().map(|sums| sums.as_mut_ptr());
        let x = x.as_ptr();
        // SAFETY: each arm sees the sums as what they are, `N` of them, as arrays whose length is known, so that they stay in
        // registers; the instructions read the `N` elements of `x`.
        unsafe {
            match N {
                6 => multiply_add_twice!(
                    &mut *first.cast::<[__m512i; 6]>(), &mut *second.cast::<[__m512i; 6]>(), codes, x,
                    a0 b0 at 0, a1 b1 at 4, a2 b2 at 8, a3 b3 at 12, a4 b4 at 16, a5 b5 at 20
                ),
                4 => multiply_add_twice!(
                    &mut *first.cast::<[__m512i; 4]>(), &mut *second.cast::<[__m512i; 4]>(), codes, x,
                    a0 b0 at 0, a1 b1 at 4, a2 b2 at 8, a3 b3 at 12
                ),
                2 => multiply_add_twice!(
                    &mut *first.cast::<[__m512i; 2]>(), &mut *second.cast::<[__m512i; 2]>(), codes, x,
                    a0 b0 at 0, a1 b1 at 4
                ),
                // Parts of tiles have these sizes; any other is right too.
                _ => {
                    for n in 0..N {
                        multiply_add_twice!(
                            &mut *first.add(n).cast::<[__m512i; 1]>(), &mut *second.add(n).cast::<[__m512i; 1]>(), codes,
                            x.add(n), a0 b0 at 0
                        );
                    }
                }
            }
        }
    }
}
