//! The values that codes and scales can have, and sums over a group's weights.

use half::f16;

/// The values that a code can stand for, before its scale.
pub(crate) trait Grid {
    /// The least; the largest in magnitude.
    const LOW: f32;
    /// The greatest.
    const HIGH: f32;
    /// How far beyond or short of its end the largest weight is tried, in the grid's units: about a step.
    const REACH: f32;

    /// The value nearest to `v`, a number smaller than 2^21.
    fn nearest(v: f32) -> f32;
}

/// All integers from `LOW` to `HIGH`.
pub(crate) struct Even<const LOW: i32, const HIGH: i32>;

impl<const LOW: i32, const HIGH: i32> Grid for Even<LOW, HIGH> {
    const LOW: f32 = LOW as f32;
    const HIGH: f32 = HIGH as f32;
    const REACH: f32 = 1.0;

    #[inline(always)]
    fn nearest(v: f32) -> f32 {
        round(v.max(Self::LOW).min(Self::HIGH))
    }
}

/// The integer nearest to `v`, a number smaller than 2^21; of two, the even one. (`f32::round` is a call into a library
/// where the target has no instruction for it, which no loop here can afford.)
#[inline(always)]
pub(super) fn round(v: f32) -> f32 {
    /// A float's last bit counts units here.
    const UNITS: f32 = (3 << 22) as f32;
    (v + UNITS) - UNITS
}

/// The float16 nearest to `v`, or the largest there is: a fit may lie a little beyond the weights.
pub(super) fn rounded(v: f32) -> f16 {
    f16::from_f32(v.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

/// Sums kept side by side, so that a compiler keeps them in vector registers.
const LANES: usize = 8;

/// The sums of `K` terms each over the weights `0..N` of a group.
#[inline(always)]
pub(super) fn sums<const N: usize, const K: usize>(terms: impl Fn(usize) -> [f32; K]) -> [f32; K] {
    const { assert!(N.is_multiple_of(LANES)) };
    let mut sums = [[0.0; LANES]; K];
    for start in (0..N).step_by(LANES) {
        for lane in 0..LANES {
            let terms = terms(start + lane);
            for (sums, term) in sums.iter_mut().zip(terms) {
                sums[lane] += term;
            }
        }
    }
    sums.map(|lanes| lanes.iter().sum())
}
