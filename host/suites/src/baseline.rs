//! Compares a run with an earlier one.

use serde::Serialize;

use super::report::{Outcome, Report};
use super::target::Better;

/// Changes below this share are noise even if the rounds agree: on a shared machine, one run's rounds say little about how
/// much another run may differ.
const NOISE: f64 = 0.05;
/// A change must exceed this many times the sum of both runs' spreads.
const SPREADS: f64 = 2.0;

/// How a figure has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Within the noise.
    Same,
    /// Better, beyond noise.
    Better,
    /// Worse, beyond noise; or it passed then and has no figure now.
    Worse,
}

/// A benchmark in two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The suite and the benchmark.
    pub name: String,
    /// The backend.
    pub backend: String,
    /// The figure then.
    pub before: Option<f64>,
    /// The figure now.
    pub now: Option<f64>,
    /// The unit of both.
    pub unit: String,
    /// The relative gain (negative: worse); 0 if a figure is missing.
    pub gain: f64,
    /// The threshold below which a change is noise, as a share.
    pub noise: f64,
    /// The verdict.
    pub change: Change,
}

/// Compares the benchmarks that both runs have.
#[must_use]
pub fn compare(before: &Report, now: &Report) -> Vec<Comparison> {
    let pairs = now.results.iter().filter_map(|new| {
        let same = |old: &&Outcome| {
            old.suite == new.suite
                && old.name == new.name
                && old.backend == new.backend
                && old.unit == new.unit
        };
        Some((before.results.iter().find(same)?, new))
    });
    pairs.map(|(old, new)| comparison(old, new)).collect()
}

fn comparison(old: &Outcome, new: &Outcome) -> Comparison {
    let noise = (SPREADS * (old.spread + new.spread)).max(NOISE);
    let gain = match (old.figure, new.figure) {
        (Some(old), Some(now)) if old > 0.0 && now > 0.0 => match new.better {
            Better::Higher => now / old - 1.0,
            Better::Lower => old / now - 1.0,
        },
        _ => 0.0,
    };
    let lost = old.verdict.passed && !new.verdict.passed && new.figure.is_none();
    let change = match gain {
        _ if lost => Change::Worse,
        gain if gain < -noise => Change::Worse,
        gain if gain > noise => Change::Better,
        _ => Change::Same,
    };
    Comparison {
        name: format!("{} {}", new.suite, new.name),
        backend: new.backend.clone(),
        before: old.figure,
        now: new.figure,
        unit: new.unit.clone(),
        gain,
        noise,
        change,
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::{Limits, Machine, ModelFacts};
    use super::super::measurement::Measurement;
    use super::super::{Benchmark, Suite};
    use super::*;

    fn outcome(name: &str, found: Result<Vec<f64>, &str>) -> Outcome {
        let limits = Limits { machine: &Machine::default(), model: &ModelFacts::default() };
        let benchmark = Benchmark::find(Suite::Model, name).expect("a benchmark");
        let found = found.map(Measurement::of).map_err(str::to_owned);
        Outcome::of(benchmark, "simd", found, 1.0, &limits)
    }

    fn change(name: &str, before: Result<Vec<f64>, &str>, now: Result<Vec<f64>, &str>) -> Change {
        comparison(&outcome(name, before), &outcome(name, now)).change
    }

    #[test]
    fn only_changes_beyond_noise_count() {
        let speed = "inference_short";
        assert_eq!(change(speed, Ok(vec![200.0]), Ok(vec![192.0])), Change::Same);
        assert_eq!(change(speed, Ok(vec![200.0]), Ok(vec![180.0])), Change::Worse);
        assert_eq!(change(speed, Ok(vec![200.0]), Ok(vec![220.0])), Change::Better);
        // Rounds that differ widely raise the threshold.
        let wide = vec![150.0, 180.0, 200.0, 220.0, 250.0];
        assert_eq!(change(speed, Ok(wide), Ok(vec![170.0])), Change::Same);
    }

    #[test]
    fn longer_times_are_worse() {
        assert_eq!(change("loading", Ok(vec![0.1]), Ok(vec![0.2])), Change::Worse);
        assert_eq!(change("loading", Ok(vec![0.2]), Ok(vec![0.1])), Change::Better);
    }

    #[test]
    fn a_lost_figure_is_a_regression() {
        assert_eq!(change("inference_short", Ok(vec![200.0]), Err("it crashed")), Change::Worse);
    }
}
