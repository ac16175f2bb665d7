//! Requests that the scheduler serves together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::corpus;
use super::measurement::{Check, Line, quantile};
use herald::Result;
use herald::metrics::{PerformanceMonitor, Sample};
use herald::schedule::{Request, Scheduler, SchedulerOptions};
use herald::{GenerateOptions, NeuroEngine};

/// The result of serving some requests together.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) requests: usize,
    /// From the first request to the last answer.
    pub(super) seconds: f64,
    /// Generated tokens.
    pub(super) generated: usize,
    /// Requests without an answer.
    pub(super) lost: usize,
    /// Answers that differ from those of requests that run alone.
    pub(super) wrong: usize,
    /// From a request's arrival to its end, in seconds.
    pub(super) totals: Vec<f64>,
    /// From a request's arrival to its first token, in seconds.
    pub(super) firsts: Vec<f64>,
    /// Median number of sequences in a step.
    pub(super) batch: f64,
    /// The monitor's samples during the run.
    pub(super) samples: Vec<Sample>,
}

impl Served {
    /// Generated tokens per second.
    pub(super) fn speed(&self) -> f64 {
        self.generated as f64 / self.seconds
    }

    /// The checks that must hold for its speed to count.
    pub(super) fn checks(&self) -> Vec<Check> {
        let Self { requests, lost, wrong, .. } = self;
        vec![
            Check {
                what: "no request is lost".to_owned(),
                passed: *lost == 0,
                found: format!("{lost} of {requests} were"),
            },
            Check {
                what: "each answer equals the one that its prompt gets alone".to_owned(),
                passed: *wrong == 0,
                found: format!("{wrong} of {requests} differ"),
            },
        ]
    }

    /// The latency that `share` of the requests don't exceed, in seconds.
    pub(super) fn latency(&self, share: f64) -> f64 {
        quantile(&self.totals, share)
    }

    /// Memory over time, of the process and of each tier.
    pub(super) fn memory(&self) -> Vec<Line> {
        memory(&self.samples)
    }
}

/// Memory over time, of the process and of each tier.
fn memory(samples: &[Sample]) -> Vec<Line> {
    let line = |name: &str, bytes: &dyn Fn(&Sample) -> u64| Line {
        name: name.to_owned(),
        points: samples.iter().map(|sample| (sample.memory.at_s, bytes(sample) as f64 / 1e6)).collect(),
    };
    let mut lines = vec![line("process", &|sample| sample.memory.process.rss_bytes)];
    let tiers = samples.first().map_or(&[][..], |sample| &sample.memory.tiers[..]);
    for tier in tiers {
        let of = |sample: &Sample| {
            let found = sample.memory.tiers.iter().find(|other| other.tier == tier.tier);
            found.map_or(0, |tier| tier.bytes)
        };
        lines.push(line(tier.tier, &of));
    }
    lines
}

/// Request `index`, for `generated` tokens.
pub(super) fn request(engine: &NeuroEngine, index: usize, generated: usize) -> Result<Request> {
    Ok(Request {
        prompt: engine.tokenizer().encode_prompt(&corpus::prompt(index), false)?,
        options: GenerateOptions {
            max_tokens: Some(generated),
            ignore_eos: true,
            ..GenerateOptions::default()
        },
        client: format!("client {}", index % 4),
    })
}

/// The answer to a request that runs alone.
pub(super) fn alone(engine: &NeuroEngine, request: &Request) -> Result<Vec<u32>> {
    let mut sequence = engine.sequence()?;
    let generated =
        engine.generate(&mut sequence, &request.prompt, &request.options, &mut || true, &mut |_| true)?;
    Ok(generated.tokens)
}

/// Serves all requests at once, and compares their answers with `expected`, by prompt. Requests with the same prompt must
/// have the same options.
pub(super) fn serve(
    engine: &Arc<NeuroEngine>,
    requests: &[Request],
    running: usize,
    expected: &HashMap<Vec<u32>, Vec<u32>>,
) -> Result<Served> {
    let options = SchedulerOptions {
        max_running: running.min(engine.max_batch()),
        queue: requests.len().max(1),
        ..SchedulerOptions::default()
    };
    let scheduler = Scheduler::start(Arc::clone(engine), options)?;
    let monitor = PerformanceMonitor::start(
        Arc::clone(engine),
        Arc::clone(scheduler.metrics()),
        Duration::from_millis(50),
    )?;
    let start = Instant::now();
    let tickets: Vec<_> = requests.iter().map(|request| scheduler.submit(request.clone())).collect();
    let answers: Vec<_> = tickets.into_iter().map(|ticket| ticket?.wait()).collect();
    let seconds = start.elapsed().as_secs_f64();
    let samples = monitor.samples();
    let (mut lost, mut wrong, mut generated) = (0, 0, 0);
    let (mut totals, mut firsts) = (Vec::new(), Vec::new());
    for (answer, request) in answers.into_iter().zip(requests) {
        match answer {
            Ok(answer) => {
                wrong += usize::from(expected.get(&request.prompt) != Some(&answer.generated.tokens));
                generated += answer.generated.tokens.len();
                totals.push(answer.metrics.total_s);
                firsts.push(answer.metrics.first_token_s);
            }
            Err(error) => {
                tracing::warn!("a request of a benchmark has no answer: {error}");
                lost += 1;
            }
        }
    }
    let batch = scheduler.metrics().report().batch_sequences.median;
    Ok(Served { requests: requests.len(), seconds, generated, lost, wrong, totals, firsts, batch, samples })
}
