//! AMX: the products of a tile of tokens with a group of sixteen rows, in tile registers. Everything else is as with VNNI.
//!
//! A tile register has up to sixteen rows of 64 bytes. Of the three of a product, one has a token's bytes in each row, one a
//! quad of all sixteen rows of weights, as a panel has them, and one a token's sums with those, which vectors read from memory.
//! (Intel's Architecture Instruction Set Extensions Programming Reference, chapter 3.)

use std::arch::asm;
use std::arch::x86_64::__m512i;

use super::LANES;
use super::avx512::{PairDot, Vnni};
use super::quads::QuadDot;

/// With AVX-512 VNNI and AMX-INT8.
#[derive(Clone, Copy)]
pub(crate) struct Amx;

/// What LDTILECFG reads.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of each register's rows.
    row_bytes: [u16; 16],
    /// Rows of each register.
    rows: [u8; 16],
}

impl Shapes {
    /// Registers 0 and 1 have the sums of `tokens`, 2 and 3 the bytes of `quads` of theirs, 4 and 5 the weights' quads.
    const fn of(tokens: usize, quads: usize) -> Self {
        let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
        let mut set = 0;
        while set < 2 {
            (row_bytes[set], rows[set]) = (4 * LANES as u16, tokens as u8);
            (row_bytes[2 + set], rows[2 + set]) = (4 * quads as u16, tokens as u8);
            (row_bytes[4 + set], rows[4 + set]) = (4 * LANES as u16, quads as u8);
            set += 1;
        }
        Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    }
}

/// The shapes of `N` tokens and `Q` quads.
struct ShapesOf<const N: usize, const Q: usize>;

impl<const N: usize, const Q: usize> ShapesOf<N, Q> {
    const SHAPES: &'static Shapes = {
        assert!(N <= 16 && Q <= 16, "a register has sixteen rows of 64 bytes");
        &Shapes::of(N, Q)
    };
}

/// The products of one tile, to memory, in registers for its sums, its tokens and its weights.
macro_rules! tile_product {
    ($sums:expr, $quads:expr, $x:expr, $quad_bytes:expr, $to:tt $tokens:tt $weights:tt) => {
        asm!(
            concat!("tileloadd ", $tokens, ", [{x} + {x_step}]"),
            concat!("tileloadd ", $weights, ", [{quads} + {step}]"),
            concat!("tilezero ", $to),
            concat!("tdpbsud ", $to, ", ", $tokens, ", ", $weights),
            concat!("tilestored [{sums} + {step}], ", $to),
            x = in(reg) $x,
            x_step = in(reg) $quad_bytes,
            quads = in(reg) $quads,
            sums = in(reg) $sums,
            step = in(reg) 4 * LANES,
            out($to) _,
            out($tokens) _,
            out($weights) _,
            options(nostack, preserves_flags)
        )
    };
}

impl QuadDot<__m512i> for Amx {
    const BYTES_FIT: bool = Vnni::BYTES_FIT;
    const TILES: bool = true;

    #[inline(always)]
    unsafe fn dot_quads<const N: usize, const Q: usize>(
        sums: &mut [__m512i; N],
        codes: &[__m512i; Q],
        x: &[[f32; N]; Q],
        run: usize,
    ) {
        // SAFETY: the caller promises that the CPU has the instructions.
        unsafe { Vnni::dot_quads(sums, codes, x, run) }
    }

    #[inline(always)]
    unsafe fn dot_quad_twice<const N: usize>(
        sums: &mut [[__m512i; N]; 2],
        codes: [__m512i; 2],
        x: &[f32; N],
    ) {
        // SAFETY: the caller promises that the CPU has the instructions.
        unsafe { Vnni::dot_quad_twice(sums, codes, x) }
    }

    #[inline(always)]
    unsafe fn open_tiles<const N: usize, const Q: usize>() {
        let shapes: *const Shapes = ShapesOf::<N, Q>::SHAPES;
        // SAFETY: the caller promises that the CPU has the instruction, and the shapes are within those of palette 1.
        unsafe {
            asm!(
                "ldtilecfg [{shapes}]",
                shapes = in(reg) shapes,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(readonly, nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn close_tiles() {
        // SAFETY: the caller promises that the CPU has the instruction.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nomem, nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    unsafe fn dot_tile<const N: usize, const Q: usize>(
        set: usize,
        sums: &mut [[f32; LANES]; N],
        quads: &[[f32; LANES]; Q],
        x: &[[f32; N]; Q],
    ) {
        let (sums, quads, x) = (sums.as_mut_ptr(), quads.as_ptr(), x.as_ptr());
        // SAFETY: the caller promises that the registers are open for `N` and `Q`, so they read all of the quads and of `x`, and write
        // all of the sums.
        unsafe {
            match set {
                0 => tile_product!(sums, quads, x, 4 * Q, "tmm0" "tmm2" "tmm4"),
                _ => tile_product!(sums, quads, x, 4 * Q, "tmm1" "tmm3" "tmm5"),
            }
        }
    }
}

impl PairDot for Amx {
    #[inline(always)]
    unsafe fn dot_add<const N: usize>(sums: &mut [__m512i; N], a: __m512i, x: &[f32; N]) {
        // SAFETY: the caller promises that the CPU has the instructions.
        unsafe { Vnni::dot_add(sums, a, x) }
    }
}
