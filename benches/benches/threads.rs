//! The time to start an empty parallel loop and join its threads.

use std::hint::black_box;
use std::num::NonZeroUsize;

use criterion::{Criterion, criterion_group, criterion_main};
use herald::threads::{ThreadPool, available_threads};

fn start_and_join(criterion: &mut Criterion) {
    for threads in [1, 2, 4, 8].into_iter().filter(|threads| *threads <= available_threads().get()) {
        let pool = ThreadPool::new(NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN));
        let pool = pool.unwrap_or_else(|error| panic!("{error}"));
        criterion.bench_function(&format!("an empty loop on {threads} threads"), |bencher| {
            bencher.iter(|| {
                pool.run(threads, &|range, worker| {
                    black_box((range, worker));
                })
            });
        });
    }
}

criterion_group!(benches, start_and_join);
criterion_main!(benches);
