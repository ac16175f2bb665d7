//! A model's arithmetic in float64, from the papers' formulas, with how far float32 may be from it: each value carries a
//! bound on its error, and every operation passes on the errors of what it was given and adds its own roundings
//! (running error analysis; Higham, section 3.3).

use herald_api::{Activation, RopeKind, RopeScaling};
use ndarray::{Array1, Array2, Axis, Zip};

use super::bounds::{Expected, FUNCTION, TINY, U, bound, gamma};
use super::weights::Matrix;
use crate::kernels::Xielu;

/// A matrix of activations `[tokens, width]`, and how far each may be off.
#[derive(Clone, Debug)]
pub(super) struct Approx {
    pub(super) value: Array2<f64>,
    pub(super) error: Array2<f64>,
}

impl Approx {
    /// What float32 holds exactly.
    pub(super) fn exact(value: Array2<f64>) -> Self {
        let error = Array2::zeros(value.dim());
        Self { value, error }
    }

    fn map(&self, mut function: impl FnMut(f64, f64) -> Expected) -> Self {
        let mut mapped = self.clone();
        Zip::from(&mut mapped.value).and(&mut mapped.error).for_each(|value, error| {
            let expected = function(*value, *error);
            (*value, *error) = (expected.value, bound(expected.bound));
        });
        mapped
    }

    /// `x / sqrt(mean(x^2) + eps) * weight` of each row (RMSNorm, arXiv 1910.07467).
    pub(super) fn rms_norm(&self, weight: &Array1<f64>, eps: f64) -> Self {
        let mut normed = self.clone();
        let width = weight.len();
        for (mut value, mut error) in normed.value.rows_mut().into_iter().zip(normed.error.rows_mut()) {
            let mean = value.mapv(|x| x * x).sum() / width as f64 + eps;
            let moved = Zip::from(&value).and(&error).fold(0.0, |sum, x, e| sum + 2.0 * x.abs() * e + e * e);
            let relative = moved / width as f64 / mean;
            // For |r| <= 1/2, 1/sqrt(1 + r) is within |r| of 1. Half of the mean's own n + 3 roundings follow, and four.
            let own = gamma(width / 2 + 6);
            let scale = 1.0 / mean.sqrt();
            Zip::from(&mut value).and(&mut error).and(weight).for_each(|x, e, w| {
                let size = (x.abs() + *e) * scale * w.abs();
                let off = if relative <= 0.5 { relative } else { f64::INFINITY };
                *e = bound(*e * scale * w.abs() + size * (off + own * (1.0 + off))) + 8.0 * TINY;
                *x *= scale * w;
            });
        }
        normed
    }

    /// `(x - mean) / sqrt(variance + eps) * weight + bias` of each row (LayerNorm, arXiv 1607.06450).
    pub(super) fn layer_norm(&self, weight: &Array1<f64>, bias: Option<&Array1<f64>>, eps: f64) -> Self {
        let mut normed = self.clone();
        let n = weight.len() as f64;
        for (mut value, mut error) in normed.value.rows_mut().into_iter().zip(normed.error.rows_mut()) {
            // The mean is as far off as its terms, and by a rounding for each.
            let size = Zip::from(&value).and(&error).fold(0.0, |sum, x, e| sum + x.abs() + e) / n;
            let mean_off = error.sum() / n + gamma(weight.len() + 1) * size;
            let mean = value.sum() / n;
            Zip::from(&mut value).and(&mut error).for_each(|x, e| {
                *x -= mean;
                *e += mean_off + U * (x.abs() + *e + mean_off);
            });
            let variance = value.mapv(|x| x * x).sum() / n + eps;
            let moved = Zip::from(&value).and(&error).fold(0.0, |sum, x, e| sum + 2.0 * x.abs() * e + e * e);
            // As for the RMS norm.
            let relative = moved / n / variance;
            let off = if relative <= 0.5 { relative } else { f64::INFINITY };
            let own = gamma(weight.len() / 2 + 6);
            let scale = 1.0 / variance.sqrt();
            Zip::from(&mut value).and(&mut error).and(weight).for_each(|x, e, w| {
                let size = (x.abs() + *e) * scale * w.abs();
                *e = bound(*e * scale * w.abs() + size * (off + own * (1.0 + off))) + 8.0 * TINY;
                *x *= scale * w;
            });
            if let Some(bias) = bias {
                Zip::from(&mut value).and(&mut error).and(bias).for_each(|x, e, b| {
                    *x += b;
                    *e += U * (x.abs() + *e);
                });
            }
        }
        normed
    }

