//! Kernels by themselves, one thread: products of a weight row with activations for every element type, and of a panel
//! with a batch. Criterion reports elements per second: multiply-adds.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use herald_api::DType;
use herald_layers::kernels::Gemm;

/// A row of a small model's MLP, and rows enough to leave the first-level cache.
const COLUMNS: usize = 1536;
const ROWS: usize = 64;

/// Bytes that are finite weights in every type: scales of float16 1.5 and codes of all values.
fn weights(dtype: DType) -> Vec<u8> {
    let bytes = dtype.row_bytes(COLUMNS).unwrap_or(0) * ROWS;
    (0..bytes).map(|index| if index % 2 == 1 { 0x3e } else { (index * 37) as u8 }).collect()
}

fn activations(tokens: usize) -> Vec<f32> {
    (0..tokens * COLUMNS).map(|index| (index % 17) as f32 / 8.0 - 1.0).collect()
}

fn row_products(criterion: &mut Criterion) {
    for kernels in herald_benches::tables() {
        let mut group = criterion.benchmark_group(format!("{}/dot", kernels.name));
        group.throughput(Throughput::Elements((ROWS * COLUMNS) as u64));
        let x = activations(1);
        for dtype in DType::ALL {
            let (weights, row) = (weights(dtype), (kernels.rows)(dtype));
            group.bench_function(BenchmarkId::from_parameter(dtype), |bencher| {
                bencher.iter(|| {
                    weights
                        .chunks_exact(weights.len() / ROWS)
                        .map(|data| (row.dot)(data, black_box(&x)))
                        .sum::<f32>()
                });
            });
        }
    }
}

fn batched_products(criterion: &mut Criterion) {
    for kernels in herald_benches::tables() {
        let mut group = criterion.benchmark_group(format!("{}/gemm", kernels.name));
        let panel = vec![0.5; ROWS * COLUMNS];
        for n_tokens in [4, 64, 512] {
            let x = activations(n_tokens);
            let mut out = vec![0.0; n_tokens * ROWS];
            group.throughput(Throughput::Elements((n_tokens * ROWS * COLUMNS) as u64));
            group.bench_function(BenchmarkId::from_parameter(n_tokens), |bencher| {
                let gemm = Gemm { x: &x, panel: &panel, n_tokens, rows: ROWS, columns: COLUMNS };
                bencher.iter(|| (kernels.gemm)(black_box(&gemm), &mut out));
            });
        }
    }
}

criterion_group!(benches, row_products, batched_products);
criterion_main!(benches);
