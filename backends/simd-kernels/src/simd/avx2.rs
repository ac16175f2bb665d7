//! AVX2 with FMA and F16C: sixteen lanes are two registers. With AVX-VNNI, a pair's products and their sum are one
//! instruction.

#![allow(
    unsafe_op_in_unsafe_fn,
    reason = "each function is one instruction or a few, under the trait's own contract"
)]

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::Simd;

/// An intrinsic on both registers.
macro_rules! both {
    ($function:ident < $constant:tt >; $x:expr) => {
        [$function::<$constant>($x[0]), $function::<$constant>($x[1])]
    };
    ($function:ident < $constant:tt >; $a:expr, $b:expr) => {
        [$function::<$constant>($a[0], $b[0]), $function::<$constant>($a[1], $b[1])]
    };
    ($function:ident; $x:expr) => {
        [$function($x[0]), $function($x[1])]
    };
    ($function:ident; $a:expr, $b:expr) => {
        [$function($a[0], $b[0]), $function($a[1], $b[1])]
    };
    ($function:ident; $a:expr, $b:expr, $c:expr) => {
        [$function($a[0], $b[0], $c[0]), $function($a[1], $b[1], $c[1])]
    };
}

/// How products of pairs of int16 are added up.
pub(crate) trait Pairs: 'static {
    /// As [`Simd::dot_add`].
    ///
    /// # Safety
    /// As for [`Simd`].
    unsafe fn dot_add<const N: usize>(sums: &mut [[__m256i; 2]; N], a: [__m256i; 2], x: *const i32);
}

/// With AVX2 alone.
pub(crate) struct MultiplyAdd;

impl Pairs for MultiplyAdd {
    #[inline(always)]
    unsafe fn dot_add<const N: usize>(sums: &mut [[__m256i; 2]; N], a: [__m256i; 2], x: *const i32) {
        for (index, sum) in sums.iter_mut().enumerate() {
            let x = [_mm256_set1_epi32(x.add(index).read_unaligned()); 2];
            let products = both!(_mm256_madd_epi16; a, x);
            *sum = both!(_mm256_add_epi32; *sum, products);
        }
    }
}

/// With AVX-VNNI.
pub(crate) struct Vnni;

impl Pairs for Vnni {
    // Not by the intrinsic, which compilers take apart again.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dot_add<const N: usize>(sums: &mut [[__m256i; 2]; N], a: [__m256i; 2], x: *const i32) {
        for (index, [low, high]) in sums.iter_mut().enumerate() {
            let x = _mm256_set1_epi32(x.add(index).read_unaligned());
            asm!(
                "{{vex}} vpdpwssd {low}, {a}, {x}",
                "{{vex}} vpdpwssd {high}, {b}, {x}",
                low = inout(ymm_reg) *low,
                high = inout(ymm_reg) *high,
                a = in(ymm_reg) a[0],
                b = in(ymm_reg) a[1],
                x = in(ymm_reg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
    }
}

/// Vectors of AVX2, FMA and F16C.
pub(crate) struct Avx2<P>(PhantomData<P>);

/// Loads the first `n` (0 to 8) of eight lanes when used with AVX's masked loads and stores.
#[inline(always)]
unsafe fn first(n: usize) -> __m256i {
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), lanes)
}

/// The sum of eight lanes: halves, then quarters, then the last two.
#[inline(always)]
pub(super) unsafe fn sum(x: __m256) -> f32 {
    let fours = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let twos = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
    _mm_cvtss_f32(_mm_add_ss(twos, _mm_shuffle_ps::<1>(twos, twos)))
}

/// The middle two of every four int16, swapped.
#[inline(always)]
pub(super) unsafe fn swap_middles(x: __m256i) -> __m256i {
    _mm256_shufflehi_epi16::<0b1101_1000>(_mm256_shufflelo_epi16::<0b1101_1000>(x))
}

/// The nearest int16 of sixteen float32, in order.
#[inline(always)]
unsafe fn to_i16(x: [__m256; 2]) -> __m256i {
    // Packing works within halves; the permutation brings the quarters in order.
    let packed = _mm256_packs_epi32(_mm256_cvtps_epi32(x[0]), _mm256_cvtps_epi32(x[1]));
    _mm256_permute4x64_epi64::<0b1101_1000>(packed)
}

/// As [`Simd::sum_quarters`], of two quarters.
#[inline(always)]
unsafe fn sum_quarters([a, b, c, d]: [__m256; 4]) -> __m256 {
    let ab = _mm256_castps_pd(_mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)));
    let cd = _mm256_castps_pd(_mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d)));
    let (low, high) = (_mm256_unpacklo_pd(ab, cd), _mm256_unpackhi_pd(ab, cd));
    _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high))
}

