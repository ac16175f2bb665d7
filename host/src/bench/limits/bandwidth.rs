//! How fast this process's threads read memory.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;

use crate::threads::ThreadPool;

/// Larger than the caches of the machines that this runs on, so that reading it is reading memory.
const BYTES: usize = 256 << 20;

/// Bytes a second, all threads together, the best of some rounds: what is asked is what the machine can do.
pub(super) fn read(pool: &ThreadPool) -> f64 {
    let data = vec![1_u64; BYTES / size_of::<u64>()];
    let sums = Mutex::new(0_u64);
    let mut best = 0.0_f64;
    for _ in 0..4 {
        let start = Instant::now();
        pool.run(data.len() / 512, &|range, _| {
            let sum = sum(&data[range.start * 512..range.end * 512]);
            *sums.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) ^= sum;
        });
        best = best.max(BYTES as f64 / start.elapsed().as_secs_f64());
    }
    black_box(sums.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()));
    best
}

/// In many sums side by side, so that none waits for another.
fn sum(data: &[u64]) -> u64 {
    let mut sums = [0_u64; 32];
    for part in data.chunks_exact(32) {
        for (sum, value) in sums.iter_mut().zip(part) {
            *sum = sum.wrapping_add(*value);
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}
