//! How weights are stored, so that every layer and backend reads every file the same way.
//!
//! A tensor's row is either plain floats ([`floats`]) or a run of blocks, each holding 32 or 256 small integers
//! ("codes") and the scales that turn them back into numbers. The formats are those of GGUF's `ggml_type`; the
//! specification is <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, and the layout of each is described
//! where it is defined:
//!
//! - [`legacy`]: `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1`, `Q8_0`, of 32 weights with one scale;
//! - [`k_quants`]: `Q2_K` to `Q6_K`, of 256 weights whose groups of 16 or 32 have scales of their own;
//! - [`iq4`]: `IQ4_NL`, `IQ4_XS`, whose codes index a table of unevenly spaced levels;
//! - [`mxfp4`]: `MXFP4`, of 32 4-bit floats with one power of two;
//! - [`nvfp4`]: `NVFP4`, of 64 4-bit floats with an 8-bit one for each 16;
//! - [`iq3`], [`iq2`], [`iq1`]: `IQ3_S` to `IQ1_S`, of 256 weights, eight or four of which are a point of a [codebook](codebooks);
//! - [`ternary`]: `TQ1_0`, `TQ2_0`, of 256 weights of three values.
//!
//! [`dispatch`] leads from a [`DType`] to the type that holds its floats or blocks: it has one row for each, and all code
//! that differs by element type goes through it.
//!
//! A block only says how its bits unpack ([`Block::unpack`]) into one of two shapes, [`Symmetric`] or [`Affine`];
//! the arithmetic is written once, over those ([`groups`]). It is portable, and the reference that faster kernels are
//! tested against. It is also written so that a compiler vectorises it for whatever the target has.
//!
//! Rows come straight from a mapped file, so every block type is made of bytes and has alignment 1; numbers of more
//! than a byte are little-endian on every machine.

/// [`Block::scales`] and [`Block::set_scales`] of blocks that have one float16 scale, or two.
macro_rules! block_scales {
    ($scale:ident) => {
        fn scales(&self) -> [f32; 2] {
            [self.$scale.to_f32(), 0.0]
        }

        fn set_scales(&mut self, [scale, _]: [f32; 2]) {
            self.$scale = F16::from_f32(scale);
        }
    };
    ($scale:ident, $offset:ident) => {
        fn scales(&self) -> [f32; 2] {
            [self.$scale.to_f32(), self.$offset.to_f32()]
        }

        fn set_scales(&mut self, [scale, offset]: [f32; 2]) {
            self.$scale = F16::from_f32(scale);
            self.$offset = F16::from_f32(offset);
        }
    };
}

pub mod codebooks;
mod files;
pub mod floats;
pub mod groups;
pub mod iq1;
pub mod iq2;
pub mod iq3;
pub mod iq4;
pub mod k_quants;
pub mod legacy;
pub mod mxfp4;
pub mod nvfp4;
mod quantize;
pub mod ternary;

use bytemuck::Pod;
pub use herald_api::DType;

pub use files::{dtype_for_rows, file_type};
use floats::Float;
pub use groups::{Affine, Symmetric, Unpacked};
pub use quantize::{Unstorable, is_writable, largest, quantize_row, quantize_row_for};

/// Evaluates an expression with the type that holds an element type's floats, or its blocks: `F` is a
/// [`Float`](floats::Float) and `B` a [`Block`]. It is a `match`, so the names are of one type in each
/// arm, and the expressions may ask more of it than the two traits say.
///
/// ```
/// use herald_formats::{Block, DType, dispatch, floats::Float};
///
/// let name = |dtype: DType| dispatch!(dtype, float F => F::DTYPE.name(), block B => B::DTYPE.name());
/// assert_eq!(name(DType::Q4K), "Q4_K");
/// ```
#[macro_export]
macro_rules! dispatch {
    ($dtype:expr, float $F:ident => $of_float:expr, block $B:ident => $of_block:expr $(,)?) => {
        $crate::dispatch!(@match $dtype, $F => $of_float, $B => $of_block,
            floats {
                floats::F32,
                floats::F16,
                floats::Bf16,
            }
            blocks {
                legacy::Q4_0,
                legacy::Q4_1,
                legacy::Q5_0,
                legacy::Q5_1,
                legacy::Q8_0,
                k_quants::Q2K,
                k_quants::Q3K,
                k_quants::Q4K,
                k_quants::Q5K,
                k_quants::Q6K,
                iq4::Iq4Nl,
                iq4::Iq4Xs,
                mxfp4::Mxfp4,
                nvfp4::Nvfp4,
                iq1::Iq1S,
                iq1::Iq1M,
                iq2::Iq2Xxs,
                iq2::Iq2Xs,
                iq2::Iq2S,
                iq3::Iq3Xxs,
                iq3::Iq3S,
                ternary::Tq1_0,
                ternary::Tq2_0,
            }
        )
    };
    (@match $dtype:expr, $F:ident => $of_float:expr, $B:ident => $of_block:expr,
        floats { $($float_module:ident::$float:ident,)* }
        blocks { $($block_module:ident::$block:ident,)* }
    ) => {
        match $dtype {
            $($crate::DType::$float => {
                #[allow(dead_code, reason = "not every expression differs by type")]
                type $F = $crate::$float_module::$float;
                $of_float
            })*
            $($crate::DType::$block => {
                #[allow(dead_code, reason = "not every expression differs by type")]
                type $B = $crate::$block_module::$block;
                $of_block
            })*
        }
    };
}

