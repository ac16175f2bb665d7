//! Float32 to 16-bit codes with a scale: every element within half a step of itself, the step as small as can be.

use proptest::prelude::*;

use super::super::bounds::{TINY, gamma};
use super::super::values::{Spread, Values};
use super::super::{Case, ensure, property};
use super::CASES;
use crate::Kernels;

pub(in super::super) fn check(kernels: &'static Kernels) {
    for (what, x) in edges() {
        if let Err(failure) = compare(kernels, &x, 0) {
            panic!("{}: quantize_i16: {what}: {failure}", kernels.name);
        }
    }
    let scale = (kernels.quantize_i16)(&[1.0, f32::NAN, 2.0], &mut [0; 3]);
    assert!(scale.is_nan(), "{}: quantize_i16: a NaN is lost: the scale is {scale}", kernels.name);
    property(
        &format!("{}: quantize_i16", kernels.name),
        CASES,
        (0_usize..200, 0_usize..8, Spread::any(), any::<u64>()),
        |(len, before, spread, seed)| {
            let mut values = Values::new(seed);
            let x = values.floats(before + len, spread);
            compare(kernels, &x[before..], before)
        },
    );
}

/// Nothing, zeros, the extremes of float32, and exact middles between codes.
fn edges() -> Vec<(&'static str, Vec<f32>)> {
    let middles = (-32767..32767).map(|code| code as f32 + 0.5).chain([32767.0]).collect();
    vec![
        ("no elements", Vec::new()),
        ("zeros", vec![0.0, -0.0, 0.0]),
        ("one element", vec![-3.0]),
        ("the greatest", vec![f32::MAX, f32::MIN, 1.0]),
        ("the least normal", vec![f32::MIN_POSITIVE, -f32::MIN_POSITIVE, 0.0]),
        ("subnormals", vec![1e-40, -1e-45, 0.0]),
        ("small ones next to a large one", vec![1e30, 1e-30, -1e-30]),
        ("middles between codes", middles),
    ]
}

fn compare(kernels: &Kernels, x: &[f32], before: usize) -> Case {
    let mut codes = vec![0x5555; before + x.len()];
    let scale = f64::from((kernels.quantize_i16)(x, &mut codes[before..]));
    ensure(codes[..before].iter().all(|code| *code == 0x5555), || "it wrote before its output".to_owned())?;
    let max = x.iter().fold(0.0, |max, x| f64::from(x.abs()).max(max));
    let step = max / f64::from(i16::MAX);
    ensure((scale - step).abs() <= gamma(1) * step + TINY, || {
        format!("the scale is {scale:e}, where {step:e} was expected")
    })?;
    for (x, code) in x.iter().zip(&codes[before..]) {
        let kept = scale * f64::from(*code);
        // Half a step, and what the scale, its reciprocal and the quotient, of up to 32767, lose.
        let bound = step * (0.5 + 32768.0 * gamma(4)) + 32768.0 * TINY;
        ensure((kept - f64::from(*x)).abs() <= bound, || {
            format!("{x:e} became {kept:e}, where a difference of at most {bound:e} was expected")
        })?;
    }
    Ok(())
}
