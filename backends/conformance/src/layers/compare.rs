//! Whether results are as near to each other as sound arithmetic makes them.
//!
//! A layer may compute in float32, in float16, or with integers: activations as 8-bit integers, say, with a scale for each
//! group of 32. So a bound can't be a fixed number of last places. Instead each token's results are compared in units of the
//! root mean square of its own branch, and how far they may be off follows from how much the layer itself makes of noise:
//! the reference runs again with its input rounded as if to 8 bits (half a 127th of a token's largest element at most), and
//! what that changes, a few times (the layer rounds a few times inside, where the input was rounded once), plus what float16
//! loses, is the bound. Where such noise turns everything over, as where a router's scores nearly tie, nothing can be said
//! about the token, and it is left out.

use super::run::Results;
use crate::{Fault, Outcome};

/// What half-precision arithmetic may lose, in units of the root mean square: sums of some hundred products, each rounded to
/// 11 bits.
const FLOOR: f64 = 0.01;

/// Roundings to 8 bits inside a layer count as this many of its input.
const ROUNDINGS: f64 = 4.0;

/// How far one element may be off where the root mean square is off by 1: errors of many roundings are about normally
/// distributed, and of some ten thousand elements none is 5 deviations off.
const PEAK: f64 = 5.0;

/// A token whose results noise changes by more says nothing.
const UNCERTAIN: f64 = 0.15;

/// How far a token's results may be from each other when only the cut of the batch differs: float32's sums in another order,
/// and keys and values that are rounded to the neighbouring integer of 16 bits.
const CUT_FLOOR: f64 = 1e-3;

/// The same as a share of what noise makes of it.
const CUT_SHARE: f64 = 0.1;

/// What a token's results may be compared to.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// The unit: the root mean square of its branch, but not much less than that of all tokens.
    unit: f64,
    /// What noise of 8 bits makes of it, in units.
    noise: f64,
}

/// What is expected of a layer's results.
pub(super) struct Expected {
    width: usize,
    /// Each sequence's branch `[n_tokens, width]`.
    branches: Vec<Vec<f64>>,
    scales: Vec<Vec<Scale>>,
    pages: Vec<Vec<[Vec<f32>; 2]>>,
}

/// How far results were from those expected, at most, in units.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Distance {
    pub(super) off: f64,
}

fn rms(numbers: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0_u32);
    for number in numbers {
        sum += number * number;
        count += 1;
    }
    if count == 0 { 0.0 } else { (sum / f64::from(count)).sqrt() }
}

impl Expected {
    /// What is expected: the reference's results, beside those with noise on the input.
    pub(super) fn new(reference: &Results, noisy: &[Results], width: usize) -> Self {
        let n = reference.outputs.len();
        let branches: Vec<Vec<f64>> = (0..n).map(|index| reference.branch(index)).collect();
        let overall = rms(branches.iter().flatten().copied());
        let scales = branches.iter().enumerate().map(|(index, branch)| {
            let noisy: Vec<Vec<f64>> = noisy.iter().map(|noisy| noisy.branch(index)).collect();
            let scale = |(token, row): (usize, &[f64])| {
                let unit = rms(row.iter().copied()).max(0.05 * overall).max(f64::MIN_POSITIVE);
                let change = |noisy: &Vec<f64>| {
                    let noisy = &noisy[token * width..(token + 1) * width];
                    rms(row.iter().zip(noisy).map(|(x, noisy)| x - noisy)) / unit
                };
                Scale { unit, noise: noisy.iter().map(change).fold(0.0, f64::max) }
            };
            branch.chunks_exact(width).enumerate().map(scale).collect()
        });
        let mut scales: Vec<Vec<Scale>> = scales.collect();
        // Noise that happened to cancel out in one token's result would have it judged more strictly than the others.
        let certain = scales.iter().flatten().map(|scale| scale.noise).filter(|noise| *noise <= UNCERTAIN);
        let usual = rms(certain);
        scales.iter_mut().flatten().for_each(|scale| scale.noise = scale.noise.max(usual));
        Self { width, branches, scales, pages: reference.pages.clone() }
    }

    /// Tokens about which something can be said, and all.
    pub(super) fn certain(&self) -> (usize, usize) {
        let all = self.scales.iter().flatten();
        (all.clone().filter(|scale| scale.noise <= UNCERTAIN).count(), all.count())
    }

