//! Read bandwidth of this process's threads.

use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;

use herald::threads::ThreadPool;
use herald::threads::{into_value, locked};

/// Larger than any cache, so that reads go to memory.
const BYTES: usize = 256 << 20;

/// Prefetch distance in bytes.
const AHEAD: usize = 8192;

/// How memory is read: some CPUs are fastest on their own, others with software prefetch into one cache or another.
#[derive(Clone, Copy)]
enum Way {
    Plain,
    FirstCache,
    SecondCache,
}

const WAYS: [Way; 3] = [Way::Plain, Way::FirstCache, Way::SecondCache];

/// Bytes per second of all threads together: the best of some rounds, since this is the machine's limit.
pub(super) fn read(pool: &ThreadPool) -> f64 {
    let data = vec![1_u64; BYTES / size_of::<u64>()];
    let sums = Mutex::new(0_u64);
    let mut best = 0.0_f64;
    for round in 0..9 {
        let start = Instant::now();
        pool.run(data.len() / 512, &|range, _| {
            let sum = sum(&data[range.start * 512..range.end * 512], WAYS[round % WAYS.len()]);
            *locked(&sums) ^= sum;
        });
        best = best.max(BYTES as f64 / start.elapsed().as_secs_f64());
    }
    black_box(into_value(sums));
    best
}

/// Fits into a second-level cache.
const CACHED_BYTES: usize = 256 << 10;

/// Bytes per second that one thread reads from the second-level cache, the best of some rounds.
pub(super) fn read_cached() -> f64 {
    let data = vec![1_u64; CACHED_BYTES / size_of::<u64>()];
    let mut best = 0.0_f64;
    for _ in 0..32 {
        let start = Instant::now();
        for _ in 0..64 {
            black_box(sum(black_box(&data), Way::Plain));
        }
        best = best.max((64 * CACHED_BYTES) as f64 / start.elapsed().as_secs_f64());
    }
    best
}

/// Sums 64-bit words into many independent sums, so that none waits for another.
fn sum(data: &[u64], way: Way) -> u64 {
    let mut sums = [0_u64; 32];
    for part in data.chunks_exact(32) {
        for line in part.chunks_exact(8) {
            prefetch(line.as_ptr().cast::<u8>().wrapping_add(AHEAD), way);
        }
        for (sum, value) in sums.iter_mut().zip(part) {
            *sum = sum.wrapping_add(*value);
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
}

/// Prefetches a line of memory, unless the way is plain.
fn prefetch(line: *const u8, way: Way) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect on memory and doesn't fault, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_NTA, _MM_HINT_T1, _mm_prefetch};
        match way {
            Way::Plain => {}
            Way::FirstCache => _mm_prefetch::<_MM_HINT_NTA>(line.cast()),
            Way::SecondCache => _mm_prefetch::<_MM_HINT_T1>(line.cast()),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (line, way);
}
