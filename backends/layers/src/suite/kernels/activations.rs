//! The functions between an MLP's projections, by themselves and with a gate.

use herald_api::Activation;
use ndarray::Array2;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::bounds::{Expected, TINY, check_all, gamma};
use super::super::reference::{Approx, activation, activation_bound, xielu, xielu_bound};
use super::super::values::{Spread, Values};
use super::super::{Case, property};
use super::{CASES, lens};
use crate::Kernels;
use crate::kernels::Xielu;

/// The ends of exp's and tanh's ranges in float32, and of float32's own.
const EXTREMES: [f32; 24] = [
    0.0,
    -0.0,
    1e-40,
    -1e-40,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    9.0,
    -9.0,
    10.5,
    -10.5,
    87.3,
    -87.3,
    88.8,
    -88.8,
    104.0,
    -104.0,
    1000.0,
    -1000.0,
    1e13,
    -1e13,
    1e20,
    -1e20,
    f32::MAX,
    f32::MIN,
];

const KINDS: [Activation; 5] = [
    Activation::Silu,
    Activation::GeluTanh,
    Activation::SquaredRelu,
    Activation::Gelu,
    Activation::ClampedSwiglu,
];

pub(in super::super) fn check(kernels: &'static Kernels) {
    property(
        &format!("{}: gate and activate", kernels.name),
        2 * CASES,
        (select(&KINDS[..]), lens(), 0_usize..8, Spread::any(), any::<u64>()),
        |(activation, len, before, spread, seed)| {
            glu_and_activate(kernels, activation, len, before, spread, seed)
        },
    );
    property(
        &format!("{}: xielu", kernels.name),
        CASES,
        (lens(), 0_usize..8, any::<u64>()),
        |(len, before, seed)| check_xielu(kernels, len, before, seed),
    );
}

fn check_xielu(kernels: &Kernels, len: usize, before: usize, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let numbers = Xielu {
        square: values.between(0.0, 1.5),
        exponential: values.between(0.2, 1.5),
        slope: 0.5,
        most: values.pick(&[-1e-6, -0.01]),
    };
    let size = values.pick(&[1e-4, 0.5, 30.0]);
    let mut x = values.many(before + len, -size, size);
    for x in &mut x {
        if values.below(8) == 0 {
            *x = values.pick(&[0.0, -0.0, 1e-40, -1e-40, -0.35, -88.0, -104.0, -1e20, 1e15]);
        }
    }
    let mut out = x.clone();
    out[..before].fill(f32::NAN);
    (kernels.xielu)(&numbers, &mut out[before..]);
    let expected = x[before..].iter().map(|x| {
        let x = f64::from(*x);
        Expected { value: xielu(&numbers, x), bound: xielu_bound(&numbers, x.abs()) }
    });
    check_all("xIELU", &out[before..], expected)
}

fn glu_and_activate(
    kernels: &Kernels,
    kind: Activation,
    len: usize,
    before: usize,
    spread: Spread,
    seed: u64,
) -> Case {
    let mut values = Values::new(seed);
    let mut x = values.floats(before + len, spread);
    for x in &mut x {
        if values.below(4) == 0 {
            *x = values.pick(&EXTREMES);
        }
    }
    let x = &x[before..];

    if kind.needs_gate() {
        return gate(kernels, kind, x, &mut values);
    }
    let mut out = x.to_vec();
    out.splice(0..0, vec![f32::NAN; before]);
    (kernels.activate)(kind, &mut out[before..]);
    let expected = x.iter().map(|x| {
        let x = f64::from(*x);
        Expected { value: activation(kind, x), bound: activation_bound(kind, x) }
    });
    check_all(&format!("{kind:?}"), &out[before..], expected)?;

    let up = values.many(before / 2 + len, -1.0, 1.0);
    let up = &up[before / 2..];
    let mut out = x.to_vec();
    out.splice(0..0, vec![f32::NAN; before]);
    (kernels.glu)(kind, &mut out[before..], up);
    let expected = x.iter().zip(up).map(|(x, up)| {
        let (x, up) = (f64::from(*x), f64::from(*up));
        let (value, bound) = (activation(kind, x), activation_bound(kind, x));
        Expected { value: value * up, bound: (bound + gamma(1) * (value.abs() + bound)) * up.abs() + TINY }
    });
    check_all(&format!("{kind:?} times up"), &out[before..], expected)
}

/// What takes a gate's place, which isn't a product with `up`.
fn gate(kernels: &Kernels, kind: Activation, x: &[f32], values: &mut Values) -> Case {
    let up = values.many(x.len(), -12.0, 12.0);
    let mut out = x.to_vec();
    (kernels.glu)(kind, &mut out, &up);
    let row = |x: &[f32]| {
        let x: Vec<f64> = x.iter().copied().map(f64::from).collect();
        Approx::exact(Array2::from_shape_vec((1, x.len()), x).expect("one row"))
    };
    check_all(&format!("{kind:?}"), &out, row(x).gate(kind, &row(&up)).row(0))
}
