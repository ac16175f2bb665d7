//! Vectors of sixteen 32-bit lanes on each instruction set: one register, two or four.
//!
//! Kernels are written once, generic over [`Simd`], and marked `#[inline(always)]`; a variant ([`crate::variants`])
//! instantiates them inside functions compiled with the instruction set's features. A vector always has sixteen lanes, so
//! every variant does the same float operations in the same order and gives the same results.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx_quads;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_pairs;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon_quads;
pub(crate) mod quads;

use std::marker::PhantomData;

use quads::QuadDot;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// A token: a zero-sized value that proves that this CPU has an instruction set. Its methods are that instruction set's
/// vector operations. They are safe, since nobody has a token without the instructions; only those that take a raw
/// pointer have a contract. Loads and stores need no alignment beyond their element's.
pub(crate) trait Simd: Copy + 'static {
    /// Sixteen int32, or sixteen pairs of int16.
    type I: Copy;
    /// Sixteen float32.
    type F: Copy;

    /// Tokens in the widest tile of a float matmul's micro-kernel: as many as the registers hold accumulators for.
    const NR: usize;
    /// Whether a vector is one register, of 32, rather than two, of 16, or four, of 32: more accumulators fit, and shuffles
    /// across a whole vector are cheap.
    const WIDE: bool;
    /// Whether [`Simd::dot_quads`] adds products of any bytes as they are, whatever its `run`.
    const BYTES_FIT: bool;
    /// Whether the codes of [`Simd::dot_quads`] have a sign; otherwise those that have one get an offset.
    const SIGNED: bool = false;
    /// Whether int16 activations are multiplied as two bytes each, by [`Simd::dot_quads`], since that takes less than pairs, by
    /// [`Simd::dot_add`]. Then bytes have a sign, may all be -128, and always fit.
    const BYTEWISE: bool = false;
    /// Whether panels have quads as [`Simd::blocks_of`] gives them, for [`Simd::dot_panel`].
    const BLOCKS: bool = false;
    /// Whether there is [`Simd::dot_quad_twice`], and registers for its sums.
    const TWICE: bool = Self::WIDE && Self::BYTES_FIT;
    /// Whether sums of int8 products begin at the bits of a float, so that they need no conversion to one. That takes another load
    /// from memory for each, which is dearer where there are many.
    const FLOAT_SUMS: bool = Self::WIDE;
    /// How products of quads are added up.
    type Quads: QuadDot<Self::I>;
    /// Whether there are [`Tiles`].
    const TILES: bool = Self::Quads::TILES;

    /// A token.
    ///
    /// # Safety
    /// The CPU has the instruction set's features, and the system lets this process use them.
    unsafe fn new_unchecked() -> Self;

    /// Runs a task as a function of its own, so that it is compiled once for all that run it.
    fn apart<T: Task<Self>>(self, task: T);

    fn load_i(self, from: &[u8; 4 * LANES]) -> Self::I;
    /// The bits of sixteen floats as integers.
    #[inline(always)]
    fn load_bits(self, from: &[f32; LANES]) -> Self::I {
        self.load_i(bytemuck::must_cast_ref(from))
    }
    /// Stores integers as the bits of sixteen floats.
    fn store_bits(self, to: &mut [f32; LANES], x: Self::I);
    fn splat_i(self, x: i32) -> Self::I;
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    fn xor(self, a: Self::I, b: Self::I) -> Self::I;
    /// Adds int32 lanes.
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// Shifts each lane right by `bits`, filling with zeros.
    fn shr(self, x: Self::I, bits: u32) -> Self::I;
    fn shl(self, x: Self::I, bits: u32) -> Self::I;
    /// The low byte of each int16, sign-extended.
    fn even_bytes(self, x: Self::I) -> Self::I;
    /// The high byte of each int16, sign-extended.
    fn odd_bytes(self, x: Self::I) -> Self::I;
    /// Looks each byte (0 to 15) up in a table.
    fn look_up(self, table: &[i8; 16], bytes: Self::I) -> Self::I;
    /// Subtracts int16 lanes.
    fn sub_i16(self, a: Self::I, b: Self::I) -> Self::I;
    /// `sums[n] += a.0 * x[n].0 + a.1 * x[n].1`, where each lane of `a` is a pair of int16, and so are the bits of each
    /// element of `x`.
    fn dot_add<const N: usize>(self, sums: &mut [Self::I; N], a: Self::I, x: &[f32; N]);
    /// `sums[n] +=` the products of the four bytes of each of `codes`, without a sign unless they are [`Simd::SIGNED`], and those
    /// of the bits of `x[..][n]`, signed and none of them -128. `run` is [`quads::run`] of the codes' greatest.
    fn dot_quads<const N: usize, const Q: usize>(
        self,
        sums: &mut [Self::I; N],
        codes: &[Self::I; Q],
        x: &[[f32; N]; Q],
        run: usize,
    );
    /// The same for two vectors of codes, each with sums of its own: a token's bytes are read once for both.
    fn dot_quad_twice<const N: usize>(self, sums: &mut [[Self::I; N]; 2], codes: [Self::I; 2], x: &[f32; N]);
    /// Two neighbouring quads as blocks, which have both quads of a row side by side, where there are [`Simd::BLOCKS`].
    #[inline(always)]
    fn blocks_of(self, quads: [Self::I; 2]) -> [Self::I; 2] {
        quads
    }
    /// The quads of [`Simd::blocks_of`].
    #[inline(always)]
    fn quads_of(self, blocks: [Self::I; 2]) -> [Self::I; 2] {
        blocks
    }
    /// [`Simd::dot_quads`] of a panel's quads. Where they are blocks, each vector of `sums` has the same in all lanes before.
    #[inline(always)]
    fn dot_panel<const N: usize, const Q: usize>(
        self,
        sums: &mut [Self::I; N],
        quads: &[[f32; LANES]; Q],
        x: &[[f32; N]; Q],
        run: usize,
    ) {
        self.dot_quads(sums, &quads.each_ref().map(|codes| self.load_bits(codes)), x, run);
    }
    fn to_float(self, x: Self::I) -> Self::F;
    /// The floats of which the integers are the bits.
    fn of_bits(self, x: Self::I) -> Self::F;
    /// Zips two rows of bytes: each lane is a pair of int16, a byte of `a` and the byte of `b` at the same place. The lanes
    /// are in the order that [`Simd::in_order`] undoes.
    fn byte_pairs(self, a: &[u8; 2 * LANES], b: &[u8; 2 * LANES]) -> [Self::I; 2];
    /// Brings what was computed from the lanes of [`Simd::byte_pairs`] in the order of the bytes.
    fn in_order(self, x: [Self::F; 2]) -> [Self::F; 2];

    fn zero(self) -> Self::F;
    fn splat(self, x: f32) -> Self::F;
    fn load(self, from: &[f32; LANES]) -> Self::F;
    fn store(self, to: &mut [f32; LANES], x: Self::F);
    /// Loads a slice of at most sixteen elements (or the first sixteen), with zeros after them.
    fn load_first(self, from: &[f32]) -> Self::F;
    /// Stores as many lanes as the slice has room for.
    fn store_first(self, to: &mut [f32], x: Self::F);
    /// [`Simd::load`] from a pointer.
    ///
    /// # Safety
    /// Sixteen elements are readable there.
    #[inline(always)]
    unsafe fn load_ptr(self, from: *const f32) -> Self::F {
        // SAFETY: as the caller promises.
        self.load(unsafe { &*from.cast() })
    }
    /// [`Simd::store`] to a pointer.
    ///
    /// # Safety
    /// Sixteen elements are writable there, and nothing else refers to them.
    #[inline(always)]
    unsafe fn store_ptr(self, to: *mut f32, x: Self::F) {
        // SAFETY: as the caller promises.
        self.store(unsafe { &mut *to.cast() }, x);
    }
    /// Sixteen float32.
    fn load_f32(self, from: &[u8; 4 * LANES]) -> Self::F;
    /// Sixteen float16.
    fn load_f16(self, from: &[u8; 2 * LANES]) -> Self::F;
    /// Sixteen bfloat16.
    fn load_bf16(self, from: &[u8; 2 * LANES]) -> Self::F;
    fn load_u8(self, from: &[u8; LANES]) -> Self::F;
    fn load_i8(self, from: &[u8; LANES]) -> Self::F;
    /// Sixteen 8-bit floats of 3 bits of mantissa (E4M3, bias 7), none of which has its top bit set. All bits stand for
    /// numbers: there is no NaN.
    fn load_e4m3(self, from: &[u8; LANES]) -> Self::F;
    fn load_i16(self, from: &[i16; LANES]) -> Self::F;
    /// The low half of each byte, and the high half.
    fn load_nibbles(self, from: &[u8; LANES]) -> [Self::F; 2];
    /// The bits of eight float32 from each of two places.
    fn load_two(self, a: &[u8; 2 * LANES], b: &[u8; 2 * LANES]) -> Self::F;
    /// Sixteen pairs of float16, split: the first of each, and the second.
    fn load_f16_pairs(self, from: &[[u16; 2]; LANES]) -> [Self::F; 2];
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The greater of two; `b` where either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The lesser of two; `b` where either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    fn abs(self, x: Self::F) -> Self::F;
    fn neg(self, x: Self::F) -> Self::F;
    /// The nearest integer, ties to even.
    fn round(self, x: Self::F) -> Self::F;
    /// `x * 2^n`, for integers `n` between -252 and 252.
    fn scale_by_power(self, x: Self::F, n: Self::F) -> Self::F;
    /// The sum of all lanes, always in the same order.
    fn sum(self, x: Self::F) -> f32;
    /// The greatest lane.
    fn max_lane(self, x: Self::F) -> f32;
    /// Four elements, repeated in each quarter.
    fn load_quarter(self, from: &[f32; LANES / 4]) -> Self::F;
    /// Transposes each quarter: lane `4r + v` of vector `n` is lane `4r + n` of vector `v`.
    fn transpose_quarters(self, x: [Self::F; 4]) -> [Self::F; 4];
    /// Vector `n` repeats quarter `n` of `x` four times.
    fn each_quarter(self, x: Self::F) -> [Self::F; 4];
    /// Quarters 0 and 2 of both vectors, and quarters 1 and 3 of both.
    fn split_quarters(self, a: Self::F, b: Self::F) -> [Self::F; 2];
    /// Lane `4r + v` is the sum of the four lanes of quarter `r` of vector `v`, always in the same order.
    fn sum_quarters(self, x: [Self::F; 4]) -> Self::F;
    /// Stores quarter `r` at `to + r * stride`.
    ///
    /// # Safety
    /// Four elements are writable at each of the four places, and nothing else refers to them.
    unsafe fn store_quarters(self, to: *mut f32, stride: usize, x: Self::F);
    /// `x` in the lanes whose index, counted from `first`, is within `range`; `other` in the rest.
    fn keep_range(self, x: Self::F, other: f32, range: [usize; 2], first: usize) -> Self::F;
    /// `x` in the lanes where `bounds[0] <= at < bounds[1]`; `other` in the rest.
    fn keep_between(self, x: Self::F, other: f32, at: Self::F, bounds: [Self::F; 2]) -> Self::F;
    /// Stores the nearest int16 of each lane, all of which are within int16's range.
    fn store_i16(self, to: &mut [i16; LANES], x: Self::F);
    /// As [`Simd::store_i16`], with the middle two of every four lanes swapped.
    fn store_i16_swapped(self, to: &mut [i16; LANES], x: Self::F);
    /// Stores the nearest int8 of each lane, all of which are within int8's range.
    fn store_i8(self, to: &mut [i8; LANES], x: Self::F);
}

