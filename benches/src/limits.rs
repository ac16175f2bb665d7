//! What this machine can do at most: how fast it reads memory, and how many multiply-adds it does a second, as float32 and
//! as pairs of int16.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread::{available_parallelism, scope};
use std::time::{Duration, Instant};

/// Bytes that are read in all: more than any cache holds.
const MEMORY: usize = 512 << 20;

/// Bytes that a second-level cache holds.
const CACHED: usize = 256 << 10;

/// How long each limit is measured, in runs of which the fastest counts.
const TIME: Duration = Duration::from_millis(400);

/// Steps of a loop of multiply-adds.
const STEPS: usize = 200_000;

/// This machine's limits, all per second.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Threads that the limits of all threads are of.
    pub threads: usize,
    /// Bytes read from memory by one thread, and by all.
    pub memory: [f64; 2],
    /// Bytes read from the second-level cache by one thread.
    pub cache: f64,
    /// Float32 multiply-adds of one thread, and of all.
    pub float: [f64; 2],
    /// Multiply-adds of int16 into int32 of one thread, and of all.
    pub int: [f64; 2],
}

impl Limits {
    /// Measures them; takes some seconds.
    #[must_use]
    pub fn measure() -> Self {
        let threads = available_parallelism().map_or(1, usize::from);
        let of = |each: &(dyn Fn() -> f64 + Sync)| [fastest(1, each), fastest(threads, each)];
        Self {
            threads,
            memory: [1, threads].map(|threads| {
                let parts: Vec<Vec<u64>> = (0..threads).map(|_| vec![1; MEMORY / 8 / threads]).collect();
                // Some CPUs read faster where memory is asked for ahead, and some by themselves.
                fastest_of(&parts, |part| read(part, false)).max(fastest_of(&parts, |part| read(part, true)))
            }),
            cache: {
                let part = vec![1_u64; CACHED / 8];
                fastest(1, &|| (0..64).map(|_| read(&part, false)).sum())
            },
            float: of(&float_multiply_adds),
            int: of(&int_multiply_adds),
        }
    }
}

/// The greatest rate of so many threads that each do `work`, which returns how much it did.
fn fastest(threads: usize, work: &(dyn Fn() -> f64 + Sync)) -> f64 {
    fastest_of(&vec![(); threads], |()| work())
}

/// The greatest rate of a thread for each part, all at once.
fn fastest_of<P: Sync>(parts: &[P], work: impl Fn(&P) -> f64 + Sync) -> f64 {
    let start = Barrier::new(parts.len());
    let runs: Vec<Vec<(f64, Duration)>> = scope(|scope| {
        let threads: Vec<_> = parts
            .iter()
            .map(|part| {
                let (start, work) = (&start, &work);
                scope.spawn(move || {
                    // Fills caches, and wakes what sleeps of the processor.
                    work(part);
                    let begun = Instant::now();
                    let mut runs = Vec::new();
                    // As many runs for all threads, so that none computes alone: a fixed number, found by none of them.
                    for _ in 0..RUNS {
                        start.wait();
                        let run = Instant::now();
                        let done = work(part);
                        runs.push((done, run.elapsed()));
                        if parts.len() == 1 && begun.elapsed() > TIME {
                            break;
                        }
                    }
                    runs
                })
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let shortest = runs.iter().map(Vec::len).min().unwrap_or(0);
    let rate = |run: usize| {
        let done: f64 = runs.iter().map(|runs| runs[run].0).sum();
        let longest = runs.iter().map(|runs| runs[run].1).max().unwrap_or_default();
        done / longest.as_secs_f64()
    };
    (0..shortest).map(rate).fold(0.0, f64::max)
}

/// Runs of several threads at once.
const RUNS: usize = 12;

/// Reads all of it, and asks for what comes next ahead of that where `ahead`; returns its bytes.
fn read(part: &[u64], ahead: bool) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has the features.
        black_box(unsafe { if ahead { x86::read::<true>(part) } else { x86::read::<false>(part) } });
        return size_of_val(part) as f64;
    }
    black_box(part.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word)));
    size_of_val(part) as f64
}

