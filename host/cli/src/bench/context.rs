//! `host bench context`: one long sequence through the model, measured run by run.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use herald::metrics::{TierBytes, cpu_time, process_memory};
use herald::{Capacity, LoadOptions, MemoryOptions, NeuroEngine, Sequence};
use serde_json::{Value, json};

use super::speed::prompt;
use crate::failure::Failure;
use crate::interrupt::Lookout;
use crate::options::EngineOptions;
use crate::output::{self, per_second};
use crate::{input, progress};

/// Measure what a long context costs: time of each run of tokens, memory, and the tiers' contents
#[derive(Debug, Args)]
pub(crate) struct Context {
    /// Tokens of the prompt
    #[arg(short = 'p', long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Tokens to decode after it
    #[arg(short = 'n', long, value_name = "N", default_value_t = 16)]
    decode: u32,
    /// Tokens of each measured run
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    run: u32,
    /// Take the tokens from this text, repeated if it is too short; `-` is stdin [default: random ones]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Let the prompt's tokens attend to this many latest ones only, and to the pages that they select: quicker. The tiers
    /// are filled as requested afterwards
    #[arg(long, value_name = "TOKENS")]
    prompt_active: Option<usize>,
    /// Afterwards bring everything back to 16 bits, and decode the same number of tokens with full attention
    #[arg(long)]
    exact: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The cost of a run of tokens.
struct Run {
    tokens: usize,
    wall_s: f64,
    cpu_s: f64,
    rss_bytes: u64,
}

impl Context {
    pub(crate) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let (tokens, decode) = (self.tokens as usize, self.decode as usize);
        let load = options.load_options();
        let requested = load.memory.clone();
        let context = load.context.unwrap_or(0).max(tokens + 2 * decode);
        let engine =
            NeuroEngine::load(&options.model_path()?, &LoadOptions { context: Some(context), ..load })?;
        if let Some(active) = self.prompt_active {
            engine.set_capacities(&MemoryOptions { active: Capacity::Tokens(active), ..requested.clone() });
        }
        let prompt = self.prompt(&engine, tokens)?;
        let lookout = Lookout::begin();
        let mut sequence = engine.sequence()?;
        let start = Instant::now();
        let (mut runs, mut logits) = (Vec::new(), Vec::new());
        let bar = progress::bar("prompt", tokens, "tokens", options.quiet);
        for ids in prompt.chunks(self.run as usize) {
            let done = sequence.tokens().len();
            let (run, last) = timed(|| {
                engine.prefill_while(&mut sequence, ids, &mut |more| {
                    bar.set_position((done + more) as u64);
                    lookout.go_on()
                })
            })?;
            logits = last;
            let run = Run { tokens: ids.len(), ..run };
            if !options.quiet {
                bar.suspend(|| output::note(run.line(done + ids.len())));
            }
            runs.push(run);
        }
        bar.finish_and_clear();
        let prompt_s = start.elapsed().as_secs_f64();
        engine.set_capacities(&requested);
        engine.promote(&mut sequence, &requested)?;
        let (decoded, _) = timed(|| decode_greedily(&engine, &mut sequence, &logits, decode, &lookout))?;
        let peak = process_memory().map(|memory| memory.peak_bytes);
        let tiers = TierBytes::of(&engine);
        let exact = match self.exact {
            true => {
                let everything = MemoryOptions { active: Capacity::Tokens(usize::MAX), ..requested };
                engine.set_capacities(&everything);
                engine.promote(&mut sequence, &everything)?;
                let (run, _) = timed(|| decode_greedily(&engine, &mut sequence, &logits, decode, &lookout))?;
                Some(per_second(decode, run.wall_s))
            }
            false => None,
        };
        if self.json {
            let runs: Vec<Value> = runs.iter().map(Run::json).collect();
            return output::json(&json!({
                "tokens": tokens,
                "prompt_s": prompt_s,
                "prompt_tokens_per_s": per_second(tokens, prompt_s),
                "decode_tokens": decode,
                "decode_tokens_per_s": per_second(decode, decoded.wall_s),
                "exact_decode_tokens_per_s": exact,
                "peak_rss_bytes": peak,
                "runs": runs,
                "tiers": tiers,
                "traffic": engine.traffic().report(),
                "threads": engine.threads(),
                "model": engine.path().to_string_lossy(),
            }));
        }
        print_tiers(tiers)?;
        output::line(format!(
            "\n{tokens} tokens in {prompt_s:.1} s ({:.1} a second), {decode} more at {:.1} a second; peak memory {}",
            per_second(tokens, prompt_s),
            per_second(decode, decoded.wall_s),
            peak.map_or_else(|| "unknown".to_owned(), output::bytes)
        ))
    }

    fn prompt(&self, engine: &NeuroEngine, tokens: usize) -> Result<Vec<u32>, Failure> {
        let Some(path) = &self.file else { return Ok(prompt(tokens, engine.plan().vocabulary)) };
        let text = engine.tokenizer().encode(&input::read(path)?, false)?;
        if text.is_empty() {
            return Err(Failure::Failed(format!(
                "{}: the text is empty, where at least one token was expected",
                path.display()
            )));
        }
        Ok(text.into_iter().cycle().take(tokens).collect())
    }
}

/// The cost of some work; `tokens` is left at 0.
fn timed<T>(work: impl FnOnce() -> Result<T, herald::Error>) -> Result<(Run, T), Failure> {
    let (start, cpu) = (Instant::now(), cpu_time());
    let done = work()?;
    let cpu_s = cpu_time().zip(cpu).map_or(0.0, |(now, before)| (now - before).as_secs_f64());
    let rss_bytes = process_memory().unwrap_or_default().rss_bytes;
    Ok((Run { tokens: 0, wall_s: start.elapsed().as_secs_f64(), cpu_s, rss_bytes }, done))
}

fn decode_greedily(
    engine: &NeuroEngine,
    sequence: &mut Sequence,
    logits: &[f32],
    tokens: usize,
    lookout: &Lookout,
) -> Result<(), herald::Error> {
    let mut logits = logits.to_vec();
    for _ in 0..tokens {
        if !lookout.go_on() {
            return Err(herald::Error::Cancelled);
        }
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(id, _)| id);
        logits = engine.decode(&mut [(sequence, best as u32)])?;
    }
    Ok(())
}

impl Run {
    fn line(&self, done: usize) -> String {
        format!(
            "{done} tokens: {:.2} s and {:.2} s of CPU time for the last {}, {} in RAM",
            self.wall_s,
            self.cpu_s,
            self.tokens,
            output::bytes(self.rss_bytes)
        )
    }

    fn json(&self) -> Value {
        json!({
            "tokens": self.tokens,
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
            "rss_bytes": self.rss_bytes,
        })
    }
}

/// Prints the tiers as a table.
fn print_tiers(tiers: Vec<TierBytes>) -> Result<(), Failure> {
    let mut table = output::table(&["TIER", "PAGES", "TOKENS", "BYTES", "IN RAM", "HITS", "MISSES"]);
    for tier in tiers {
        table.add_row(vec![
            tier.tier.into(),
            output::number(tier.pages),
            output::number(tier.tokens),
            output::number(output::bytes(tier.bytes)),
            output::number(output::bytes(tier.memory_bytes)),
            output::number(tier.hits),
            output::number(tier.misses),
        ]);
    }
    output::print_table(&table)
}
