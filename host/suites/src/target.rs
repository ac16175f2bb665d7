//! Targets, and the verdict on a figure.

use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::measurement::Measurement;

/// Whether a higher or a lower figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Higher is better.
    Higher,
    /// Lower is better.
    Lower,
}

impl Better {
    /// Whether a figure reaches a target.
    #[must_use]
    pub fn reaches(self, figure: f64, target: f64) -> bool {
        match self {
            Self::Higher => figure >= target,
            Self::Lower => figure <= target,
        }
    }

    /// The one of two targets that is easier to reach.
    #[must_use]
    pub fn easier(self, a: f64, b: f64) -> f64 {
        if self.reaches(a, b) { b } else { a }
    }
}

/// The target of a benchmark's figure.
#[derive(Clone, Copy)]
pub struct Target {
    /// Whether higher or lower is better.
    pub better: Better,
    /// The fixed target; `None` if the target follows from other figures of the run.
    pub fixed: Option<f64>,
    /// The machine's limit in the figure's unit, if it is known.
    pub limit: Option<fn(&Limits<'_>) -> f64>,
    /// The share of the limit that a figure must reach (for a time: it may be at most the limit divided by this).
    pub share: f64,
}

impl Target {
    /// At least `fixed`.
    pub(super) const fn at_least(fixed: f64) -> Self {
        Self { better: Better::Higher, fixed: Some(fixed), limit: None, share: 1.0 }
    }

    /// At most `fixed`.
    pub(super) const fn at_most(fixed: f64) -> Self {
        Self { better: Better::Lower, fixed: Some(fixed), limit: None, share: 1.0 }
    }

    /// At least the measurement's own relative target.
    pub(super) const fn relative() -> Self {
        Self { better: Better::Higher, fixed: None, limit: None, share: 1.0 }
    }

    /// Adds an easier target for slower machines: this share of the machine's limit.
    pub(super) const fn or_share(self, share: f64, limit: fn(&Limits<'_>) -> f64) -> Self {
        Self { limit: Some(limit), share, ..self }
    }
}

/// A benchmark's verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The fixed target, or the one that follows from other figures of the run.
    pub target: Option<f64>,
    /// The target from the machine's limit.
    pub adaptive_target: Option<f64>,
    /// The machine's limit.
    pub limit: Option<f64>,
    /// Whether the figure reaches the easier of the targets, and every check holds.
    pub passed: bool,
    /// Whether it also reaches the fixed target.
    pub passed_fixed: bool,
    /// Why it failed, a sentence each.
    pub reasons: Vec<String>,
}

/// Judges a measurement.
#[must_use]
pub fn judge(target: &Target, unit: &str, found: &Measurement, limits: &Limits<'_>) -> Verdict {
    let better = target.better;
    let fixed = found.relative_target.as_ref().map(|(figure, _)| *figure).or(target.fixed);
    let limit = target.limit.map(|limit| limit(limits)).filter(|limit| limit.is_finite() && *limit > 0.0);
    let adaptive = limit.map(|limit| match better {
        Better::Higher => limit * target.share,
        Better::Lower => limit / target.share,
    });
    let judged_by = match (fixed, adaptive) {
        (Some(fixed), Some(adaptive)) => Some(better.easier(fixed, adaptive)),
        (fixed, adaptive) => fixed.or(adaptive),
    };
    // A figure that is not finite reaches nothing.
    let reaches = |target: Option<f64>| {
        found.figure.is_finite() && target.is_none_or(|target| better.reaches(found.figure, target))
    };
    let mut reasons: Vec<String> = found
        .checks
        .iter()
        .filter(|check| !check.passed)
        .map(|check| format!("{}: {}", check.what, check.found))
        .collect();
    let checks_hold = reasons.is_empty();
    if !reaches(judged_by) {
        let word = if better == Better::Higher { "at least" } else { "at most" };
        let why = found.relative_target.as_ref().map_or(String::new(), |(_, why)| format!(" ({why})"));
        let expected = judged_by.unwrap_or(f64::NAN);
        reasons.push(format!(
            "{} {unit}, where {word} {} was expected{why}",
            short(found.figure),
            short(expected)
        ));
    }
    Verdict {
        target: fixed,
        adaptive_target: adaptive,
        limit,
        passed: reasons.is_empty(),
        passed_fixed: checks_hold && reaches(fixed),
        reasons,
    }
}

/// A number with about three digits.
#[must_use]
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 || size == 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::{Machine, ModelFacts};
    use super::*;

    fn judged(target: Target, found: Measurement, bytes_per_s: f64) -> Verdict {
        let machine = Machine { read_bytes_per_s: bytes_per_s, ..Machine::default() };
        let model = ModelFacts { weight_bytes: 100, ..ModelFacts::default() };
        judge(&target, "tokens/s", &found, &Limits { machine: &machine, model: &model })
    }

    const TARGET: Target =
        Target::at_least(100.0).or_share(0.5, |limits| limits.machine.read_bytes_per_s / 100.0);

    #[test]
    fn the_fixed_target_counts_if_the_machine_allows_it() {
        let verdict = judged(TARGET, Measurement::of(vec![99.0]), 1e6);
        assert!(!verdict.passed && !verdict.passed_fixed);
        assert!(verdict.reasons[0].contains("99.0 tokens/s, where at least 100"), "{:?}", verdict.reasons);
        assert!(judged(TARGET, Measurement::of(vec![100.0]), 1e6).passed_fixed);
    }

    #[test]
    fn a_slower_machine_is_judged_by_its_own_limit() {
        let verdict = judged(TARGET, Measurement::of(vec![60.0]), 1e4);
        assert_eq!(
            (verdict.adaptive_target, verdict.passed, verdict.passed_fixed),
            (Some(50.0), true, false)
        );
        assert!(!judged(TARGET, Measurement::of(vec![49.0]), 1e4).passed);
        // The longer of two times is the easier target.
        let slow = Target::at_most(1.0).or_share(0.5, |limits| 1e4 / limits.machine.read_bytes_per_s);
        assert!(judged(slow, Measurement::of(vec![1.9]), 1e4).passed);
        assert!(!judged(slow, Measurement::of(vec![2.1]), 1e4).passed);
    }

    #[test]
    fn nothing_passes_with_a_failed_check_or_without_a_number() {
        let verdict = judged(TARGET, Measurement::of(vec![1e9]).check("answers parse", false, "1 of 5"), 1e6);
        assert!(!verdict.passed && !verdict.passed_fixed);
        assert_eq!(verdict.reasons, ["answers parse: 1 of 5"]);
        assert!(!judged(TARGET, Measurement::of(vec![f64::NAN]), 1e6).passed);
        assert!(!judged(TARGET, Measurement::of(vec![f64::INFINITY]), 1e6).passed);
    }

    #[test]
    fn a_relative_target_replaces_the_fixed_one() {
        let mut found = Measurement::of(vec![110.0]);
        found.relative_target = Some((120.0, "a batch of 8".to_owned()));
        let verdict = judged(Target::relative(), found, 1e6);
        assert_eq!((verdict.target, verdict.passed), (Some(120.0), false));
        assert!(verdict.reasons[0].ends_with("(a batch of 8)"));
    }
}
