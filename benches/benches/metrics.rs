//! The cost of metrics: what a scheduler counts in a step that decodes a token of each sequence, and what a monitor reads at
//! intervals. A step's figure over the time of a step (`host bench speed`) is the share that metrics take.

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use herald::metrics::{ServingMetrics, Step, process_memory};

fn step(criterion: &mut Criterion) {
    for sequences in [1, 16] {
        let metrics = ServingMetrics::start();
        criterion.bench_function(&format!("metrics of a step of {sequences}"), |bencher| {
            let mut last = Instant::now();
            bencher.iter(|| {
                let start = Instant::now();
                let now = Instant::now();
                metrics.step(&Step { took: now - start, prompt: 0, decoded: sequences, sequences });
                for _ in 0..sequences {
                    metrics.token(Some((now - last).as_secs_f64()));
                }
                last = now;
            });
        });
    }
}

fn reports(criterion: &mut Criterion) {
    let metrics = ServingMetrics::start();
    criterion
        .bench_function("a report of all requests", |bencher| bencher.iter(|| black_box(metrics.report())));
    criterion.bench_function("this process's memory", |bencher| bencher.iter(|| black_box(process_memory())));
}

criterion_group!(benches, step, reports);
criterion_main!(benches);
