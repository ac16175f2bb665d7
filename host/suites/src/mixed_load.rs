//! Operations of different kinds, run serially and then concurrently.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::measurement::Check;
use super::{corpus, questions, sanity};
use herald::Result;
use herald::threads::{into_value, locked};
use herald::{GenerateOptions, NeuroEngine};

/// Runs one operation; the result is a text that depends on every bit of the output.
fn perform(engine: &NeuroEngine, index: usize) -> Result<String> {
    let prompt = corpus::prompt(index);
    let options = GenerateOptions { max_tokens: Some(8), ignore_eos: true, ..GenerateOptions::default() };
    let ids = engine.tokenizer().encode_prompt(&prompt, false)?;
    let mut sequence = engine.sequence()?;
    Ok(match index % 5 {
        // Continue a text.
        0 => engine.generate(&mut sequence, &ids, &options, &mut || true, &mut |_| true)?.text,
        // Score one.
        1 => {
            let (mut loss, mut position) = (0.0, 1);
            engine.logits(&mut sequence, &ids, &mut |logits| {
                loss += ids.get(position).map_or(0.0, |next| sanity::surprise(logits, *next));
                position += 1;
            })?;
            format!("{:x}", loss.to_bits())
        }
        // Tokenize one, and back.
        2 => {
            let text = corpus::varied(20_000 + index);
            let ids = engine.tokenizer().encode(&text, false)?;
            let back = engine.tokenizer().decode(&ids, false)?;
            format!("{} {} {}", ids.len(), ids.iter().map(|id| u64::from(*id)).sum::<u64>(), back == text)
        }
        // Fork a sequence, and continue both.
        3 => {
            let logits = engine.prefill(&mut sequence, &ids)?;
            let mut fork = engine.fork(&sequence)?;
            let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(id, _)| id);
            let other = (best + 1) % logits.len();
            let logits = engine.decode(&mut [(&mut sequence, best as u32), (&mut fork, other as u32)])?;
            format!("{:x}", logits.iter().map(|logit| u64::from(logit.to_bits())).sum::<u64>())
        }
        // Answer under a schema.
        _ => {
            let prompt = questions::prompt(engine, index)?;
            let text = engine
                .generate(&mut sequence, &prompt, &questions::options(), &mut || true, &mut |_| true)?
                .text;
            format!("{} {text}", questions::matches_schema(&text))
        }
    })
}

/// The results of the operations.
pub(super) struct Mixed {
    /// Seconds of the serial run.
    pub(super) serial_s: f64,
    /// Seconds of the concurrent run.
    pub(super) concurrent_s: f64,
    pub(super) check: Check,
}

/// Runs operations serially, then on `workers` threads, and compares the results.
pub(super) fn run(engine: &NeuroEngine, operations: usize, workers: usize) -> Result<Mixed> {
    let start = Instant::now();
    let serial = (0..operations).map(|index| perform(engine, index)).collect::<Result<Vec<_>>>()?;
    let serial_s = start.elapsed().as_secs_f64();
    let next = AtomicUsize::new(0);
    let results = Mutex::new((0..operations).map(|_| None).collect::<Vec<_>>());
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= operations {
                        break;
                    }
                    let result = perform(engine, index);
                    locked(&results)[index] = Some(result);
                }
            });
        }
    });
    let concurrent_s = start.elapsed().as_secs_f64();
    let results = into_value(results);
    let equal = results.iter().zip(&serial).filter(|(found, expected)| match found {
        Some(Ok(found)) => found == *expected,
        _ => false,
    });
    let equal = equal.count();
    let check = Check {
        what: "each result equals that of the serial run".to_owned(),
        passed: equal == operations,
        found: format!("{equal} of {operations} do"),
    };
    Ok(Mixed { serial_s, concurrent_s, check })
}
