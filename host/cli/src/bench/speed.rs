//! `host bench speed`: tokens per second.

use std::time::Instant;

use clap::Args;
use herald::metrics::process_memory;
use herald::{BatchEntry, NeuroEngine};
use serde_json::json;

use crate::failure::Failure;
use crate::interrupt::Lookout;
use crate::options::EngineOptions;
use crate::output::{self, per_second};

/// Measure prompt and decode tokens per second
#[derive(Debug, Args)]
pub(crate) struct Speed {
    /// Tokens of the prompt
    #[arg(short = 'p', long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens to decode after it
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    decode: u32,
    /// Rounds; the median counts
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Speed {
    pub(crate) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let engine = options.load()?;
        let lookout = Lookout::begin();
        let prompt = prompt(self.prompt as usize, engine.plan().vocabulary);
        // Fills caches and wakes the threads.
        run(&engine, &prompt[..prompt.len().min(32)], 2, &lookout)?;
        let (mut prompts, mut decodes) = (Vec::new(), Vec::new());
        for _ in 0..self.repeat {
            let (prompt_s, decode_s) = run(&engine, &prompt, self.decode as usize, &lookout)?;
            prompts.push(per_second(prompt.len(), prompt_s));
            decodes.push(per_second(self.decode as usize, decode_s));
        }
        let (prompt_speed, decode_speed) = (median(&mut prompts), median(&mut decodes));
        let backends: Vec<String> = engine.backends().into_iter().map(|(name, _)| name).collect();
        let (load_s, peak) =
            (engine.load_time().as_secs_f64(), process_memory().map(|memory| memory.peak_bytes));
        if self.json {
            return output::json(&json!({
                "prompt_tokens_per_s": prompt_speed,
                "decode_tokens_per_s": decode_speed,
                "load_s": load_s,
                "peak_rss_bytes": peak,
                "prompt_tokens": prompt.len(),
                "decode_tokens": self.decode,
                "rounds": self.repeat,
                "backends": backends,
                "choice": engine.choice(),
                "threads": engine.threads(),
                "model": engine.path().to_string_lossy(),
            }));
        }
        let mut table = output::table(&["", "TOKENS", "TOKENS/S"]);
        table.add_row(vec![
            "prompt".into(),
            output::number(prompt.len()),
            output::number(format!("{prompt_speed:.1}")),
        ]);
        table.add_row(vec![
            "decode".into(),
            output::number(self.decode),
            output::number(format!("{decode_speed:.1}")),
        ]);
        output::print_table(&table)?;
        output::line(format!(
            "\n{} on {} threads; loaded in {load_s:.3} s; peak memory {}",
            backends.join(" and "),
            engine.threads(),
            peak.map_or_else(|| "unknown".to_owned(), output::bytes)
        ))
    }
}

/// Reproducible ids below `vocabulary`.
pub(super) fn prompt(len: usize, vocabulary: usize) -> Vec<u32> {
    let (first, count) = if vocabulary >= 480 { (300, 180) } else { (0, vocabulary as u64) };
    let mut state = 7_u64;
    let id = |state: &mut u64| {
        // A step of Knuth's MMIX generator, whose upper bits are the good ones.
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        first + ((*state >> 33) % count) as u32
    };
    (0..len).map(|_| id(&mut state)).collect()
}

/// Seconds for the prompt, and for greedy decoding after it.
fn run(
    engine: &NeuroEngine,
    prompt: &[u32],
    decode: usize,
    lookout: &Lookout,
) -> Result<(f64, f64), Failure> {
    let mut sequence = engine.sequence()?;
    let start = Instant::now();
    let logits = engine.prefill_while(&mut sequence, prompt, &mut |_| lookout.go_on())?;
    let prompt_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let mut next = best(&logits);
    for _ in 0..decode {
        if !lookout.go_on() {
            return Err(Failure::Interrupted);
        }
        let ids = [next];
        let part = BatchEntry { sequence: &mut sequence, ids: &ids, logits: 1 };
        engine.step(&mut [part], &mut |logits| next = best(logits))?;
    }
    Ok((prompt_s, start.elapsed().as_secs_f64()))
}

/// The token with the greatest logit. Finds the maximum first, since compilers vectorise that loop.
fn best(logits: &[f32]) -> u32 {
    const LANES: usize = 16;
    let mut max = [f32::NEG_INFINITY; LANES];
    let (rows, rest) = logits.as_chunks::<LANES>();
    for row in rows {
        for (max, logit) in max.iter_mut().zip(row) {
            *max = if *logit > *max { *logit } else { *max };
        }
    }
    let max = max.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    logits.iter().position(|logit| *logit == max).unwrap_or(0) as u32
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}
