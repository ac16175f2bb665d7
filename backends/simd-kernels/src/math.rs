//! Elementary functions of sixteen numbers at once, each within two units in the last place.

use herald_layers::kernels::{ERFC, ERFC_STEP, Xielu};

use crate::simd::Simd;

/// `e^x`: `2^n * e^r` with `|r| <= ln(2) / 2`, and Taylor's polynomial of degree 7 for `e^r`, whose remainder is below
/// float32's precision there.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    /// ln(2) in two parts, the first with so few bits that its products with integers are exact.
    const LN2_HIGH: f32 = 355.0 / 512.0;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Beyond these the result is zero or infinity anyway. (In this order of arguments NaN is kept.)
    let x = s.min(s.splat(150.0), s.max(s.splat(-150.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    let mut p = s.splat(1.0 / 5040.0);
    for factorial in [720.0, 120.0, 24.0, 6.0, 2.0] {
        p = s.fma(p, r, s.splat(1.0 / factorial));
    }
    let p = s.add(s.fma(p, s.mul(r, r), r), s.splat(1.0));
    s.scale_by_power(p, n)
}

/// `x / (1 + e^(-y))`: SiLU where `y` is `x`, GELU's tanh approximation (arXiv 1606.08415) where it is twice the tanh's
/// argument.
#[inline(always)]
pub(crate) fn times_sigmoid<S: Simd>(s: S, x: S::F, y: S::F) -> S::F {
    s.div(x, s.add(s.splat(1.0), exp(s, s.neg(y))))
}

/// GELU (arXiv 1606.08415): `x Phi(x)`, which is `max(x, 0) - |x| erfc(|x| / sqrt(2)) / 2`.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    // Beyond, erfc is nothing. (In this order of arguments NaN is kept.)
    let size = s.min(s.splat(20.0), s.abs(x));
    let z = s.mul(size, s.splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = s.div(s.splat(1.0), s.fma(z, s.splat(ERFC_STEP), s.splat(1.0)));
    let mut scaled = s.zero();
    for factor in ERFC.into_iter().rev() {
        scaled = s.fma(scaled, t, s.splat(factor));
    }
    let tail = s.mul(s.mul(scaled, t), exp(s, s.neg(s.mul(z, z))));
    s.fma(s.mul(size, s.splat(-0.5)), tail, s.max(s.zero(), x))
}

/// `e^x - 1` for `x` up to 0: near 0 Taylor's polynomial without its 1, so that nothing cancels.
#[inline(always)]
fn exp_m1<S: Simd>(s: S, x: S::F) -> S::F {
    /// Where the polynomial's remainder is still below float32's precision.
    const NEAR: f32 = -0.35;
    let mut p = s.splat(1.0 / 40_320.0);
    for factorial in [5040.0, 720.0, 120.0, 24.0, 6.0, 2.0] {
        p = s.fma(p, x, s.splat(1.0 / factorial));
    }
    let near = s.fma(p, s.mul(x, x), x);
    let far = s.sub(exp(s, x), s.splat(1.0));
    let [least, near_from, end] = [f32::NEG_INFINITY, NEAR, f32::INFINITY].map(|bound| s.splat(bound));
    s.add(s.keep_between(near, 0.0, x, [near_from, end]), s.keep_between(far, 0.0, x, [least, near_from]))
}

/// xIELU; see [`Xielu`].
#[inline(always)]
pub(crate) fn xielu<S: Simd>(s: S, xielu: &Xielu, x: S::F) -> S::F {
    let Xielu { square, exponential, slope, most } = *xielu;
    let positive = s.max(s.zero(), x);
    let squared = s.mul(s.mul(s.splat(square), positive), positive);
    let least = s.min(s.splat(most), x);
    let curve = s.mul(s.splat(exponential), s.sub(exp_m1(s, least), s.min(s.zero(), x)));
    // Of the numbers above 0 the exponential part is none.
    let up_to_0 = [s.splat(f32::NEG_INFINITY), s.splat(f32::from_bits(1))];
    s.fma(s.splat(slope), x, s.add(squared, s.keep_between(curve, 0.0, x, up_to_0)))
}

/// `tanh(x)`, to an absolute error.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let e = exp(s, s.add(x, x));
    s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e, s.splat(1.0))))
}

/// `ln(1 + e^x)`, without overflow for large `x` and without loss for small: `max(x, 0) + ln(1 + t)` with `t = e^-|x|`, and
/// `ln(1 + t) = 2 artanh(u)` with `u = t / (2 + t)`, whose series in `u <= 1/3` has a remainder below float32's precision.
#[inline(always)]
pub(crate) fn softplus<S: Simd>(s: S, x: S::F) -> S::F {
    let t = exp(s, s.neg(s.abs(x)));
    let u = s.div(t, s.add(t, s.splat(2.0)));
    let square = s.mul(u, u);
    let mut p = s.splat(1.0 / 15.0);
    for odd in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
        p = s.fma(p, square, s.splat(1.0 / odd));
    }
    // In this order of arguments NaN is kept.
    let positive = s.max(s.zero(), x);
    let twice = s.add(u, u);
    s.add(positive, s.fma(s.mul(p, square), twice, twice))
}

/// `[cos, sin]` of angles times a magnitude; see [`herald_layers::Kernels::rope_angles`].
///
/// The nearest multiple `n` of a quarter turn is subtracted from the angle in two parts, so that no bits are lost (Cody and
/// Waite). Taylor's polynomials for the rest have remainders below 1e-11; `n` says which of them is the sine, and the
/// signs. Plain loops, which the compiler vectorises.
#[inline(always)]
pub(crate) fn rope_angles<S: Simd>(
    _: S,
    frequencies: &[f64],
    position: f64,
    magnitude: f64,
    out: &mut [[f32; 2]],
) {
    /// `1.5 * 2^52`, where float64's last place is 1: adding it rounds to an integer, which is then in the low bits.
    const ROUNDER: f64 = 6_755_399_441_055_744.0;
    const QUARTER_HIGH: f64 = 1.570_796_326_734_125_6;
    const QUARTER_LOW: f64 = 6.077_100_506_506_192e-11;
    for (out, frequency) in out.iter_mut().zip(frequencies) {
        let angle = position * frequency;
        let rounded = angle * std::f64::consts::FRAC_2_PI + ROUNDER;
        let (quarter, n) = (rounded.to_bits(), rounded - ROUNDER);
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
