//! Scalar kernels: simple, portable, and the reference that every other backend is read against.

use herald_api::{Activation, ActivationPrecision, DType, RopeKind};
use herald_formats::{f16_value, row_kernels};
use herald_layers::Kernels;
use herald_layers::fallback;
use herald_layers::kernels::{ERFC, ERFC_STEP, Gemm, HeadMatmul, OnlineSoftmax, Q4Tile, Tile, Xielu};
use herald_layers::matmul::MatmulKernel;

use crate::recurrent;
use crate::vectors::{LANES, add_scaled, dot, mul};

/// The cpu backend's table.
pub static KERNELS: Kernels = Kernels {
    name: "cpu",
    // Batches go through the products of matrixmultiply.
    is_batch_invariant: false,
    rows: row_kernels,
    matmul,
    gemm,
    head_matmul,
    dot,
    add_scaled,
    rms_norm,
    layer_norm,
    rope,
    rope_angles: fallback::rope_angles,
    softmax,
    glu,
    activate,
    xielu,
    pack_queries: |queries, _, out| out[..queries.len()].copy_from_slice(queries),
    attend,
    attend_q4,
    attend_q4_rounding: 0.0,
    merge: |into, other| into.merge(other),
    quantize_i16,
    mul,
    softplus,
    conv: recurrent::conv,
    selective_scan: recurrent::selective_scan,
    ssd_step: recurrent::ssd_step,
    delta_rule: recurrent::delta_rule,
    mul_sigmoid: recurrent::mul_sigmoid,
    decay_weights: recurrent::decay_weights,
};

/// Rows are read as they lie in the file, with activations as they are, whatever the precision.
fn matmul(dtype: DType, _: ActivationPrecision) -> MatmulKernel {
    MatmulKernel {
        dtype,
        row_tile: 1,
        packing: None,
        activations: None,
        scratch_len: fallback::scratch_len,
        matmul: |run, scratch, out| fallback::matmul(row_kernels(run.dtype), gemm, run, scratch, out),
    }
}

fn gemm(call: &Gemm<'_>, out: &mut [f32]) {
    let Gemm { x, panel, n_tokens, rows, columns } = *call;
    assert!(
        x.len() >= n_tokens * columns && panel.len() >= rows * columns && out.len() >= n_tokens * rows,
        "a product of {n_tokens} tokens with {rows} rows of {columns} has slices too short"
    );
    // SAFETY: the lengths are checked above: x is [n_tokens, columns], the panel [rows, columns] read as its transpose,
    // and out [n_tokens, rows], which doesn't overlap them.
    unsafe {
        matrixmultiply::sgemm(
            n_tokens,
            columns,
            rows,
            1.0,
            x.as_ptr(),
            columns as isize,
            1,
            panel.as_ptr(),
            1,
            columns as isize,
            0.0,
            out.as_mut_ptr(),
            rows as isize,
            1,
        );
    }
}

fn head_matmul(call: &HeadMatmul<'_>, out: &mut [f32]) {
    const RUN: usize = 8 * LANES;
    let HeadMatmul { queries, rows, n_heads, n_queries, width, stride } = *call;
    let n_rows = call.n_rows(out.len());
    out[..n_heads * n_queries * n_rows].fill(0.0);
    let mut floats = [0.0; RUN];
    for (index, row) in rows.chunks_exact(stride).enumerate() {
        for (head, part) in row.chunks_exact(width).take(n_heads).enumerate() {
            for (run, bits) in part.chunks(RUN).enumerate() {
                let floats = &mut floats[..bits.len()];
                for (float, bits) in floats.iter_mut().zip(bits) {
                    *float = f16_value(*bits);
                }
                for query in head * n_queries..(head + 1) * n_queries {
                    let query_run = &queries[query * width + run * RUN..][..bits.len()];
                    out[query * n_rows + index] += dot(query_run, floats);
                }
            }
        }
    }
}

fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mean = dot(x, x) / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    // The first mean's rounding error would be the second one's if the numbers were far from 0 and near each other.
    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / x.len() as f64;
    let squares: f64 = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
    let scale = 1.0 / (squares / x.len() as f64 + f64::from(eps)).sqrt();
    for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = ((f64::from(*x) - mean) * scale) as f32 * weight + bias;
    }
}

fn rope(kind: RopeKind, head: &mut [f32], rotation: &[[f32; 2]]) {
    let turn = |a: &mut f32, b: &mut f32, [cos, sin]: [f32; 2]| {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    };
    match kind {
        RopeKind::Neighbours => {
            for (pair, rotation) in head.chunks_exact_mut(2).zip(rotation) {
                let [a, b] = pair else { continue };
                turn(a, b, *rotation);
            }
        }
        RopeKind::Halves => {
            let (low, high) = head.split_at_mut(rotation.len());
            for ((a, b), rotation) in low.iter_mut().zip(high).zip(rotation) {
                turn(a, b, *rotation);
            }
        }
        _ => {}
    }
}

fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

/// GELU's tanh approximation (arXiv 1606.08415).
fn gelu_tanh(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    0.5 * x * (1.0 + (SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x)).tanh())
}

/// GELU (arXiv 1606.08415): `x Phi(x)`, which is `max(x, 0) - |x| erfc(|x| / sqrt(2)) / 2`.
fn gelu(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    // Beyond, erfc is nothing in float32.
    let size = f64::from(x.abs()).min(20.0);
    let z = size * std::f64::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + f64::from(ERFC_STEP) * z);
    let scaled = ERFC.iter().rev().fold(0.0, |sum, factor| (sum + f64::from(*factor)) * t);
    (f64::from(x).max(0.0) - 0.5 * size * scaled * (-z * z).exp()) as f32
}

