//! Kernels over float32 vectors.

use herald_api::{Activation, RopeKind};
use herald_layers::kernels::{Gemm, HeadMatmul, Xielu};

use crate::math::{exp, gelu, times_sigmoid, xielu as xielu_of};
use crate::prefetch::Stream;
use crate::simd::{LANES, Simd};

/// `x = f(x)`. Closures for it are `#[inline(always)]`, so that they are compiled with the kernel's features.
#[inline(always)]
pub(crate) fn map<S: Simd>(s: S, x: &mut [f32], f: impl Fn(S::F) -> S::F) {
    let (vectors, rest) = x.as_chunks_mut();
    for x in vectors {
        s.store(x, f(s.load(x)));
    }
    if !rest.is_empty() {
        s.store_first(rest, f(s.load_first(rest)));
    }
}

/// `x = f(x, y)`, as far as both go; see [`map`].
#[inline(always)]
pub(crate) fn map_with<S: Simd>(s: S, x: &mut [f32], y: &[f32], f: impl Fn(S::F, S::F) -> S::F) {
    let len = x.len().min(y.len());
    let ((xs, x_rest), (ys, y_rest)) = (x[..len].as_chunks_mut(), y[..len].as_chunks());
    for (x, y) in xs.iter_mut().zip(ys) {
        s.store(x, f(s.load(x), s.load(y)));
    }
    if !x_rest.is_empty() {
        s.store_first(x_rest, f(s.load_first(x_rest), s.load_first(y_rest)));
    }
}

/// `sum(a * b)`, in two vectors of partial sums.
#[inline(always)]
pub(crate) fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let len = a.len().min(b.len());
    let ((a, a_rest), (b, b_rest)) = (a[..len].as_chunks::<LANES>(), b[..len].as_chunks::<LANES>());
    let ((a_twos, a_one), (b_twos, b_one)) = (a.as_chunks::<2>(), b.as_chunks::<2>());
    let mut sums = [s.zero(); 2];
    for (a, b) in a_twos.iter().zip(b_twos) {
        sums[0] = s.fma(s.load(&a[0]), s.load(&b[0]), sums[0]);
        sums[1] = s.fma(s.load(&a[1]), s.load(&b[1]), sums[1]);
    }
    for (a, b) in a_one.iter().zip(b_one) {
        sums[0] = s.fma(s.load(a), s.load(b), sums[0]);
    }
    if !a_rest.is_empty() {
        let sum = &mut sums[a_one.len()];
        *sum = s.fma(s.load_first(a_rest), s.load_first(b_rest), *sum);
    }
    s.sum(s.add(sums[0], sums[1]))
}

/// `y += a * x`.
#[inline(always)]
pub(crate) fn add_scaled<S: Simd>(s: S, y: &mut [f32], a: f32, x: &[f32]) {
    let a = s.splat(a);
    map_with(
        s,
        y,
        x,
        #[inline(always)]
        |y, x| s.fma(a, x, y),
    );
}

/// RMSNorm (arXiv 1910.07467).
#[inline(always)]
pub(crate) fn rms_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let len = x.len().min(weight.len()).min(out.len());
    let mean = dot(s, x, x) / x.len() as f32;
    let scale = s.splat(1.0 / (mean + eps).sqrt());
    let ((xs, x_rest), (weights, weight_rest)) = (x[..len].as_chunks(), weight[..len].as_chunks());
    let (outs, out_rest) = out[..len].as_chunks_mut();
    for ((out, x), weight) in outs.iter_mut().zip(xs).zip(weights) {
        s.store(out, s.mul(s.mul(s.load(x), scale), s.load(weight)));
    }
    if !out_rest.is_empty() {
        s.store_first(out_rest, s.mul(s.mul(s.load_first(x_rest), scale), s.load_first(weight_rest)));
    }
}

