//! AVX-512: one register of sixteen lanes; with VNNI, a pair's products and their sum are one instruction.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function is one instruction or a few, under the trait's own contract"
)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::Simd;

/// How products of pairs of int16 are added up.
pub(crate) trait Pairs: 'static {
    /// As [`Simd::dot_add`].
    ///
    /// # Safety
    /// As for [`Simd`].
    unsafe fn dot_add<const N: usize>(sums: &mut [__m512i; N], a: __m512i, x: *const i32);
}

/// With AVX-512 BW alone.
pub(crate) struct MultiplyAdd;

impl Pairs for MultiplyAdd {
    #[inline(always)]
    unsafe fn dot_add<const N: usize>(sums: &mut [__m512i; N], a: __m512i, x: *const i32) {
        for (index, sum) in sums.iter_mut().enumerate() {
            let x = _mm512_set1_epi32(x.add(index).read_unaligned());
            *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(a, x));
        }
    }
}

/// With AVX-512 VNNI.
pub(crate) struct Vnni;

/// VNNI's multiply-add of one vector with each of some tokens' pairs in memory.
///
/// Not by intrinsics: compilers take those apart again, into a multiplication and an addition, and broadcast the pairs by
/// an instruction for floats, whose results are slower to reach one for integers; both together take half as long again.
macro_rules! multiply_add {
    ($sums:expr, $a:expr, $x:expr, $($sum:ident at $offset:literal),+) => {{
        let [$($sum),+] = $sums;
        asm!(
            $(concat!("vpdpwssd {", stringify!($sum), "}, {a}, dword ptr [{x} + ", $offset, "]{{1to16}}"),)+
            $($sum = inout(zmm_reg) *$sum,)+
            a = in(zmm_reg) $a,
            x = in(reg) $x,
            options(pure, readonly, nostack, preserves_flags)
        );
    }};
}

impl Pairs for Vnni {
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn dot_add<const N: usize>(sums: &mut [__m512i; N], a: __m512i, x: *const i32) {
        const { assert!(matches!(N, 1 | 2 | 3 | 4 | 8 | 12 | 16), "tiles have these sizes") }
        let sums = sums.as_mut_ptr();
        // Arrays of a known length, so that sums stay in registers.
        match N {
            16 => multiply_add!(
                &mut *sums.cast::<[__m512i; 16]>(), a, x,
                s0 at 0, s1 at 4, s2 at 8, s3 at 12, s4 at 16, s5 at 20, s6 at 24, s7 at 28, s8 at 32, s9 at 36,
                s10 at 40, s11 at 44, s12 at 48, s13 at 52, s14 at 56, s15 at 60
            ),
            12 => multiply_add!(
                &mut *sums.cast::<[__m512i; 12]>(), a, x,
                s0 at 0, s1 at 4, s2 at 8, s3 at 12, s4 at 16, s5 at 20, s6 at 24, s7 at 28, s8 at 32, s9 at 36,
                s10 at 40, s11 at 44
            ),
            8 => multiply_add!(
                &mut *sums.cast::<[__m512i; 8]>(), a, x,
                s0 at 0, s1 at 4, s2 at 8, s3 at 12, s4 at 16, s5 at 20, s6 at 24, s7 at 28
            ),
            4 => multiply_add!(
                &mut *sums.cast::<[__m512i; 4]>(), a, x,
                s0 at 0, s1 at 4, s2 at 8, s3 at 12
            ),
            3 => multiply_add!(&mut *sums.cast::<[__m512i; 3]>(), a, x, s0 at 0, s1 at 4, s2 at 8),
            2 => multiply_add!(&mut *sums.cast::<[__m512i; 2]>(), a, x, s0 at 0, s1 at 4),
            _ => multiply_add!(&mut *sums.cast::<[__m512i; 1]>(), a, x, s0 at 0),
        }
    }
}

/// Vectors of AVX-512 F and BW.
pub(crate) struct Avx512<P>(PhantomData<P>);

#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1_u32 << n) - 1) as __mmask16
}

impl<P: Pairs> Simd for Avx512<P> {
    type I = __m512i;
    type F = __m512;

    const NR: usize = 12;

