//! Kernels of layers with recurrent states.

use ndarray::{Array1, Array2};
use proptest::prelude::*;

use super::super::bounds::{Expected, FUNCTION, TINY, U, check_all, gamma};
use super::super::reference::{softplus, softplus_bound};
use super::super::response::Channel;
use super::super::values::{Spread, Values};
use super::super::{Case, property};
use super::matmul::exactly;
use super::{CASES, lens};
use crate::Kernels;
use crate::kernels::{SelectiveScan, SsdStep, Tap};

pub(in super::super) fn check(kernels: &'static Kernels) {
    let vectors = (lens(), 0_usize..8, Spread::any(), any::<u64>());
    property(&format!("{}: times", kernels.name), CASES, vectors.clone(), |(len, before, spread, seed)| {
        times(kernels, len, before, spread, seed)
    });
    property(&format!("{}: softplus", kernels.name), CASES, vectors, |(len, before, spread, seed)| {
        softplus_of(kernels, len, before, spread, seed)
    });
    property(
        &format!("{}: decay", kernels.name),
        CASES,
        (lens(), 0_usize..8, any::<u64>()),
        |(len, before, seed)| decay(kernels, len, before, seed),
    );
    property(
        &format!("{}: conv", kernels.name),
        CASES,
        (lens(), 1_usize..6, 0_usize..8, any::<u64>()),
        |(len, taps, before, seed)| conv(kernels, len, taps, before, seed),
    );
    let shapes = (1_usize..80, prop_oneof![1_usize..40, Just(128)], 0_usize..8, any::<u64>());
    property(&format!("{}: step", kernels.name), CASES, shapes, |(channels, state, before, seed)| {
        step(kernels, channels, state, before, seed)
    });
    let shapes = (1_usize..8, 1_usize..70, 1_usize..20, [0_usize..8, 0_usize..8], any::<u64>());
    property(&format!("{}: scan", kernels.name), CASES / 2, shapes, |(n, channels, state, gaps, seed)| {
        scan(kernels, [n, channels, state], gaps, seed)
    });
}

fn times(kernels: &Kernels, len: usize, before: usize, spread: Spread, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let old = values.floats(before + len, spread);
    let y = values.floats(len, spread);
    let mut x = old.clone();
    (kernels.mul)(&mut x[before..], &y);
    let product = old[before..].iter().zip(&y).map(|(x, y)| f64::from(*x) * f64::from(*y));
    let expected = product.map(|value| Expected { value, bound: U * value.abs() + TINY });
    check_all("the products", &x[before..], expected)?;
    check_all("what lies before them", &x[..before], exactly(&old[..before]))
}

fn softplus_of(kernels: &Kernels, len: usize, before: usize, spread: Spread, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let mut old = values.floats(before + len, spread);
    for x in &mut old {
        if values.below(4) == 0 {
            *x = values.pick(&[0.0, 1e-30, 20.0, -20.0, 87.0, -87.0, 200.0, -200.0, 1e30, -1e30]);
        }
    }
    let mut x = old.clone();
    (kernels.softplus)(&mut x[before..]);
    let expected = old[before..].iter().map(|x| {
        let x = f64::from(*x);
        Expected { value: softplus(x), bound: softplus_bound(x) }
    });
    check_all("softplus", &x[before..], expected)
}

fn decay(kernels: &Kernels, len: usize, before: usize, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let to = values.between(-60.0, 0.0);
    let from = values.many(before + len, -60.0, 20.0);
    let weight = values.many(before / 2 + len, 0.0, 2.0);
    let old = values.many(before + len, -8.0, 8.0);
    let mut x = old.clone();
    (kernels.decay_weights)(to, &from[before..], &weight[before / 2..], &mut x[before..]);
    let expected =
        old[before..].iter().zip(&from[before..]).zip(&weight[before / 2..]).map(|((x, from), weight)| {
            let by = f64::from(to) - f64::from(*from);
            let value = f64::from(*x) * by.exp() * f64::from(*weight);
            // The difference is rounded, then an exp and two products.
            let relative = (U * by.abs()).exp_m1() + FUNCTION + gamma(3);
            Expected { value, bound: 1.01 * relative * value.abs() + 100.0 * TINY }
        });
    check_all("what is left", &x[before..], expected)
}

fn conv(kernels: &Kernels, len: usize, taps: usize, before: usize, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let mut row = || values.many(before + len, -3.0, 3.0);
    let bias = row();
    let rows: Vec<[Vec<f32>; 2]> = (0..taps).map(|_| [row(), row()]).collect();
    let slices: Vec<Tap<'_>> = rows
        .iter()
        .map(|[weight, input]| Tap { weight: &weight[before..], input: &input[before..] })
        .collect();
    let mut out = vec![f32::NAN; len];
    (kernels.conv)(&slices, &bias[before..], &mut out);
    let expected = (0..len).map(|channel| {
        let bias = f64::from(bias[before + channel]);
        let products =
            slices.iter().map(|tap| f64::from(tap.weight[channel]) * f64::from(tap.input[channel]));
        let size: f64 = bias.abs() + products.clone().map(f64::abs).sum::<f64>();
        Expected { value: bias + products.sum::<f64>(), bound: gamma(taps + 1) * size + 8.0 * TINY }
    });
    check_all("the convolution", &out, expected)
}

