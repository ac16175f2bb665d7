//! Functions of sixteen numbers at once, each within two units in the last place.

use crate::simd::Simd;

/// `e^x`: `2^n * e^r` with `|r| <= ln(2) / 2`, and Taylor's polynomial of degree 7 for `e^r`, whose remainder is below
/// float32's precision there.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn exp<L: Simd>(x: L::F) -> L::F {
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
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn times_sigmoid<L: Simd>(x: L::F, y: L::F) -> L::F {
    // SAFETY: the caller vouches.
    unsafe { L::div(x, L::add(L::splat(1.0), exp::<L>(L::neg(y)))) }
}

/// `tanh(x)`, to an absolute error.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn tanh<L: Simd>(x: L::F) -> L::F {
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
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn softplus<L: Simd>(x: L::F) -> L::F {
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

/// `[cos, sin]` of angles times a magnitude; see [`herald_layers::Kernels::rope_angles`]. The angle less the nearest multiple `n` of a
/// quarter turn, in parts so that nothing is lost (Cody and Waite), goes through Taylor's polynomials, whose remainders
/// are below 1e-11 there; `n` says which is which, and the signs. Plain loops, which the compiler makes vectors of.
#[inline(always)]
pub(crate) fn rope_angles(frequencies: &[f64], position: f64, magnitude: f64, out: &mut [[f32; 2]]) {
    /// Where float64's last place is a whole number: adding it rounds, and leaves that number in the low bits.
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    const QUARTER_HIGH: f64 = 1.570_796_326_734_125_6;
    const QUARTER_LOW: f64 = 6.077_100_506_506_192e-11;
    for (out, frequency) in out.iter_mut().zip(frequencies) {
        let angle = position * frequency;
        let rounded = angle * std::f64::consts::FRAC_2_PI + WHOLE;
        let (quarter, n) = (rounded.to_bits(), rounded - WHOLE);
        let r = n.mul_add(-QUARTER_LOW, n.mul_add(-QUARTER_HIGH, angle));
        let square = r * r;
        let mut sin = -1.0 / 39_916_800.0;
        for factorial in [362_880.0, -5_040.0, 120.0, -6.0] {
            sin = square.mul_add(sin, 1.0 / factorial);
        }
        let sin = (square * r).mul_add(sin, r);
        let mut cos = 1.0 / 479_001_600.0;
        for factorial in [-3_628_800.0, 40_320.0, -720.0, 24.0, -2.0, 1.0] {
            cos = square.mul_add(cos, 1.0 / factorial);
        }
        let (c, s) = if quarter & 1 == 0 { (cos, sin) } else { (sin, cos) };
        let c = if (quarter + 1) & 2 == 0 { c } else { -c };
        let s = if quarter & 2 == 0 { s } else { -s };
        *out = [(c * magnitude) as f32, (s * magnitude) as f32];
    }
}