/// As [`Simd::transpose_quarters`], of two quarters.
#[inline(always)]
unsafe fn transpose_quarters([a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
    let pair =
        |a, b| [_mm256_castps_pd(_mm256_unpacklo_ps(a, b)), _mm256_castps_pd(_mm256_unpackhi_ps(a, b))];
    let ([ab0, ab2], [cd0, cd2]) = (pair(a, b), pair(c, d));
    [
        _mm256_castpd_ps(_mm256_unpacklo_pd(ab0, cd0)),
        _mm256_castpd_ps(_mm256_unpackhi_pd(ab0, cd0)),
        _mm256_castpd_ps(_mm256_unpacklo_pd(ab2, cd2)),
        _mm256_castpd_ps(_mm256_unpackhi_pd(ab2, cd2)),
    ]
}

#[inline(always)]
unsafe fn power(n: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))))
}

/// Nearest, ties to even, no exception.
const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

impl<P: Pairs> Simd for Avx2<P> {
    type I = [__m256i; 2];
    type F = [__m256; 2];

    const NR: usize = 4;

    #[inline(always)]
    unsafe fn load_i(from: *const u8) -> Self::I {
        [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())]
    }

    #[inline(always)]
    unsafe fn store_i(to: *mut u8, x: Self::I) {
        _mm256_storeu_si256(to.cast(), x[0]);
        _mm256_storeu_si256(to.add(32).cast(), x[1]);
    }

    #[inline(always)]
    unsafe fn splat_i(x: i32) -> Self::I {
        [_mm256_set1_epi32(x); 2]
    }

    #[inline(always)]
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_and_si256; a, b)
    }

    #[inline(always)]
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_or_si256; a, b)
    }

    #[inline(always)]
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_add_epi32; a, b)
    }

    #[inline(always)]
    unsafe fn shr(x: Self::I, bits: u32) -> Self::I {
        let bits = _mm_cvtsi32_si128(bits as i32);
        both!(_mm256_srl_epi32; x, [bits; 2])
    }

    #[inline(always)]
    unsafe fn shl(x: Self::I, bits: u32) -> Self::I {
        let bits = _mm_cvtsi32_si128(bits as i32);
        both!(_mm256_sll_epi32; x, [bits; 2])
    }

    #[inline(always)]
    unsafe fn even_bytes(x: Self::I) -> Self::I {
        let high = both!(_mm256_slli_epi16<8>; x);
        both!(_mm256_srai_epi16<8>; high)
    }

    #[inline(always)]
    unsafe fn odd_bytes(x: Self::I) -> Self::I {
        both!(_mm256_srai_epi16<8>; x)
    }

    #[inline(always)]
    unsafe fn look_up(table: &[i8; 16], bytes: Self::I) -> Self::I {
        let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
        both!(_mm256_shuffle_epi8; [table; 2], bytes)
    }

    #[inline(always)]
    unsafe fn sub_i16(a: Self::I, b: Self::I) -> Self::I {
        both!(_mm256_sub_epi16; a, b)
    }

    #[inline(always)]
    unsafe fn dot_add<const N: usize>(sums: &mut [Self::I; N], a: Self::I, x: *const i32) {
        P::dot_add(sums, a, x);
    }

    #[inline(always)]
    unsafe fn to_float(x: Self::I) -> Self::F {
        both!(_mm256_cvtepi32_ps; x)
    }

    #[inline(always)]
    unsafe fn byte_pairs(a: *const u8, b: *const u8) -> [Self::I; 2] {
        let sixteen = |at: usize| {
            let wide = |from: *const u8| _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast()));
            let (a, b) = (wide(a.add(at)), wide(b.add(at)));
            [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)]
        };
        [sixteen(0), sixteen(16)]
    }

    #[inline(always)]
    unsafe fn in_order(x: [Self::F; 2]) -> [Self::F; 2] {
        let sixteen = |[low, high]: Self::F| {
            [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)]
        };
        [sixteen(x[0]), sixteen(x[1])]
    }

    #[inline(always)]
    unsafe fn zero() -> Self::F {
        [_mm256_setzero_ps(); 2]
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::F {
        [_mm256_set1_ps(x); 2]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::F {
        [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))]
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: Self::F) {
        _mm256_storeu_ps(to, x[0]);
        _mm256_storeu_ps(to.add(8), x[1]);
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self::F {
        // Simd that the mask leaves out are not read, so the second pointer need not point to anything.
        let second = from.wrapping_add(8);
        [_mm256_maskload_ps(from, first(n)), _mm256_maskload_ps(second, first(n.saturating_sub(8)))]
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, x: Self::F, n: usize) {
        let second = to.wrapping_add(8);
        _mm256_maskstore_ps(to, first(n), x[0]);
        _mm256_maskstore_ps(second, first(n.saturating_sub(8)), x[1]);
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> Self::F {
        [_mm256_cvtph_ps(_mm_loadu_si128(from.cast())), _mm256_cvtph_ps(_mm_loadu_si128(from.add(16).cast()))]
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> Self::F {
        let halves = [
            _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())),
            _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(16).cast())),
        ];
        let bits = both!(_mm256_slli_epi32<16>; halves);
        both!(_mm256_castsi256_ps; bits)
    }

    #[inline(always)]
    unsafe fn load_u8(from: *const u8) -> Self::F {
        let ints = [
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())),
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.add(8).cast())),
        ];
        both!(_mm256_cvtepi32_ps; ints)
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const u8) -> Self::F {
        let ints = [
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())),
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8).cast())),
        ];
        both!(_mm256_cvtepi32_ps; ints)
    }

    #[inline(always)]
    unsafe fn load_i16(from: *const i16) -> Self::F {
        let ints = [
            _mm256_cvtepi16_epi32(_mm_loadu_si128(from.cast())),
            _mm256_cvtepi16_epi32(_mm_loadu_si128(from.add(8).cast())),
        ];
        both!(_mm256_cvtepi32_ps; ints)
    }

    #[inline(always)]
    unsafe fn load_nibbles(from: *const u8) -> [Self::F; 2] {
        let bytes = _mm_loadu_si128(from.cast());
        let mask = _mm_set1_epi8(15);
        let floats = |bytes: __m128i| {
            let halves = [bytes, _mm_srli_si128::<8>(bytes)];
            both!(_mm256_cvtepi32_ps; both!(_mm256_cvtepu8_epi32; halves))
        };
        [floats(_mm_and_si128(bytes, mask)), floats(_mm_and_si128(_mm_srli_epi16::<4>(bytes), mask))]
    }

    #[inline(always)]
    unsafe fn load_two(a: *const f32, b: *const f32) -> Self::F {
        [_mm256_loadu_ps(a), _mm256_loadu_ps(b)]
    }

    #[inline(always)]
    unsafe fn load_f16_pairs(from: *const [u16; 2]) -> [Self::F; 2] {
        // Of each half of eight bytes: the first of four pairs, then the second.
        let apart = _mm256_setr_epi8(
            0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, //
            0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
        );
        let eight = |at: usize| {
            let pairs = _mm256_loadu_si256(from.add(at).cast());
            _mm256_permute4x64_epi64::<0b1101_1000>(_mm256_shuffle_epi8(pairs, apart))
        };
        let (low, high) = (eight(0), eight(8));
        let firsts = [_mm256_castsi256_si128(low), _mm256_castsi256_si128(high)];
        let seconds = [_mm256_extracti128_si256::<1>(low), _mm256_extracti128_si256::<1>(high)];
        [both!(_mm256_cvtph_ps; firsts), both!(_mm256_cvtph_ps; seconds)]
    }

    #[inline(always)]
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_add_ps; a, b)
    }

    #[inline(always)]
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_sub_ps; a, b)
    }

    #[inline(always)]
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_mul_ps; a, b)
    }

    #[inline(always)]
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_div_ps; a, b)
    }

    #[inline(always)]
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        both!(_mm256_fmadd_ps; a, b, c)
    }

    #[inline(always)]
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_max_ps; a, b)
    }

    #[inline(always)]
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_min_ps; a, b)
    }

    #[inline(always)]
    unsafe fn abs(x: Self::F) -> Self::F {
        let sign = _mm256_set1_ps(-0.0);
        both!(_mm256_andnot_ps; [sign; 2], x)
    }

    #[inline(always)]
    unsafe fn neg(x: Self::F) -> Self::F {
        both!(_mm256_xor_ps; [_mm256_set1_ps(-0.0); 2], x)
    }

    #[inline(always)]
    unsafe fn round(x: Self::F) -> Self::F {
        both!(_mm256_round_ps<NEAREST>; x)
    }

    #[inline(always)]
    unsafe fn scale_by_power(x: Self::F, n: Self::F) -> Self::F {
        // In two steps, as 2^n itself may be no normal number.
        let n = both!(_mm256_cvtps_epi32; n);
        let half = both!(_mm256_srai_epi32<1>; n);
        let rest = both!(_mm256_sub_epi32; n, half);
        let scaled = both!(_mm256_mul_ps; x, both!(power; half));
        both!(_mm256_mul_ps; scaled, both!(power; rest))
    }

    #[inline(always)]
    unsafe fn sum(x: Self::F) -> f32 {
        sum(_mm256_add_ps(x[0], x[1]))
    }

    #[inline(always)]
    unsafe fn max_lane(x: Self::F) -> f32 {
        let eights = _mm256_max_ps(x[0], x[1]);
        let fours = _mm_max_ps(_mm256_castps256_ps128(eights), _mm256_extractf128_ps::<1>(eights));
        let twos = _mm_max_ps(fours, _mm_movehl_ps(fours, fours));
        _mm_cvtss_f32(_mm_max_ss(twos, _mm_shuffle_ps::<1>(twos, twos)))
    }

    #[inline(always)]
    unsafe fn load_quarter(from: *const f32) -> Self::F {
        [_mm256_broadcast_ps(&_mm_loadu_ps(from)); 2]
    }

    #[inline(always)]
    unsafe fn transpose_quarters([a, b, c, d]: [Self::F; 4]) -> [Self::F; 4] {
        let low = transpose_quarters([a[0], b[0], c[0], d[0]]);
        let high = transpose_quarters([a[1], b[1], c[1], d[1]]);
        std::array::from_fn(|n| [low[n], high[n]])
    }

    #[inline(always)]
    unsafe fn each_quarter(x: Self::F) -> [Self::F; 4] {
        [
            [_mm256_permute2f128_ps::<0x00>(x[0], x[0]); 2],
            [_mm256_permute2f128_ps::<0x11>(x[0], x[0]); 2],
            [_mm256_permute2f128_ps::<0x00>(x[1], x[1]); 2],
            [_mm256_permute2f128_ps::<0x11>(x[1], x[1]); 2],
        ]
    }

    #[inline(always)]
    unsafe fn split_quarters(a: Self::F, b: Self::F) -> [Self::F; 2] {
        [
            [_mm256_permute2f128_ps::<0x20>(a[0], a[1]), _mm256_permute2f128_ps::<0x20>(b[0], b[1])],
            [_mm256_permute2f128_ps::<0x31>(a[0], a[1]), _mm256_permute2f128_ps::<0x31>(b[0], b[1])],
        ]
    }

    #[inline(always)]
    unsafe fn sum_quarters([a, b, c, d]: [Self::F; 4]) -> Self::F {
        [sum_quarters([a[0], b[0], c[0], d[0]]), sum_quarters([a[1], b[1], c[1], d[1]])]
    }

    #[inline(always)]
    unsafe fn store_quarters(to: *mut f32, stride: usize, x: Self::F) {
        _mm_storeu_ps(to, _mm256_castps256_ps128(x[0]));
        _mm_storeu_ps(to.add(stride), _mm256_extractf128_ps::<1>(x[0]));
        _mm_storeu_ps(to.add(2 * stride), _mm256_castps256_ps128(x[1]));
        _mm_storeu_ps(to.add(3 * stride), _mm256_extractf128_ps::<1>(x[1]));
    }

    #[inline(always)]
    unsafe fn keep(x: Self::F, other: f32, [begin, end]: [usize; 2], at: usize) -> Self::F {
        let half = |x: __m256, at: usize| {
            let before = first(begin.saturating_sub(at).min(8));
            let until = first(end.saturating_sub(at).min(8));
            let kept = _mm256_castsi256_ps(_mm256_andnot_si256(before, until));
            _mm256_blendv_ps(_mm256_set1_ps(other), x, kept)
        };
        [half(x[0], at), half(x[1], at + 8)]
    }

    #[inline(always)]
    unsafe fn within(x: Self::F, other: f32, at: Self::F, [begin, end]: [Self::F; 2]) -> Self::F {
        let from = both!(_mm256_cmp_ps<_CMP_GE_OQ>; at, begin);
        let until = both!(_mm256_cmp_ps<_CMP_LT_OQ>; at, end);
        both!(_mm256_blendv_ps; [_mm256_set1_ps(other); 2], x, both!(_mm256_and_ps; from, until))
    }

    #[inline(always)]
    unsafe fn store_i16(to: *mut i16, x: Self::F) {
        _mm256_storeu_si256(to.cast(), to_i16(x));
    }

    #[inline(always)]
    unsafe fn store_i16_swapped(to: *mut i16, x: Self::F) {
        _mm256_storeu_si256(to.cast(), swap_middles(to_i16(x)));
    }
}