    /// The product of each row with a matrix, plus a bias.
    pub(super) fn multiply(&self, matrix: &Matrix, bias: Option<&Array1<f64>>) -> Self {
        let columns = matrix.value.len_of(Axis(1));
        let mut value = self.value.dot(&matrix.value.t());
        // As for the rows' kernels: at most four factors, three roundings of the weights themselves, and the sum.
        let mut inputs = self.value.mapv(f64::abs) + &self.error;
        // A backend may round each token's activations to a share of its largest.
        let mut rounding = Array2::zeros(inputs.dim());
        for (inputs, mut rounding) in inputs.rows().into_iter().zip(rounding.rows_mut()) {
            let largest = inputs.fold(0.0, |largest: f64, x| largest.max(*x));
            rounding.fill(largest * matrix.step);
        }
        inputs += &rounding;
        let rounding: Array2<f64> = rounding.dot(&matrix.size.t());
        let sizes = inputs.dot(&matrix.size.t());
        let mut error = self.error.dot(&matrix.value.mapv(f64::abs).t())
            + rounding
            + sizes * gamma(columns + 8)
            + (columns + 8) as f64 * TINY;
        if let Some(bias) = bias {
            value += bias;
            error = &error * (1.0 + U) + value.mapv(|value| value.abs() * U);
        }
        error.mapv_inplace(bound);
        Self { value, error }
    }

    /// Each element's activation.
    pub(super) fn activate(&self, kind: Activation) -> Self {
        self.map(|x, e| {
            let slope = match kind {
                Activation::SquaredRelu => 2.0 * (x.max(0.0) + e),
                // Neither of the others is steeper.
                _ => 1.13,
            };
            Expected { value: activation(kind, x), bound: slope * e + activation_bound(kind, x.abs() + e) }
        })
    }

    /// `activation(self) * up`, or what stands in its place.
    pub(super) fn gate(&self, kind: Activation, up: &Self) -> Self {
        if kind != Activation::ClampedSwiglu {
            return self.activate(kind).times(up);
        }
        let gate = self.map(|x, e| {
            let g = x.min(7.0);
            // Nowhere steeper than SiLU, whose argument alone is scaled; the scaled argument's two roundings move exp by as much
            // as it is large.
            let value = g / (1.0 + (-1.702 * g).exp());
            let most = value.abs() + 1.13 * e;
            Expected { value, bound: 1.13 * e + (8.0 + 4.0 * g.abs()) * U * most + 2.0_f64.powi(-100) }
        });
        let up = up.map(|x, e| {
            let value = x.clamp(-7.0, 7.0) + 1.0;
            Expected { value, bound: e + U * (value.abs() + e) }
        });
        gate.times(&up)
    }

    /// Each element's xIELU, whose slope is nowhere more than that of its parts together.
    pub(super) fn xielu(&self, numbers: &Xielu) -> Self {
        let [square, exponential, slope] =
            [numbers.square, numbers.exponential, numbers.slope].map(|number| f64::from(number).abs());
        self.map(|x, e| {
            let steepest = 2.0 * square * (x.max(0.0) + e) + exponential + slope;
            let own = xielu_bound(numbers, x.abs() + e);
            // Where the exponential part ends, it jumps.
            let jump = exponential * f64::from(numbers.most).abs();
            Expected { value: xielu(numbers, x), bound: steepest * e + own + jump }
        })
    }

    /// Each element's softplus, which is nowhere steeper than 1.
    pub(super) fn softplus(&self) -> Self {
        self.map(|x, e| Expected { value: softplus(x), bound: e + softplus_bound(x + e) })
    }

    /// Each element's sigmoid, which is nowhere steeper than 1/4: an exp, a sum and a quotient.
    pub(super) fn sigmoid(&self) -> Self {
        self.map(|x, e| {
            let value = 1.0 / (1.0 + (-x).exp());
            let most = 1.0 / (1.0 + (-x - e).exp());
            Expected { value, bound: 0.25 * e + 8.0 * U * most + 2.0_f64.powi(-100) }
        })
    }

