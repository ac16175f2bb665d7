//! What a scheduler's requests took, all together.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;

use super::distribution::Distribution;
use super::request::{Quantiles, RequestMetrics};
use super::throughput::{Phase, PhaseReport, ThroughputMeasurer};
use crate::engine::Finish;
use crate::error::Error;

type Count = Counter<u64, AtomicU64>;

/// What one step of a scheduler did.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// How long it took.
    pub took: Duration,
    /// Tokens of prompts that it ran.
    pub prompt: usize,
    /// Tokens that it decoded.
    pub decoded: usize,
    /// All sequences of the step.
    pub sequences: usize,
}

/// How requests ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// The model, a stop text or token, or the form of the answer ended it.
    pub completed: u64,
    /// The token limit was reached, or the context was full.
    pub cut: u64,
    /// Someone cancelled it.
    pub cancelled: u64,
    /// It failed.
    pub failed: u64,
    /// It was refused, since the queue was full.
    pub refused: u64,
}

/// What all requests together took; times in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServingReport {
    /// Seconds since the scheduler began.
    pub uptime_s: f64,
    /// Requests that wait.
    pub waiting: u64,
    /// Requests that run.
    pub running: u64,
    /// Those that ended.
    pub requests: Outcomes,
    /// Tokens by phase. The time of a step that did both is divided by their tokens.
    pub phases: [PhaseReport; 2],
    /// Tokens of prompts that were shared with earlier ones, and not run.
    pub shared_tokens: u64,
    /// Tokens that were drafted (speculative decoding).
    pub drafted_tokens: u64,
    /// How many of them came.
    pub accepted_tokens: u64,
    /// How many of those that were drafted are a draft model's guesses.
    pub guessed_tokens: u64,
    /// How many of these came.
    pub accepted_guesses: u64,
    /// From a request's arrival until it got a slot.
    pub queue_s: Quantiles,
    /// From a request's arrival to its first token.
    pub first_token_s: Quantiles,
    /// Between one token of a request and the next.
    pub between_tokens_s: Quantiles,
    /// From a request's arrival to its end.
    pub request_s: Quantiles,
    /// Steps so far.
    pub steps: u64,
    /// A step's time.
    pub step_s: Quantiles,
    /// Sequences that shared a step.
    pub batch_sequences: Quantiles,
    /// Tokens of a step.
    pub batch_tokens: Quantiles,
}

/// Counts what a scheduler does.
#[derive(Debug)]
pub struct ServingMetrics {
    start: Instant,
    pub(super) throughput: ThroughputMeasurer,
    pub(super) waiting: Gauge,
    pub(super) running: Gauge,
    pub(super) completed: Count,
    pub(super) cut: Count,
    pub(super) cancelled: Count,
    pub(super) failed: Count,
    pub(super) refused: Count,
    pub(super) prompt_tokens: Count,
    pub(super) shared_tokens: Count,
    pub(super) drafted_tokens: Count,
    pub(super) accepted_tokens: Count,
    pub(super) guessed_tokens: Count,
    pub(super) accepted_guesses: Count,
    pub(super) generated_tokens: Count,
    pub(super) queue: Distribution,
    pub(super) first_token: Distribution,
    pub(super) between: Distribution,
    pub(super) request: Distribution,
    pub(super) step: Distribution,
    pub(super) sequences: Distribution,
    pub(super) tokens: Distribution,
    pub(super) steps: Count,
}

