//! Norms and rotations.

use herald_api::RopeKind;
use ndarray::{Array1, Axis};
use proptest::prelude::*;
use proptest::sample::select;

use super::super::bounds::{Expected, TINY, U, check_all, gamma};
use super::super::reference::Approx;
use super::super::values::{Spread, Values};
use super::super::{Case, property};
use super::matmul::exactly;
use super::{CASES, lens};
use crate::Kernels;

pub(in super::super) fn check(kernels: &'static Kernels) {
    property(
        &format!("{}: rms_norm", kernels.name),
        CASES,
        (lens(), 0_usize..8, select(&[1e-5_f32, 1e-6, 1e-12][..]), Spread::any(), any::<u64>()),
        |(len, before, eps, spread, seed)| rms_norm(kernels, len, before, eps, spread, seed),
    );
    property(
        &format!("{}: layer_norm", kernels.name),
        CASES,
        (lens(), 0_usize..8, select(&[1e-5_f32, 1e-6, 1e-12][..]), Spread::any(), any::<u64>()),
        |(len, before, eps, spread, seed)| layer_norm(kernels, len, before, eps, spread, seed),
    );
    let kinds = select(&[RopeKind::None, RopeKind::Neighbours, RopeKind::Halves][..]);
    property(
        &format!("{}: rope", kernels.name),
        CASES,
        (kinds, lens(), 0_usize..20, 0_usize..8, any::<u64>()),
        |(kind, pairs, unrotated, before, seed)| rope(kernels, kind, pairs, unrotated, before, seed),
    );
    property(
        &format!("{}: turns", kernels.name),
        CASES,
        (lens(), select(&[1.0, 100.0, 8192.0, 1e6, -1e6, -4e9][..]), 0.5_f64..2.0, any::<u64>()),
        |(len, position, magnitude, seed)| turns(kernels, len, position, magnitude, seed),
    );
    property(
        &format!("{}: softmax", kernels.name),
        CASES,
        (lens(), select(&[0.01_f32, 10.0, 1000.0][..]), any::<u64>()),
        |(len, size, seed)| softmax(kernels, len, size, seed),
    );
}

fn turns(kernels: &Kernels, len: usize, position: f64, magnitude: f64, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let frequencies: Vec<f64> = (0..len).map(|_| f64::from(values.between(0.0, 1.0)).powi(3)).collect();
    let position = (position * f64::from(values.between(0.0, 1.0))).round();
    let mut out = vec![[f32::NAN; 2]; len];
    (kernels.rope_angles)(&frequencies, position, magnitude, &mut out);
    let expected = frequencies.iter().flat_map(|frequency| {
        let angle = position * frequency;
        // The angle is rounded to float64, the result to float32.
        let bound = magnitude * (angle.abs() * f64::EPSILON + 1e-11) + U * 2.0;
        [angle.cos(), angle.sin()].map(|turn| Expected { value: turn * magnitude, bound })
    });
    check_all("cosines and sines", out.as_flattened(), expected.collect::<Vec<_>>())
}

fn softmax(kernels: &Kernels, len: usize, size: f32, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let mut x = values.many(len, -size, size);
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let parts: Vec<f64> = x.iter().map(|x| f64::from(*x - max).exp()).collect();
    let sum: f64 = parts.iter().sum();
    (kernels.softmax)(&mut x);
    let expected = parts.iter().map(|part| {
        let value = part / sum;
        // Each exp is off by a few roundings, their sum by one for each of them.
        Expected { value, bound: gamma(len + 16) * value + 1e-37 }
    });
    check_all("parts", &x, expected.collect::<Vec<_>>())
}

fn rms_norm(kernels: &Kernels, len: usize, before: usize, eps: f32, spread: Spread, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let mut x = values.floats(before + len, spread);
    if values.below(8) == 0 {
        x.fill(0.0);
    }
    let weight = values.floats(before / 2 + len, Spread::Even);
    let (x, weight) = (&x[before..], &weight[before / 2..]);
    let mut out = vec![f32::NAN; before + len];
    (kernels.rms_norm)(x, weight, eps, &mut out[before..]);
    let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
    let scale = 1.0 / (squares / len as f64 + f64::from(eps)).sqrt();
    let expected = x.iter().zip(weight).map(|(x, weight)| {
        let value = f64::from(*x) * scale * f64::from(*weight);
        // The mean of n squares plus eps has n + 3 roundings, of which the root leaves half; root, quotient and two
        // products follow. Squares that underflow are negligible against eps.
        Expected { value, bound: gamma(len / 2 + 6) * value.abs() + 8.0 * TINY }
    });
    check_all("the normed vector", &out[before..], expected)
}

fn layer_norm(kernels: &Kernels, len: usize, before: usize, eps: f32, spread: Spread, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let mut x = values.floats(before + len, spread);
    // Also of no variance, and far from 0.
    match values.below(8) {
        0 => x.fill(3.0),
        1 => x.iter_mut().for_each(|x| *x += 100.0),
        _ => {}
    }
    let (weight, bias) =
        (values.floats(before / 2 + len, Spread::Even), values.floats(before / 3 + len, Spread::Even));
    let (x, weight, bias) = (&x[before..], &weight[before / 2..], &bias[before / 3..]);
    let mut out = vec![f32::NAN; before + len];
    (kernels.layer_norm)(x, weight, bias, eps, &mut out[before..]);
    let wide = |x: &[f32]| x.iter().copied().map(f64::from).collect::<Array1<f64>>();
    let row = Approx::exact(wide(x).insert_axis(Axis(0)));
    let expected = row.layer_norm(&wide(weight), Some(&wide(bias)), f64::from(eps));
    check_all("the normed vector", &out[before..], expected.row(0))
}

fn rope(kernels: &Kernels, kind: RopeKind, pairs: usize, unrotated: usize, before: usize, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let pairs = if kind == RopeKind::None { 0 } else { pairs };
    let old = values.floats(before + 2 * pairs + unrotated, Spread::Even);
    // Of any magnitude: YaRN's are not 1.
    let rotation: Vec<[f32; 2]> =
        (0..pairs).map(|_| [values.between(-1.5, 1.5), values.between(-1.5, 1.5)]).collect();
    let mut head = old.clone();
    (kernels.rope)(kind, &mut head[before..], &rotation);

    let mut expected: Vec<Expected> = exactly(&old).collect();
    for (pair, [cos, sin]) in rotation.iter().map(|turn| turn.map(f64::from)).enumerate() {
        let [a, b] = match kind {
            RopeKind::Neighbours => [before + 2 * pair, before + 2 * pair + 1],
            _ => [before + pair, before + pairs + pair],
        };
        let [x, y] = [a, b].map(|index| f64::from(old[index]));
        let turned = |value, size: f64| Expected { value, bound: gamma(2) * size + 3.0 * TINY };
        expected[a] = turned(x * cos - y * sin, (x * cos).abs() + (y * sin).abs());
        expected[b] = turned(x * sin + y * cos, (x * sin).abs() + (y * cos).abs());
    }
    check_all("the head", &head, expected)
}
