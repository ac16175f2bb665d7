//! The kernels of delta nets.

use ndarray::{Array1, Array2};
use proptest::prelude::*;

use super::super::bounds::{Expected, check_all};
use super::super::delta::DeltaHead;
use super::super::reference::Approx;
use super::super::values::{Spread, Values};
use super::super::{Case, property};
use super::matmul::exactly;
use super::{CASES, lens};
use crate::Kernels;
use crate::kernels::DeltaRule;

pub(in super::super) fn check(kernels: &'static Kernels) {
    let vectors = (lens(), 0_usize..8, Spread::any(), any::<u64>());
    property(&format!("{}: times sigmoid", kernels.name), CASES, vectors, |(len, before, spread, seed)| {
        times_sigmoid(kernels, len, before, spread, seed)
    });
    let shapes = (1_usize..12, prop_oneof![1_usize..40, Just(128)], 1_usize..80);
    let inputs = (shapes, any::<bool>(), [0_usize..8, 0_usize..8], any::<u64>());
    property(&format!("{}: delta rule", kernels.name), CASES, inputs, |(shape, by_row, gaps, seed)| {
        delta_rule(kernels, shape, by_row, gaps, seed)
    });
}

fn times_sigmoid(kernels: &Kernels, len: usize, before: usize, spread: Spread, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let old = values.many(before + len, -8.0, 8.0);
    let mut gate = values.floats(len, spread);
    for gate in &mut gate {
        if values.below(4) == 0 {
            *gate = values.pick(&[0.0, 30.0, -30.0, 87.0, -87.0, 200.0, -200.0, 1e30, -1e30]);
        }
    }
    let mut x = old.clone();
    (kernels.mul_sigmoid)(&mut x[before..], &gate);
    let row = |x: &[f32]| {
        let x: Vec<f64> = x.iter().copied().map(f64::from).collect();
        Approx::exact(Array2::from_shape_vec((1, len), x).expect("one row"))
    };
    let expected = row(&old[before..]).times(&row(&gate).sigmoid());
    check_all("the products", &x[before..], expected.row(0))?;
    check_all("what lies before them", &x[..before], exactly(&old[..before]))
}

/// Rows of `width` at every `stride`, in float64.
fn rows(x: &[f32], n: usize, width: usize, stride: usize) -> Array2<f64> {
    Array2::from_shape_fn((n, width), |(row, column)| f64::from(x[row * stride + column]))
}

fn delta_rule(
    kernels: &Kernels,
    (n_tokens, key_dim, value_dim): (usize, usize, usize),
    by_row: bool,
    [key_gap, value_gap]: [usize; 2],
    seed: u64,
) -> Case {
    let mut values = Values::new(seed);
    let (key_stride, value_stride) = (key_dim + key_gap, value_dim + value_gap);
    let n_decays = if by_row { key_dim } else { 1 };
    let queries = values.many(n_tokens * key_stride, -1.0, 1.0);
    let mut keys = values.many(n_tokens * key_stride, -1.0, 1.0);
    for key in keys.chunks_exact_mut(key_stride) {
        let length = key[..key_dim].iter().map(|x| x * x).sum::<f32>().sqrt() * 1.0001;
        key[..key_dim].iter_mut().for_each(|x| *x /= length.max(1e-3));
    }
    let value = values.many(n_tokens * value_stride, -2.0, 2.0);
    let betas = values.many(n_tokens, 0.0, 1.0);
    let decays = values.many(n_tokens * n_decays, 0.0, 1.0);
    let old = values.many(key_dim * value_dim, -4.0, 4.0);
    let run = |tokens: std::ops::Range<usize>, state: &mut [f32], out: &mut [f32]| {
        let call = DeltaRule {
            queries: &queries[tokens.start * key_stride..],
            keys: &keys[tokens.start * key_stride..],
            key_stride,
            values: &value[tokens.start * value_stride..],
            value_stride,
            betas: &betas[tokens.clone()],
            decays: &decays[tokens.start * n_decays..tokens.end * n_decays],
            key_dim,
            value_dim,
        };
        (kernels.delta_rule)(&call, state, &mut out[tokens.start * value_dim..tokens.end * value_dim]);
    };
    let (mut state, mut out) = (old.clone(), vec![f32::NAN; n_tokens * value_dim]);
    run(0..n_tokens, &mut state, &mut out);
    // In two runs the same to the bit.
    let (mut again, mut in_two) = (old.clone(), vec![f32::NAN; n_tokens * value_dim]);
    let cut = values.below(n_tokens);
    if cut > 0 {
        run(0..cut, &mut again, &mut in_two);
    }
    run(cut..n_tokens, &mut again, &mut in_two);
    check_all("the state in two runs", &again, exactly(&state))?;
    check_all("the output in two runs", &in_two, exactly(&out))?;

    let (q, k) = (rows(&queries, n_tokens, key_dim, key_stride), rows(&keys, n_tokens, key_dim, key_stride));
    let v = rows(&value, n_tokens, value_dim, value_stride);
    let decay = rows(&decays, n_tokens, n_decays, n_decays);
    let beta: Array1<f64> = betas.iter().copied().map(f64::from).collect();
    let no_error = |x: &Array2<f64>| Array2::zeros(x.dim());
    let (of_key, of_value, of_decay, of_beta) =
        (no_error(&k), no_error(&v), no_error(&decay), Array1::zeros(n_tokens));
    let head = DeltaHead {
        q: [q.view(), of_key.view()],
        k: [k.view(), of_key.view()],
        v: [v.view(), of_value.view()],
        beta: [beta.view(), of_beta.view()],
        decay: [decay.view(), of_decay.view()],
    };
    let mut expected = rows(&old, key_dim, value_dim, value_dim);
    let (given, errors) = head.respond(&mut expected);
    for (token, out) in out.chunks_exact(value_dim).enumerate() {
        check_all(&format!("the output of token {token}"), out, given.row(token))?;
    }
    for (index, (state, expected)) in state.chunks_exact(value_dim).zip(expected.rows()).enumerate() {
        let expected =
            expected.iter().zip(&errors).map(|(value, bound)| Expected { value: *value, bound: *bound });
        check_all(&format!("row {index} of the state"), state, expected)?;
    }
    Ok(())
}
