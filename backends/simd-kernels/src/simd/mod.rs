//! Vectors of sixteen 32-bit lanes, as each instruction set has them: one register or two.
//!
//! Kernels are written once, generic over [`Simd`], and marked `#[inline(always)]`; a variant ([`crate::variants`])
//! instantiates them inside functions compiled with the instruction set's features. The lanes are always sixteen, so
//! that every variant does the same float operations in the same order, and gives the same results.

pub(crate) mod avx2;
pub(crate) mod avx512;

/// Simd of a vector.
pub(crate) const LANES: usize = 16;

/// An instruction set's vectors.
///
/// # Safety
/// Every function needs the instruction set: it may only be called, directly or inlined, from a function that is compiled
/// with its features, on a CPU that has them. Functions that take a pointer need as many elements there as they name; no
/// alignment is needed.
pub(crate) trait Simd: 'static {
    /// Sixteen int32, or pairs of int16.
    type I: Copy;
    /// Sixteen float32.
    type F: Copy;

    /// Tokens that a panel's rows are multiplied with at once: as many as accumulators fit the registers.
    const NR: usize;

    unsafe fn load_i(from: *const u8) -> Self::I;
    unsafe fn store_i(to: *mut u8, x: Self::I);
    unsafe fn splat_i(x: i32) -> Self::I;
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    /// Each int32's sum.
    unsafe fn add_i(a: Self::I, b: Self::I) -> Self::I;
    /// Each lane shifted right by so many bits, zeros coming in.
    unsafe fn shr(x: Self::I, bits: u32) -> Self::I;
    unsafe fn shl(x: Self::I, bits: u32) -> Self::I;
    /// The low bytes of each int16, sign-extended.
    unsafe fn even_bytes(x: Self::I) -> Self::I;
    /// The high bytes of each int16, sign-extended.
    unsafe fn odd_bytes(x: Self::I) -> Self::I;
    /// Each byte's (0 to 15) entry in a table.
    unsafe fn look_up(table: &[i8; 16], bytes: Self::I) -> Self::I;
    /// Each int16 less another's.
    unsafe fn sub_i16(a: Self::I, b: Self::I) -> Self::I;
    /// `sums[n] += a.0 * x[n].0 + a.1 * x[n].1` over each lane's pair of int16, and the pairs `x` in memory.
    unsafe fn dot_add<const N: usize>(sums: &mut [Self::I; N], a: Self::I, x: *const i32);
    unsafe fn to_float(x: Self::I) -> Self::F;
    /// Thirty-two bytes of each of two rows: in each lane a pair of int16, a byte of the first and the same one of the
    /// second. The lanes' order is [`Simd::in_order`]'s.
    unsafe fn byte_pairs(a: *const u8, b: *const u8) -> [Self::I; 2];
    /// Numbers of [`Simd::byte_pairs`]' lanes, in the bytes' order.
    unsafe fn in_order(x: [Self::F; 2]) -> [Self::F; 2];

    unsafe fn zero() -> Self::F;
    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(from: *const f32) -> Self::F;
    unsafe fn store(to: *mut f32, x: Self::F);
    /// The first `n` (at most sixteen) elements there; zeros after them.
    unsafe fn load_first(from: *const f32, n: usize) -> Self::F;
    /// Stores the first `n` (at most sixteen) lanes.
    unsafe fn store_first(to: *mut f32, x: Self::F, n: usize);
    /// Sixteen float16.
    unsafe fn load_f16(from: *const u8) -> Self::F;
    /// Sixteen bfloat16.
    unsafe fn load_bf16(from: *const u8) -> Self::F;
    /// Sixteen uint8.
    unsafe fn load_u8(from: *const u8) -> Self::F;
    /// Sixteen int8.
    unsafe fn load_i8(from: *const u8) -> Self::F;
    /// Sixteen int16.
    unsafe fn load_i16(from: *const i16) -> Self::F;
    /// The low halves of sixteen bytes, and the high halves.
    unsafe fn load_nibbles(from: *const u8) -> [Self::F; 2];
    /// Eight elements, and after them eight from elsewhere.
    unsafe fn load_two(a: *const f32, b: *const f32) -> Self::F;
    /// The first float16 of each of sixteen pairs, and the second.
    unsafe fn load_f16_pairs(from: *const [u16; 2]) -> [Self::F; 2];
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The greater of two; `b` where either is NaN.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// The lesser of two; `b` where either is NaN.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn abs(x: Self::F) -> Self::F;
    unsafe fn neg(x: Self::F) -> Self::F;
    /// The nearest whole number, ties to even.
    unsafe fn round(x: Self::F) -> Self::F;
    /// `x * 2^n`, with `n` whole numbers between -252 and 252.
    unsafe fn scale_by_power(x: Self::F, n: Self::F) -> Self::F;
    /// The sum of all lanes, always in the same order.
    unsafe fn sum(x: Self::F) -> f32;
    /// The greatest lane.
    unsafe fn max_lane(x: Self::F) -> f32;
    /// Four elements, repeated in each quarter.
    unsafe fn load_quarter(from: *const f32) -> Self::F;
    /// In lane `4r + v` of vector `n` the lane `4r + n` of vector `v`: each quarter transposed.
    unsafe fn transpose_quarters(x: [Self::F; 4]) -> [Self::F; 4];
    /// Each quarter of a vector, repeated in all.
    unsafe fn each_quarter(x: Self::F) -> [Self::F; 4];
    /// Quarters 0 and 2 of two vectors, and quarters 1 and 3.
    unsafe fn split_quarters(a: Self::F, b: Self::F) -> [Self::F; 2];
    /// In lane `4r + v` the sum of the four lanes of quarter `r` of vector `v`, always in the same order.
    unsafe fn sum_quarters(x: [Self::F; 4]) -> Self::F;
    /// Stores quarter `r` at `to + r * stride`.
    unsafe fn store_quarters(to: *mut f32, stride: usize, x: Self::F);
    /// `x` in the lanes whose place, counted from `at`, is within `range`; `other` in the rest.
    unsafe fn keep(x: Self::F, other: f32, range: [usize; 2], at: usize) -> Self::F;
    /// `x` in the lanes in which `at` is no less than the first bound and less than the second; `other` in the rest.
    unsafe fn within(x: Self::F, other: f32, at: Self::F, bounds: [Self::F; 2]) -> Self::F;
    /// The nearest int16 of each lane (within int16's range), stored.
    unsafe fn store_i16(to: *mut i16, x: Self::F);
    /// As [`Simd::store_i16`], the middle two of every four lanes swapped.
    unsafe fn store_i16_swapped(to: *mut i16, x: Self::F);
}
