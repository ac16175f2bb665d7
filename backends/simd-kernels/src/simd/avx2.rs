//! AVX2 with FMA and F16C: a vector is two registers. With AVX-VNNI, multiplying int16 pairs and adding them up is one
//! instruction.

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;

use bytemuck::{must_cast_mut, must_cast_ref};

use super::quads::QuadDot;
use super::{LANES, Simd, Task, operations};

type F = [__m256; 2];
type I = [__m256i; 2];

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

/// How products of int16 pairs are added up.
pub(crate) trait PairDot: Copy + 'static {
    /// See [`Simd::dot_add`].
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn dot_add<const N: usize>(sums: &mut [I; N], a: I, x: &[f32; N]);
}

/// With AVX2 alone.
#[derive(Clone, Copy)]
pub(crate) struct MultiplyAdd;

impl PairDot for MultiplyAdd {
    #[inline(always)]
    unsafe fn dot_add<const N: usize>(sums: &mut [I; N], a: I, x: &[f32; N]) {
        for (sum, x) in sums.iter_mut().zip(x) {
            // SAFETY: the caller promises that the CPU has AVX2.
            unsafe {
                let x = [_mm256_set1_epi32(x.to_bits() as i32); 2];
                let products = both!(_mm256_madd_epi16; a, x);
                *sum = both!(_mm256_add_epi32; *sum, products);
            }
        }
    }
}

/// With AVX-VNNI.
#[derive(Clone, Copy)]
pub(crate) struct Vnni;

impl PairDot for Vnni {
    // Not by the intrinsic: compilers split it into a multiplication and an addition again.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn dot_add<const N: usize>(sums: &mut [I; N], a: I, x: &[f32; N]) {
        for ([low, high], x) in sums.iter_mut().zip(x) {
            let x = _mm256_set1_epi32(x.to_bits() as i32);
            // SAFETY: the instruction only touches the registers named here, and the caller promises that the CPU has it.
            unsafe {
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
}

/// The token of AVX2, FMA and F16C, and of the instructions of `P`.
#[derive(Clone, Copy)]
pub(crate) struct Avx2<P>(PhantomData<P>);

#[inline]
#[target_feature(enable = "avx2")]
fn load_128(from: &[u8; 16]) -> __m128i {
    // SAFETY: sixteen bytes are there.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_256(from: &[u8; 32]) -> __m256i {
    // SAFETY: 32 bytes are there.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_256(to: &mut [u8; 32], x: __m256i) {
    // SAFETY: 32 bytes are there.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), x) }
}

/// Eight bytes, and zeros after them.
#[inline]
#[target_feature(enable = "avx2")]
fn load_64(from: &[u8; 8]) -> __m128i {
    // SAFETY: eight bytes are there.
    unsafe { _mm_loadl_epi64(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_ps(from: &[f32; 8]) -> __m256 {
    // SAFETY: eight elements are there.
    unsafe { _mm256_loadu_ps(from.as_ptr()) }
}

/// A mask of the first `n` of eight lanes, for AVX's masked loads and stores.
#[inline]
#[target_feature(enable = "avx2")]
fn first(n: usize) -> __m256i {
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), lanes)
}

/// The sum of eight lanes: halves, then quarters, then the last two.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum(x: __m256) -> f32 {
    let fours = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let twos = _mm_add_ps(fours, _mm_movehl_ps(fours, fours));
    _mm_cvtss_f32(_mm_add_ss(twos, _mm_shuffle_ps::<1>(twos, twos)))
}

/// Swaps the middle two of every four int16.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn swap_middles(x: __m256i) -> __m256i {
    _mm256_shufflehi_epi16::<0b1101_1000>(_mm256_shufflelo_epi16::<0b1101_1000>(x))
}

/// The nearest int16 of sixteen float32, in order.
#[inline]
#[target_feature(enable = "avx2")]
fn to_i16(x: F) -> __m256i {
    // Packing works within halves; the permutation brings the quarters in order.
    let packed = _mm256_packs_epi32(_mm256_cvtps_epi32(x[0]), _mm256_cvtps_epi32(x[1]));
    _mm256_permute4x64_epi64::<0b1101_1000>(packed)
}

/// See [`Simd::sum_quarters`]: two of the quarters.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_two_quarters([a, b, c, d]: [__m256; 4]) -> __m256 {
    let ab = _mm256_castps_pd(_mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)));
    let cd = _mm256_castps_pd(_mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d)));
    let (low, high) = (_mm256_unpacklo_pd(ab, cd), _mm256_unpackhi_pd(ab, cd));
    _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high))
}

