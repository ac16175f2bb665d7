//! Test values from a seed: a failing case is told by its shape and its seed.

use proptest::sample::select;
use proptest::strategy::Strategy;

/// How large values are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spread {
    /// Evenly between -8 and 8.
    Even,
    /// Of any sign and of magnitudes evenly over the powers of two from 2^-60 to 2^56, every eighth a zero: the products
    /// of any two, and the sums of thousands of those, are still float32 numbers.
    Wide,
}

impl Spread {
    /// Either.
    pub(super) fn any() -> impl Strategy<Value = Self> + Clone {
        select(&[Self::Even, Self::Wide][..])
    }
}

/// A generator of numbers: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub(super) struct Values(u64);

impl Values {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `count - 1`.
    pub(super) fn below(&mut self, count: usize) -> usize {
        (self.bits() % count.max(1) as u64) as usize
    }

    /// Yes or no.
    pub(super) fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    /// One of several.
    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A number between two.
    pub(super) fn between(&mut self, low: f32, high: f32) -> f32 {
        let unit = (self.bits() >> 40) as f32 / (1 << 24) as f32;
        low + unit * (high - low)
    }

    /// `len` numbers between two.
    pub(super) fn many(&mut self, len: usize, low: f32, high: f32) -> Vec<f32> {
        (0..len).map(|_| self.between(low, high)).collect()
    }

    /// `len` numbers of a spread.
    pub(super) fn floats(&mut self, len: usize, spread: Spread) -> Vec<f32> {
        (0..len).map(|_| self.float(spread)).collect()
    }

    fn float(&mut self, spread: Spread) -> f32 {
        match spread {
            Spread::Even => self.between(-8.0, 8.0),
            Spread::Wide if self.below(8) == 0 => 0.0,
            Spread::Wide => {
                let sign = if self.coin() { 1.0 } else { -1.0 };
                sign * self.between(-60.0, 56.0).exp2()
            }
        }
    }

    /// `len` bytes.
    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.bits() as u8).collect()
    }
}
