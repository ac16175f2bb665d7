//! A token's activations as the products with quantised weights take them: int16 with one scale.
//!
//! Sixteen bits lose so little (less than a 65,000th of the token's largest activation) that results are as good as
//! float32's, in one form for every shape of product. A prepared token is, for `n` columns,
//!
//! ```text
//! int16 codes [n], in the packed order of pairs · float32 sums of the codes of each 16 columns [n / 16] · scale · power
//! ```
//!
//! where an activation is about `code * scale * power`. The power is 1, but for tokens so small that a scale alone would
//! not be a normal number.

use crate::lanes::{LANES, Lanes};

/// The largest code.
const MOST: f32 = i16::MAX as f32;

/// Which preparation this is.
pub(crate) const ID: u32 = 1;

/// Half a step of the codes, and what the quotient may be off before it is rounded.
pub(crate) const STEP: f32 = 0.51 / MOST;

/// Tokens whose largest activation is smaller have it multiplied by a power.
const SMALL: f32 = f32::from_bits((127 - 60) << 23);

/// That power, and its inverse.
const POWER: f32 = f32::from_bits((127 + 96) << 23);
const INVERSE_POWER: f32 = f32::from_bits((127 - 96) << 23);

/// Float32 elements of a prepared token.
pub(crate) fn len(columns: usize) -> usize {
    (columns / 2 + columns / LANES + 2).next_multiple_of(LANES)
}

/// A prepared token.
#[derive(Clone, Copy)]
pub(crate) struct Token {
    /// Pairs of codes.
    pub(crate) codes: *const i32,
    /// The sum of each 16 codes.
    pub(crate) sums: *const f32,
    /// The scale, and the power after it.
    pub(crate) scale: [f32; 2],
}

impl Token {
    /// The token at the beginning of `prepared`.
    pub(crate) fn new(prepared: &[f32], columns: usize) -> Self {
        let sums = &prepared[columns / 2..columns / 2 + columns / LANES + 2];
        let scale = [sums[columns / LANES], sums[columns / LANES + 1]];
        Self { codes: prepared.as_ptr().cast(), sums: sums.as_ptr(), scale }
    }
}

/// Prepares a token; `x` is a whole number of sixteens.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn prepare<L: Lanes>(x: &[f32], prepared: &mut [f32]) {
    let columns = x.len();
    assert!(columns.is_multiple_of(LANES) && prepared.len() >= len(columns), "room for a prepared token");
    let (codes, sums) = prepared.split_at_mut(columns / 2);
    let (sums, scale) = sums.split_at_mut(columns / LANES);
    let x = x.as_ptr();
    // SAFETY: every pointer stays within the slices, whose lengths are checked above; the caller vouches for the
    // instruction set.
    unsafe {
        let (mut max, mut odd) = (L::zero(), L::zero());
        for at in (0..columns).step_by(LANES) {
            let x = L::load(x.add(at));
            max = L::max(L::abs(x), max);
            // Zero as long as all are finite.
            odd = L::fma(x, L::zero(), odd);
        }
        let max = L::max_lane(max);
        if L::sum(odd) != 0.0 {
            // What is wrong upstream must show downstream.
            codes.fill(0.0);
            sums.fill(0.0);
            scale[..2].copy_from_slice(&[f32::NAN, 1.0]);
            return;
        }
        let (power, inverse_power) = if max < SMALL { (POWER, INVERSE_POWER) } else { (1.0, 1.0) };
        let max = max * power;
        let inverse = if max > f32::MIN_POSITIVE { MOST / max } else { 0.0 };
        let (power, inverse) = (L::splat(power), L::splat(inverse));
        let codes: *mut i16 = codes.as_mut_ptr().cast();
        for (group, sum) in sums.iter_mut().enumerate() {
            let at = group * LANES;
            let code = L::round(L::mul(L::mul(L::load(x.add(at)), power), inverse));
            L::store_i16_swapped(codes.add(at), code);
            *sum = L::sum(code);
        }
        scale[..2].copy_from_slice(&[max / MOST, inverse_power]);
    }
}