    #[inline(always)]
    unsafe fn load_i(from: *const u8) -> __m512i {
        _mm512_loadu_si512(from.cast())
    }

    #[inline(always)]
    unsafe fn store_i(to: *mut u8, x: __m512i) {
        _mm512_storeu_si512(to.cast(), x);
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> __m512i {
        _mm512_set1_epi32(x)
    }

    #[inline(always)]
    unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
        _mm512_and_si512(a, b)
    }

    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        _mm512_or_si512(a, b)
    }

    #[inline(always)]
    unsafe fn add_i(a: __m512i, b: __m512i) -> __m512i {
        _mm512_add_epi32(a, b)
    }

    #[inline(always)]
    unsafe fn shr(x: __m512i, bits: u32) -> __m512i {
        _mm512_srl_epi32(x, _mm_cvtsi32_si128(bits as i32))
    }

    #[inline(always)]
    unsafe fn shl(x: __m512i, bits: u32) -> __m512i {
        _mm512_sll_epi32(x, _mm_cvtsi32_si128(bits as i32))
    }

    #[inline(always)]
    unsafe fn even_bytes(x: __m512i) -> __m512i {
        _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(x))
    }

    #[inline(always)]
    unsafe fn odd_bytes(x: __m512i) -> __m512i {
        _mm512_srai_epi16::<8>(x)
    }

    #[inline(always)]
    unsafe fn look_up(table: &[i8; 16], bytes: __m512i) -> __m512i {
        _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), bytes)
    }

    #[inline(always)]
    unsafe fn sub_i16(a: __m512i, b: __m512i) -> __m512i {
        _mm512_sub_epi16(a, b)
    }

    #[inline(always)]
    unsafe fn dot_add<const N: usize>(sums: &mut [__m512i; N], a: __m512i, x: *const i32) {
        P::dot_add(sums, a, x);
    }

    #[inline(always)]
    unsafe fn to_float(x: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(x)
    }

    #[inline(always)]
    unsafe fn byte_pairs(a: *const u8, b: *const u8) -> [__m512i; 2] {
        let wide = |from: *const u8| _mm512_cvtepu8_epi16(_mm256_loadu_si256(from.cast()));
        let (a, b) = (wide(a), wide(b));
        [_mm512_unpacklo_epi16(a, b), _mm512_unpackhi_epi16(a, b)]
    }

    #[inline(always)]
    unsafe fn in_order([low, high]: [__m512; 2]) -> [__m512; 2] {
        let first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
        let second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
        [_mm512_permutex2var_ps(low, first, high), _mm512_permutex2var_ps(low, second, high)]
    }

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        _mm512_setzero_ps()
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        _mm512_set1_ps(x)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        _mm512_loadu_ps(from)
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: __m512) {
        _mm512_storeu_ps(to, x);
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> __m512 {
        _mm512_maskz_loadu_ps(first(n), from)
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, x: __m512, n: usize) {
        _mm512_mask_storeu_ps(to, first(n), x);
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> __m512 {
        _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> __m512 {
        let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves))
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())))
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))
    }

    #[inline(always)]
    unsafe fn load_i16(from: *const i16) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256(from.cast())))
    }

    #[inline(always)]
    unsafe fn load_nibbles(from: *const u8) -> [__m512; 2] {
        let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()));
        let low = _mm512_and_si512(bytes, _mm512_set1_epi32(15));
        [_mm512_cvtepi32_ps(low), _mm512_cvtepi32_ps(_mm512_srli_epi32::<4>(bytes))]
    }

    #[inline(always)]
    unsafe fn load_two(a: *const f32, b: *const f32) -> __m512 {
        _mm512_insertf32x8::<1>(_mm512_castps256_ps512(_mm256_loadu_ps(a)), _mm256_loadu_ps(b))
    }

    #[inline(always)]
    unsafe fn load_f16_pairs(from: *const [u16; 2]) -> [__m512; 2] {
        let pairs = _mm512_loadu_si512(from.cast());
        let half = |pairs| _mm512_cvtph_ps(_mm512_cvtepi32_epi16(pairs));
        [half(pairs), half(_mm512_srli_epi32::<16>(pairs))]
    }

    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        _mm512_add_ps(a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        _mm512_sub_ps(a, b)
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }

    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        _mm512_div_ps(a, b)
    }

    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        _mm512_max_ps(a, b)
    }

    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        _mm512_min_ps(a, b)
    }

    #[inline(always)]
    unsafe fn abs(x: __m512) -> __m512 {
        _mm512_abs_ps(x)
    }

    #[inline(always)]
    unsafe fn neg(x: __m512) -> __m512 {
        let sign = _mm512_set1_epi32(i32::MIN);
        _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(x), sign))
    }

    #[inline(always)]
    unsafe fn round(x: __m512) -> __m512 {
        _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
    }

    #[inline(always)]
    unsafe fn scale_by_power(x: __m512, n: __m512) -> __m512 {
        _mm512_scalef_ps(x, n)
    }

    #[inline(always)]
    unsafe fn sum(x: __m512) -> f32 {
        let high = _mm512_castps512_ps256(_mm512_shuffle_f32x4::<0b0100_1110>(x, x));
        super::avx2::sum(_mm256_add_ps(_mm512_castps512_ps256(x), high))
    }

    #[inline(always)]
    unsafe fn max_lane(x: __m512) -> f32 {
        _mm512_reduce_max_ps(x)
    }

    #[inline(always)]
    unsafe fn load_quarter(from: *const f32) -> Self::F {
        _mm512_broadcast_f32x4(_mm_loadu_ps(from))
    }

    #[inline(always)]
    unsafe fn transpose_quarters([a, b, c, d]: [__m512; 4]) -> [__m512; 4] {
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

    #[inline(always)]
    unsafe fn each_quarter(x: __m512) -> [__m512; 4] {
        [
            _mm512_shuffle_f32x4::<0b00_00_00_00>(x, x),
            _mm512_shuffle_f32x4::<0b01_01_01_01>(x, x),
            _mm512_shuffle_f32x4::<0b10_10_10_10>(x, x),
            _mm512_shuffle_f32x4::<0b11_11_11_11>(x, x),
        ]
    }

    #[inline(always)]
    unsafe fn split_quarters(a: __m512, b: __m512) -> [__m512; 2] {
        [_mm512_shuffle_f32x4::<0b10_00_10_00>(a, b), _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b)]
    }

    #[inline(always)]
    unsafe fn sum_quarters([a, b, c, d]: [__m512; 4]) -> __m512 {
        let ab = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)));
        let cd = _mm512_castps_pd(_mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d)));
        let (low, high) = (_mm512_unpacklo_pd(ab, cd), _mm512_unpackhi_pd(ab, cd));
        _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high))
    }

    #[inline(always)]
    unsafe fn store_quarters(to: *mut f32, stride: usize, x: __m512) {
        _mm_storeu_ps(to, _mm512_castps512_ps128(x));
        _mm_storeu_ps(to.add(stride), _mm512_extractf32x4_ps::<1>(x));
        _mm_storeu_ps(to.add(2 * stride), _mm512_extractf32x4_ps::<2>(x));
        _mm_storeu_ps(to.add(3 * stride), _mm512_extractf32x4_ps::<3>(x));
    }

    #[inline(always)]
    unsafe fn keep(x: __m512, other: f32, [begin, end]: [usize; 2], at: usize) -> __m512 {
        let before = first(begin.saturating_sub(at).min(16));
        let until = first(end.saturating_sub(at).min(16));
        _mm512_mask_blend_ps(until & !before, _mm512_set1_ps(other), x)
    }

    #[inline(always)]
    unsafe fn within(x: __m512, other: f32, at: __m512, [begin, end]: [__m512; 2]) -> __m512 {
        let from = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(at, begin);
        let within = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(from, at, end);
        _mm512_mask_blend_ps(within, _mm512_set1_ps(other), x)
    }

    #[inline(always)]
    unsafe fn store_i16(to: *mut i16, x: __m512) {
        _mm256_storeu_si256(to.cast(), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x)));
    }

    #[inline(always)]
    unsafe fn store_i16_swapped(to: *mut i16, x: __m512) {
        let codes = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x));
        _mm256_storeu_si256(to.cast(), super::avx2::swap_middles(codes));
    }
}
