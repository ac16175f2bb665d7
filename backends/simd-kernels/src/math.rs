//! Functions of sixteen numbers at once, each within two units in the last place.

use crate::lanes::Lanes;

/// `e^x`: `2^n * e^r` with `|r| <= ln(2) / 2`, and Taylor's polynomial of degree 7 for `e^r`, whose remainder is below
/// float32's precision there.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn exp<L: Lanes>(x: L::F) -> L::F {
    /// ln(2) in two parts, the first with so few bits that its products with whole numbers are exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // SAFETY: the caller vouches.
    unsafe {
        // Beyond these the result is zero or infinity all the same. (In this order of arguments a NaN stays.)
        let x = L::min(L::splat(150.0), L::max(L::splat(-150.0), x));
        let n = L::round(L::mul(x, L::splat(std::f32::consts::LOG2_E)));
        let r = L::fma(n, L::splat(-LN2_HIGH), x);
        let r = L::fma(n, L::splat(-LN2_LOW), r);
        let mut p = L::splat(1.0 / 5040.0);
        for factorial in [720.0, 120.0, 24.0, 6.0, 2.0] {
            p = L::fma(p, r, L::splat(1.0 / factorial));
        }
        let p = L::add(L::fma(p, L::mul(r, r), r), L::splat(1.0));
        L::scale_by_power(p, n)
    }
}

/// `x / (1 + e^(-y))`: SiLU where `y` is `x`, GELU's tanh approximation (arXiv 1606.08415) where it is twice the tanh's
/// argument.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn times_sigmoid<L: Lanes>(x: L::F, y: L::F) -> L::F {
    // SAFETY: the caller vouches.
    unsafe { L::div(x, L::add(L::splat(1.0), exp::<L>(L::neg(y)))) }
}

/// `tanh(x)`, to an absolute error.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn tanh<L: Lanes>(x: L::F) -> L::F {
    // SAFETY: the caller vouches.
    unsafe {
        let e = exp::<L>(L::add(x, x));
        L::sub(L::splat(1.0), L::div(L::splat(2.0), L::add(e, L::splat(1.0))))
    }
}

/// `ln(1 + e^x)`, without overflow for large `x` and without loss for small: `max(x, 0) + ln(1 + t)` with `t = e^-|x|`, and
/// `ln(1 + t) = 2 artanh(t / (2 + t))`, whose series in `s <= 1/3` has a remainder below float32's precision.
///
/// # Safety
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn softplus<L: Lanes>(x: L::F) -> L::F {
    // SAFETY: the caller vouches.
    unsafe {
        let t = exp::<L>(L::neg(L::abs(x)));
        let s = L::div(t, L::add(t, L::splat(2.0)));
        let square = L::mul(s, s);
        let mut p = L::splat(1.0 / 15.0);
        for odd in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
            p = L::fma(p, square, L::splat(1.0 / odd));
        }
        // In this order of arguments a NaN stays.
        let positive = L::max(L::zero(), x);
        let twice = L::add(s, s);
        L::add(positive, L::fma(L::mul(p, square), twice, twice))
    }
}