impl ServingMetrics {
    /// Nothing yet, from now on.
    #[must_use]
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            throughput: ThroughputMeasurer::start(),
            waiting: Gauge::default(),
            running: Gauge::default(),
            completed: Count::default(),
            cut: Count::default(),
            cancelled: Count::default(),
            failed: Count::default(),
            refused: Count::default(),
            prompt_tokens: Count::default(),
            shared_tokens: Count::default(),
            drafted_tokens: Count::default(),
            accepted_tokens: Count::default(),
            guessed_tokens: Count::default(),
            accepted_guesses: Count::default(),
            generated_tokens: Count::default(),
            queue: Distribution::of_seconds(),
            first_token: Distribution::of_seconds(),
            between: Distribution::of_seconds(),
            request: Distribution::of_seconds(),
            step: Distribution::of_seconds(),
            sequences: Distribution::of_counts(),
            tokens: Distribution::of_counts(),
            steps: Count::default(),
        }
    }

    pub(crate) fn load(&self, waiting: usize, running: usize) {
        self.waiting.set(waiting as i64);
        self.running.set(running as i64);
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    /// A prompt began, `tokens` of which were shared with an earlier one.
    pub(crate) fn shared(&self, tokens: usize) {
        self.shared_tokens.inc_by(tokens as u64);
    }

    /// Tokens were drafted, `by_model` where a draft model guessed them, of which so many came.
    pub(crate) fn drafted(&self, drafted: usize, accepted: usize, by_model: bool) {
        self.drafted_tokens.inc_by(drafted as u64);
        self.accepted_tokens.inc_by(accepted as u64);
        if by_model {
            self.guessed_tokens.inc_by(drafted as u64);
            self.accepted_guesses.inc_by(accepted as u64);
        }
    }

    /// A token came, `between` seconds after the one before it, where there was one.
    pub fn token(&self, between: Option<f64>) {
        self.generated_tokens.inc();
        if let Some(between) = between {
            self.between.add(between);
        }
    }

    /// A step was done.
    pub fn step(&self, step: &Step) {
        let tokens = step.prompt + step.decoded;
        if tokens == 0 {
            return;
        }
        self.steps.inc();
        self.step.add(step.took.as_secs_f64());
        self.sequences.add(step.sequences as f64);
        self.tokens.add(tokens as f64);
        self.prompt_tokens.inc_by(step.prompt as u64);
        for (phase, part) in [(Phase::Prompt, step.prompt), (Phase::Decode, step.decoded)] {
            if part > 0 {
                self.throughput.add(phase, part, step.took.mul_f64(part as f64 / tokens as f64));
            }
        }
    }

    pub(crate) fn ended(&self, finish: &Finish, request: &RequestMetrics) {
        match finish {
            Finish::EndToken(_) | Finish::StopText(_) | Finish::Complete => self.completed.inc(),
            Finish::Length | Finish::ContextFull => self.cut.inc(),
            Finish::Cancelled => self.cancelled.inc(),
        };
        self.queue.add(request.queue_s);
        self.request.add(request.total_s);
        if request.generated_tokens > 0 {
            self.first_token.add(request.first_token_s);
        }
    }

    pub(crate) fn failed(&self, error: &Error) {
        tracing::debug!("a request failed: {error}");
        self.failed.inc();
    }

    /// What there is so far.
    #[must_use]
    pub fn report(&self) -> ServingReport {
        ServingReport {
            uptime_s: self.start.elapsed().as_secs_f64(),
            waiting: self.waiting.get().cast_unsigned(),
            running: self.running.get().cast_unsigned(),
            requests: Outcomes {
                completed: self.completed.get(),
                cut: self.cut.get(),
                cancelled: self.cancelled.get(),
                failed: self.failed.get(),
                refused: self.refused.get(),
            },
            phases: self.throughput.report(),
            shared_tokens: self.shared_tokens.get(),
            drafted_tokens: self.drafted_tokens.get(),
            accepted_tokens: self.accepted_tokens.get(),
            guessed_tokens: self.guessed_tokens.get(),
            accepted_guesses: self.accepted_guesses.get(),
            queue_s: self.queue.quantiles(),
            first_token_s: self.first_token.quantiles(),
            between_tokens_s: self.between.quantiles(),
            request_s: self.request.quantiles(),
            steps: self.steps.get(),
            step_s: self.step.quantiles(),
            batch_sequences: self.sequences.quantiles(),
            batch_tokens: self.tokens.quantiles(),
        }
    }
}
