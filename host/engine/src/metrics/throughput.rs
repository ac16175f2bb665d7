//! Tokens a second, by phase: since the start, and lately.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::request::per_second;
use crate::threads::locked;

/// What tokens were run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Reading prompts.
    Prompt,
    /// Generating.
    Decode,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 2] = [Self::Prompt, Self::Decode];
}

/// One phase's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PhaseReport {
    /// Which phase.
    pub phase: Phase,
    /// Tokens so far.
    pub tokens: u64,
    /// Seconds that were spent on them.
    pub busy_s: f64,
    /// Tokens for each of those seconds.
    pub tokens_per_s: f64,
    /// Tokens for each second of the latest ten, idle ones included.
    pub recent_tokens_per_s: f64,
}

/// The window of "lately", in whole seconds.
const WINDOW: usize = 10;

/// Measures tokens a second. Any thread may add to it.
#[derive(Debug)]
pub struct ThroughputMeasurer {
    start: Instant,
    phases: Mutex<[Counts; 2]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    tokens: u64,
    busy: Duration,
    /// Tokens of the latest seconds, by second modulo the window, and which second each slot was last used for.
    slots: [(u64, u64); WINDOW],
}

impl Default for ThroughputMeasurer {
    fn default() -> Self {
        Self { start: Instant::now(), phases: Mutex::default() }
    }
}

impl ThroughputMeasurer {
    /// Begins to measure.
    #[must_use]
    pub fn start() -> Self {
        Self::default()
    }

    /// Adds `tokens` of a phase that took this long.
    pub fn add(&self, phase: Phase, tokens: usize, took: Duration) {
        self.add_at(phase, tokens, took, self.start.elapsed().as_secs());
    }

    fn add_at(&self, phase: Phase, tokens: usize, took: Duration, second: u64) {
        let mut phases = locked(&self.phases);
        let counts = &mut phases[phase as usize];
        counts.tokens += tokens as u64;
        counts.busy += took;
        let slot = &mut counts.slots[second as usize % WINDOW];
        if slot.1 != second {
            *slot = (0, second);
        }
        slot.0 += tokens as u64;
    }

    /// What there is so far, by phase.
    #[must_use]
    pub fn report(&self) -> [PhaseReport; 2] {
        self.report_at(self.start.elapsed())
    }

    fn report_at(&self, now: Duration) -> [PhaseReport; 2] {
        let phases = *locked(&self.phases);
        // The second that runs is not over: its tokens count, and so does its part of the window.
        let oldest = (now.as_secs() + 1).saturating_sub(WINDOW as u64);
        let window = now.as_secs_f64() - oldest as f64;
        Phase::ALL.map(|phase| {
            let Counts { tokens, busy, slots } = phases[phase as usize];
            let recent: u64 =
                slots.iter().filter(|(_, second)| *second >= oldest).map(|(tokens, _)| tokens).sum();
            PhaseReport {
                phase,
                tokens,
                busy_s: busy.as_secs_f64(),
                tokens_per_s: per_second(tokens as usize, busy.as_secs_f64()),
                recent_tokens_per_s: per_second(recent as usize, window),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_busy_time_and_of_the_latest_seconds() {
        let measurer = ThroughputMeasurer::start();
        for second in 0..30 {
            measurer.add_at(Phase::Decode, 5, Duration::from_millis(100), second);
        }
        measurer.add_at(Phase::Prompt, 40, Duration::from_millis(200), 3);
        let [prompt, decode] = measurer.report_at(Duration::from_secs(30));
        assert_eq!((prompt.tokens, decode.tokens), (40, 150));
        assert!((prompt.tokens_per_s - 200.0).abs() < 1e-9 && (decode.tokens_per_s - 50.0).abs() < 1e-9);
        // Seconds 21 to 29 count, each with 5.
        assert!((decode.recent_tokens_per_s - 5.0).abs() < 1e-9, "{decode:?}");
        assert!(prompt.recent_tokens_per_s == 0.0);
    }
}
