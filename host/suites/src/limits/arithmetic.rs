//! Multiply-adds per second (MAC/s) of this process's threads.
//!
//! Each loop keeps more products in flight than an instruction has cycles of latency, all in registers. A processor without
//! the instructions below is measured with plain loops as the compiler makes them.

use std::hint::black_box;
use std::time::Instant;

use herald::threads::ThreadPool;

/// Rounds of a loop: about ten milliseconds. In a build for tests an instruction takes a call of a function.
const ROUNDS: usize = if cfg!(debug_assertions) { 1 << 15 } else { 1 << 20 };
/// Accumulator registers of a loop.
const LANES: usize = 12;

/// Float32 multiply-adds per second.
pub(super) fn float(pool: &ThreadPool) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the check above found the CPU features that the function enables.
            return best(pool, 16 * LANES, &|| unsafe { x86::float_512() });
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the check above found the CPU features that the function enables.
            return best(pool, 8 * LANES, &|| unsafe { x86::float_256() });
        }
    }
    best(pool, 8 * LANES, &plain_float)
}

/// Int8 multiply-adds per second; int16 ones if the CPU has no faster instruction for int8.
pub(super) fn int8(pool: &ThreadPool) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the processor has what the function needs.
        return best(pool, 64 * LANES, &|| unsafe { x86::int8_512() });
    }
    int16(pool)
}

/// Int16 multiply-adds per second.
pub(super) fn int16(pool: &ThreadPool) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512vnni") {
            // SAFETY: the check above found the CPU features that the function enables.
            return best(pool, 32 * LANES, &|| unsafe { x86::int16_512() });
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the check above found the CPU features that the function enables.
            return best(pool, 16 * LANES, &|| unsafe { x86::int16_256() });
        }
    }
    best(pool, 8 * LANES, &plain_int)
}

/// The best of some rounds, on all threads at once. `macs`: multiply-adds of one iteration of the loop.
fn best(pool: &ThreadPool, macs: usize, work: &(dyn Fn() + Sync)) -> f64 {
    let threads = pool.threads().get();
    let mut best = 0.0_f64;
    for _ in 0..4 {
        let start = Instant::now();
        pool.run(threads, &|range, _| range.for_each(|_| work()));
        best = best.max((threads * ROUNDS * macs) as f64 / start.elapsed().as_secs_f64());
    }
    best
}

fn plain_float() {
    let (a, mut sums) = (black_box([0.5_f32; 8 * LANES]), black_box([0.0_f32; 8 * LANES]));
    for _ in 0..ROUNDS {
        for (sum, a) in sums.iter_mut().zip(&a) {
            *sum = *sum * 0.5 + a;
        }
    }
    black_box(sums);
}

fn plain_int() {
    let (a, mut sums) = (black_box([3_i32; 8 * LANES]), black_box([0_i32; 8 * LANES]));
    for _ in 0..ROUNDS {
        for (sum, a) in sums.iter_mut().zip(&a) {
            *sum = sum.wrapping_mul(5).wrapping_add(*a);
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{LANES, ROUNDS};

    #[target_feature(enable = "avx512f")]
    pub(super) fn float_512() {
        let a = black_box(_mm512_set1_ps(0.5));
        let mut sums = [black_box(_mm512_setzero_ps()); LANES];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, a);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn float_256() {
        let a = black_box(_mm256_set1_ps(0.5));
        let mut sums = [black_box(_mm256_setzero_ps()); LANES];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, a);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn int8_512() {
        let a = black_box(_mm512_set1_epi8(3));
        let mut sums = [black_box(_mm512_setzero_si512()); LANES];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, a);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn int16_512() {
        let a = black_box(_mm512_set1_epi16(3));
        let mut sums = [black_box(_mm512_setzero_si512()); LANES];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = _mm512_dpwssd_epi32(*sum, a, a);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn int16_256() {
        let a = black_box(_mm256_set1_epi16(3));
        let mut sums = [black_box(_mm256_setzero_si256()); LANES];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                // Each sum feeds its own next product, so that the compiler can't hoist it out of the loop.
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(_mm256_xor_si256(a, *sum), a));
            }
        }
        black_box(sums);
    }
}
