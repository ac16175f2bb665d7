//! Products of quads: four bytes of weights in each lane, with four signed bytes of a token, summed exactly.

use super::LANES;

/// Quads whose products with a token's fit an int16, two of each added up, where the weights' bytes are at most `max`. 0: not even
/// two do.
pub(crate) const fn run(max: i32) -> usize {
    let pairs = i16::MAX as i32 / (max * 2 * i8::MAX as i32);
    if pairs >= 8 {
        8
    } else if pairs >= 4 {
        4
    } else {
        pairs as usize
    }
}

/// How products of quads are added up on an instruction set, whose sums are `I`.
pub(crate) trait QuadDot<I>: Copy + 'static {
    /// See [`super::Simd::BYTES_FIT`].
    const BYTES_FIT: bool;

    /// See [`super::Simd::dot_quads`].
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn dot_quads<const N: usize, const Q: usize>(
        sums: &mut [I; N],
        codes: &[I; Q],
        x: &[[f32; N]; Q],
        run: usize,
    );

    /// See [`super::Simd::dot_quad_twice`].
    ///
    /// # Safety
    /// The CPU has the instructions.
    #[inline(always)]
    unsafe fn dot_quad_twice<const N: usize>(sums: &mut [[I; N]; 2], codes: [I; 2], x: &[f32; N])
    where
        I: Copy,
    {
        for (sums, codes) in sums.iter_mut().zip(codes) {
            // SAFETY: as the caller promises.
            unsafe { Self::dot_quads(sums, &[codes], &[*x], 0) }
        }
    }

    /// Whether there are [`super::Tiles`].
    const TILES: bool = false;

    /// Opens this thread's tile registers for products of `N` tokens and `Q` quads.
    ///
    /// # Safety
    /// The CPU has the instructions, and the system lets this process use them.
    #[inline(always)]
    unsafe fn open_tiles<const N: usize, const Q: usize>() {
        unreachable!("there are no tile registers");
    }

    /// Closes this thread's tile registers.
    ///
    /// # Safety
    /// The CPU has the instructions.
    #[inline(always)]
    unsafe fn close_tiles() {
        unreachable!("there are no tile registers");
    }

    /// See [`super::Tiles::dot`].
    ///
    /// # Safety
    /// The CPU has the instructions, and this thread's tile registers are open for `N` and `Q`.
    #[inline(always)]
    unsafe fn dot_tile<const N: usize, const Q: usize>(
        _set: usize,
        _sums: &mut [[f32; LANES]; N],
        _quads: &[[f32; LANES]; Q],
        _x: &[[f32; N]; Q],
    ) {
        unreachable!("there are no tile registers");
    }
}