/// LayerNorm (arXiv 1607.06450). The variance is the mean square of the differences from the mean, so that nothing cancels.
#[inline(always)]
pub(crate) fn layer_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let len = x.len().min(weight.len()).min(bias.len()).min(out.len());
    let (xs, x_rest) = x[..len].as_chunks();
    let mut sum = s.load_first(x_rest);
    for x in xs {
        sum = s.add(s.load(x), sum);
    }
    let mean = s.splat(s.sum(sum) / len as f32);
    let last = s.keep_range(s.sub(s.load_first(x_rest), mean), 0.0, [0, x_rest.len()], 0);
    let mut squares = s.mul(last, last);
    for x in xs {
        let difference = s.sub(s.load(x), mean);
        squares = s.fma(difference, difference, squares);
    }
    let scale = s.splat(1.0 / (s.sum(squares) / len as f32 + eps).sqrt());
    let ((weights, weight_rest), (biases, bias_rest)) = (weight[..len].as_chunks(), bias[..len].as_chunks());
    let (outs, out_rest) = out[..len].as_chunks_mut();
    for (((out, x), weight), bias) in outs.iter_mut().zip(xs).zip(weights).zip(biases) {
        let normed = s.mul(s.sub(s.load(x), mean), scale);
        s.store(out, s.fma(normed, s.load(weight), s.load(bias)));
    }
    if !out_rest.is_empty() {
        s.store_first(
            out_rest,
            s.fma(s.mul(last, scale), s.load_first(weight_rest), s.load_first(bias_rest)),
        );
    }
}

