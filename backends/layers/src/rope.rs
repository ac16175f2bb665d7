//! Rotary position embedding (RoFormer, arXiv 2104.09864), and how models scale it for long contexts.

use herald_api::RopeScaling;

use crate::kernels::Kernels;

/// The angles by which pairs of a head's elements turn, position by position.
pub(crate) struct Rope {
    /// Radians per position, for each pair. In float64: at position one million, float32 would be off by a tenth.
    frequencies: Vec<f64>,
    /// Multiplies the rotated vectors (YaRN's attention temperature).
    magnitude: f64,
}

impl Rope {
    /// Rotates the first `dims` elements of a head. `factors` divide the frequencies, pair by pair.
    pub(crate) fn new(dims: usize, base: f32, scaling: RopeScaling, factors: Option<&[f32]>) -> Self {
        let unscaled = |pair: usize| f64::from(base).powf(-2.0 * pair as f64 / dims as f64);
        let divisor = |pair: usize| factors.map_or(1.0, |factors| f64::from(factors[pair]));
        let mut magnitude = 1.0;
        let mut scale: Box<dyn Fn(usize) -> f64> = Box::new(|_| 1.0);
        match scaling {
            RopeScaling::Linear { factor } => scale = Box::new(move |_| 1.0 / f64::from(factor)),
            RopeScaling::Yarn {
                factor,
                original_context,
                ext_factor,
                attn_factor,
                beta_fast,
                beta_slow,
                whole_pairs,
            } => {
                // YaRN, arXiv 2309.00071, section 3.2: pairs that turn more than beta_fast times over the trained
                // context stay, those that turn less than beta_slow times are interpolated, and between them a ramp.
                let pair_of = |turns: f32| {
                    let context = f64::from(original_context);
                    dims as f64 * (context / (f64::from(turns) * 2.0 * std::f64::consts::PI)).ln()
                        / (2.0 * f64::from(base).ln())
                };
                let [low, high] = match whole_pairs {
                    true => [pair_of(beta_fast).floor(), pair_of(beta_slow).ceil()],
                    false => [pair_of(beta_fast), pair_of(beta_slow)],
                };
                let [low, high] = [low.max(0.0), high.min(dims as f64 - 1.0)];
                let interpolated = 1.0 / f64::from(factor);
                let ext_factor = f64::from(ext_factor);
                scale = Box::new(move |pair| {
                    let ramp = 1.0 - ((pair as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                    let extrapolated = ramp * ext_factor;
                    interpolated * (1.0 - extrapolated) + extrapolated
                });
                magnitude = f64::from(attn_factor);
                if ext_factor != 0.0 {
                    magnitude *= 1.0 + 0.1 * f64::from(factor).ln();
                }
            }
            _ => {}
        }
        let frequencies = (0..dims / 2).map(|pair| unscaled(pair) * scale(pair) / divisor(pair)).collect();
        Self { frequencies, magnitude }
    }

    /// Pairs that are rotated.
    pub(crate) fn pairs(&self) -> usize {
        self.frequencies.len()
    }

    /// The cosine and sine of each pair's angle at a position, times the magnitude.
    pub(crate) fn rotation(&self, kernels: &Kernels, position: u32, out: &mut [[f32; 2]]) {
        (kernels.rope_angles)(&self.frequencies, f64::from(position), self.magnitude, out);
    }
}

impl Rope {
    /// The rotation that takes a head from the position it was rotated at to one `positions` earlier.
    pub(crate) fn turned_back(&self, kernels: &Kernels, positions: usize, out: &mut [[f32; 2]]) {
        (kernels.rope_angles)(&self.frequencies, -(positions as f64), 1.0, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(rope: &Rope, position: u32) -> Vec<[f32; 2]> {
        let mut out = vec![[0.0; 2]; rope.pairs()];
        crate::fallback::rope_angles(&rope.frequencies, f64::from(position), rope.magnitude, &mut out);
        out
    }

    #[test]
    fn the_first_pair_turns_by_a_radian_a_position() {
        let rope = Rope::new(8, 10_000.0, RopeScaling::None, None);
        assert_eq!(rotation(&rope, 3)[0], [3.0_f64.cos() as f32, 3.0_f64.sin() as f32]);
    }

    #[test]
    fn linear_scaling_divides_positions() {
        let unscaled = Rope::new(64, 500_000.0, RopeScaling::None, None);
        let scaled = Rope::new(64, 500_000.0, RopeScaling::Linear { factor: 4.0 }, None);
        for (a, b) in rotation(&unscaled, 25).iter().zip(rotation(&scaled, 100)) {
            assert!((a[0] - b[0]).abs() < 1e-6 && (a[1] - b[1]).abs() < 1e-6, "{a:?} {b:?}");
        }
    }

    #[test]
    fn factors_divide_frequencies() {
        let factors = vec![2.0; 32];
        let unscaled = Rope::new(64, 10_000.0, RopeScaling::None, None);
        let scaled = Rope::new(64, 10_000.0, RopeScaling::None, Some(&factors));
        assert_eq!(rotation(&unscaled, 50), rotation(&scaled, 100));
    }

    #[test]
    fn yarn_keeps_short_wavelengths_and_interpolates_long_ones() {
        let scaling = RopeScaling::Yarn {
            factor: 4.0,
            original_context: 4096,
            ext_factor: 1.0,
            attn_factor: 1.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            whole_pairs: true,
        };
        let unscaled = Rope::new(128, 10_000.0, RopeScaling::None, None);
        let yarn = Rope::new(128, 10_000.0, scaling, None);
        assert_eq!(yarn.frequencies[0], unscaled.frequencies[0]);
        assert_eq!(yarn.frequencies[63], unscaled.frequencies[63] / 4.0);
        assert!((yarn.magnitude - (1.0 + 0.1 * 4.0_f64.ln())).abs() < 1e-12);
    }
}
