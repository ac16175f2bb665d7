//! The passes over a whole vocabulary. They run once a token over up to hundreds of thousands of logits, so they are
//! written for the compiler to vectorise: loops over blocks without a call or a branch. Every operation is one
//! that IEEE 754 fixes to the bit (no library `exp`), which keeps draws the same on every platform: the same code is
//! compiled for wider vectors too, where the CPU has them, and gives the same bits.

use super::SamplerError;

/// Logits that stay in the first-level cache between the search for their maximum and the sum.
pub(super) const BLOCK: usize = 512;
const LANES: usize = 8;

/// What one pass over logits finds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary {
    /// The token with the largest logit, the lowest id among equals.
    pub(super) best: u32,
    /// Its logit; finite.
    pub(super) max: f32,
    /// The sum of `exp(logit - max)`; at least 1.
    pub(super) sum: f64,
}

impl Summary {
    /// Reads the logits once, and checks each.
    ///
    /// # Errors
    /// NaN or +inf among them; all -inf, blamed on `cause`.
    pub(super) fn of(logits: &[f32], cause: &'static str) -> Result<Self, SamplerError> {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the CPU has the feature.
                return unsafe { wide::summary_avx512(logits, cause) };
            }
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the CPU has the feature.
                return unsafe { wide::summary_avx2(logits, cause) };
            }
        }
        summary(logits, cause)
    }

    /// The log-probability of a token with this logit.
    pub(super) fn logprob(&self, logit: f32) -> f32 {
        (f64::from(logit) - f64::from(self.max) - self.sum.ln()) as f32
    }
}

/// As [`Summary::of`].
#[inline(always)]
fn summary(logits: &[f32], cause: &'static str) -> Result<Summary, SamplerError> {
    let mut summary = Summary { best: 0, max: f32::NEG_INFINITY, sum: 0.0 };
    for (index, block) in logits.chunks(BLOCK).enumerate() {
        let start = index * BLOCK;
        let max = checked_max(block).ok_or_else(|| bad_logit(block, start))?;
        if max > summary.max {
            let at = block.iter().position(|&logit| logit == max).unwrap_or(0);
            summary.best = (start + at) as u32;
            // The first block has nothing to rescale: its sum is 0.
            summary.sum *= f64::from(exp_nonpositive(summary.max - max));
            summary.max = max;
        }
        if summary.max > f32::NEG_INFINITY {
            summary.sum += sum_of_exp(block, summary.max, 1.0);
        }
    }
    if summary.max == f32::NEG_INFINITY {
        return Err(SamplerError::NothingToDraw { vocab_size: logits.len(), cause });
    }
    Ok(summary)
}

/// The same for vectors of more lanes than every CPU of the architecture has.
#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{Summary, summary};
    use crate::SamplerError;

    /// # Safety
    /// The CPU has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn summary_avx2(logits: &[f32], cause: &'static str) -> Result<Summary, SamplerError> {
        summary(logits, cause)
    }

    /// # Safety
    /// The CPU has AVX-512F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn summary_avx512(
        logits: &[f32],
        cause: &'static str,
    ) -> Result<Summary, SamplerError> {
        summary(logits, cause)
    }
}

/// The largest logit, or `None` where one is NaN or +inf.
#[inline(always)]
fn checked_max(block: &[f32]) -> Option<f32> {
    let mut max = [f32::NEG_INFINITY; LANES];
    let mut nan = [0u32; LANES];
    let mut take = |lane: usize, logit: f32| {
        max[lane] = if logit > max[lane] { logit } else { max[lane] };
        nan[lane] |= u32::from(logit.is_nan());
    };
    let (rows, tail) = block.as_chunks::<LANES>();
    for row in rows {
        for (lane, &logit) in row.iter().enumerate() {
            take(lane, logit);
        }
    }
    for (lane, &logit) in tail.iter().enumerate() {
        take(lane, logit);
    }
    let max = max.into_iter().fold(f32::NEG_INFINITY, f32::max);
    (nan == [0; LANES] && max < f32::INFINITY).then_some(max)
}

fn bad_logit(block: &[f32], start: usize) -> SamplerError {
    let at = block.iter().position(|&logit| logit.is_nan() || logit == f32::INFINITY).unwrap_or(0);
    SamplerError::BadLogit { token: (start + at) as u32, value: block[at] }
}

/// The sum of `exp((logit - max) / temperature)` over at most [`BLOCK`] logits, none above `max`.
#[inline(always)]
pub(super) fn sum_of_exp(block: &[f32], max: f32, temperature: f32) -> f64 {
    // Written out first, since a loop that also adds would not be vectorised.
    let mut exp = [0.0f32; BLOCK];
    if temperature == 1.0 {
        // The same without the division, which costs as much as the rest.
        for (exp, &logit) in exp.iter_mut().zip(block) {
            *exp = exp_nonpositive(logit - max);
        }
    } else {
        for (exp, &logit) in exp.iter_mut().zip(block) {
            *exp = exp_nonpositive((logit - max) / temperature);
        }
    }
    let mut sum = [0.0f32; LANES];
    for row in exp.as_chunks::<LANES>().0 {
        for (sum, exp) in sum.iter_mut().zip(row) {
            *sum += exp;
        }
    }
    sum.into_iter().map(f64::from).sum()
}

/// `exp(x)` for `x <= 0`, within about 1e-7 of it relatively; 0 below -87, where single precision ends.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`: the exponent's bits are `n`, and a Taylor polynomial gives `exp(r)`.
#[inline(always)]
pub(super) fn exp_nonpositive(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    // Adding it leaves no bits for a fraction: rounds to an integer that stands in the sum's lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts; the first has few enough bits that its product with `n` is exact.
    const LN2_HIGH: f32 = 45_426.0 / 65_536.0;
    const LN2_LOW: f32 = 1.428_606_8e-6;

    let clamped = if x < LOWEST { LOWEST } else { x };
    let rounded = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut polynomial = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        polynomial = polynomial * r + coefficient;
    }
    let power = f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    if x < LOWEST { 0.0 } else { polynomial * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wider_vectors_give_the_same_bits() {
        let mut random = 7_u32;
        let mut next = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) as f32 / (1 << 24) as f32
        };
        for len in [1, 7, 511, 512, 513, 5000] {
            for scale in [0.1, 10.0, 200.0] {
                let logits: Vec<f32> = (0..len).map(|_| (next() - 0.5) * scale).collect();
                let (plain, chosen) = (summary(&logits, "").unwrap(), Summary::of(&logits, "").unwrap());
                let bits = |summary: Summary| (summary.best, summary.max.to_bits(), summary.sum.to_bits());
                assert_eq!(bits(plain), bits(chosen), "{len} logits");
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the CPU has the feature.
                    assert_eq!(bits(plain), bits(unsafe { wide::summary_avx2(&logits, "") }.unwrap()));
                }
            }
        }
    }
}
