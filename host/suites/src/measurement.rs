//! A benchmark's measurement.

use serde::{Deserialize, Serialize};

/// A benchmark's measurement: its figure, and the details behind it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// The median of the samples.
    pub figure: f64,
    /// The figure of each round.
    pub samples: Vec<f64>,
    /// A target that follows from other figures of the same run, and its reason.
    pub relative_target: Option<(f64, String)>,
    /// Checks that the work was real and correct.
    pub checks: Vec<Check>,
    /// Other figures.
    pub details: Vec<Detail>,
    /// Curves.
    pub charts: Vec<Chart>,
    /// Notes on how it was run.
    pub notes: Vec<String>,
}

/// Something that must hold for the figure to count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What must hold.
    pub what: String,
    /// Whether it holds.
    pub passed: bool,
    /// What was found.
    pub found: String,
}

/// Another figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its unit.
    pub unit: String,
}

/// Curves over one axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// The horizontal axis.
    pub x: String,
    /// The vertical axis.
    pub y: String,
    /// The curves.
    pub lines: Vec<Line>,
}

/// A curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

impl Measurement {
    /// A measurement whose figure is the median of `samples`.
    pub(super) fn of(samples: Vec<f64>) -> Self {
        Self { figure: median(&samples), samples, ..Self::default() }
    }

    pub(super) fn check(mut self, what: impl Into<String>, passed: bool, found: impl Into<String>) -> Self {
        self.checks.push(Check { what: what.into(), passed, found: found.into() });
        self
    }

    pub(super) fn detail(mut self, name: &str, value: f64, unit: &str) -> Self {
        self.details.push(Detail { name: name.to_owned(), value, unit: unit.to_owned() });
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    pub(super) fn chart(mut self, title: &str, x: &str, y: &str, lines: Vec<Line>) -> Self {
        self.charts.push(Chart { title: title.to_owned(), x: x.to_owned(), y: y.to_owned(), lines });
        self
    }

    /// The rounds' spread: half the interquartile range over the median; 0 for one round.
    #[must_use]
    pub fn spread(&self) -> f64 {
        if self.samples.len() < 2 || self.figure == 0.0 {
            return 0.0;
        }
        let quartile = |share| quantile(&self.samples, share);
        ((quartile(0.75) - quartile(0.25)) / 2.0 / self.figure).abs()
    }
}

/// The median; 0 for no values.
pub(super) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The quantile at `share`, interpolated between neighbours; 0 for no values.
pub(super) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let index = share * last as f64;
    let (low, high) = (values[index as usize], values[(index.ceil() as usize).min(last)]);
    low + (high - low) * index.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_neighbours() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!((quantile(&values, 0.0), median(&values), quantile(&values, 1.0)), (1.0, 2.5, 4.0));
        assert_eq!((median(&[]), median(&[7.0])), (0.0, 7.0));
    }

    #[test]
    fn the_spread_is_half_of_the_interquartile_range() {
        let measurement = Measurement::of(vec![90.0, 95.0, 100.0, 105.0, 110.0]);
        assert!((measurement.spread() - 0.05).abs() < 1e-12);
        assert_eq!(Measurement::of(vec![5.0]).spread(), 0.0);
    }
}
