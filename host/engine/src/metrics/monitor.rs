//! Following a scheduler over time.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use super::memory::{MemoryProfiler, MemorySnapshot};
use super::serving::ServingMetrics;
use crate::engine::NeuroEngine;
use crate::error::{Error, Result};
use crate::threads::locked;

/// What went on at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Memory, and when it was.
    #[serde(flatten)]
    pub memory: MemorySnapshot,
    /// Requests that waited.
    pub waiting: u64,
    /// Requests that ran.
    pub running: u64,
    /// Prompt tokens so far.
    pub prompt_tokens: u64,
    /// Generated tokens so far.
    pub generated_tokens: u64,
}

/// Samples a scheduler and its engine's memory at intervals, on a thread of its own, until it is dropped.
pub struct PerformanceMonitor {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// At this many samples every second one is dropped, and the interval doubles.
const MAX_SAMPLES: usize = 2048;

impl PerformanceMonitor {
    /// Begins to sample, at once and then every `interval`.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(
        engine: Arc<NeuroEngine>,
        metrics: Arc<ServingMetrics>,
        mut interval: Duration,
    ) -> Result<Self> {
        let (stop, stopped) = channel();
        let samples = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&samples);
        let profiler = MemoryProfiler::start(engine);
        let work = move || loop {
            let report = metrics.report();
            let sample = Sample {
                memory: profiler.now(""),
                waiting: report.waiting,
                running: report.running,
                prompt_tokens: report.phases[0].tokens,
                generated_tokens: report.phases[1].tokens,
            };
            let mut samples = locked(&kept);
            samples.push(sample);
            if samples.len() >= MAX_SAMPLES {
                let mut odd = false;
                samples.retain(|_| {
                    odd = !odd;
                    odd
                });
                interval *= 2;
            }
            drop(samples);
            if !matches!(stopped.recv_timeout(interval), Err(RecvTimeoutError::Timeout)) {
                break;
            }
        };
        let thread = std::thread::Builder::new().name("herald-monitor".to_owned()).spawn(work);
        let thread = thread
            .map_err(|error| Error::Invalid(format!("the system gave no thread for a monitor: {error}")))?;
        Ok(Self { samples, stop: Some(stop), thread: Some(thread) })
    }

    /// The samples so far, oldest first.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        locked(&self.samples).clone()
    }
}

impl Drop for PerformanceMonitor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Where it panicked, its samples are all there is.
            let _ = thread.join();
        }
    }
}
