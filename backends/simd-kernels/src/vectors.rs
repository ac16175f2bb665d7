//! Kernels over float32 vectors.

use herald_api::{Activation, RopeKind};
use herald_layers::kernels::{Gemm, HeadMatmul};

use crate::math::{exp, times_sigmoid};
use crate::prefetch::Stream;
use crate::simd::{LANES, Simd};

/// The first elements of a run of sixteen, or all.
#[inline(always)]
fn count(len: usize, at: usize) -> usize {
    LANES.min(len - at)
}

/// Loads sixteen elements, or those that are left.
///
/// # Safety
/// As for [`Simd`]; `at` is within `x`.
#[inline(always)]
pub(crate) unsafe fn load<L: Simd>(x: &[f32], at: usize) -> L::F {
    // SAFETY: no more than are left are read.
    unsafe {
        let from = x.as_ptr().add(at);
        if x.len() - at >= LANES { L::load(from) } else { L::load_first(from, x.len() - at) }
    }
}

/// Loads sixteen elements, or those that are left and zeros.
///
/// # Safety
/// As for [`Simd`]; `at` is within `x`.
#[inline(always)]
unsafe fn load_f16<L: Simd>(x: &[u16], at: usize) -> L::F {
    let left = &x[at..];
    let mut last = [0; LANES];
    let from = match left.first_chunk() {
        Some(sixteen) => sixteen,
        None => {
            last[..left.len()].copy_from_slice(left);
            &last
        }
    };
    // SAFETY: the caller vouches; there are sixteen.
    unsafe { L::load_f16(from.as_ptr().cast()) }
}

/// Stores sixteen elements, or as many as there is room for.
///
/// # Safety
/// As for [`Simd`]; `at` is within `to`.
#[inline(always)]
pub(crate) unsafe fn store<L: Simd>(to: &mut [f32], at: usize, x: L::F) {
    // SAFETY: no more than there is room for are written.
    unsafe {
        let left = to.len() - at;
        let to = to.as_mut_ptr().add(at);
        if left >= LANES { L::store(to, x) } else { L::store_first(to, x, left) }
    }
}

/// `sum(a * b)`, in two vectors of partial sums.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn dot<L: Simd>(a: &[f32], b: &[f32]) -> f32 {
    let len = a.len().min(b.len());
    let (a, b) = (&a[..len], &b[..len]);
    // SAFETY: the caller vouches; places are within both.
    unsafe {
        let mut sums = [L::zero(); 2];
        for at in (0..len).step_by(2 * LANES) {
            sums[0] = L::fma(load::<L>(a, at), load::<L>(b, at), sums[0]);
            if at + LANES < len {
                sums[1] = L::fma(load::<L>(a, at + LANES), load::<L>(b, at + LANES), sums[1]);
            }
        }
        L::sum(L::add(sums[0], sums[1]))
    }
}

/// `y += a * x`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn add_scaled<L: Simd>(y: &mut [f32], a: f32, x: &[f32]) {
    let len = y.len().min(x.len());
    let (y, x) = (&mut y[..len], &x[..len]);
    // SAFETY: the caller vouches; places are within both.
    unsafe {
        let a = L::splat(a);
        for at in (0..len).step_by(LANES) {
            let sum = L::fma(a, load::<L>(x, at), load::<L>(y, at));
            store::<L>(y, at, sum);
        }
    }
}

/// RMSNorm (arXiv 1910.07467).
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn rms_norm<L: Simd>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let len = x.len().min(weight.len()).min(out.len());
    // SAFETY: the caller vouches; places are within all three.
    unsafe {
        let mean = dot::<L>(x, x) / x.len() as f32;
        let scale = L::splat(1.0 / (mean + eps).sqrt());
        for at in (0..len).step_by(LANES) {
            let normed = L::mul(L::mul(load::<L>(&x[..len], at), scale), load::<L>(&weight[..len], at));
            store::<L>(&mut out[..len], at, normed);
        }
    }
}

