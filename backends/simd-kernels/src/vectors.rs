//! Kernels over float32 vectors.

use herald_api::{Activation, RopeKind};
use herald_layers::kernels::{Gemm, HeadMatmul, Xielu};

use crate::floats::tile_len;
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

/// Tokens from which on it pays to bring a panel to columns.
const TOKENS_BY_COLUMNS: usize = 8;

/// Columns of a panel that are brought to columns at a time: with two vectors of rows, half of the nearest cache.
const PANEL_COLUMNS: usize = 128;

/// Vectors of a panel's rows: sixteen side by side, column after column.
type Columns = [[f32; LANES]; PANEL_COLUMNS];

/// Matmul of float32 matrices. For many tokens each row of the panel gets a lane; for few the columns do, and a vector of partial
/// sums for each product is added up in the end.
#[inline(always)]
pub(crate) fn gemm<S: Simd>(s: S, call: &Gemm<'_>, out: &mut [f32]) {
    let Gemm { n_tokens, rows, columns, .. } = *call;
    assert!(
        call.x.len() >= n_tokens * columns
            && call.panel.len() >= rows * columns
            && out.len() >= n_tokens * rows,
        "a product of {n_tokens} tokens with {rows} rows of {columns} has slices too short"
    );
    if n_tokens >= TOKENS_BY_COLUMNS && rows >= LANES && columns > 0 {
        let mut row = 0;
        while row < rows {
            row += match rows - row {
                17.. if S::WIDE => gemm_by_columns::<S, 2>(s, call, row, out),
                _ => gemm_by_columns::<S, 1>(s, call, row, out),
            };
        }
        return;
    }
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

/// All tokens with up to `R` vectors of rows from `row` on. Returns how many rows those are.
#[inline(always)]
fn gemm_by_columns<S: Simd, const R: usize>(s: S, call: &Gemm<'_>, row: usize, out: &mut [f32]) -> usize {
    let Gemm { n_tokens, rows, columns, .. } = *call;
    let count = (rows - row).min(R * LANES);
    let mut panel: [Columns; R] = [[[0.0; LANES]; PANEL_COLUMNS]; R];
    for first in (0..columns).step_by(PANEL_COLUMNS) {
        let width = PANEL_COLUMNS.min(columns - first);
        for (index, panel) in panel.iter_mut().enumerate() {
            let row = row + index * LANES;
            let rows = &call.panel[row * columns + first..];
            side_by_side(s, rows, [count - index * LANES, columns, width], panel.as_flattened_mut());
        }
        let mut token = 0;
        while token < n_tokens {
            let x = &call.x[token * columns + first..];
            let block = Block { panel: &panel, width, columns, rows, count, goes_on: first > 0 };
            let out = &mut out[token * rows + row..];
            token += match tile_len::<S>(n_tokens - token) {
                12 => block.multiply::<S, 12>(s, x, out),
                4 => block.multiply::<S, 4>(s, x, out),
                2 => block.multiply::<S, 2>(s, x, out),
                _ => block.multiply::<S, 1>(s, x, out),
            };
        }
    }
    count
}

/// Some columns of `R` vectors of rows.
struct Block<'p, const R: usize> {
    panel: &'p [Columns; R],
    /// How many columns.
    width: usize,
    /// Elements from one token to the next.
    columns: usize,
    /// Results from one token to the next.
    rows: usize,
    /// Rows that there are.
    count: usize,
    /// Whether the results hold the sums of columns before.
    goes_on: bool,
}

impl<const R: usize> Block<'_, R> {
    /// The results of the rows of a vector that there are.
    #[inline(always)]
    fn lanes(&self, token: usize, vector: usize) -> std::ops::Range<usize> {
        let first = token * self.rows;
        first + vector * LANES..first + self.count.min((vector + 1) * LANES)
    }

    /// The products with `N` tokens. Returns `N`.
    #[inline(always)]
    fn multiply<S: Simd, const N: usize>(&self, s: S, x: &[f32], out: &mut [f32]) -> usize {
        let x: [&[f32]; N] = std::array::from_fn(|n| &x[n * self.columns..][..self.width]);
        let panel: [&[[f32; LANES]]; R] = self.panel.each_ref().map(|panel| &panel[..self.width]);
        let mut sums = [[s.zero(); R]; N];
        if self.goes_on {
            for (token, sums) in sums.iter_mut().enumerate() {
                for (vector, sum) in sums.iter_mut().enumerate() {
                    *sum = s.load_first(&out[self.lanes(token, vector)]);
                }
            }
        }
        // By index, since all slices have as many elements: so none is checked in the loop.
        for column in 0..self.width {
            let mut rows = [s.zero(); R];
            for (row, panel) in rows.iter_mut().zip(panel) {
                *row = s.load(&panel[column]);
            }
            for (sums, x) in sums.iter_mut().zip(x) {
                add_products(s, sums, s.splat(x[column]), &rows);
            }
        }
        for (token, sums) in sums.iter().enumerate() {
            for (vector, sum) in sums.iter().enumerate() {
                s.store_first(&mut out[self.lanes(token, vector)], *sum);
            }
        }
        N
    }
}

/// Lays up to sixteen rows out as `[columns, 16]`, with zeros in place of those that are missing. The rows are `stride` elements apart.
#[inline(always)]
pub(crate) fn side_by_side<S: Simd>(s: S, x: &[f32], [rows, stride, columns]: [usize; 3], out: &mut [f32]) {
    let rows = rows.min(LANES);
    let out = &mut out[..columns * LANES];
    assert!(rows > 0 && x.len() >= (rows - 1) * stride + columns, "{rows} rows of {columns}");
    if rows < LANES {
        out.fill(0.0);
    }
    let (fours, whole) = (rows / 4 * 4, columns / LANES * LANES);
    for row in (0..fours).step_by(4) {
        for column in (0..whole).step_by(LANES) {
            // SAFETY: `x` has rows `row` to `row + 3`, of at least `column + 16` columns; `out` is `[columns, 16]`, of which columns
            // `column` to `column + 15` and these rows are written.
            unsafe {
                let at = |n: usize| s.load_ptr(x.as_ptr().add((row + n) * stride + column));
                let transposed = s.transpose_quarters([at(0), at(1), at(2), at(3)]);
                for (n, quarters) in transposed.into_iter().enumerate() {
                    let to = out.as_mut_ptr().add((column + n) * LANES + row);
                    s.store_quarters(to, 4 * LANES, quarters);
                }
            }
        }
    }
    for row in 0..rows {
        for column in if row < fours { whole } else { 0 }..columns {
            out[column * LANES + row] = x[row * stride + column];
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
