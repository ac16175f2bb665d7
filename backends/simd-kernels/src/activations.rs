//! Activations as the products with quantised weights take them: int16 with one scale for each token.
//!
//! Sixteen bits lose so little (less than a 65,000th of the token's largest activation) that results are as good as
//! float32's, in one form for every shape of product. Tokens are prepared in tiles of `N`, side by side:
//!
//! ```text
//! for each group of 32 columns:   codes [16 pairs, N, 2 int16] · float32 sums of the codes: of the group [N], and of its
//!                                 first and second half [2, N]
//! at the end:                     scales [N] · powers [N]
//! ```
//!
//! where an activation is about `code * scale * power`. The power is 1, but for tokens so small that a scale alone would
//! not be a normal number.

use crate::packed::{GROUP, PAIRS};
use crate::simd::{LANES, Simd};

/// The largest code.
const MOST: f32 = i16::MAX as f32;

/// Which preparation this is.
pub(crate) const ID: u32 = 1;

/// Half a step of the codes, and what the quotient may be off before it is rounded.
pub(crate) const STEP: f32 = 0.51 / MOST;

/// Elements of a group for each token.
pub(crate) const GROUP_LEN: usize = PAIRS + 3;

/// Tokens whose largest activation is smaller have it multiplied by a power.
const SMALL: f32 = f32::from_bits((127 - 60) << 23);

/// That power, and its inverse.
const POWER: f32 = f32::from_bits((127 + 96) << 23);
const INVERSE_POWER: f32 = f32::from_bits((127 - 96) << 23);

/// Float32 elements that a prepared token takes.
pub(crate) fn len(columns: usize) -> usize {
    columns / GROUP * GROUP_LEN + 2
}

/// Tokens of the next tile.
pub(crate) fn tile<L: Simd>(left: usize) -> usize {
    match left {
        // One, since what is left of twelve, four, would have too few products under way.
        16 if L::NR >= 12 => 16,
        12.. if L::NR >= 12 => 12,
        8.. if L::NR >= 8 => 8,
        4.. => 4,
        2.. => 2,
        left => left,
    }
}

/// Prepares a tile; rows of `x` are whole groups.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn quantize<L: Simd>(x: &[f32], columns: usize, prepared: &mut [f32]) {
    let n = x.len() / columns;
    assert!(
        columns.is_multiple_of(GROUP) && x.len() == n * columns && prepared.len() >= n * len(columns),
        "room for a prepared tile"
    );
    let (groups, scales) = prepared.split_at_mut(columns / GROUP * GROUP_LEN * n);
    for (token, x) in x.chunks_exact(columns).enumerate() {
        // SAFETY: the caller vouches for the instruction set.
        let (scale, power) = unsafe { prepare_token::<L>(x, n, token, groups) };
        scales[token] = scale;
        scales[n + token] = power;
    }
}

/// Prepares one token of a tile of `n`; returns its scale and power.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn prepare_token<L: Simd>(x: &[f32], n: usize, token: usize, groups: &mut [f32]) -> (f32, f32) {
    // SAFETY: places are within the token, whose columns are whole groups; the caller vouches for the instruction set.
    unsafe {
        let (mut max, mut odd) = (L::zero(), L::zero());
        for at in (0..x.len()).step_by(LANES) {
            let x = L::load(x.as_ptr().add(at));
            max = L::max(L::abs(x), max);
            // Zero as long as all are finite.
            odd = L::fma(x, L::zero(), odd);
        }
        let max = L::max_lane(max);
        // What is wrong upstream must show downstream.
        let finite = L::sum(odd) == 0.0;
        let (power, inverse_power) = if max < SMALL { (POWER, INVERSE_POWER) } else { (1.0, 1.0) };
        let max = max * power;
        let inverse = if finite && max > f32::MIN_POSITIVE { MOST / max } else { 0.0 };
        let (power, inverse) = (L::splat(power), L::splat(inverse));
        for (x, group) in x.chunks_exact(GROUP).zip(groups.chunks_exact_mut(GROUP_LEN * n)) {
            let mut codes = [0_u32; PAIRS];
            let mut sums = [0.0; 2];
            for (half, sum) in sums.iter_mut().enumerate() {
                let x = L::load(x.as_ptr().add(half * LANES));
                let code = L::round(L::mul(L::mul(x, power), inverse));
                L::store_i16_swapped(codes.as_mut_ptr().cast::<i16>().add(half * LANES), code);
                *sum = L::sum(code);
            }
            for (codes, pair) in codes.iter().zip(group.chunks_exact_mut(n)) {
                pair[token] = f32::from_bits(*codes);
            }
            let to = PAIRS * n + token;
            (group[to], group[to + n], group[to + 2 * n]) = (sums[0] + sums[1], sums[0], sums[1]);
        }
        (if finite { max / MOST } else { f32::NAN }, inverse_power)
    }
}
