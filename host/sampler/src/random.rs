//! Uniform numbers that are the same on every platform for a seed.

use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

/// The PCG stream; any constant does.
const STREAM: u128 = 0x0a02_bdbf_7bb3_c0a7_ac28_fa16_a64a_bf96;

/// Uniform numbers in `[0, 1)` from PCG XSL-RR 128/64 ([O'Neill 2014](https://www.pcg-random.org/paper.html)).
#[derive(Clone, Debug)]
pub(super) struct Uniform {
    generator: Pcg64,
    draws: u64,
}

impl Uniform {
    pub(super) fn new(seed: u64) -> Self {
        // Users pick seeds like 0, 1, 2, whose first outputs would be alike if they were the state itself.
        let mut counter = seed;
        let high = u128::from(splitmix64(&mut counter));
        let low = u128::from(splitmix64(&mut counter));
        Self { generator: Pcg64::new(high << 64 | low, STREAM), draws: 0 }
    }

    /// The numbers of a seed after the first `draws`.
    pub(super) fn after(seed: u64, draws: u64) -> Self {
        let mut uniform = Self::new(seed);
        uniform.generator.advance(u128::from(draws));
        uniform.draws = draws;
        uniform
    }

    /// How many numbers have been drawn.
    pub(super) fn draws(&self) -> u64 {
        self.draws
    }

    /// The next number: the upper 53 bits of a draw, so that each multiple of 2^-53 below 1 is as likely.
    pub(super) fn next(&mut self) -> f64 {
        self.draws += 1;
        (self.generator.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

/// SplitMix64 ([Steele et al. 2014](https://doi.org/10.1145/2660193.2660195)), by its published constants.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From numpy's `PCG64` (the same generator), its state set to the same seed and stream.
    #[test]
    fn numbers_are_those_of_numpy() {
        let expected = [
            (0x0, [0.2664161577754244, 0.11389703343224467, 0.49513627384348746, 0.1894669163468925]),
            (0x1, [0.5145782909274441, 0.2656782866641956, 0.8530210564574463, 0.7855844875715703]),
            (
                0xdeadbeefcafef00d,
                [0.7284439768619196, 0.7768277353920662, 0.783993918413544, 0.9549371677385203],
            ),
        ];
        for (seed, expected) in expected {
            let mut uniform = Uniform::new(seed);
            assert_eq!(expected.map(|_| uniform.next()), expected, "seed {seed}");
            let mut later = Uniform::after(seed, 3);
            assert_eq!((later.next(), later.draws()), (expected[3], 4), "seed {seed} after three");
        }
    }
}
