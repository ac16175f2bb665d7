//! How far a float32 result may be from the exact one: the standard model of floating-point arithmetic (Higham, Accuracy
//! and Stability of Numerical Algorithms, 2nd ed., chapters 2 and 3).
//!
//! Each operation's result is the exact one times `1 + d` with `|d| <= U`, but for underflow. Through `k` operations in a
//! row that makes `1 + D` with `|D| <= gamma(k)`. A term of a sum of `n` terms goes through at most `n - 1` additions, whatever
//! the order, so bounds with `gamma(n + ...)` hold for every order, every number of lanes, and fused or separate
//! multiplies and adds.
//!
//! Functions such as `exp` and `tanh` are taken to be within [`FUNCTION`] of the exact value, which is 2 units in the
//! last place and what vector libraries promise.

use super::{Case, ensure};

/// Float32's unit roundoff, 2^-24.
pub(super) const U: f64 = 1.0 / 16_777_216.0;

/// The relative error of `exp` and `tanh`.
pub(super) const FUNCTION: f64 = 4.0 * U;

/// What a result may lose to underflow in one operation: the smallest normal float32, 2^-126, since a CPU may be set to
/// flush smaller ones to zero.
pub(super) const TINY: f64 = f32::MIN_POSITIVE as f64;

/// The relative error of `k` operations in a row.
pub(super) fn gamma(k: usize) -> f64 {
    let sum = k as f64 * U;
    sum / (1.0 - sum)
}

/// A bound that came out as infinity times zero says nothing of the value: it is infinite.
pub(super) fn bound(bound: f64) -> f64 {
    if bound.is_nan() { f64::INFINITY } else { bound }
}

/// An exact value, and how far float32's may be from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) value: f64,
    pub(super) bound: f64,
}

/// Whether every value is within its bound. NaN never is, of a value or a bound.
pub(super) fn check_all(what: &str, got: &[f32], expected: impl IntoIterator<Item = Expected>) -> Case {
    let mut count = 0;
    for (index, Expected { value, bound }) in expected.into_iter().enumerate() {
        let Some(got) = got.get(index).copied() else { break };
        ensure((f64::from(got) - value).abs() <= bound, || {
            format!("{what}: element {index} is {got:e}, where {value:e} within {bound:e} was expected")
        })?;
        count += 1;
    }
    ensure(count == got.len(), || format!("{what}: {} elements, where {count} were expected", got.len()))
}
