//! NEON: a vector is four registers. With FEAT_DotProd, multiplying quads and adding them up is one instruction; with
//! FEAT_I8MM one instruction multiplies two rows with two tokens.

use std::arch::aarch64::*;
use std::marker::PhantomData;

use bytemuck::{must_cast_mut, must_cast_ref};

use super::neon_pairs::add_pairs;
use super::neon_quads::PanelDot;
use super::{LANES, Simd, Task, operations};

type F = [float32x4_t; 4];
type I = [int32x4_t; 4];

/// Lanes of a register.
const FOUR: usize = 4;

/// An intrinsic on all registers.
macro_rules! each {
    ($function:ident $(::<$constant:literal>)?; $($x:expr),+) => {
        [
            $function$(::<$constant>)?($($x[0]),+),
            $function$(::<$constant>)?($($x[1]),+),
            $function$(::<$constant>)?($($x[2]),+),
            $function$(::<$constant>)?($($x[3]),+),
        ]
    };
}

/// The token of NEON, and of the instructions of `P`.
#[derive(Clone, Copy)]
pub(crate) struct Neon<P>(PhantomData<P>);

#[inline]
#[target_feature(enable = "neon")]
fn load_ints(from: &[u8; 16]) -> int32x4_t {
    // SAFETY: sixteen bytes are there.
    vreinterpretq_s32_u8(unsafe { vld1q_u8(from.as_ptr()) })
}

#[inline]
#[target_feature(enable = "neon")]
fn load_halves(from: &[u8; 8]) -> uint16x4_t {
    // SAFETY: eight bytes are there.
    vreinterpret_u16_u8(unsafe { vld1_u8(from.as_ptr()) })
}

#[inline]
#[target_feature(enable = "neon")]
fn load_floats(from: &[f32; FOUR]) -> float32x4_t {
    // SAFETY: four elements are there.
    unsafe { vld1q_f32(from.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn half_floats(bits: uint16x4_t) -> float32x4_t {
    vcvt_f32_f16(vreinterpret_f16_u16(bits))
}

#[inline]
#[target_feature(enable = "neon")]
fn as_bytes(x: int32x4_t) -> int8x16_t {
    vreinterpretq_s8_s32(x)
}

/// Sixteen bytes as float32.
#[inline]
#[target_feature(enable = "neon")]
fn bytes_to_floats(bytes: uint8x16_t) -> F {
    let halves = [vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes)];
    let ints = [
        vmovl_u16(vget_low_u16(halves[0])),
        vmovl_high_u16(halves[0]),
        vmovl_u16(vget_low_u16(halves[1])),
        vmovl_high_u16(halves[1]),
    ];
    each!(vcvtq_f32_u32; ints)
}

/// The greater; `b` where either is NaN.
#[inline]
#[target_feature(enable = "neon")]
fn greater(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // The instruction for it gives NaN for NaN.
    vbslq_f32(vcgtq_f32(a, b), a, b)
}

/// The lesser; `b` where either is NaN.
#[inline]
#[target_feature(enable = "neon")]
fn lesser(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vbslq_f32(vcltq_f32(a, b), a, b)
}

/// The nearest int16 of each lane, eight to a register.
#[inline]
#[target_feature(enable = "neon")]
fn to_i16(x: F) -> [int16x8_t; 2] {
    let ints = each!(vcvtnq_s32_f32; x);
    let narrow = |low, high| vqmovn_high_s32(vqmovn_s32(low), high);
    [narrow(ints[0], ints[1]), narrow(ints[2], ints[3])]
}

#[inline]
#[target_feature(enable = "neon")]
fn store_shorts(to: &mut [i16; LANES], x: [int16x8_t; 2]) {
    // SAFETY: sixteen elements are there.
    unsafe {
        vst1q_s16(to.as_mut_ptr(), x[0]);
        vst1q_s16(to.as_mut_ptr().add(8), x[1]);
    }
}

/// `2^n`.
#[inline]
#[target_feature(enable = "neon")]
fn power(n: int32x4_t) -> float32x4_t {
    vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127))))
}

/// The first two lanes of `a` and then of `b`; and the last two.
#[inline]
#[target_feature(enable = "neon")]
fn zip_twos(a: float32x4_t, b: float32x4_t) -> [float32x4_t; 2] {
    let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
    [vreinterpretq_f32_f64(vzip1q_f64(a, b)), vreinterpretq_f32_f64(vzip2q_f64(a, b))]
}