/// Tile registers, open for products of `N` tokens and `Q` quads. They are those of a thread, so it doesn't leave that.
pub(crate) struct Tiles<S: Simd, const N: usize, const Q: usize>(PhantomData<(S, *const ())>);

impl<S: Simd, const N: usize, const Q: usize> Tiles<S, N, Q> {
    /// Opens them.
    ///
    /// # Safety
    /// This thread has no others open, until these are dropped.
    #[inline(always)]
    pub(crate) unsafe fn open(_: S) -> Self {
        // SAFETY: a token exists only where the CPU has the instructions.
        unsafe { S::Quads::open_tiles::<N, Q>() };
        Self(PhantomData)
    }

    /// Multiplies the tokens' bytes, which have a sign, with quads of sixteen rows, which have none. `sums` are the bits of each token's
    /// sums. In `x` a token's bytes are side by side. There are two sets of registers, 0 and 1: a product in one doesn't wait for the
    /// other's.
    #[inline(always)]
    pub(crate) fn dot(
        &self,
        set: usize,
        sums: &mut [[f32; LANES]; N],
        quads: &[[f32; LANES]; Q],
        x: &[[f32; N]; Q],
    ) {
        // SAFETY: a token exists only where the CPU has the instructions, and the registers are open.
        unsafe { S::Quads::dot_tile(set, sums, quads, x) }
    }
}

impl<S: Simd, const N: usize, const Q: usize> Drop for Tiles<S, N, Q> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: a token exists only where the CPU has the instructions.
        unsafe { S::Quads::close_tiles() }
    }
}

/// What [`Simd::apart`] runs.
pub(crate) trait Task<S> {
    /// Runs it. Implementations are `#[inline(always)]`.
    fn run(self, s: S);
}

/// Gives an instruction set's operations as a token's methods. The bodies are compiled with its features, where the
/// intrinsics that touch no memory are safe.
macro_rules! operations {
    ($features:literal; $(fn $name:ident($($argument:tt: $type:ty),*) $(-> $result:ty)? $body:block)*) => {$(
        #[inline(always)]
        fn $name(self, $($argument: $type),*) $(-> $result)? {
            #[inline]
            #[target_feature(enable = $features)]
            fn compiled($($argument: $type),*) $(-> $result)? $body
            // SAFETY: a token exists only where the CPU has the features.
            unsafe { compiled($($argument),*) }
        }
    )*};
}
use operations;