/// RoPE (arXiv 2104.09864): plain loops, which the compiler makes vectors of.
#[inline(always)]
pub(crate) fn rope(kind: RopeKind, head: &mut [f32], rotation: &[[f32; 2]]) {
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
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn activation<L: Simd>(kind: Activation, x: L::F) -> L::F {
    /// `2 sqrt(2 / pi)`.
    const TWICE: f32 = 1.595_769_2;
    // SAFETY: the caller vouches.
    unsafe {
        match kind {
            Activation::GeluTanh => {
                let cube = L::mul(L::mul(x, x), x);
                let inner = L::mul(L::splat(TWICE), L::fma(L::splat(0.044_715), cube, x));
                times_sigmoid::<L>(x, inner)
            }
            Activation::SquaredRelu => {
                let positive = L::max(L::zero(), x);
                L::mul(positive, positive)
            }
            _ => times_sigmoid::<L>(x, x),
        }
    }
}

/// `gate = activation(gate) * up`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn glu<L: Simd>(kind: Activation, gate: &mut [f32], up: &[f32]) {
    let len = gate.len().min(up.len());
    let (gate, up) = (&mut gate[..len], &up[..len]);
    // SAFETY: the caller vouches; places are within both.
    unsafe {
        for at in (0..len).step_by(LANES) {
            let product = L::mul(activation::<L>(kind, load::<L>(gate, at)), load::<L>(up, at));
            store::<L>(gate, at, product);
        }
    }
}

/// `x = activation(x)`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn activate<L: Simd>(kind: Activation, x: &mut [f32]) {
    // SAFETY: the caller vouches; places are within the slice.
    unsafe {
        for at in (0..x.len()).step_by(LANES) {
            let active = activation::<L>(kind, load::<L>(x, at));
            store::<L>(x, at, active);
        }
    }
}

/// `exp(x) / sum(exp(x))`; see [`herald_layers::Kernels::softmax`].
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn softmax<L: Simd>(x: &mut [f32]) {
    let (whole, last) = (x.len() / LANES * LANES, x.len() % LANES);
    // SAFETY: the caller vouches; places are within.
    unsafe {
        let mut max = L::splat(f32::NEG_INFINITY);
        for at in (0..whole).step_by(LANES) {
            max = L::max(L::load(x.as_ptr().add(at)), max);
        }
        let max = x[whole..].iter().copied().fold(L::max_lane(max), f32::max);
        let mut sum = L::zero();
        for at in (0..x.len()).step_by(LANES) {
            let n = if at < whole { LANES } else { last };
            let to = x.as_mut_ptr().add(at);
            let part = exp::<L>(L::sub(L::load_first(to, n), L::splat(max)));
            L::store_first(to, part, n);
            sum = L::add(sum, L::load_first(to, n));
        }
        let sum = L::sum(sum);
        x.iter_mut().for_each(|part| *part /= sum);
    }
}

/// `x` as `scale * codes`; see [`herald_layers::Kernels::quantize_i16`].
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn quantize_i16<L: Simd>(x: &[f32], codes: &mut [i16]) -> f32 {
    const MOST: f32 = i16::MAX as f32;
    let len = x.len().min(codes.len());
    let (x, codes) = (&x[..len], &mut codes[..len]);
    // SAFETY: the caller vouches; places are within both.
    unsafe {
        let (mut max, mut odd) = (L::zero(), L::zero());
        for at in (0..len).step_by(LANES) {
            let x = load::<L>(x, at);
            max = L::max(L::abs(x), max);
            // Not a number as soon as one is not.
            odd = L::add(L::sub(x, x), odd);
        }
        let max = L::max_lane(max);
        if L::sum(odd) != 0.0 && x.iter().any(|x| x.is_nan()) {
            // What is wrong upstream must show downstream.
            codes.fill(1);
            return f32::NAN;
        }
        let scale = max / MOST;
        // The reciprocal of a scale below the least normal number would overflow: so small a row is zeros.
        let inverse = L::splat(if scale < f32::MIN_POSITIVE { 0.0 } else { MOST / max });
        for at in (0..len).step_by(LANES) {
            let code = L::mul(load::<L>(x, at), inverse);
            let mut last = [0; LANES];
            let n = count(len, at);
            let to = if n == LANES { codes.as_mut_ptr().add(at) } else { last.as_mut_ptr() };
            L::store_i16(to, code);
            if n < LANES {
                codes[at..].copy_from_slice(&last[..n]);
            }
        }
        scale
    }
}