/// See [`Simd::transpose_quarters`]: two of the quarters.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_two_quarters([a, b, c, d]: [__m256; 4]) -> [__m256; 4] {
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

/// `2^n`.
#[inline]
#[target_feature(enable = "avx2")]
fn power(n: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))))
}

/// Nearest, ties to even, no exception.
const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

impl<P: PairDot + QuadDot<I>> Simd for Avx2<P> {
    type I = I;
    type F = F;
    type Quads = P;

    const NR: usize = 4;
    const WIDE: bool = false;
    const BYTES_FIT: bool = P::BYTES_FIT;
    // Multiply-adds wait for loads when another thread shares the core, so one more for each sum costs them what it saves.
    const FLOAT_SUMS: bool = P::BYTES_FIT;

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
        #[target_feature(enable = "avx2,fma,f16c")]
        fn compiled<S: Simd, T: Task<S>>(s: S, task: T) {
            task.run(s);
        }
        // SAFETY: a token exists only where the CPU has the features.
        unsafe { compiled(self, task) }
    }

    #[inline(always)]
    unsafe fn store_quarters(self, to: *mut f32, stride: usize, x: F) {
        // SAFETY: the caller promises room for four elements at each of these places, and a token that the CPU has AVX.
        unsafe {
            _mm_storeu_ps(to, _mm256_castps256_ps128(x[0]));
            _mm_storeu_ps(to.add(stride), _mm256_extractf128_ps::<1>(x[0]));
            _mm_storeu_ps(to.add(2 * stride), _mm256_castps256_ps128(x[1]));
            _mm_storeu_ps(to.add(3 * stride), _mm256_extractf128_ps::<1>(x[1]));
        }
    }

    operations! { "avx2,fma,f16c";
        fn load_i(from: &[u8; 4 * LANES]) -> I {
            let [low, high]: &[[u8; 32]; 2] = must_cast_ref(from);
            [load_256(low), load_256(high)]
        }

        fn store_bits(to: &mut [f32; LANES], x: I) {
            let [low, high]: &mut [[u8; 32]; 2] = must_cast_mut(to);
            store_256(low, x[0]);
            store_256(high, x[1]);
        }

        fn splat_i(x: i32) -> I {
            [_mm256_set1_epi32(x); 2]
        }

        fn and(a: I, b: I) -> I {
            both!(_mm256_and_si256; a, b)
        }

        fn or(a: I, b: I) -> I {
            both!(_mm256_or_si256; a, b)
        }

        fn xor(a: I, b: I) -> I {
            both!(_mm256_xor_si256; a, b)
        }

        fn add_i(a: I, b: I) -> I {
            both!(_mm256_add_epi32; a, b)
        }

        fn shr(x: I, bits: u32) -> I {
            let bits = _mm_cvtsi32_si128(bits as i32);
            both!(_mm256_srl_epi32; x, [bits; 2])
        }

        fn shl(x: I, bits: u32) -> I {
            let bits = _mm_cvtsi32_si128(bits as i32);
            both!(_mm256_sll_epi32; x, [bits; 2])
        }

        fn even_bytes(x: I) -> I {
            let high = both!(_mm256_slli_epi16<8>; x);
            both!(_mm256_srai_epi16<8>; high)
        }

        fn odd_bytes(x: I) -> I {
            both!(_mm256_srai_epi16<8>; x)
        }

        fn look_up(table: &[i8; 16], bytes: I) -> I {
            let table = _mm256_broadcastsi128_si256(load_128(must_cast_ref(table)));
            both!(_mm256_shuffle_epi8; [table; 2], bytes)
        }

        fn sub_i16(a: I, b: I) -> I {
            both!(_mm256_sub_epi16; a, b)
        }

        fn to_float(x: I) -> F {
            both!(_mm256_cvtepi32_ps; x)
        }

        fn of_bits(x: I) -> F {
            both!(_mm256_castsi256_ps; x)
        }

        fn byte_pairs(a: &[u8; 2 * LANES], b: &[u8; 2 * LANES]) -> [I; 2] {
            let (a, b): (&[[u8; 16]; 2], &[[u8; 16]; 2]) = (must_cast_ref(a), must_cast_ref(b));
            let sixteen = |a: &[u8; 16], b: &[u8; 16]| {
                let (a, b) = (_mm256_cvtepu8_epi16(load_128(a)), _mm256_cvtepu8_epi16(load_128(b)));
                [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)]
            };
            [sixteen(&a[0], &b[0]), sixteen(&a[1], &b[1])]
        }

        fn in_order(x: [F; 2]) -> [F; 2] {
            let sixteen = |[low, high]: F| {
                [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)]
            };
            [sixteen(x[0]), sixteen(x[1])]
        }

        fn zero() -> F {
            [_mm256_setzero_ps(); 2]
        }

        fn splat(x: f32) -> F {
            [_mm256_set1_ps(x); 2]
        }

        fn load(from: &[f32; LANES]) -> F {
            let [low, high]: &[[f32; 8]; 2] = must_cast_ref(from);
            [load_ps(low), load_ps(high)]
        }

        fn store(to: &mut [f32; LANES], x: F) {
            // SAFETY: sixteen elements are there.
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), x[0]);
                _mm256_storeu_ps(to.as_mut_ptr().add(8), x[1]);
            }
        }

        fn load_first(from: &[f32]) -> F {
            let (n, from) = (from.len().min(LANES), from.as_ptr());
            // Lanes that the mask leaves out are not read, so the second pointer need not point to anything.
            let second = from.wrapping_add(8);
            // SAFETY: the masks let no more than the slice's elements be read.
            unsafe {
                [_mm256_maskload_ps(from, first(n)), _mm256_maskload_ps(second, first(n.saturating_sub(8)))]
            }
        }

        fn store_first(to: &mut [f32], x: F) {
            let (n, to) = (to.len().min(LANES), to.as_mut_ptr());
            let second = to.wrapping_add(8);
            // SAFETY: the masks let no more than the slice's elements be written.
            unsafe {
                _mm256_maskstore_ps(to, first(n), x[0]);
                _mm256_maskstore_ps(second, first(n.saturating_sub(8)), x[1]);
            }
        }

        fn load_f32(from: &[u8; 4 * LANES]) -> F {
            let [low, high]: &[[u8; 32]; 2] = must_cast_ref(from);
            [_mm256_castsi256_ps(load_256(low)), _mm256_castsi256_ps(load_256(high))]
        }

        fn load_f16(from: &[u8; 2 * LANES]) -> F {
            let [low, high]: &[[u8; 16]; 2] = must_cast_ref(from);
            [_mm256_cvtph_ps(load_128(low)), _mm256_cvtph_ps(load_128(high))]
        }

        fn load_bf16(from: &[u8; 2 * LANES]) -> F {
            let [low, high]: &[[u8; 16]; 2] = must_cast_ref(from);
            let halves = [_mm256_cvtepu16_epi32(load_128(low)), _mm256_cvtepu16_epi32(load_128(high))];
            let bits = both!(_mm256_slli_epi32<16>; halves);
            both!(_mm256_castsi256_ps; bits)
        }

        fn load_u8(from: &[u8; LANES]) -> F {
            let [low, high]: &[[u8; 8]; 2] = must_cast_ref(from);
            let ints = [_mm256_cvtepu8_epi32(load_64(low)), _mm256_cvtepu8_epi32(load_64(high))];
            both!(_mm256_cvtepi32_ps; ints)
        }

        fn load_i8(from: &[u8; LANES]) -> F {
            let [low, high]: &[[u8; 8]; 2] = must_cast_ref(from);
            let ints = [_mm256_cvtepi8_epi32(load_64(low)), _mm256_cvtepi8_epi32(load_64(high))];
            both!(_mm256_cvtepi32_ps; ints)
        }

        fn load_e4m3(from: &[u8; LANES]) -> F {
            // A float16 with the same bits at the top of its exponent and mantissa is 2^8 times smaller.
            let bits = _mm256_slli_epi16::<7>(_mm256_cvtepu8_epi16(load_128(from)));
            let halves = [_mm256_castsi256_si128(bits), _mm256_extracti128_si256::<1>(bits)];
            let floats = both!(_mm256_cvtph_ps; halves);
            both!(_mm256_mul_ps; floats, [_mm256_set1_ps(256.0); 2])
        }

        fn load_i16(from: &[i16; LANES]) -> F {
            let [low, high]: &[[u8; 16]; 2] = must_cast_ref(from);
            let ints = [_mm256_cvtepi16_epi32(load_128(low)), _mm256_cvtepi16_epi32(load_128(high))];
            both!(_mm256_cvtepi32_ps; ints)
        }

        fn load_nibbles(from: &[u8; LANES]) -> [F; 2] {
            let bytes = load_128(from);
            let mask = _mm_set1_epi8(15);
            let floats = |bytes: __m128i| {
                let halves = [bytes, _mm_srli_si128::<8>(bytes)];
                both!(_mm256_cvtepi32_ps; both!(_mm256_cvtepu8_epi32; halves))
            };
            [floats(_mm_and_si128(bytes, mask)), floats(_mm_and_si128(_mm_srli_epi16::<4>(bytes), mask))]
        }

        fn load_two(a: &[u8; 2 * LANES], b: &[u8; 2 * LANES]) -> F {
            [_mm256_castsi256_ps(load_256(a)), _mm256_castsi256_ps(load_256(b))]
        }

        fn load_f16_pairs(from: &[[u16; 2]; LANES]) -> [F; 2] {
            // Of each half of eight bytes: the first of four pairs, then the second.
            let apart = _mm256_setr_epi8(
                0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, //
                0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,
            );
            let eight = |pairs: &[u8; 32]| {
                _mm256_permute4x64_epi64::<0b1101_1000>(_mm256_shuffle_epi8(load_256(pairs), apart))
            };
            let [low, high]: &[[u8; 32]; 2] = must_cast_ref(from);
            let (low, high) = (eight(low), eight(high));
            let firsts = [_mm256_castsi256_si128(low), _mm256_castsi256_si128(high)];
            let seconds = [_mm256_extracti128_si256::<1>(low), _mm256_extracti128_si256::<1>(high)];
            [both!(_mm256_cvtph_ps; firsts), both!(_mm256_cvtph_ps; seconds)]
        }

        fn add(a: F, b: F) -> F {
            both!(_mm256_add_ps; a, b)
        }

        fn sub(a: F, b: F) -> F {
            both!(_mm256_sub_ps; a, b)
        }

        fn mul(a: F, b: F) -> F {
            both!(_mm256_mul_ps; a, b)
        }

        fn div(a: F, b: F) -> F {
            both!(_mm256_div_ps; a, b)
        }

        fn fma(a: F, b: F, c: F) -> F {
            both!(_mm256_fmadd_ps; a, b, c)
        }

        fn max(a: F, b: F) -> F {
            both!(_mm256_max_ps; a, b)
        }

        fn min(a: F, b: F) -> F {
            both!(_mm256_min_ps; a, b)
        }

        fn abs(x: F) -> F {
            let sign = _mm256_set1_ps(-0.0);
            both!(_mm256_andnot_ps; [sign; 2], x)
        }

        fn neg(x: F) -> F {
            both!(_mm256_xor_ps; [_mm256_set1_ps(-0.0); 2], x)
        }

        fn round(x: F) -> F {
            both!(_mm256_round_ps<NEAREST>; x)
        }

        fn scale_by_power(x: F, n: F) -> F {
            // In two steps, since 2^n itself may be no normal number.
            let n = both!(_mm256_cvtps_epi32; n);
            let half = both!(_mm256_srai_epi32<1>; n);
            let rest = both!(_mm256_sub_epi32; n, half);
            let scaled = both!(_mm256_mul_ps; x, both!(power; half));
            both!(_mm256_mul_ps; scaled, both!(power; rest))
        }

        fn sum(x: F) -> f32 {
            sum(_mm256_add_ps(x[0], x[1]))
        }

        fn max_lane(x: F) -> f32 {
            let eights = _mm256_max_ps(x[0], x[1]);
            let fours = _mm_max_ps(_mm256_castps256_ps128(eights), _mm256_extractf128_ps::<1>(eights));
            let twos = _mm_max_ps(fours, _mm_movehl_ps(fours, fours));
            _mm_cvtss_f32(_mm_max_ss(twos, _mm_shuffle_ps::<1>(twos, twos)))
        }

        fn load_quarter(from: &[f32; LANES / 4]) -> F {
            [_mm256_broadcast_ps(&_mm_castsi128_ps(load_128(must_cast_ref(from)))); 2]
        }

        fn transpose_quarters(x: [F; 4]) -> [F; 4] {
            let low = transpose_two_quarters(x.map(|x| x[0]));
            let high = transpose_two_quarters(x.map(|x| x[1]));
            std::array::from_fn(|n| [low[n], high[n]])
        }

        fn each_quarter(x: F) -> [F; 4] {
            [
                [_mm256_permute2f128_ps::<0x00>(x[0], x[0]); 2],
                [_mm256_permute2f128_ps::<0x11>(x[0], x[0]); 2],
                [_mm256_permute2f128_ps::<0x00>(x[1], x[1]); 2],
                [_mm256_permute2f128_ps::<0x11>(x[1], x[1]); 2],
            ]
        }

        fn split_quarters(a: F, b: F) -> [F; 2] {
            [
                [_mm256_permute2f128_ps::<0x20>(a[0], a[1]), _mm256_permute2f128_ps::<0x20>(b[0], b[1])],
                [_mm256_permute2f128_ps::<0x31>(a[0], a[1]), _mm256_permute2f128_ps::<0x31>(b[0], b[1])],
            ]
        }

        fn sum_quarters(x: [F; 4]) -> F {
            [sum_two_quarters(x.map(|x| x[0])), sum_two_quarters(x.map(|x| x[1]))]
        }

        fn keep_range(x: F, other: f32, range: [usize; 2], at: usize) -> F {
            let half = |x: __m256, at: usize| {
                let [before, until] = range.map(|bound| first(bound.saturating_sub(at).min(8)));
                let within = _mm256_castsi256_ps(_mm256_andnot_si256(before, until));
                _mm256_blendv_ps(_mm256_set1_ps(other), x, within)
            };
            [half(x[0], at), half(x[1], at + 8)]
        }

        fn keep_between(x: F, other: f32, at: F, bounds: [F; 2]) -> F {
            let from = both!(_mm256_cmp_ps<_CMP_GE_OQ>; at, bounds[0]);
            let until = both!(_mm256_cmp_ps<_CMP_LT_OQ>; at, bounds[1]);
            both!(_mm256_blendv_ps; [_mm256_set1_ps(other); 2], x, both!(_mm256_and_ps; from, until))
        }

        fn store_i16(to: &mut [i16; LANES], x: F) {
            store_256(must_cast_mut(to), to_i16(x));
        }

        fn store_i16_swapped(to: &mut [i16; LANES], x: F) {
            store_256(must_cast_mut(to), swap_middles(to_i16(x)));
        }

        fn store_i8(to: &mut [i8; LANES], x: F) {
            let codes = to_i16(x);
            let packed = _mm_packs_epi16(_mm256_castsi256_si128(codes), _mm256_extracti128_si256::<1>(codes));
            // SAFETY: sixteen bytes are there.
            unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), packed) };
        }
    }
}