    /// Each element's exponential.
    pub(super) fn exp(&self) -> Self {
        self.map(|x, e| {
            let relative = e.exp_m1() + (FUNCTION + gamma(2)) * e.exp();
            Expected { value: x.exp(), bound: x.exp() * relative + TINY }
        })
    }

    /// These columns, in this order.
    pub(super) fn pick(&self, columns: &[usize]) -> Self {
        Self { value: self.value.select(Axis(1), columns), error: self.error.select(Axis(1), columns) }
    }

    /// A row by itself.
    pub(super) fn rows(&self, row: usize) -> Self {
        let of = |matrix: &Array2<f64>| matrix.slice(ndarray::s![row..row + 1, ..]).to_owned();
        Self { value: of(&self.value), error: of(&self.error) }
    }

    /// Times a number that is off itself.
    pub(super) fn weigh(&self, weight: Expected) -> Self {
        self.map(|x, e| {
            let size = (x.abs() + e) * (weight.value.abs() + weight.bound);
            let carried = weight.value.abs() * e + weight.bound * (x.abs() + e);
            Expected { value: weight.value * x, bound: carried + U * size + TINY }
        })
    }

    /// Some of the columns.
    pub(super) fn columns(&self, range: std::ops::Range<usize>) -> Self {
        let of = |matrix: &Array2<f64>| matrix.slice(ndarray::s![.., range.clone()]).to_owned();
        Self { value: of(&self.value), error: of(&self.error) }
    }

    /// The causal convolution of each column with its filter, a row of `[columns, taps]`, the newest row's tap last.
    pub(super) fn convolve(&self, filters: &Array2<f64>, bias: Option<&Array1<f64>>) -> Self {
        let taps = filters.ncols();
        let mut sums = self.clone();
        for ((row, column), value) in sums.value.indexed_iter_mut() {
            let bias = bias.map_or(0.0, |bias| bias[column]);
            let (mut sum, mut carried, mut size) = (bias, 0.0, bias.abs());
            for back in 0..taps.min(row + 1) {
                let weight = filters[[column, taps - 1 - back]];
                let (x, e) = (self.value[[row - back, column]], self.error[[row - back, column]]);
                sum += weight * x;
                carried += weight.abs() * e;
                size += weight.abs() * (x.abs() + e);
            }
            *value = sum;
            sums.error[[row, column]] = bound(carried + gamma(taps + 1) * size) + 8.0 * TINY;
        }
        sums
    }

    /// The products of elements.
    pub(super) fn times(&self, other: &Self) -> Self {
        let mut product = self.clone();
        Zip::from(&mut product.value).and(&mut product.error).and(&other.value).and(&other.error).for_each(
            |x, e, y, f| {
                let size = (x.abs() + *e) * (y.abs() + f);
                *e = bound(x.abs() * f + *e * y.abs() + *e * f + U * size) + TINY;
                *x *= y;
            },
        );
        product
    }

    /// `scale * x`.
    pub(super) fn scale(&self, scale: f64) -> Self {
        self.map(|x, e| Expected { value: scale * x, bound: scale.abs() * (e + U * (x.abs() + e)) + TINY })
    }

    /// `cap * tanh(x / cap)`.
    pub(super) fn softcap(&self, cap: f64) -> Self {
        // As for attention's scores.
        self.map(|x, e| Expected { value: cap * (x / cap).tanh(), bound: e + cap * 6.0 * U })
    }