    /// Compares a plugin's results; `how` they were computed, for messages.
    pub(super) fn check(&self, results: &Results, how: &str) -> Result<Distance, Outcome> {
        let mut distance = Distance::default();
        for index in 0..self.branches.len() {
            self.check_finite(results, index, how)?;
            let branch = results.branch(index);
            let rows = branch.chunks_exact(self.width).zip(self.branches[index].chunks_exact(self.width));
            for ((token, (got, expected)), scale) in rows.enumerate().zip(&self.scales[index]) {
                if scale.noise > UNCERTAIN {
                    continue;
                }
                let place = format!("{how}, token {token} of sequence {index}");
                self.check_changed(results, index, token, expected, &place)?;
                let limit = FLOOR + ROUNDINGS * scale.noise;
                let rounding = rounding(&[results], index, token, self.width);
                let off = Off::of(got, expected, scale.unit, rounding);
                if off.rms > limit || off.most > PEAK * limit {
                    return Err(wrong(got, expected, scale.unit, limit, &place));
                }
                distance.off = distance.off.max(off.rms);
            }
        }
        self.check_pages(results, how)?;
        Ok(distance)
    }

    /// Compares two runs of the plugin that may differ by the order of their sums only. `fault` is what it is if they
    /// don't.
    pub(super) fn check_same(
        &self,
        first: &Results,
        second: &Results,
        fault: Fault,
        how: &str,
    ) -> Result<(), Outcome> {
        for index in 0..self.branches.len() {
            self.check_finite(second, index, how)?;
            let (one, other) = (first.branch(index), second.branch(index));
            let rows = one.chunks_exact(self.width).zip(other.chunks_exact(self.width));
            for ((token, (one, other)), scale) in rows.enumerate().zip(&self.scales[index]) {
                if scale.noise > UNCERTAIN {
                    continue;
                }
                let limit = CUT_FLOOR + CUT_SHARE * scale.noise;
                let rounding = rounding(&[first, second], index, token, self.width);
                let off = Off::of(other, one, scale.unit, rounding);
                if off.rms > limit || off.most > PEAK * limit {
                    let sentence = format!(
                        "{how}, token {token} of sequence {index} is off by {:.2e} of its branch's root mean square from what \
                         it was in one call of all tokens, where at most {limit:.1e} was expected (the element that is off \
                         the most: {:e} in place of {:e})",
                        off.rms, other[off.at], one[off.at]
                    );
                    return Err(Outcome::Failed(fault, sentence));
                }
            }
        }
        Ok(())
    }

    fn check_finite(&self, results: &Results, index: usize, how: &str) -> Result<(), Outcome> {
        let outputs = &results.outputs[index];
        match outputs.iter().position(|x| !x.is_finite()) {
            Some(at) => {
                let (token, element) = (at / self.width, at % self.width);
                let sentence = format!(
                    "{how}, element {element} of token {token} of sequence {index} is {}, where {:e} was expected",
                    outputs[at],
                    self.branches[index].get(at).copied().unwrap_or_default()
                );
                Err(Outcome::Failed(Fault::NotFinite, sentence))
            }
            None => Ok(()),
        }
    }

    /// Fails where the output of a branch is what it was, though something was to be added.
    fn check_changed(
        &self,
        results: &Results,
        index: usize,
        token: usize,
        expected: &[f64],
        place: &str,
    ) -> Result<(), Outcome> {
        let row = token * self.width..(token + 1) * self.width;
        let unchanged = results.before[index]
            .get(row.clone())
            .is_some_and(|before| before == &results.outputs[index][row]);
        if unchanged && expected.iter().any(|x| x.abs() > 1e-3) {
            let sentence = format!("{place}: it returned OK and left the output as it was");
            return Err(Outcome::Failed(Fault::NotWritten, sentence));
        }
        Ok(())
    }

    /// Compares the keys and values that were kept: other plugins read them.
    fn check_pages(&self, results: &Results, how: &str) -> Result<(), Outcome> {
        for (index, (pages, expected)) in results.pages.iter().zip(&self.pages).enumerate() {
            for (number, (page, expected)) in pages.iter().zip(expected).enumerate() {
                for ((got, expected), what) in page.iter().zip(expected).zip(["keys", "values"]) {
                    let unit = rms(expected.iter().map(|x| f64::from(*x))).max(f64::MIN_POSITIVE);
                    let off = rms(got.iter().zip(expected).map(|(x, y)| f64::from(x - y))) / unit;
                    let limit = 0.05;
                    if off.is_nan() || off > limit {
                        let sentence = format!(
                            "{how}: the {what} that it kept in page {number} of sequence {index} are off by {off:.2e} of their \
                             root mean square, where at most {limit} was expected"
                        );
                        return Err(Outcome::Failed(Fault::WrongResult, sentence));
                    }
                }
            }
        }
        Ok(())
    }
}

