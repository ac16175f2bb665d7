//! AVX-512: a vector is one register; with VNNI, multiplying int16 pairs and adding them up is one instruction.

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;

use bytemuck::must_cast_ref;

use super::quads::QuadDot;
use super::{LANES, Simd, Task, operations};

type F = __m512;
type I = __m512i;

/// How products of int16 pairs are added up.
pub(crate) trait PairDot: Copy + 'static {
    /// See [`Simd::dot_add`].
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn dot_add<const N: usize>(sums: &mut [I; N], a: I, x: &[f32; N]);
}

/// With AVX-512 BW alone.
#[derive(Clone, Copy)]
pub(crate) struct MultiplyAdd;

impl PairDot for MultiplyAdd {
    #[inline(always)]
    unsafe fn dot_add<const N: usize>(sums: &mut [I; N], a: I, x: &[f32; N]) {
        for (sum, x) in sums.iter_mut().zip(x) {
            // SAFETY: the caller promises that the CPU has AVX-512 F and BW.
            unsafe {
                let x = _mm512_set1_epi32(x.to_bits() as i32);
                *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(a, x));
            }
        }
    }
}

/// With AVX-512 VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Vnni;

/// VNNI's multiply-add of one vector with each of some pairs in memory, added to as many sums.
///
/// Not by intrinsics: compilers split those into a multiplication and an addition again, and broadcast the pairs by an
/// instruction for floats, whose results are slower to reach one for integers; together that takes half as long again.
macro_rules! multiply_add {
    ($instruction:literal, $sums:expr, $a:expr, $x:expr, $($sum:ident at $offset:literal),+) => {{
        let [$($sum),+] = $sums;
        asm!(
            $(concat!($instruction, " {", stringify!($sum), "}, {a}, dword ptr [{x} + ", $offset, "]{{1to16}}"),)+
            $($sum = inout(zmm_reg) *$sum,)+
            a = in(zmm_reg) $a,
            x = in(reg) $x,
            options(pure, readonly, nostack, preserves_flags)
        );
    }};
}