    /// The sum of elements.
    pub(super) fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        Zip::from(&mut sum.value).and(&mut sum.error).and(&other.value).and(&other.error).for_each(
            |x, e, y, f| {
                *x += y;
                *e += f + U * (x.abs() + *e + f);
            },
        );
        sum
    }

    /// What a page keeps of rows of heads of `dim`: multiples of the head's greatest element over 32767.
    pub(super) fn quantize_i16(&self, dim: usize) -> Self {
        let mut kept = self.rows_of(dim);
        for (value, mut error) in kept.value.rows().into_iter().zip(kept.error.rows_mut()) {
            let sizes = value.iter().zip(&error).map(|(x, e)| x.abs() + e);
            let step = sizes.fold(0.0, f64::max) / f64::from(i16::MAX);
            // Half a step, and what the quotient, of up to 32767, and the product back lose: at most 5 roundings.
            error.mapv_inplace(|e| e + step * (0.5 + 32768.0 * gamma(5)) + TINY);
        }
        kept.rows_of(self.value.ncols())
    }

    /// The same elements in rows of another width.
    pub(super) fn rows_of(&self, width: usize) -> Self {
        let reshape = |matrix: &Array2<f64>| {
            let rows = matrix.len() / width;
            matrix.to_shape((rows, width)).expect("a width that divides the elements").to_owned()
        };
        Self { value: reshape(&self.value), error: reshape(&self.error) }
    }

    /// Turns the first elements of each head (a row of `dim`) by the position of its token.
    pub(super) fn rotate(&self, rotation: &Rotation, dim: usize, positions: &[u32]) -> Self {
        self.turn(rotation, dim, rotation.magnitude, |token| f64::from(positions[token]))
    }

    /// Turns each head as if its token were `positions` earlier.
    pub(super) fn turn_back(&self, rotation: &Rotation, dim: usize, positions: usize) -> Self {
        self.turn(rotation, dim, 1.0, |_| -(positions as f64))
    }

    fn turn(&self, rotation: &Rotation, dim: usize, magnitude: f64, position: impl Fn(usize) -> f64) -> Self {
        let heads = self.value.len_of(Axis(1)) / dim;
        let mut turned = self.rows_of(dim);
        for (row, (mut value, mut error)) in
            turned.value.rows_mut().into_iter().zip(turned.error.rows_mut()).enumerate()
        {
            let position = position(row / heads);
            for (pair, frequency) in rotation.frequencies.iter().enumerate() {
                let [a, b] = match rotation.kind {
                    RopeKind::Neighbours => [2 * pair, 2 * pair + 1],
                    _ => [pair, pair + rotation.frequencies.len()],
                };
                let (sin, cos) = (position * frequency).sin_cos();
                let [sin, cos] = [sin, cos].map(|part| part * magnitude);
                let [x, y, e, f] = [value[a], value[b], error[a], error[b]];
                (value[a], value[b]) = (x * cos - y * sin, x * sin + y * cos);
                // Cosine and sine are rounded, then a product and a sum.
                let bound = |cos: f64, sin: f64| {
                    cos * e + sin * f + gamma(3) * (cos * (x.abs() + e) + sin * (y.abs() + f)) + 3.0 * TINY
                };
                (error[a], error[b]) = (bound(cos.abs(), sin.abs()), bound(sin.abs(), cos.abs()));
            }
        }
        turned.rows_of(heads * dim)
    }

    /// Row by row, what a plugin's results are compared with.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = Expected> {
        self.value
            .row(row)
            .into_iter()
            .zip(self.error.row(row))
            .map(|(value, bound)| Expected { value: *value, bound: *bound })
    }
}

/// The function itself.
pub(super) fn activation(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::SquaredRelu => x.max(0.0).powi(2),
        Activation::Gelu => x.max(0.0) - x.abs() / 2.0 * erfc(x.abs() / std::f64::consts::SQRT_2),
        _ => x / (1.0 + (-x).exp()),
    }
}

/// The complementary error function of `z >= 0`: 1 less the Taylor series of the error function and, where that would cancel, its
/// continued fraction (Abramowitz and Stegun, 7.1.5 and 7.1.14).
fn erfc(z: f64) -> f64 {
    let root = std::f64::consts::PI.sqrt();
    if z < 2.5 {
        let (mut term, mut sum) = (z, z);
        for n in 1..100 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 1.0 - 2.0 / root * sum;
    }
    let fraction = (1..=200).rev().fold(z, |fraction, k| z + f64::from(k) / 2.0 / fraction);
    (-z * z).exp() / (root * fraction)
}

/// xIELU (arXiv 2411.13010).
pub(super) fn xielu(numbers: &Xielu, x: f64) -> f64 {
    let Xielu { square, exponential, slope, most } = *numbers;
    let curve = match x > 0.0 {
        true => f64::from(square) * x * x,
        false => f64::from(exponential) * (x.min(f64::from(most)).exp_m1() - x),
    };
    curve + f64::from(slope) * x
}

/// How far float32's xIELU of a number of this size may be off: a few roundings of each part, which may cancel; the exponential
/// function less 1 has as many as ten, just beyond where its series ends.
pub(super) fn xielu_bound(numbers: &Xielu, size: f64) -> f64 {
    let [square, exponential, slope] =
        [numbers.square, numbers.exponential, numbers.slope].map(|number| f64::from(number).abs());
    let curved = 2.0 * exponential * size.max(f64::from(numbers.most).abs());
    let parts = square * size * size + curved + slope * size;
    16.0 * U * parts + 8.0 * TINY
}