/// Makes a block of numbers, which may differ in importance.
pub type QuantizeBlock<B> = fn(&[f32], Option<&[f32]>) -> B;

/// A block of quantised weights, as it lies in a file: plain bytes at any alignment.
pub trait Block: Pod {
    /// The element type whose blocks these are.
    const DTYPE: DType;

    /// GGUF's number for files most of whose weights are of this type (`general.file_type`); of the K formats, the number
    /// of the mixture that is nearest to uniform.
    const FILE_TYPE: u32;

    /// The type for rows that aren't a whole number of blocks: one of about the same size, or a little larger, whose blocks
    /// are smaller.
    const FALLBACK: DType;

    /// Makes the block that stands for [`Unpacked::LEN`] weights best, whose magnitudes float16 holds, where the
    /// squares of errors count by a second number of each, around 1, if it is known. `None` where HERALD reads the format but
    /// doesn't write it.
    const QUANTIZE: Option<QuantizeBlock<Self>>;

    /// The block's codes and scales, one way for every format.
    type Unpacked: Unpacked;

    /// Unpacks the codes and scales from their bits.
    fn unpack(&self) -> Self::Unpacked;

    /// The block's own scale: what its codes, times their groups' small integer scales, are multiplied with. Then what its
    /// offsets are in units of, or 0 in formats without.
    fn scales(&self) -> [f32; 2];

    /// Replaces the block's own scales by the nearest that the format has. Random blocks get a size this way, and scales
    /// of 1 lay bare the integers that they multiply.
    fn set_scales(&mut self, scales: [f32; 2]);
}

/// What can be done with a row of one element type, resolved once so that no row pays for a dispatch.
///
/// A row is `n` weights in `n / block_len * block_bytes` bytes, at any alignment. Both functions panic where the row
/// and the other slice disagree on `n`, which is a mistake of the caller's: the loader checks every tensor's size.
#[derive(Clone, Copy, Debug)]
pub struct RowKernels {
    /// Writes the `n` weights of a row as float32: exactly the format's formula, rounded after each operation.
    pub dequantize: fn(row: &[u8], out: &mut [f32]),
    /// The dot product of a row's `n` weights `w` with `n` activations `x`, in float32, summed in no particular order,
    /// codes and offsets together or apart. Those of [`row_kernels`] are within `(n / 32 + 7) * 2^-24 * sum(|w x|)` of the
    /// exact one, but for underflow; a backend's own may be off by what any order of a sum of `n` may.
    pub dot: fn(row: &[u8], x: &[f32]) -> f32,
}

/// The kernels for rows of `dtype`.
#[must_use]
pub fn row_kernels(dtype: DType) -> RowKernels {
    dispatch!(dtype, float F => of_floats::<F>(), block B => of_blocks::<B>())
}

/// Writes the weights of a row of `dtype` as float32; see [`RowKernels::dequantize`].
///
/// # Panics
///
/// Where `row` isn't as long as `out.len()` weights of `dtype` are.
pub fn dequantize_row(dtype: DType, row: &[u8], out: &mut [f32]) {
    (row_kernels(dtype).dequantize)(row, out);
}

/// The dot product of a row of `dtype` with the activations `x`; see [`RowKernels::dot`].
///
/// # Panics
///
/// Where `row` isn't as long as `x.len()` weights of `dtype` are.
#[must_use]
pub fn dot_row(dtype: DType, row: &[u8], x: &[f32]) -> f32 {
    (row_kernels(dtype).dot)(row, x)
}

fn of_floats<F: Float>() -> RowKernels {
    RowKernels {
        dequantize: |row, out| floats::dequantize(elements::<F>(F::DTYPE, row, out.len()), out),
        dot: |row, x| floats::dot(elements::<F>(F::DTYPE, row, x.len()), x),
    }
}

fn of_blocks<B: Block>() -> RowKernels {
    RowKernels {
        dequantize: |row, out| groups::dequantize(elements::<B>(B::DTYPE, row, out.len()), out),
        dot: |row, x| groups::dot(elements::<B>(B::DTYPE, row, x.len()), x),
    }
}

/// A row's bytes as the blocks or floats that they hold.
fn elements<T: Pod>(dtype: DType, row: &[u8], len: usize) -> &[T] {
    const { assert!(align_of::<T>() == 1, "rows of a mapped file have any alignment") };
    assert!(
        dtype.row_bytes(len) == Some(row.len()),
        "a row of {} bytes doesn't hold exactly {len} weights of type {dtype}",
        row.len()
    );
    bytemuck::cast_slice(row)
}

/// The number that these bits are as a float16.
#[inline(always)]
#[must_use]
pub fn f16_value(bits: u16) -> f32 {
    floats::Float::to_f32(floats::F16(bits.to_le_bytes()))
}
