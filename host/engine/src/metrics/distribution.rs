//! A distribution that values are added to, and that gives quantiles.

use std::sync::Mutex;

use hdrhistogram::Histogram as Hdr;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use super::request::Quantiles;
use crate::threads::locked;

/// Values of one kind: kept to three digits for quantiles, and in buckets for Prometheus.
#[derive(Debug)]
pub(super) struct Distribution {
    /// Whole numbers of `unit`s.
    hdr: Mutex<Hdr<u64>>,
    unit: f64,
    pub(super) buckets: Histogram,
}

impl Distribution {
    /// Times in seconds, from a microsecond to hours.
    pub(super) fn of_seconds() -> Self {
        Self::new(1e-6, exponential_buckets(0.0005, 2.0, 20))
    }

    /// Counts of something, up to some thousands.
    pub(super) fn of_counts() -> Self {
        Self::new(1.0, exponential_buckets(1.0, 2.0, 13))
    }

    fn new(unit: f64, buckets: impl Iterator<Item = f64>) -> Self {
        let hdr = Hdr::new_with_max(36_000_000_000, 3).map_or_else(|_| Hdr::new(3), Ok);
        // Both bounds and digits are ones that hdrhistogram documents as valid.
        let hdr = hdr.expect("the bounds of a histogram are valid");
        Self { hdr: Mutex::new(hdr), unit, buckets: Histogram::new(buckets) }
    }

    pub(super) fn add(&self, value: f64) {
        self.buckets.observe(value);
        let mut hdr = locked(&self.hdr);
        hdr.saturating_record((value / self.unit).max(0.0) as u64);
    }

    pub(super) fn quantiles(&self) -> Quantiles {
        let hdr = locked(&self.hdr);
        if hdr.is_empty() {
            return Quantiles::default();
        }
        let at = |share| hdr.value_at_quantile(share) as f64 * self.unit;
        Quantiles { median: at(0.5), p95: at(0.95), p99: at(0.99), max: hdr.max() as f64 * self.unit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_three_digits() {
        let distribution = Distribution::of_seconds();
        assert_eq!(distribution.quantiles(), Quantiles::default());
        let mut values: Vec<f64> = (1..=1000).map(|index| f64::from(index) * 0.0123).collect();
        values.iter().for_each(|value| distribution.add(*value));
        let (found, exact) = (distribution.quantiles(), Quantiles::of(&mut values));
        for (found, exact) in [
            (found.median, exact.median),
            (found.p95, exact.p95),
            (found.p99, exact.p99),
            (found.max, exact.max),
        ] {
            assert!((found - exact).abs() <= exact * 0.001 + 1e-6, "{found} is not {exact}");
        }
    }
}
