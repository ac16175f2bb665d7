//! Activations as the matmuls with quantised weights take them, in two precisions.

pub(crate) mod int16;
pub(crate) mod int8;

use crate::simd::{LANES, Simd};

/// A token whose largest activation is below this is multiplied by [`POWER`], so that its scale is a normal number.
const SMALL: f32 = f32::from_bits((127 - 60) << 23);

/// One whose largest is above this is divided by it, so that what its scale is multiplied by is finite.
const LARGE: f32 = f32::from_bits((127 + 60) << 23);

/// `2^96`, and its inverse.
const POWER: f32 = f32::from_bits((127 + 96) << 23);
const INVERSE_POWER: f32 = f32::from_bits((127 - 96) << 23);

/// What a token's codes follow from.
struct Extent {
    /// The largest magnitude, times `power`.
    max: f32,
    /// Whether no activation is infinite or NaN, which mustn't be hidden by quantising it.
    finite: bool,
    /// 1, or what a very small or very large token is multiplied by.
    power: f32,
    inverse_power: f32,
}

impl Extent {
    #[inline(always)]
    fn of<S: Simd>(s: S, x: &[[f32; LANES]]) -> Self {
        let (mut max, mut zero_if_finite) = (s.zero(), s.zero());
        for x in x {
            let x = s.load(x);
            max = s.max(s.abs(x), max);
            zero_if_finite = s.fma(x, s.zero(), zero_if_finite);
        }
        let max = s.max_lane(max);
        let finite = s.sum(zero_if_finite) == 0.0;
        let (power, inverse_power) = match max {
            max if max < SMALL => (POWER, INVERSE_POWER),
            max if max > LARGE => (INVERSE_POWER, POWER),
            _ => (1.0, 1.0),
        };
        Self { max: max * power, finite, power, inverse_power }
    }
}