/// RoPE (arXiv 2104.09864): plain loops, which the compiler vectorises.
#[inline(always)]
pub(crate) fn rope<S: Simd>(_: S, kind: RopeKind, head: &mut [f32], rotation: &[[f32; 2]]) {
    let turn = |a: &mut f32, b: &mut f32, [cos, sin]: [f32; 2]| {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    };
    match kind {
        RopeKind::Neighbours => {
            for ([a, b], rotation) in head.as_chunks_mut::<2>().0.iter_mut().zip(rotation) {
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

/// An activation of sixteen numbers.
#[inline(always)]
fn activation<S: Simd>(s: S, kind: Activation, x: S::F) -> S::F {
    /// `2 sqrt(2 / pi)`.
    const TWICE: f32 = 1.595_769_2;
    match kind {
        Activation::GeluTanh => {
            let cube = s.mul(s.mul(x, x), x);
            let inner = s.mul(s.splat(TWICE), s.fma(s.splat(0.044_715), cube, x));
            times_sigmoid(s, x, inner)
        }
        Activation::SquaredRelu => {
            let positive = s.max(s.zero(), x);
            s.mul(positive, positive)
        }
        Activation::Gelu => gelu(s, x),
        _ => times_sigmoid(s, x, x),
    }
}

/// Clamped SwiGLU; see [`Activation::ClampedSwiglu`]. `min` and `max` give their second argument where either is NaN.
#[inline(always)]
fn clamped_swiglu<S: Simd>(s: S, gate: S::F, up: S::F) -> S::F {
    let most = s.splat(7.0);
    let gate = s.min(most, gate);
    let up = s.max(s.splat(-7.0), s.min(most, up));
    let open = times_sigmoid(s, gate, s.mul(s.splat(1.702), gate));
    s.mul(open, s.add(up, s.splat(1.0)))
}

/// `gate = activation(gate) * up`.
#[inline(always)]
pub(crate) fn glu<S: Simd>(s: S, kind: Activation, gate: &mut [f32], up: &[f32]) {
    map_with(
        s,
        gate,
        up,
        #[inline(always)]
        |gate, up| match kind {
            Activation::ClampedSwiglu => clamped_swiglu(s, gate, up),
            _ => s.mul(activation(s, kind, gate), up),
        },
    );
}

/// `x = activation(x)`.
#[inline(always)]
pub(crate) fn activate<S: Simd>(s: S, kind: Activation, x: &mut [f32]) {
    map(
        s,
        x,
        #[inline(always)]
        |x| activation(s, kind, x),
    );
}

/// `x = xielu(x)`; see [`herald_layers::kernels::Xielu`].
#[inline(always)]
pub(crate) fn xielu<S: Simd>(s: S, xielu: &Xielu, x: &mut [f32]) {
    map(
        s,
        x,
        #[inline(always)]
        |x| xielu_of(s, xielu, x),
    );
}

/// `exp(x) / sum(exp(x))`; see [`herald_layers::Kernels::softmax`].
#[inline(always)]
pub(crate) fn softmax<S: Simd>(s: S, x: &mut [f32]) {
    let (vectors, rest) = x.as_chunks_mut();
    let mut max = s.splat(f32::NEG_INFINITY);
    for x in &*vectors {
        max = s.max(s.load(x), max);
    }
    let max = s.splat(rest.iter().copied().fold(s.max_lane(max), f32::max));
    let mut sum = s.zero();
    for x in vectors {
        let part = exp(s, s.sub(s.load(x), max));
        s.store(x, part);
        sum = s.add(sum, part);
    }
    if !rest.is_empty() {
        s.store_first(rest, exp(s, s.sub(s.load_first(rest), max)));
        sum = s.add(sum, s.load_first(rest));
    }
    let sum = s.sum(sum);
    x.iter_mut().for_each(|part| *part /= sum);
}

/// `x` as `scale * codes`; see [`herald_layers::Kernels::quantize_i16`].
#[inline(always)]
pub(crate) fn quantize_i16<S: Simd>(s: S, x: &[f32], codes: &mut [i16]) -> f32 {
    const MAX_CODE: f32 = i16::MAX as f32;
    let len = x.len().min(codes.len());
    let (x, codes) = (&x[..len], &mut codes[..len]);
    let (vectors, rest) = x.as_chunks();
    let (mut max, mut zero_if_finite) = (s.zero(), s.zero());
    for x in vectors {
        let x = s.load(x);
        max = s.max(s.abs(x), max);
        zero_if_finite = s.add(s.sub(x, x), zero_if_finite);
    }
    if !rest.is_empty() {
        let x = s.load_first(rest);
        max = s.max(s.abs(x), max);
        zero_if_finite = s.add(s.sub(x, x), zero_if_finite);
    }
    let max = s.max_lane(max);
    if s.sum(zero_if_finite) != 0.0 && x.iter().any(|x| x.is_nan()) {
        // A NaN must not be hidden by quantising it.
        codes.fill(1);
        return f32::NAN;
    }
    let scale = max / MAX_CODE;
    // The reciprocal of a subnormal scale would overflow: so small a row becomes zeros.
    let inverse = s.splat(if scale < f32::MIN_POSITIVE { 0.0 } else { MAX_CODE / max });
    let (code_vectors, code_rest) = codes.as_chunks_mut();
    for (codes, x) in code_vectors.iter_mut().zip(vectors) {
        s.store_i16(codes, s.mul(s.load(x), inverse));
    }
    if !rest.is_empty() {
        let mut last = [0; LANES];
        s.store_i16(&mut last, s.mul(s.load_first(rest), inverse));
        code_rest.copy_from_slice(&last[..rest.len()]);
    }
    scale
}

/// Matmul of float32 matrices, in tiles of as many tokens as rows, with a vector of partial sums for each of their products.
#[inline(always)]
pub(crate) fn gemm<S: Simd>(s: S, call: &Gemm<'_>, out: &mut [f32]) {
    let Gemm { n_tokens, rows, columns, .. } = *call;
    assert!(
        call.x.len() >= n_tokens * columns
            && call.panel.len() >= rows * columns
            && out.len() >= n_tokens * rows,
        "a product of {n_tokens} tokens with {rows} rows of {columns} has slices too short"
    );
    let edge = if S::WIDE { 4 } else { 2 };
    for token in (0..n_tokens).step_by(edge) {
        for row in (0..rows).step_by(edge) {
            match (edge, n_tokens - token >= edge && rows - row >= edge) {
                (4, true) => gemm_tile::<S, 4>(s, call, token, row, out),
                (_, true) => gemm_tile::<S, 2>(s, call, token, row, out),
                _ => {
                    for token in token..n_tokens.min(token + edge) {
                        for row in row..rows.min(row + edge) {
                            gemm_tile::<S, 1>(s, call, token, row, out);
                        }
                    }
                }
            }
        }
    }
}

/// Products of each head's queries with its part of rows of float16, which are read in the order in which they lie.
#[inline(always)]
pub(crate) fn head_matmul<S: Simd>(s: S, call: &HeadMatmul<'_>, out: &mut [f32]) {
    let HeadMatmul { queries, rows, n_heads, n_queries, width, stride } = *call;
    let n_rows = call.n_rows(out.len());
    let stream = Stream::new(bytemuck::cast_slice(rows), true);
    for index in 0..n_rows {
        for head in 0..n_heads {
            let row = &rows[index * stride + head * width..][..width];
            stream.read(row.as_ptr().cast(), size_of_val(row));
            let mut query = head * n_queries;
            let end = query + n_queries;
            while query < end {
                let (queries, out) = (&queries[query * width..], &mut out[query * n_rows + index..]);
                query += match end - query {
                    4.. => row_products::<S, 4>(s, queries, row, out, n_rows),
                    3 => row_products::<S, 3>(s, queries, row, out, n_rows),
                    2 => row_products::<S, 2>(s, queries, row, out, n_rows),
                    _ => row_products::<S, 1>(s, queries, row, out, n_rows),
                };
            }
        }
    }
}

/// `N` queries with a row, whose products go `n_rows` elements apart. Returns `N`.
#[inline(always)]
fn row_products<S: Simd, const N: usize>(
    s: S,
    queries: &[f32],
    row: &[u16],
    out: &mut [f32],
    n_rows: usize,
) -> usize {
    let queries: [_; N] =
        std::array::from_fn(|index| queries[index * row.len()..][..row.len()].as_chunks::<LANES>());
    let (vectors, rest) = row.as_chunks::<LANES>();
    let mut sums = [s.zero(); N];
    for (at, row) in vectors.iter().enumerate() {
        let row = s.load_f16(bytemuck::must_cast_ref(row));
        for (sum, (query, _)) in sums.iter_mut().zip(queries) {
            *sum = s.fma(s.load(&query[at]), row, *sum);
        }
    }
    if !rest.is_empty() {
        let mut last = [0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        let row = s.load_f16(bytemuck::must_cast_ref(&last));
        for (sum, (_, query)) in sums.iter_mut().zip(queries) {
            *sum = s.fma(s.load_first(query), row, *sum);
        }
    }
    for (index, sum) in sums.into_iter().enumerate() {
        out[index * n_rows] = s.sum(sum);
    }
    N
}

/// `sums += x * rows`.
#[inline(always)]
fn add_products<S: Simd, const N: usize>(s: S, sums: &mut [S::F; N], x: S::F, rows: &[S::F; N]) {
    for (sum, row) in sums.iter_mut().zip(rows) {
        *sum = s.fma(x, *row, *sum);
    }
}

/// `N` tokens with `N` rows.
#[inline(always)]
fn gemm_tile<S: Simd, const N: usize>(s: S, call: &Gemm<'_>, token: usize, row: usize, out: &mut [f32]) {
    let columns = call.columns;
    let x: [_; N] =
        std::array::from_fn(|index| call.x[(token + index) * columns..][..columns].as_chunks::<LANES>());
    let panel: [_; N] =
        std::array::from_fn(|index| call.panel[(row + index) * columns..][..columns].as_chunks::<LANES>());
    let mut sums = [[s.zero(); N]; N];
    for at in 0..columns / LANES {
        let mut rows = [s.zero(); N];
        for (row, (panel, _)) in rows.iter_mut().zip(panel) {
            *row = s.load(&panel[at]);
        }
        for (sums, (x, _)) in sums.iter_mut().zip(x) {
            add_products(s, sums, s.load(&x[at]), &rows);
        }
    }
    if !columns.is_multiple_of(LANES) {
        let mut rows = [s.zero(); N];
        for (row, (_, panel)) in rows.iter_mut().zip(panel) {
            *row = s.load_first(panel);
        }
        for (sums, (_, x)) in sums.iter_mut().zip(x) {
            add_products(s, sums, s.load_first(x), &rows);
        }
    }
    for (index, sums) in sums.iter().enumerate() {
        for (offset, sum) in sums.iter().enumerate() {
            out[(token + index) * call.rows + row + offset] = s.sum(*sum);
        }
    }
}