/// See [`Simd::transpose_quarters`]: one of the quarters.
#[inline]
#[target_feature(enable = "neon")]
fn transpose([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    let [first, second] = zip_twos(vtrn1q_f32(a, b), vtrn1q_f32(c, d));
    let [third, fourth] = zip_twos(vtrn2q_f32(a, b), vtrn2q_f32(c, d));
    // Lanes 0 and 2 are in the one pair, lanes 1 and 3 in the other.
    [first, third, second, fourth]
}

/// See [`Simd::sum_quarters`]: one of the quarters.
#[inline]
#[target_feature(enable = "neon")]
fn sum_quarter([a, b, c, d]: [float32x4_t; 4]) -> float32x4_t {
    let ab = vaddq_f32(vzip1q_f32(a, b), vzip2q_f32(a, b));
    let cd = vaddq_f32(vzip1q_f32(c, d), vzip2q_f32(c, d));
    let [low, high] = zip_twos(ab, cd);
    vaddq_f32(low, high)
}

impl<P: PanelDot> Simd for Neon<P> {
    type I = I;
    type F = F;
    type Quads = P;

    const NR: usize = 4;
    const WIDE: bool = false;
    const BYTES_FIT: bool = P::BYTES_FIT;
    const SIGNED: bool = true;
    // An instruction multiplies sixteen bytes, or only four int16.
    const BYTEWISE: bool = P::BYTES_FIT;
    const BLOCKS: bool = P::BLOCKS;

    #[inline(always)]
    unsafe fn new_unchecked() -> Self {
        Self(PhantomData)
    }

    #[inline(always)]
    fn dot_add<const N: usize>(self, sums: &mut [I; N], a: I, x: &[f32; N]) {
        // SAFETY: a token exists only where the CPU has the instructions.
        unsafe { add_pairs(sums, a, x) }
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
    fn dot_panel<const N: usize, const Q: usize>(
        self,
        sums: &mut [I; N],
        quads: &[[f32; LANES]; Q],
        x: &[[f32; N]; Q],
        run: usize,
    ) {
        // SAFETY: a token exists only where the CPU has the instructions.
        unsafe { P::dot_panel(sums, quads, x, run) }
    }

    #[inline(always)]
    fn dot_quad_twice<const N: usize>(self, sums: &mut [[I; N]; 2], codes: [I; 2], x: &[f32; N]) {
        // SAFETY: a token exists only where the CPU has the instructions.
        unsafe { P::dot_quad_twice(sums, codes, x) }
    }

    #[inline(always)]
    fn apart<T: Task<Self>>(self, task: T) {
        #[inline(never)]
        #[target_feature(enable = "neon")]
        fn compiled<S: Simd, T: Task<S>>(s: S, task: T) {
            task.run(s);
        }
        // SAFETY: a token exists only where the CPU has the features.
        unsafe { compiled(self, task) }
    }

    #[inline(always)]
    unsafe fn store_quarters(self, to: *mut f32, stride: usize, x: F) {
        for (quarter, x) in x.into_iter().enumerate() {
            // SAFETY: the caller promises room for four elements at each of these places, and a token that the CPU has NEON.
            unsafe { vst1q_f32(to.add(quarter * stride), x) };
        }
    }

    operations! { "neon";
        fn load_i(from: &[u8; 4 * LANES]) -> I {
            let [a, b, c, d]: &[[u8; 16]; 4] = must_cast_ref(from);
            [load_ints(a), load_ints(b), load_ints(c), load_ints(d)]
        }

        fn store_bits(to: &mut [f32; LANES], x: I) {
            let to: &mut [[i32; FOUR]; 4] = must_cast_mut(to);
            for (to, x) in to.iter_mut().zip(x) {
                // SAFETY: four elements are there.
                unsafe { vst1q_s32(to.as_mut_ptr(), x) };
            }
        }

        fn splat_i(x: i32) -> I {
            [vdupq_n_s32(x); 4]
        }

        fn and(a: I, b: I) -> I {
            each!(vandq_s32; a, b)
        }

        fn or(a: I, b: I) -> I {
            each!(vorrq_s32; a, b)
        }

        fn xor(a: I, b: I) -> I {
            each!(veorq_s32; a, b)
        }

        fn add_i(a: I, b: I) -> I {
            each!(vaddq_s32; a, b)
        }

        fn shr(x: I, bits: u32) -> I {
            // Shifting left by less than nothing shifts right.
            let bits = [vdupq_n_s32(-(bits as i32)); 4];
            let x = each!(vreinterpretq_u32_s32; x);
            let x = each!(vshlq_u32; x, bits);
            each!(vreinterpretq_s32_u32; x)
        }

        fn shl(x: I, bits: u32) -> I {
            each!(vshlq_s32; x, [vdupq_n_s32(bits as i32); 4])
        }

        fn even_bytes(x: I) -> I {
            let x = each!(vreinterpretq_s16_s32; x);
            let high = each!(vshlq_n_s16::<8>; x);
            let x = each!(vshrq_n_s16::<8>; high);
            each!(vreinterpretq_s32_s16; x)
        }

        fn odd_bytes(x: I) -> I {
            let x = each!(vreinterpretq_s16_s32; x);
            let x = each!(vshrq_n_s16::<8>; x);
            each!(vreinterpretq_s32_s16; x)
        }

        fn look_up(table: &[i8; 16], bytes: I) -> I {
            // SAFETY: sixteen elements are there.
            let table = [unsafe { vld1q_s8(table.as_ptr()) }; 4];
            let bytes = each!(vreinterpretq_u8_s32; bytes);
            let found = each!(vqtbl1q_s8; table, bytes);
            each!(vreinterpretq_s32_s8; found)
        }

        fn sub_i16(a: I, b: I) -> I {
            let (a, b) = (each!(vreinterpretq_s16_s32; a), each!(vreinterpretq_s16_s32; b));
            let x = each!(vsubq_s16; a, b);
            each!(vreinterpretq_s32_s16; x)
        }

        fn to_float(x: I) -> F {
            each!(vcvtq_f32_s32; x)
        }

        fn of_bits(x: I) -> F {
            each!(vreinterpretq_f32_s32; x)
        }

        fn byte_pairs(a: &[u8; 2 * LANES], b: &[u8; 2 * LANES]) -> [I; 2] {
            let (a, b): (&[[u8; 16]; 2], &[[u8; 16]; 2]) = (must_cast_ref(a), must_cast_ref(b));
            let sixteen = |a: &[u8; 16], b: &[u8; 16]| {
                let (a, b) = (vreinterpretq_u8_s32(load_ints(a)), vreinterpretq_u8_s32(load_ints(b)));
                let (low, high) = (vzip1q_u8(a, b), vzip2q_u8(a, b));
                let pairs = [
                    vmovl_u8(vget_low_u8(low)), vmovl_high_u8(low),
                    vmovl_u8(vget_low_u8(high)), vmovl_high_u8(high),
                ];
                each!(vreinterpretq_s32_u16; pairs)
            };
            [sixteen(&a[0], &b[0]), sixteen(&a[1], &b[1])]
        }

        fn in_order(x: [F; 2]) -> [F; 2] {
            x
        }

        fn blocks_of(quads: [I; 2]) -> [I; 2] {
            let [a, b] = quads;
            let (low, high) = (each!(vzip1q_s32; a, b), each!(vzip2q_s32; a, b));
            [[low[0], high[0], low[1], high[1]], [low[2], high[2], low[3], high[3]]]
        }

        fn quads_of(blocks: [I; 2]) -> [I; 2] {
            let [a, b] = blocks;
            let (low, high) = ([a[0], a[2], b[0], b[2]], [a[1], a[3], b[1], b[3]]);
            [each!(vuzp1q_s32; low, high), each!(vuzp2q_s32; low, high)]
        }

        fn zero() -> F {
            [vdupq_n_f32(0.0); 4]
        }

        fn splat(x: f32) -> F {
            [vdupq_n_f32(x); 4]
        }

        fn load(from: &[f32; LANES]) -> F {
            let [a, b, c, d]: &[[f32; FOUR]; 4] = must_cast_ref(from);
            [load_floats(a), load_floats(b), load_floats(c), load_floats(d)]
        }

        fn store(to: &mut [f32; LANES], x: F) {
            let to: &mut [[f32; FOUR]; 4] = must_cast_mut(to);
            for (to, x) in to.iter_mut().zip(x) {
                // SAFETY: four elements are there.
                unsafe { vst1q_f32(to.as_mut_ptr(), x) };
            }
        }

        fn load_first(from: &[f32]) -> F {
            let mut all = [[0.0; FOUR]; 4];
            let n = from.len().min(LANES);
            all.as_flattened_mut()[..n].copy_from_slice(&from[..n]);
            each!(load_floats; all.each_ref())
        }

        fn store_first(to: &mut [f32], x: F) {
            let mut all = [[0.0; FOUR]; 4];
            for (to, x) in all.iter_mut().zip(x) {
                // SAFETY: four elements are there.
                unsafe { vst1q_f32(to.as_mut_ptr(), x) };
            }
            let n = to.len().min(LANES);
            to[..n].copy_from_slice(&all.as_flattened()[..n]);
        }

        fn load_f32(from: &[u8; 4 * LANES]) -> F {
            let [a, b, c, d]: &[[u8; 16]; 4] = must_cast_ref(from);
            let bits = [load_ints(a), load_ints(b), load_ints(c), load_ints(d)];
            each!(vreinterpretq_f32_s32; bits)
        }

        fn load_f16(from: &[u8; 2 * LANES]) -> F {
            let [a, b, c, d]: &[[u8; 8]; 4] = must_cast_ref(from);
            let halves = [load_halves(a), load_halves(b), load_halves(c), load_halves(d)];
            each!(half_floats; halves)
        }

        fn load_bf16(from: &[u8; 2 * LANES]) -> F {
            let [a, b, c, d]: &[[u8; 8]; 4] = must_cast_ref(from);
            let halves = [load_halves(a), load_halves(b), load_halves(c), load_halves(d)];
            let bits = each!(vshll_n_u16::<16>; halves);
            each!(vreinterpretq_f32_u32; bits)
        }

        fn load_u8(from: &[u8; LANES]) -> F {
            bytes_to_floats(vreinterpretq_u8_s32(load_ints(from)))
        }

        fn load_i8(from: &[u8; LANES]) -> F {
            let bytes = as_bytes(load_ints(from));
            let halves = [vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)];
            let ints = [
                vmovl_s16(vget_low_s16(halves[0])), vmovl_high_s16(halves[0]),
                vmovl_s16(vget_low_s16(halves[1])), vmovl_high_s16(halves[1]),
            ];
            each!(vcvtq_f32_s32; ints)
        }

        fn load_e4m3(from: &[u8; LANES]) -> F {
            // A float16 with the same bits at the top of its exponent and mantissa is 2^8 times smaller.
            let bytes = vreinterpretq_u8_s32(load_ints(from));
            let halves = [vshll_n_u8::<7>(vget_low_u8(bytes)), vshll_high_n_u8::<7>(bytes)];
            let halves = [
                vget_low_u16(halves[0]), vget_high_u16(halves[0]), vget_low_u16(halves[1]), vget_high_u16(halves[1]),
            ];
            let floats = each!(half_floats; halves);
            each!(vmulq_f32; floats, [vdupq_n_f32(256.0); 4])
        }

        fn load_i16(from: &[i16; LANES]) -> F {
            let [a, b, c, d]: &[[u8; 8]; 4] = must_cast_ref(from);
            let halves = [load_halves(a), load_halves(b), load_halves(c), load_halves(d)];
            let halves = each!(vreinterpret_s16_u16; halves);
            let ints = each!(vmovl_s16; halves);
            each!(vcvtq_f32_s32; ints)
        }

        fn load_nibbles(from: &[u8; LANES]) -> [F; 2] {
            let bytes = vreinterpretq_u8_s32(load_ints(from));
            [bytes_to_floats(vandq_u8(bytes, vdupq_n_u8(15))), bytes_to_floats(vshrq_n_u8::<4>(bytes))]
        }

        fn load_two(a: &[u8; 2 * LANES], b: &[u8; 2 * LANES]) -> F {
            let ([a, b], [c, d]): (&[[u8; 16]; 2], &[[u8; 16]; 2]) = (must_cast_ref(a), must_cast_ref(b));
            let bits = [load_ints(a), load_ints(b), load_ints(c), load_ints(d)];
            each!(vreinterpretq_f32_s32; bits)
        }

        fn load_f16_pairs(from: &[[u16; 2]; LANES]) -> [F; 2] {
            let [a, b, c, d]: &[[u8; 16]; 4] = must_cast_ref(from);
            let pairs = [load_ints(a), load_ints(b), load_ints(c), load_ints(d)];
            let pairs = each!(vreinterpretq_u32_s32; pairs);
            let (firsts, seconds) = (each!(vmovn_u32; pairs), each!(vshrn_n_u32::<16>; pairs));
            [each!(half_floats; firsts), each!(half_floats; seconds)]
        }

        fn add(a: F, b: F) -> F {
            each!(vaddq_f32; a, b)
        }

        fn sub(a: F, b: F) -> F {
            each!(vsubq_f32; a, b)
        }

        fn mul(a: F, b: F) -> F {
            each!(vmulq_f32; a, b)
        }

        fn div(a: F, b: F) -> F {
            each!(vdivq_f32; a, b)
        }

        fn fma(a: F, b: F, c: F) -> F {
            each!(vfmaq_f32; c, a, b)
        }

        fn max(a: F, b: F) -> F {
            each!(greater; a, b)
        }

        fn min(a: F, b: F) -> F {
            each!(lesser; a, b)
        }

        fn abs(x: F) -> F {
            each!(vabsq_f32; x)
        }

        fn neg(x: F) -> F {
            each!(vnegq_f32; x)
        }

        fn round(x: F) -> F {
            each!(vrndnq_f32; x)
        }

        fn scale_by_power(x: F, n: F) -> F {
            // In two steps, since 2^n itself may be no normal number.
            let n = each!(vcvtnq_s32_f32; n);
            let half = each!(vshrq_n_s32::<1>; n);
            let rest = each!(vsubq_s32; n, half);
            let scaled = each!(vmulq_f32; x, each!(power; half));
            each!(vmulq_f32; scaled, each!(power; rest))
        }

        fn sum(x: F) -> f32 {
            // Halves, then quarters, and so on, as in registers of other sizes.
            let fours = vaddq_f32(vaddq_f32(x[0], x[2]), vaddq_f32(x[1], x[3]));
            let twos = vadd_f32(vget_low_f32(fours), vget_high_f32(fours));
            vget_lane_f32::<0>(twos) + vget_lane_f32::<1>(twos)
        }

        fn max_lane(x: F) -> f32 {
            let fours = greater(greater(x[0], x[2]), greater(x[1], x[3]));
            let twos = greater(fours, vextq_f32::<2>(fours, fours));
            vgetq_lane_f32::<0>(greater(twos, vextq_f32::<1>(twos, twos)))
        }

        fn load_quarter(from: &[f32; LANES / 4]) -> F {
            [load_floats(from); 4]
        }

        fn transpose_quarters(x: [F; 4]) -> [F; 4] {
            let quarters: [_; 4] = std::array::from_fn(|quarter| x.map(|x| x[quarter]));
            let quarters = each!(transpose; quarters);
            std::array::from_fn(|n| quarters.map(|quarter| quarter[n]))
        }

        fn each_quarter(x: F) -> [F; 4] {
            x.map(|quarter| [quarter; 4])
        }

        fn split_quarters(a: F, b: F) -> [F; 2] {
            [[a[0], a[2], b[0], b[2]], [a[1], a[3], b[1], b[3]]]
        }

        fn sum_quarters(x: [F; 4]) -> F {
            let quarters: [_; 4] = std::array::from_fn(|quarter| x.map(|x| x[quarter]));
            each!(sum_quarter; quarters)
        }

        fn keep_range(x: F, other: f32, range: [usize; 2], at: usize) -> F {
            let [first, end] = range.map(|bound| [vdupq_n_s32(bound.saturating_sub(at).min(LANES) as i32); 4]);
            let lanes: [[i32; FOUR]; 4] = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]];
            // SAFETY: four elements are there.
            let lanes = lanes.each_ref().map(|lanes| unsafe { vld1q_s32(lanes.as_ptr()) });
            let (from, until) = (each!(vcgeq_s32; lanes, first), each!(vcltq_s32; lanes, end));
            let within = each!(vandq_u32; from, until);
            each!(vbslq_f32; within, x, [vdupq_n_f32(other); 4])
        }

        fn keep_between(x: F, other: f32, at: F, bounds: [F; 2]) -> F {
            let (from, until) = (each!(vcgeq_f32; at, bounds[0]), each!(vcltq_f32; at, bounds[1]));
            let within = each!(vandq_u32; from, until);
            each!(vbslq_f32; within, x, [vdupq_n_f32(other); 4])
        }

        fn store_i16(to: &mut [i16; LANES], x: F) {
            store_shorts(to, to_i16(x));
        }

        fn store_i16_swapped(to: &mut [i16; LANES], x: F) {
            const SWAPPED: [u8; 16] = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15];
            let order = vreinterpretq_u8_s32(load_ints(&SWAPPED));
            let swap = |x| vreinterpretq_s16_s8(vqtbl1q_s8(vreinterpretq_s8_s16(x), order));
            let [low, high] = to_i16(x);
            store_shorts(to, [swap(low), swap(high)]);
        }

        fn store_i8(to: &mut [i8; LANES], x: F) {
            let [low, high] = to_i16(x);
            // SAFETY: sixteen bytes are there.
            unsafe { vst1q_s8(to.as_mut_ptr(), vqmovn_high_s16(vqmovn_s16(low), high)) };
        }
    }
}