/// The multiply-adds of an instruction with each of `N` elements.
macro_rules! multiply_adds {
    ($(#[$doc:meta])* $name:ident, $instruction:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The CPU has AVX-512 VNNI.
        // Without VNNI among the features: functions without it would not inline it.
        #[inline]
        #[target_feature(enable = "avx512f")]
        pub(super) unsafe fn $name<const N: usize>(sums: &mut [I; N], a: I, x: &[f32; N]) {
            const { assert!(matches!(N, 1 | 2 | 3 | 4 | 8 | 12 | 16), "tiles have these sizes") }
            let (sums, x) = (sums.as_mut_ptr(), x.as_ptr());
            // SAFETY: each arm sees the sums as what they are, `N` of them, as an array whose length is known, so that they
            // stay in registers; the instructions read the `N` elements of `x`.
            unsafe {
                match N {
                    16 => multiply_add!(
                        $instruction, &mut *sums.cast::<[I; 16]>(), a, x,
                        s0 at 0, s1 at 4, s2 at 8, s3 at 12, s4 at 16, s5 at 20, s6 at 24, s7 at 28, s8 at 32, s9 at 36,
                        s10 at 40, s11 at 44, s12 at 48, s13 at 52, s14 at 56, s15 at 60
                    ),
                    12 => multiply_add!(
                        $instruction, &mut *sums.cast::<[I; 12]>(), a, x,
                        s0 at 0, s1 at 4, s2 at 8, s3 at 12, s4 at 16, s5 at 20, s6 at 24, s7 at 28, s8 at 32, s9 at 36,
                        s10 at 40, s11 at 44
                    ),
                    8 => multiply_add!(
                        $instruction, &mut *sums.cast::<[I; 8]>(), a, x,
                        s0 at 0, s1 at 4, s2 at 8, s3 at 12, s4 at 16, s5 at 20, s6 at 24, s7 at 28
                    ),
                    4 => multiply_add!(
                        $instruction, &mut *sums.cast::<[I; 4]>(), a, x,
                        s0 at 0, s1 at 4, s2 at 8, s3 at 12
                    ),
                    3 => multiply_add!($instruction, &mut *sums.cast::<[I; 3]>(), a, x, s0 at 0, s1 at 4, s2 at 8),
                    2 => multiply_add!($instruction, &mut *sums.cast::<[I; 2]>(), a, x, s0 at 0, s1 at 4),
                    _ => multiply_add!($instruction, &mut *sums.cast::<[I; 1]>(), a, x, s0 at 0),
                }
            }
        }
    };
}

multiply_adds! {
    /// See [`Simd::dot_add`].
    pair_multiply_adds, "vpdpwssd"
}

multiply_adds! {
    /// `sums[n] +=` the products of `a`'s four bytes, without a sign, and those of `x[n]`, signed.
    quad_multiply_adds, "vpdpbusd"
}

impl PairDot for Vnni {
    #[inline(always)]
    unsafe fn dot_add<const N: usize>(sums: &mut [I; N], a: I, x: &[f32; N]) {
        // SAFETY: the caller promises that the CPU has the instructions.
        unsafe { pair_multiply_adds(sums, a, x) }
    }
}

/// The token of AVX-512 F, BW, DQ and VL, and of the instructions of `P`.
#[derive(Clone, Copy)]
pub(crate) struct Avx512<P>(PhantomData<P>);

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2")]
fn load_128(from: &[u8; 16]) -> __m128i {
    // SAFETY: sixteen bytes are there.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2")]
fn load_256(from: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes are there.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2")]
fn store_256(to: &mut [i16; 16], x: __m256i) {
    // SAFETY: 32 bytes are there.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), x) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2")]
fn load_512(from: &[u8; 64]) -> __m512i {
    // SAFETY: 64 bytes are there.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// The mask of the first `n` of sixteen lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1_u32 << n.min(LANES)) - 1) as __mmask16
}

impl<P: PairDot + QuadDot<I>> Simd for Avx512<P> {
    type I = I;
    type F = F;
    type Quads = P;

    const NR: usize = 12;
    const WIDE: bool = true;
    const BYTES_FIT: bool = P::BYTES_FIT;

    #[inline(always)]
    unsafe fn new_unchecked() -> Self {
        Self(PhantomData)
    }

    #[inline(always)]
    fn dot_add<const N: usize>(self, sums: &mut [I; N], a: I, x: &[f32; N]) {
        // SAFETY: a token exists only where the CPU has the instructions.
        unsafe { P::dot_add(sums, a, x) }
    }

    #[inline(always)]
    fn dot_quads<const N: usize, const Q: usize>(
        self,
        sums: &mut [I; N],
        codes: &[I; Q],
        x: &[[f32; N]; Q],
        run: usize,
    ) {
        // SAFETY: a token exists only where the CPU has the instructions.
        unsafe { P::dot_quads(sums, codes, x, run) }
    }

    #[inline(always)]
    fn dot_quad_twice<const N: usize>(self, sums: &mut [[I; N]; 2], codes: [I; 2], x: &[f32; N]) {
        // SAFETY: a token exists only where the CPU has the instructions.
        unsafe { P::dot_quad_twice(sums, codes, x) }
    }

    #[inline(always)]
    fn apart<T: Task<Self>>(self, task: T) {
        #[inline(never)]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn compiled<S: Simd, T: Task<S>>(s: S, task: T) {
            task.run(s);
        }
        // SAFETY: a token exists only where the CPU has the features.
        unsafe { compiled(self, task) }
    }

    #[inline(always)]
    unsafe fn store_quarters(self, to: *mut f32, stride: usize, x: F) {
        // SAFETY: the caller promises room for four elements at each of these places, and a token that the CPU has
        // AVX-512 F.
        unsafe {
            _mm_storeu_ps(to, _mm512_castps512_ps128(x));
            _mm_storeu_ps(to.add(stride), _mm512_extractf32x4_ps::<1>(x));
            _mm_storeu_ps(to.add(2 * stride), _mm512_extractf32x4_ps::<2>(x));
            _mm_storeu_ps(to.add(3 * stride), _mm512_extractf32x4_ps::<3>(x));
        }
    }

    operations! { "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c";
        fn load_i(from: &[u8; 4 * LANES]) -> I {
            load_512(from)
        }

        fn store_bits(to: &mut [f32; LANES], x: I) {
            // SAFETY: 64 bytes are there.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) };
        }

        fn splat_i(x: i32) -> I {
            _mm512_set1_epi32(x)
        }

        fn and(a: I, b: I) -> I {
            _mm512_and_si512(a, b)
        }

        fn or(a: I, b: I) -> I {
            _mm512_or_si512(a, b)
        }

        fn xor(a: I, b: I) -> I {
            _mm512_xor_si512(a, b)
        }

        fn add_i(a: I, b: I) -> I {
            _mm512_add_epi32(a, b)
        }

        fn shr(x: I, bits: u32) -> I {
            _mm512_srl_epi32(x, _mm_cvtsi32_si128(bits as i32))
        }

        fn shl(x: I, bits: u32) -> I {
            _mm512_sll_epi32(x, _mm_cvtsi32_si128(bits as i32))
        }

        fn even_bytes(x: I) -> I {
            _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(x))
        }

        fn odd_bytes(x: I) -> I {
            _mm512_srai_epi16::<8>(x)
        }

        fn look_up(table: &[i8; 16], bytes: I) -> I {
            _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load_128(must_cast_ref(table))), bytes)
        }

        fn sub_i16(a: I, b: I) -> I {
            _mm512_sub_epi16(a, b)
        }

        fn to_float(x: I) -> F {
            _mm512_cvtepi32_ps(x)
        }

        fn of_bits(x: I) -> F {
            _mm512_castsi512_ps(x)
        }

        fn byte_pairs(a: &[u8; 2 * LANES], b: &[u8; 2 * LANES]) -> [I; 2] {
            let (a, b) = (_mm512_cvtepu8_epi16(load_256(a)), _mm512_cvtepu8_epi16(load_256(b)));
            [_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b)]
        }

        fn in_order(x: [F; 2]) -> [F; 2] {
            let [low, high] = x;
            let first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
            let second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
            [_mm512_permutex2var_ps(low, first, high), _mm512_permutex2var_ps(low, second, high)]
        }

        fn zero() -> F {
            _mm512_setzero_ps()
        }

        fn splat(x: f32) -> F {
            _mm512_set1_ps(x)
        }

        fn load(from: &[f32; LANES]) -> F {
            // SAFETY: sixteen elements are there.
            unsafe { _mm512_loadu_ps(from.as_ptr()) }
        }

        fn store(to: &mut [f32; LANES], x: F) {
            // SAFETY: sixteen elements are there.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) };
        }

        fn load_first(from: &[f32]) -> F {
            // SAFETY: the mask lets no more than the slice's elements be read.
            unsafe { _mm512_maskz_loadu_ps(first(from.len()), from.as_ptr()) }
        }

        fn store_first(to: &mut [f32], x: F) {
            // SAFETY: the mask lets no more than the slice's elements be written.
            unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), first(to.len()), x) };
        }

        fn load_f32(from: &[u8; 4 * LANES]) -> F {
            _mm512_castsi512_ps(load_512(from))
        }

        fn load_f16(from: &[u8; 2 * LANES]) -> F {
            _mm512_cvtph_ps(load_256(from))
        }

        fn load_bf16(from: &[u8; 2 * LANES]) -> F {
            let halves = _mm512_cvtepu16_epi32(load_256(from));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
        }

        fn load_u8(from: &[u8; LANES]) -> F {
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(load_128(from)))
        }

        fn load_i8(from: &[u8; LANES]) -> F {
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_128(from)))
        }

        fn load_e4m3(from: &[u8; LANES]) -> F {
            // A float16 with the same bits at the top of its exponent and mantissa is 2^8 times smaller.
            let halves = _mm256_slli_epi16::<7>(_mm256_cvtepu8_epi16(load_128(from)));
            _mm512_mul_ps(_mm512_cvtph_ps(halves), _mm512_set1_ps(256.0))
        }

        fn load_i16(from: &[i16; LANES]) -> F {
            _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(load_256(must_cast_ref(from))))
        }

        fn load_nibbles(from: &[u8; LANES]) -> [F; 2] {
            let bytes = _mm512_cvtepu8_epi32(load_128(from));
            let low = _mm512_and_si512(bytes, _mm512_set1_epi32(15));
            [_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(_mm512_srli_epi32::<4>(bytes))]
        }

        fn load_two(a: &[u8; 2 * LANES], b: &[u8; 2 * LANES]) -> F {
            let [a, b] = [_mm256_castsi256_ps(load_256(a)), _mm256_castsi256_ps(load_256(b))];
            _mm512_insertf32x8::<1>(_mm512_castps256_ps512(a), b)
        }

        fn load_f16_pairs(from: &[[u16; 2]; LANES]) -> [F; 2] {
            let pairs = load_512(must_cast_ref(from));
            let half = |pairs| _mm512_cvtph_ps(_mm512_cvtepi32_epi16(pairs));
            [half(pairs), half(_mm512_srli_epi32::<16>(pairs))]
        }

        fn add(a: F, b: F) -> F {
            _mm512_add_ps(a, b)
        }

        fn sub(a: F, b: F) -> F {
            _mm512_sub_ps(a, b)
        }

        fn mul(a: F, b: F) -> F {
            _mm512_mul_ps(a, b)
        }

        fn div(a: F, b: F) -> F {
            _mm512_div_ps(a, b)
        }

        fn fma(a: F, b: F, c: F) -> F {
            _mm512_fmadd_ps(a, b, c)
        }

        fn max(a: F, b: F) -> F {
            _mm512_max_ps(a, b)
        }

        fn min(a: F, b: F) -> F {
            _mm512_min_ps(a, b)
        }

        fn abs(x: F) -> F {
            _mm512_abs_ps(x)
        }

        fn neg(x: F) -> F {
            let sign = _mm512_set1_epi32(i32::MIN);
            _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(x), sign))
        }

        fn round(x: F) -> F {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
        }

        fn scale_by_power(x: F, n: F) -> F {
            _mm512_scalef_ps(x, n)
        }

        fn sum(x: F) -> f32 {
            let high = _mm512_castps512_ps256(_mm512_shuffle_f32x4::<0b0100_1110>(x, x));
            super::avx2::sum(_mm256_add_ps(_mm512_castps512_ps256(x), high))
        }

        fn max_lane(x: F) -> f32 {
            _mm512_reduce_max_ps(x)
        }

        fn load_quarter(from: &[f32; LANES / 4]) -> F {
            _mm512_broadcast_f32x4(_mm_castsi128_ps(load_128(must_cast_ref(from))))
        }

        fn transpose_quarters(x: [F; 4]) -> [F; 4] {
            let [a, b, c, d] = x;
            let pair =
                |a, b| [_mm512_castps_pd(_mm512_unpacklo_ps(a, b)), _mm512_castps_pd(_mm512_unpackhi_ps(a, b))];
            let ([ab0, ab2], [cd0, cd2]) = (pair(a, b), pair(c, d));
            [
                _mm512_castpd_ps(_mm512_unpacklo_pd(ab0, cd0)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(ab0, cd0)),
                _mm512_castpd_ps(_mm512_unpacklo_pd(ab2, cd2)),
                _mm512_castpd_ps(_mm512_unpackhi_pd(ab2, cd2)),
            ]
        }

        fn each_quarter(x: F) -> [F; 4] {
            [
                _mm512_shuffle_f32x4::<0b00_00_00_00>(x, x),
                _mm512_shuffle_f32x4::<0b01_01_01_01>(x, x),
                _mm512_shuffle_f32x4::<0b10_10_10_10>(x, x),
                _mm512_shuffle_f32x4::<0b11_11_11_11>(x, x),
            ]
        }

        fn split_quarters(a: F, b: F) -> [F; 2] {
            [_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b)]
        }

        fn sum_quarters(x: [F; 4]) -> F {
            let [a, b, c, d] = x;
            let ab = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
            let cd = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)));
            let (low, high) = (_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd));
            _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high))
        }

        fn keep_range(x: F, other: f32, range: [usize; 2], at: usize) -> F {
            let [before, until] = range.map(|bound| first(bound.saturating_sub(at)));
            _mm512_mask_blend_ps(until & !before, _mm512_set1_ps(other), x)
        }

        fn keep_between(x: F, other: f32, at: F, bounds: [F; 2]) -> F {
            let from = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(at, bounds[0]);
            let within = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(from, at, bounds[1]);
            _mm512_mask_blend_ps(within, _mm512_set1_ps(other), x)
        }

        fn store_i16(to: &mut [i16; LANES], x: F) {
            store_256(to, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x)));
        }

        fn store_i16_swapped(to: &mut [i16; LANES], x: F) {
            let codes = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x));
            store_256(to, super::avx2::swap_middles(codes));
        }

        fn store_i8(to: &mut [i8; LANES], x: F) {
            let codes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x));
            // SAFETY: sixteen bytes are there.
            unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), codes) };
        }
    }
}