/// Squared ReLU (arXiv 2109.08668).
fn squared_relu(x: f32) -> f32 {
    let x = x.max(0.0);
    x * x
}

fn function(activation: Activation) -> fn(f32) -> f32 {
    match activation {
        Activation::SquaredRelu => squared_relu,
        Activation::GeluTanh => gelu_tanh,
        Activation::Gelu => gelu,
        _ => silu,
    }
}

/// Clamped SwiGLU; see [`herald_api::Activation::ClampedSwiglu`].
fn clamped_swiglu(gate: f32, up: f32) -> f32 {
    // Not `min`, which hides a NaN.
    let gate = if gate > 7.0 { 7.0 } else { gate };
    gate / (1.0 + (-1.702 * gate).exp()) * (up.clamp(-7.0, 7.0) + 1.0)
}

fn glu(activation: Activation, gate: &mut [f32], up: &[f32]) {
    if activation == Activation::ClampedSwiglu {
        gate.iter_mut().zip(up).for_each(|(gate, up)| *gate = clamped_swiglu(*gate, *up));
        return;
    }
    let function = function(activation);
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = function(*gate) * up;
    }
}

fn activate(activation: Activation, x: &mut [f32]) {
    let function = function(activation);
    x.iter_mut().for_each(|x| *x = function(*x));
}

fn xielu(xielu: &Xielu, x: &mut [f32]) {
    let Xielu { square, exponential, slope, most } = *xielu;
    for x in x {
        let curve = if *x > 0.0 { square * *x * *x } else { exponential * (x.min(most).exp_m1() - *x) };
        *x = curve + slope * *x;
    }
}

fn softplus(x: &mut [f32]) {
    // Without overflow for large x, and without loss for small.
    x.iter_mut().for_each(|x| *x = x.max(0.0) + (-x.abs()).exp().ln_1p());
}

fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for part in x.iter_mut() {
        *part = (*part - max).exp();
        sum += *part;
    }
    x.iter_mut().for_each(|part| *part /= sum);
}

fn attend(tile: &Tile<'_>, softmax: &mut OnlineSoftmax<'_>, scratch: &mut [f32]) {
    let Tile { queries, visible, key_dim, value_dim, scale, softcap, key_scales, value_scales, next, .. } =
        *tile;
    let slots = tile.keys.len() / key_dim;
    let (keys, rest) = scratch.split_at_mut(slots * key_dim);
    let (values, rest) = rest.split_at_mut(slots * value_dim);
    scaled(tile.keys, key_scales, key_dim, keys);
    scaled(tile.values, value_scales, value_dim, values);
    let wide = Tile {
        queries,
        keys,
        key_scales,
        values,
        value_scales,
        visible,
        key_dim,
        value_dim,
        scale,
        softcap,
        next,
    };
    attend_wide(&wide, softmax, rest);
}

fn attend_q4(tile: &Q4Tile<'_>, softmax: &mut OnlineSoftmax<'_>, scratch: &mut [f32]) {
    let widen = |pairs: &mut [f32], keys: &mut [f32], values: &mut [f32]| tile.widen(pairs, keys, values);
    tile.attend_with(tile.queries, softmax, scratch, widen, attend_wide);
}

/// Attention over float32 keys and values, already multiplied by their scales.
fn attend_wide(tile: &Tile<'_, f32>, softmax: &mut OnlineSoftmax<'_>, scratch: &mut [f32]) {
    let Tile { keys, values, key_dim, value_dim, scale, softcap, .. } = *tile;
    let scores = &mut scratch[..keys.len() / key_dim];
    let rows =
        tile.queries.chunks_exact(key_dim).zip(tile.visible).zip(softmax.out.chunks_exact_mut(value_dim));
    for (row, ((query, [begin, end]), out)) in rows.enumerate() {
        let visible = *begin as usize..*end as usize;
        if visible.is_empty() {
            continue;
        }
        let scores = &mut scores[visible.clone()];
        let mut max = softmax.max[row];
        for (score, key) in scores.iter_mut().zip(keys[visible.start * key_dim..].chunks_exact(key_dim)) {
            *score = dot(query, key) * scale;
            if let Some(cap) = softcap {
                *score = cap * (*score / cap).tanh();
            }
            max = max.max(*score);
        }
        // Rescales what was summed under the old maximum.
        let rescale = (softmax.max[row] - max).exp();
        softmax.max[row] = max;
        softmax.sum[row] *= rescale;
        out.iter_mut().for_each(|value| *value *= rescale);
        for (score, value) in scores.iter().zip(values[visible.start * value_dim..].chunks_exact(value_dim)) {
            let weight = (score - max).exp();
            softmax.sum[row] += weight;
            add_scaled(out, weight, value);
        }
    }
}

/// Rows of codes as float32.
fn scaled(codes: &[i16], scales: &[f32], dim: usize, out: &mut [f32]) {
    for ((codes, scale), out) in codes.chunks_exact(dim).zip(scales).zip(out.chunks_exact_mut(dim)) {
        for (code, out) in codes.iter().zip(out) {
            *out = f32::from(*code) * scale;
        }
    }
}

fn quantize_i16(x: &[f32], codes: &mut [i16]) -> f32 {
    const MAX_CODE: f32 = i16::MAX as f32;
    let max = x.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    if x.iter().any(|x| x.is_nan()) {
        // An error upstream has to show downstream.
        codes.fill(1);
        return f32::NAN;
    }
    // The reciprocal of a scale below the smallest normal number would overflow, so such a row becomes zeros.
    let scale = max / MAX_CODE;
    let inverse = if scale < f32::MIN_POSITIVE { 0.0 } else { MAX_CODE / max };
    for (code, x) in codes.iter_mut().zip(x) {
        *code = (x * inverse).round_ties_even() as i16;
    }
    scale
}