/// How far two rows are from each other, in units.
struct Off {
    rms: f64,
    most: f64,
    /// The element that is off the most.
    at: usize,
}

impl Off {
    /// Of each element, `rounding` doesn't count.
    fn of(got: &[f64], expected: &[f64], unit: f64, rounding: f64) -> Self {
        let errors = || got.iter().zip(expected).map(|(x, y)| ((x - y).abs() - rounding).max(0.0) / unit);
        let most =
            errors().enumerate().fold((0, 0.0), |most, (at, e)| if e > most.1 { (at, e) } else { most });
        Self { rms: rms(errors()), most: most.1, at: most.0 }
    }
}

/// What float32 loses of a branch where the output holds something else besides.
fn rounding(results: &[&Results], index: usize, token: usize, width: usize) -> f64 {
    let before = |results: &&Results| {
        let before = results.before[index].get(token * width..(token + 1) * width).unwrap_or_default();
        before.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()))
    };
    f64::from(f32::EPSILON) * f64::from(results.iter().map(before).fold(0.0, f32::max))
}

/// The finding for results that are off by more than the limit.
fn wrong(got: &[f64], expected: &[f64], unit: f64, limit: f64, place: &str) -> Outcome {
    let off = Off::of(got, expected, unit, 0.0);
    let negative: Vec<f64> = got.iter().map(|x| -x).collect();
    let negated = Off::of(&negative, expected, unit, 0.0);
    if negated.rms <= limit && negated.most <= PEAK * limit {
        let sentence = format!(
            "{place}: every element has the wrong sign (element {}: {:e} in place of {:e})",
            off.at, got[off.at], expected[off.at]
        );
        return Outcome::Failed(Fault::WrongSign, sentence);
    }
    let sentence = format!(
        "{place} is off by {:.2e} of the root mean square of the right result, where at most {limit:.1e} was expected; \
         element {} is {:e} in place of {:e}",
        off.rms, off.at, got[off.at], expected[off.at]
    );
    Outcome::Failed(Fault::WrongResult, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two tokens of four elements each, added to a residual of ones.
    fn results(branch: impl Fn(usize) -> f32) -> Results {
        let before = vec![1.0; 8];
        let output = (0..8).map(|at| before[at] + branch(at)).collect();
        Results { outputs: vec![output], before: vec![before], pages: Vec::new() }
    }

    fn right(at: usize) -> f32 {
        [0.5, -1.0, 2.0, -0.25, 1.5, 1.0, -3.0, 0.75][at]
    }

    fn expected() -> Expected {
        // Noise of half a hundredth.
        let noisy = results(|at| right(at) * if at % 2 == 0 { 1.005 } else { 0.995 });
        Expected::new(&results(right), &[noisy], 4)
    }

    fn fault(branch: impl Fn(usize) -> f32) -> Option<Fault> {
        match expected().check(&results(branch), "in a test") {
            Ok(_) => None,
            Err(Outcome::Failed(fault, _)) => Some(fault),
            Err(outcome) => panic!("{outcome:?}"),
        }
    }

    #[test]
    fn results_as_far_off_as_rounding_makes_them_pass() {
        assert_eq!(expected().certain(), (2, 2));
        assert_eq!(fault(right), None);
        assert_eq!(fault(|at| right(at) * 1.01), None);
    }

    #[test]
    fn each_fault_has_its_name() {
        assert_eq!(fault(|at| right(at) * 1.1), Some(Fault::WrongResult));
        assert_eq!(fault(|at| if at == 6 { 0.0 } else { right(at) }), Some(Fault::WrongResult));
        assert_eq!(fault(|at| -right(at)), Some(Fault::WrongSign));
        assert_eq!(fault(|at| if at == 3 { f32::NAN } else { right(at) }), Some(Fault::NotFinite));
        assert_eq!(fault(|_| 0.0), Some(Fault::NotWritten));
    }

    #[test]
    fn cuts_may_differ_by_less_than_noise() {
        let (first, near, far) =
            (results(right), results(|at| right(at) * 1.0005), results(|at| right(at) * 1.01));
        let same = |other: &Results| expected().check_same(&first, other, Fault::BatchDependent, "in a test");
        assert_eq!(same(&near), Ok(()));
        assert!(matches!(same(&far), Err(Outcome::Failed(Fault::BatchDependent, _))));
    }
}
