//! How many tokens of prompts a step has time for.

use std::time::Duration;

/// Prompts' tokens come in multiples of this: kernels for many tokens are at their best, and chunks of Mamba-2 stay whole.
const GRAIN: usize = 64;

/// How much a new step counts against those before it.
const NEW: f64 = 0.25;

/// What a prompt's token takes of late.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PromptPace {
    /// Seconds; `None` before the first step of a useful size.
    token: Option<f64>,
}

impl PromptPace {
    /// Counts a step that ran this many tokens of prompts. Short ones say little of long ones.
    pub(super) fn observe(&mut self, tokens: usize, took: Duration) {
        if tokens < GRAIN / 2 {
            return;
        }
        let token = took.as_secs_f64() / tokens as f64;
        self.token = Some(self.token.map_or(token, |before| before + NEW * (token - before)));
    }

    /// How many tokens take about so long, at least [`GRAIN`].
    pub(super) fn tokens_in(&self, time: Duration) -> usize {
        let Some(token) = self.token else { return 2 * GRAIN };
        let tokens = time.as_secs_f64() / token.max(1e-9);
        // `as` saturates.
        ((tokens as usize) / GRAIN).max(1).saturating_mul(GRAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_about_as_long_as_it_may() {
        let mut pace = PromptPace::default();
        let time = Duration::from_millis(200);
        assert_eq!(pace.tokens_in(time), 128);
        pace.observe(8, Duration::from_secs(5));
        assert_eq!(pace.tokens_in(time), 128, "too short to tell");
        (0..30).for_each(|_| pace.observe(128, Duration::from_millis(128)));
        assert_eq!(pace.tokens_in(time), 192);
        (0..30).for_each(|_| pace.observe(64, Duration::from_secs(6)));
        assert_eq!(pace.tokens_in(time), 64, "kernels need as many");
        assert!(pace.tokens_in(Duration::MAX) >= 64);
    }
}
