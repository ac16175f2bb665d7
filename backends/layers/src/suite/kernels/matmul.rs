//! Products and sums of float32 vectors.

use half::f16;
use ndarray::ArrayView2;
use proptest::prelude::*;

use super::super::bounds::{Expected, TINY, check_all, gamma};
use super::super::values::{Spread, Values};
use super::super::{Case, property};
use super::{CASES, lens};
use crate::Kernels;
use crate::kernels::{Gemm, HeadMatmul};

pub(in super::super) fn check(kernels: &'static Kernels) {
    let vectors = (lens(), 0_usize..8, 0_usize..8, Spread::any(), any::<u64>());
    property(&format!("{}: dot", kernels.name), CASES, vectors.clone(), |(len, a, b, spread, seed)| {
        dot(kernels, len, [a, b], spread, seed)
    });
    property(&format!("{}: add_scaled", kernels.name), CASES, vectors, |(len, y, x, spread, seed)| {
        add_scaled(kernels, len, [y, x], spread, seed)
    });
    let shapes = (0_usize..40, 0_usize..40, lens());
    property(
        &format!("{}: gemm", kernels.name),
        CASES,
        (shapes, 0_usize..8, Spread::any(), any::<u64>()),
        |(shape, before, spread, seed)| gemm(kernels, shape, before, spread, seed),
    );
    let shapes = (1_usize..5, 1_usize..10, 0_usize..40, 1_usize..300)
        .prop_map(|(n_heads, n_queries, n_rows, width)| [n_heads, n_queries, n_rows, width]);
    property(
        &format!("{}: head_matmul", kernels.name),
        CASES,
        (shapes, 0_usize..20, any::<u64>()),
        |(shape, beyond, seed)| head_matmul(kernels, shape, beyond, seed),
    );
}

fn dot(kernels: &Kernels, len: usize, [a_before, b_before]: [usize; 2], spread: Spread, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let a = values.floats(a_before + len, spread);
    let b = values.floats(b_before + len, spread);
    let (a, b) = (&a[a_before..], &b[b_before..]);
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    let value = products.clone().sum();
    let bound = gamma(len + 1) * products.map(f64::abs).sum::<f64>() + (len + 1) as f64 * TINY;
    check_all("the dot product", &[(kernels.dot)(a, b)], [Expected { value, bound }])
}

fn add_scaled(
    kernels: &Kernels,
    len: usize,
    [y_before, x_before]: [usize; 2],
    spread: Spread,
    seed: u64,
) -> Case {
    let mut values = Values::new(seed);
    let before = values.floats(y_before + len, spread);
    let x = values.floats(x_before + len, spread);
    let a = values.pick(&[0.0, 1.0, -1.0, 0.22, -3.5e5]);
    let mut y = before.clone();
    (kernels.add_scaled)(&mut y[y_before..], a, &x[x_before..]);
    let expected = before[y_before..].iter().zip(&x[x_before..]).map(|(y, x)| {
        let (y, product) = (f64::from(*y), f64::from(a) * f64::from(*x));
        Expected { value: y + product, bound: gamma(2) * (y.abs() + product.abs()) + 2.0 * TINY }
    });
    check_all("y + a x", &y[y_before..], expected)?;
    check_all("what lies before y", &y[..y_before], exactly(&before[..y_before]))
}

fn gemm(
    kernels: &Kernels,
    (n_tokens, rows, columns): (usize, usize, usize),
    before: usize,
    spread: Spread,
    seed: u64,
) -> Case {
    let mut values = Values::new(seed);
    let x = values.floats(before + n_tokens * columns, spread);
    let panel = values.floats(before / 2 + rows * columns, spread);
    let (x, panel) = (&x[before..], &panel[before / 2..]);
    // The kernel overwrites what was there, which would show as NaN.
    let mut out = vec![f32::NAN; n_tokens * rows];
    (kernels.gemm)(&Gemm { x, panel, n_tokens, rows, columns }, &mut out);
    let matrix = |rows, data: &[f32]| {
        ArrayView2::from_shape((rows, columns), data).expect("the lengths are the shapes'").mapv(f64::from)
    };
    let (x, panel) = (matrix(n_tokens, x), matrix(rows, panel));
    let product = x.dot(&panel.t());
    let sizes = x.mapv(f64::abs).dot(&panel.mapv(f64::abs).t());
    let expected = product.iter().zip(&sizes).map(|(value, size)| Expected {
        value: *value,
        bound: gamma(columns + 1) * size + (columns + 1) as f64 * TINY,
    });
    check_all("the product", &out, expected)
}

fn head_matmul(
    kernels: &Kernels,
    [n_heads, n_queries, n_rows, width]: [usize; 4],
    beyond: usize,
    seed: u64,
) -> Case {
    let mut values = Values::new(seed);
    let stride = n_heads * width + beyond;
    let queries = values.floats(n_heads * n_queries * width, Spread::Even);
    let rows: Vec<f16> =
        values.floats(n_rows * stride, Spread::Even).into_iter().map(f16::from_f32).collect();
    let bits: Vec<u16> = rows.iter().map(|element| element.to_bits()).collect();
    let mut out = vec![f32::NAN; n_heads * n_queries * n_rows];
    (kernels.head_matmul)(
        &HeadMatmul { queries: &queries, rows: &bits, n_heads, n_queries, width, stride },
        &mut out,
    );
    let expected = (0..out.len()).map(|place| {
        let (query, row) = (place / n_rows, place % n_rows);
        let query_elements = &queries[query * width..][..width];
        let elements = &rows[row * stride + query / n_queries * width..][..width];
        let (mut value, mut size) = (0.0, 0.0);
        for (a, b) in query_elements.iter().zip(elements) {
            let product = f64::from(*a) * b.to_f64();
            (value, size) = (value + product, size + product.abs());
        }
        Expected { value, bound: gamma(width + 1) * size + (width + 1) as f64 * TINY }
    });
    check_all("the products", &out, expected)
}

/// Values that nothing may have changed.
pub(super) fn exactly(values: &[f32]) -> impl Iterator<Item = Expected> {
    values.iter().map(|value| Expected { value: f64::from(*value), bound: 0.0 })
}