/// Multiplies and adds float32; returns how often.
fn float_multiply_adds() -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has the feature.
            return unsafe { x86::float_avx512() };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has the features.
            return unsafe { x86::float_avx2() };
        }
    }
    let mut sums = [1.0_f32; 64];
    let (x, y) = (black_box(0.999_f32), black_box(1e-6_f32));
    for _ in 0..STEPS {
        sums.iter_mut().for_each(|sum| *sum = *sum * x + y);
    }
    black_box(sums);
    (STEPS * 64) as f64
}

/// Multiplies pairs of int16 and adds them to int32; returns how often.
fn int_multiply_adds() -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has the features.
            return unsafe { x86::int_vnni() };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU has the feature.
            return unsafe { x86::int_avx2() };
        }
    }
    let mut sums = [1_i32; 64];
    let x = black_box([3_i16; 64]);
    for _ in 0..STEPS {
        for (sum, x) in sums.iter_mut().zip(&x) {
            *sum = sum.wrapping_add(i32::from(*x) * i32::from(*x));
        }
    }
    black_box(sums);
    (STEPS * 64) as f64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::STEPS;

    /// Results on their way at once: more than a multiply-add's latency has room for.
    const CHAINS: usize = 12;

    /// How far ahead memory is asked for, in bytes.
    const AHEAD: usize = 8192;

    /// The sum of all words, so that each is read.
    ///
    /// # Safety
    /// The CPU has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn read<const AHEAD_TOO: bool>(part: &[u64]) -> u64 {
        let mut sums = [_mm256_setzero_si256(); 8];
        for words in part.chunks_exact(32) {
            if AHEAD_TOO {
                for line in words.chunks_exact(8) {
                    _mm_prefetch::<_MM_HINT_NTA>(line.as_ptr().cast::<i8>().wrapping_add(AHEAD));
                }
            }
            for (sum, words) in sums.iter_mut().zip(words.chunks_exact(4)) {
                // SAFETY: four words are 32 bytes, which need no alignment.
                *sum = _mm256_add_epi64(*sum, unsafe { _mm256_loadu_si256(words.as_ptr().cast()) });
            }
        }
        let all = sums.into_iter().fold(_mm256_setzero_si256(), |a, b| _mm256_add_epi64(a, b));
        let mut words = [0_u64; 4];
        // SAFETY: four words are 32 bytes, which need no alignment.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), all) };
        words.into_iter().fold(0, u64::wrapping_add)
    }

    macro_rules! peak {
        ($name:ident, $features:literal, $per_step:literal, $start:expr, |$sum:ident| $step:expr) => {
            /// Does its instruction over and over; returns how many multiply-adds that were.
            ///
            /// # Safety
            /// The CPU has the features.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name() -> f64 {
                let mut sums = [$start; CHAINS];
                for _ in 0..STEPS {
                    for $sum in &mut sums {
                        *$sum = $step;
                    }
                }
                black_box(sums);
                (STEPS * CHAINS * $per_step) as f64
            }
        };
    }

    peak!(float_avx512, "avx512f", 16, _mm512_set1_ps(black_box(1.0)), |sum| {
        _mm512_fmadd_ps(*sum, *sum, *sum)
    });
    peak!(float_avx2, "avx2,fma", 8, _mm256_set1_ps(black_box(1.0)), |sum| {
        _mm256_fmadd_ps(*sum, *sum, *sum)
    });
    peak!(int_vnni, "avx512f,avx512vnni", 32, _mm512_set1_epi32(black_box(1)), |sum| {
        _mm512_dpwssd_epi32(*sum, *sum, *sum)
    });
    peak!(int_avx2, "avx2", 16, _mm256_set1_epi32(black_box(1)), |sum| {
        _mm256_add_epi32(*sum, _mm256_madd_epi16(*sum, *sum))
    });
}