/// Products of float32 matrices: tiles of `N` tokens and rows, each in a vector of partial sums.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn gemm<L: Simd>(call: &Gemm<'_>, out: &mut [f32]) {
    let Gemm { n_tokens, rows, columns, .. } = *call;
    assert!(
        call.x.len() >= n_tokens * columns
            && call.panel.len() >= rows * columns
            && out.len() >= n_tokens * rows,
        "a product of {n_tokens} tokens with {rows} rows of {columns} has slices too short"
    );
    let edge = if L::NR >= 12 { 4 } else { 2 };
    for token in (0..n_tokens).step_by(edge) {
        for row in (0..rows).step_by(edge) {
            // SAFETY: the caller vouches; the lengths are checked above.
            unsafe {
                match (edge, n_tokens - token >= edge && rows - row >= edge) {
                    (4, true) => gemm_tile::<L, 4>(call, token, row, out),
                    (_, true) => gemm_tile::<L, 2>(call, token, row, out),
                    _ => {
                        for token in token..n_tokens.min(token + edge) {
                            for row in row..rows.min(row + edge) {
                                gemm_tile::<L, 1>(call, token, row, out);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Products of each head's queries with its part of rows of float16, which are read in the order in which they lie.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn head_matmul<L: Simd>(call: &HeadMatmul<'_>, out: &mut [f32]) {
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
                // SAFETY: the caller vouches.
                query += unsafe {
                    match end - query {
                        4.. => row_products::<L, 4>(queries, row, out, n_rows),
                        3 => row_products::<L, 3>(queries, row, out, n_rows),
                        2 => row_products::<L, 2>(queries, row, out, n_rows),
                        _ => row_products::<L, 1>(queries, row, out, n_rows),
                    }
                };
            }
        }
    }
}

/// `N` queries with a row, whose products go `n_rows` elements apart. Returns `N`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn row_products<L: Simd, const N: usize>(
    queries: &[f32],
    row: &[u16],
    out: &mut [f32],
    n_rows: usize,
) -> usize {
    let queries: [&[f32]; N] = std::array::from_fn(|index| &queries[index * row.len()..][..row.len()]);
    // SAFETY: the caller vouches; no more are read than there are.
    unsafe {
        let mut sums = [L::zero(); N];
        for at in (0..row.len()).step_by(LANES) {
            let row = load_f16::<L>(row, at);
            for (sum, query) in sums.iter_mut().zip(queries) {
                *sum = L::fma(load::<L>(query, at), row, *sum);
            }
        }
        for (index, sum) in sums.into_iter().enumerate() {
            out[index * n_rows] = L::sum(sum);
        }
    }
    N
}

/// `N` tokens with `N` rows.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn gemm_tile<L: Simd, const N: usize>(call: &Gemm<'_>, token: usize, row: usize, out: &mut [f32]) {
    let columns = call.columns;
    let x: [&[f32]; N] = std::array::from_fn(|index| &call.x[(token + index) * columns..][..columns]);
    let panel: [&[f32]; N] = std::array::from_fn(|index| &call.panel[(row + index) * columns..][..columns]);
    // SAFETY: the caller vouches; places are within all the slices.
    unsafe {
        let mut sums = [[L::zero(); N]; N];
        for at in (0..columns).step_by(LANES) {
            let panel: [L::F; N] = std::array::from_fn(|index| load::<L>(panel[index], at));
            for (x, sums) in x.iter().zip(&mut sums) {
                let x = load::<L>(x, at);
                for (sum, panel) in sums.iter_mut().zip(&panel) {
                    *sum = L::fma(x, *panel, *sum);
                }
            }
        }
        for (index, sums) in sums.iter().enumerate() {
            for (offset, sum) in sums.iter().enumerate() {
                out[(token + index) * call.rows + row + offset] = L::sum(*sum);
            }
        }
    }
}
