//! What one request took.

use std::time::Instant;

use serde::Serialize;

/// The middle and the upper end of some values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half are at most this.
    pub median: f64,
    /// 95% are at most this.
    pub p95: f64,
    /// 99% are at most this.
    pub p99: f64,
    /// All are at most this.
    pub max: f64,
}

impl Quantiles {
    /// Of these values, by the nearest rank; zeros where there are none. Sorts them.
    #[must_use]
    pub fn of(values: &mut [f64]) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let rank = |share: f64| {
            let rank = (share * values.len() as f64).ceil() as usize;
            values.get(rank.max(1) - 1).copied().unwrap_or(0.0)
        };
        Self { median: rank(0.5), p95: rank(0.95), p99: rank(0.99), max: rank(1.0) }
    }
}

/// What one request took; times in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RequestMetrics {
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// Tokens that were generated.
    pub generated_tokens: usize,
    /// From its arrival until it got a slot.
    pub queue_s: f64,
    /// From its arrival to its first token; 0 where none came.
    pub first_token_s: f64,
    /// From getting a slot to the first token, or to its end where none came.
    pub prompt_s: f64,
    /// From the first token to the last.
    pub decode_s: f64,
    /// From its arrival to its end.
    pub total_s: f64,
    /// Between one token and the next.
    pub between_tokens_s: Quantiles,
}

impl RequestMetrics {
    /// Tokens of the prompt a second.
    #[must_use]
    pub fn prompt_speed(&self) -> f64 {
        per_second(self.prompt_tokens, self.prompt_s)
    }

    /// Tokens after the first a second.
    #[must_use]
    pub fn decode_speed(&self) -> f64 {
        per_second(self.generated_tokens.saturating_sub(1), self.decode_s)
    }
}

/// A count a second; 0 where the count is.
pub(crate) fn per_second(count: usize, seconds: f64) -> f64 {
    if count == 0 || seconds <= 0.0 { 0.0 } else { count as f64 / seconds }
}

/// Takes the times of a request as it runs.
#[derive(Clone, Debug)]
pub(crate) struct RequestClock {
    arrived: Instant,
    placed: Option<Instant>,
    first: Option<Instant>,
    last: Option<Instant>,
    between: Vec<f64>,
}

impl RequestClock {
    pub(crate) fn start() -> Self {
        Self { arrived: Instant::now(), placed: None, first: None, last: None, between: Vec::new() }
    }

    /// It has a slot.
    pub(crate) fn placed(&mut self, now: Instant) {
        self.placed = Some(now);
    }

    /// A token came. The time since the one before it, where there was one.
    pub(crate) fn token(&mut self, now: Instant) -> Option<f64> {
        let Some(last) = self.last.replace(now) else {
            self.first = Some(now);
            return None;
        };
        let between = (now - last).as_secs_f64();
        self.between.push(between);
        Some(between)
    }

    /// It has ended.
    pub(crate) fn end(mut self, prompt_tokens: usize, generated_tokens: usize) -> RequestMetrics {
        let now = Instant::now();
        let seconds = |from: Instant, to: Option<Instant>| {
            to.map_or(0.0, |to| to.saturating_duration_since(from).as_secs_f64())
        };
        RequestMetrics {
            prompt_tokens,
            generated_tokens,
            queue_s: seconds(self.arrived, self.placed.or(Some(now))),
            first_token_s: seconds(self.arrived, self.first),
            prompt_s: self.placed.map_or(0.0, |placed| seconds(placed, self.first.or(Some(now)))),
            decode_s: self.first.map_or(0.0, |first| seconds(first, self.last)),
            total_s: seconds(self.arrived, Some(now)),
            between_tokens_s: Quantiles::of(&mut self.between),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let expected = Quantiles { median: 50.0, p95: 95.0, p99: 99.0, max: 100.0 };
        assert_eq!(Quantiles::of(&mut values), expected);
        assert_eq!(Quantiles::of(&mut [7.0]), Quantiles { median: 7.0, p95: 7.0, p99: 7.0, max: 7.0 });
        assert_eq!(Quantiles::of(&mut []), Quantiles::default());
    }

    #[test]
    fn a_clock_adds_up() {
        let mut clock = RequestClock::start();
        let at = |ms| clock.arrived + Duration::from_millis(ms);
        let (placed, tokens) = (at(100), [at(300), at(310), at(350)]);
        clock.placed(placed);
        let between: Vec<f64> = tokens.into_iter().filter_map(|now| clock.token(now)).collect();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}");
        near(between[1], 0.04);
        let metrics = clock.end(8, 3);
        near(metrics.queue_s, 0.1);
        near(metrics.first_token_s, 0.3);
        near(metrics.prompt_speed(), 40.0);
        near(metrics.decode_speed(), 40.0);
        near(metrics.between_tokens_s.median, 0.01);
        near(metrics.between_tokens_s.max, 0.04);
    }
}