/// How far float32's function of `x` may be off, `x` itself being exact.
///
/// SiLU: an exp, a sum and a quotient, each relative to the result; where exp overflows, the result is below 2^-100 and
/// may be nothing. GELU: seven roundings of the tanh's argument `z`, which move it by at most `0.45 * 7 U` since
/// `|z| / cosh(z)^2 < 0.45`; the tanh's own; the sum's, of at most 2; and two products. The sum may cancel, so that all of
/// it is relative to `x`. GELU itself: `erfc` goes through the argument of its exp, which is off by 4 roundings of up to `z^2`, where
/// `z^2 erfc(z) < 0.17`, and through 20 roundings of its polynomial, of half of `x`; the sum adds one.
pub(super) fn activation_bound(kind: Activation, x: f64) -> f64 {
    match kind {
        Activation::GeluTanh => 8.0 * U * x.abs() + TINY,
        Activation::Gelu => 12.0 * U * x.abs() + 4.0 * TINY,
        // Beyond float32's range it is infinity.
        Activation::SquaredRelu if activation(kind, x) > f64::from(f32::MAX) => f64::INFINITY,
        Activation::SquaredRelu => U * activation(kind, x) + TINY,
        _ => 8.0 * U * activation(kind, x).abs() + 2.0_f64.powi(-100),
    }
}

/// `ln(1 + exp(x))`.
pub(super) fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// How far float32's softplus of `x` may be off: an exp, a logarithm and a sum, none larger than the result; where exp
/// underflows, the result is below 2^-100 and may be nothing.
pub(super) fn softplus_bound(x: f64) -> f64 {
    12.0 * U * softplus(x) + 2.0_f64.powi(-100)
}

/// The angles of rotary position embedding (arXiv 2104.09864).
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    kind: RopeKind,
    /// Radians a position, for each pair.
    frequencies: Vec<f64>,
    magnitude: f64,
}

impl Rotation {
    pub(super) fn new(
        kind: RopeKind,
        dims: usize,
        base: f64,
        scaling: RopeScaling,
        factors: Option<&Array1<f64>>,
    ) -> Self {
        let dims = if kind == RopeKind::None { 0 } else { dims };
        let mut frequencies: Vec<f64> = (0..dims / 2)
            .map(|pair| base.powf(-((2 * pair) as f64) / dims as f64) / factors.map_or(1.0, |by| by[pair]))
            .collect();
        let mut magnitude = 1.0;
        match scaling {
            RopeScaling::Linear { factor } => {
                frequencies.iter_mut().for_each(|frequency| *frequency /= f64::from(factor));
            }
            RopeScaling::Yarn {
                factor,
                original_context,
                ext_factor,
                attn_factor,
                beta_fast,
                beta_slow,
                whole_pairs,
            } => {
                // arXiv 2309.00071: section 3.2 in the form of the authors' program, whose ramp is linear in the pair's
                // number, between the pairs that turn beta_fast and beta_slow times over the trained context.
                let factor = f64::from(factor);
                let turning = |times: f32| {
                    let wavelength = f64::from(original_context) / f64::from(times);
                    dims as f64 / 2.0 * (wavelength / std::f64::consts::TAU).log(base)
                };
                let (mut first, mut last) = (turning(beta_fast), turning(beta_slow));
                if whole_pairs {
                    (first, last) = (first.floor(), last.ceil());
                }
                let (first, last) = (first.max(0.0), last.min(dims as f64 - 1.0));
                for (pair, frequency) in frequencies.iter_mut().enumerate() {
                    let interpolated = ((pair as f64 - first) / (last - first).max(0.001)).clamp(0.0, 1.0);
                    let kept = (1.0 - interpolated) * f64::from(ext_factor);
                    *frequency = *frequency / factor * (1.0 - kept) + *frequency * kept;
                }
                // Section 3.4: the temperature of the softmax, as a factor of queries and keys.
                let temperature = if ext_factor == 0.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 };
                magnitude = temperature * f64::from(attn_factor);
            }
            _ => {}
        }
        Self { kind, frequencies, magnitude }
    }
}