fn step(kernels: &Kernels, channels: usize, state: usize, before: usize, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let (x, b, c) = (
        values.many(before + channels, -2.0, 2.0),
        values.many(before + state, -2.0, 2.0),
        values.many(before + state, -2.0, 2.0),
    );
    let (decay, dt) = (values.between(0.0, 1.0), values.between(0.0, 1.5));
    let old = values.many(channels * state, -4.0, 4.0);
    let (mut h, mut out) = (old.clone(), vec![f32::NAN; channels]);
    let (x, b, c) = (&x[before..], &b[before..], &c[before..]);
    (kernels.ssd_step)(&SsdStep { x, b, c, decay, dt }, &mut h, &mut out);
    let mut sums = Vec::new();
    let mut states = Vec::new();
    for (x, old) in x.iter().zip(old.chunks_exact(state)) {
        let mut sum = Expected { value: 0.0, bound: 0.0 };
        for ((b, c), old) in b.iter().zip(c).zip(old) {
            let (kept, added) =
                (f64::from(decay) * f64::from(*old), f64::from(dt) * f64::from(*x) * f64::from(*b));
            let (value, size) = (kept + added, kept.abs() + added.abs());
            let bound = gamma(3) * size + 4.0 * TINY;
            states.push(Expected { value, bound });
            let c = f64::from(*c);
            sum.value += c * value;
            sum.bound += c.abs() * (bound + gamma(state + 2) * (value.abs() + bound)) + TINY;
        }
        sums.push(sum);
    }
    check_all("the state", &h, states)?;
    check_all("the output", &out, sums)
}

fn scan(
    kernels: &Kernels,
    [n_tokens, channels, state]: [usize; 3],
    [x_gap, bc_gap]: [usize; 2],
    seed: u64,
) -> Case {
    let mut values = Values::new(seed);
    let (x_stride, bc_stride) = (channels + x_gap, 2 * state + bc_gap);
    let x = values.many(n_tokens * x_stride, -2.0, 2.0);
    let dt = values.many(n_tokens * channels, 0.0, 1.0);
    let bc = values.many(n_tokens * bc_stride, -2.0, 2.0);
    let a = values.many(state * channels, -8.0, 0.0);
    let d = values.many(channels, -2.0, 2.0);
    let call = SelectiveScan {
        x: &x,
        x_stride,
        dt: &dt,
        b: &bc,
        c: &bc[state..],
        bc_stride,
        a: &a,
        d: &d,
        n_tokens,
        channels,
        state,
    };
    let (mut h, mut out) = (vec![0.0; state * channels], vec![f32::NAN; n_tokens * channels]);
    // From a state of nothing: one call over all tokens, or one for each, must be the same.
    (kernels.selective_scan)(&call, &mut h, &mut out);
    let (mut by_one, mut last) = (vec![0.0; state * channels], vec![f32::NAN; n_tokens * channels]);
    for token in 0..n_tokens {
        let call = SelectiveScan {
            x: &x[token * x_stride..],
            dt: &dt[token * channels..(token + 1) * channels],
            b: &bc[token * bc_stride..],
            c: &bc[token * bc_stride + state..],
            n_tokens: 1,
            ..call
        };
        (kernels.selective_scan)(&call, &mut by_one, &mut last[token * channels..(token + 1) * channels]);
    }
    check_all("the state token by token", &by_one, exactly(&h))?;
    check_all("the output token by token", &last, exactly(&out))?;
    let rows = |first: usize| {
        Array2::from_shape_fn((n_tokens, state), |(t, n)| f64::from(bc[t * bc_stride + first + n]))
    };
    let (b, c, zeros) = (rows(0), rows(state), Array2::zeros((n_tokens, state)));
    for channel in 0..channels {
        let of_tokens = |at: &dyn Fn(usize) -> f32| -> Array1<f64> {
            (0..n_tokens).map(|token| f64::from(at(token))).collect()
        };
        let (u, dt) = (
            of_tokens(&|token| x[token * x_stride + channel]),
            of_tokens(&|token| dt[token * channels + channel]),
        );
        let none = Array1::zeros(n_tokens);
        let response = Channel {
            b: [b.view(), zeros.view()],
            c: [c.view(), zeros.view()],
            u: [u.view(), none.view()],
            dt: [dt.view(), none.view()],
            a: &|n| f64::from(a[n * channels + channel]),
        }
        .response();
        let got: Vec<f32> = (0..n_tokens).map(|token| out[token * channels + channel]).collect();
        let expected = response.into_iter().zip(&u).map(|(sum, u)| {
            let skip = f64::from(d[channel]) * u;
            let value = sum.value + skip;
            Expected {
                value,
                bound: sum.bound + gamma(state + 2) * (value.abs() + sum.bound + 2.0 * skip.abs()),
            }
        });
        check_all(&format!("channel {channel}"), &got, expected)?;
    }
    Ok(())
}
