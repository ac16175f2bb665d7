//! The suite `model`: how fast the model runs, alone and in batches.

use std::time::Instant;

use super::context::Context;
use super::corpus;
use super::limits::Limits;
use super::measurement::{Line, Measurement, median};
use super::scaling::{BATCHES, Scaling, decode};
use super::target::Target;
use super::{Benchmark, Suite};
use herald::GenerateOptions;
use herald::metrics::process_memory;
use herald::{Error, Result};

/// Required throughput of a batch of 16, in times that of one sequence.
const GAIN_AT_16: f64 = 2.5;
/// Share of a memory-bound limit that a slower machine must reach.
const SHARE: f64 = 0.4;

const fn benchmark(
    name: &'static str,
    method: &'static str,
    run: fn(&Context) -> Result<Measurement>,
) -> Benchmark {
    Benchmark {
        suite: Suite::Model,
        name,
        method,
        unit: "tokens/s",
        target: Target::at_least(125.0).or_share(SHARE, |limits| limits.decode(1.0)),
        fresh: false,
        weight: 3,
        run,
    }
}

pub(super) const BENCHMARKS: [Benchmark; 10] = [
    Benchmark {
        unit: "s",
        target: Target::at_most(0.7).or_share(0.02, |limits: &Limits<'_>| {
            limits.model.file_bytes as f64 / limits.machine.read_bytes_per_s + limits.step(1.0)
        }),
        fresh: true,
        weight: 1,
        ..benchmark(
            "loading",
            "In its own process: from the call that loads the model to the first token of an answer, once; the file is in \
             the system's page cache.",
            loading,
        )
    },
    benchmark(
        "inference_short",
        "A prompt of a dozen tokens, then 50 tokens, greedy: generated tokens over the whole time, prompt included. Median \
         of up to 5 rounds.",
        |context| inference(context, corpus::SHORT, 50),
    ),
    benchmark(
        "inference_medium",
        "A prompt of some 75 tokens, then 100 tokens, greedy: generated tokens over the whole time, prompt included. Median \
         of up to 5 rounds.",
        |context| inference(context, corpus::MEDIUM, 100),
    ),
    Benchmark {
        weight: 5,
        ..benchmark(
            "inference_long",
            "A prompt of some 170 tokens, then 200 tokens, greedy: generated tokens over the whole time, prompt included. \
             Median of up to 5 rounds.",
            |context| inference(context, corpus::PASSAGE, 200),
        )
    },
    Benchmark {
        unit: "times the file",
        target: Target::at_most(2.0),
        fresh: true,
        weight: 1,
        ..benchmark(
            "memory_efficiency",
            "In its own process: its peak memory (RSS) after loading and 64 generated tokens, over the size of the model's \
             file.",
            memory_efficiency,
        )
    },
    Benchmark {
        weight: 6,
        ..benchmark(
            "scaling_batch_1",
            "One sequence decodes 32 tokens after a prompt of 16. The five batch sizes take turns; median of up to 5 rounds.",
            |context| scaling(context, 0),
        )
    },
    scaling_at(
        "scaling_batch_2",
        "Two sequences decode together, in turns with the other batch sizes: at least as many tokens per second as one.",
        |context| scaling(context, 1),
    ),
    scaling_at(
        "scaling_batch_4",
        "Four sequences decode together, in turns with the other batch sizes: at least as many tokens per second as two.",
        |context| scaling(context, 2),
    ),
    scaling_at(
        "scaling_batch_8",
        "Eight sequences decode together, in turns with the other batch sizes: at least as many tokens per second as four.",
        |context| scaling(context, 3),
    ),
    scaling_at(
        "scaling_batch_16",
        "Sixteen sequences decode together, in turns with the other batch sizes: at least as many tokens per second as \
         eight, and 2.5 times as many as one.",
        |context| scaling(context, 4),
    ),
];

const fn scaling_at(
    name: &'static str,
    method: &'static str,
    run: fn(&Context) -> Result<Measurement>,
) -> Benchmark {
    Benchmark { target: Target::relative(), weight: 1, ..benchmark(name, method, run) }
}

fn greedy(tokens: usize) -> GenerateOptions {
    GenerateOptions { max_tokens: Some(tokens), ignore_eos: true, ..GenerateOptions::default() }
}

fn loading(context: &Context) -> Result<Measurement> {
    let start = Instant::now();
    let engine = context.engine()?;
    let load_s = start.elapsed().as_secs_f64();
    let ids = engine.tokenizer().encode_prompt(corpus::SHORT, false)?;
    let mut sequence = engine.sequence()?;
    let answer = engine.generate(&mut sequence, &ids, &greedy(1), &mut || true, &mut |_| true)?;
    let total = start.elapsed().as_secs_f64();
    Ok(Measurement::of(vec![total])
        .check("one token was generated", answer.tokens.len() == 1, format!("{} were", answer.tokens.len()))
        .detail("loading alone", load_s, "s"))
}

fn inference(context: &Context, prompt: &str, tokens: usize) -> Result<Measurement> {
    let engine = context.engine()?;
    let ids = engine.tokenizer().encode_prompt(prompt, false)?;
    let (mut prompts, mut decodes, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    let samples = context.rounds(5, || {
        let mut sequence = engine.sequence()?;
        let start = Instant::now();
        let answer = engine.generate(&mut sequence, &ids, &greedy(tokens), &mut || true, &mut |_| true)?;
        let seconds = start.elapsed().as_secs_f64();
        prompts.push(ids.len() as f64 / answer.prompt_time.as_secs_f64());
        decodes.push((tokens - 1) as f64 / answer.decode_time.as_secs_f64());
        answers.push(answer.tokens);
        Ok(tokens as f64 / seconds)
    })?;
    let whole = answers.iter().all(|answer| answer.len() == tokens);
    let same = answers.iter().all(|answer| *answer == answers[0]);
    Ok(Measurement::of(samples)
        .check(
            "every requested token was generated",
            whole,
            if whole { "they were" } else { "some are missing" },
        )
        .check("each round gives the same tokens", same, if same { "it does" } else { "it does not" })
        .detail("prompt", ids.len() as f64, "tokens")
        .detail("prompt speed", median(&prompts), "tokens/s")
        .detail("decode speed", median(&decodes), "tokens/s"))
}

fn memory_efficiency(context: &Context) -> Result<Measurement> {
    let engine = context.engine()?;
    let ids = engine.tokenizer().encode_prompt(corpus::SHORT, false)?;
    let mut sequence = engine.sequence()?;
    engine.generate(&mut sequence, &ids, &greedy(64), &mut || true, &mut |_| true)?;
    let memory = process_memory()
        .ok_or_else(|| Error::Invalid("the system does not report this process's memory".to_owned()))?;
    let file = engine.gguf().file_bytes() as f64;
    Ok(Measurement::of(vec![memory.peak_bytes as f64 / file])
        .detail("peak", memory.peak_bytes as f64 / 1e6, "MB")
        .detail("file", file / 1e6, "MB"))
}

fn all_batches(context: &Context) -> Result<Scaling> {
    let engine = context.engine()?;
    let tokens = context.effort.pick(8, 32, 32);
    // Fills caches and wakes the threads.
    decode(engine, 1, 4)?;
    let (mut rounds, mut first, mut equal) = (Vec::new(), None, true);
    context.rounds(5, || {
        let mut round = [0.0; BATCHES.len()];
        for (speed, batch) in round.iter_mut().zip(BATCHES) {
            let (seconds, answers) = decode(engine, batch, tokens)?;
            *speed = (batch * tokens) as f64 / seconds;
            let first = first.get_or_insert_with(|| answers[0].clone());
            equal &= answers[0] == *first;
        }
        rounds.push(round);
        Ok(round[0])
    })?;
    Ok(Scaling { rounds, equal })
}

fn scaling(context: &Context, index: usize) -> Result<Measurement> {
    if context.scaling.get().is_none() {
        let measured = all_batches(context)?;
        context.scaling.get_or_init(|| measured);
    }
    let Some(all) = context.scaling.get() else {
        return Err(Error::Invalid("the measurements of the batches are missing".to_owned()));
    };
    let speeds = all.medians();
    let mut measurement = Measurement::of(all.at(index)).check(
        "the first sequence's tokens are the same in every batch",
        all.equal,
        if all.equal { "they are" } else { "they differ" },
    );
    if let Some(before) = index.checked_sub(1) {
        let mut target = (speeds[before], format!("as many as a batch of {}", BATCHES[before]));
        if BATCHES[index] == 16 && speeds[0] * GAIN_AT_16 > target.0 {
            target = (speeds[0] * GAIN_AT_16, format!("{GAIN_AT_16} times a batch of 1"));
        }
        measurement.relative_target = Some(target);
        measurement = measurement.detail("over a batch of 1", speeds[index] / speeds[0], "times");
    }
    if BATCHES[index] == 16 {
        let points = BATCHES.iter().zip(&speeds).map(|(batch, speed)| (*batch as f64, *speed)).collect();
        let line = Line { name: "tokens/s".to_owned(), points };
        measurement =
            measurement.chart("Throughput by batch", "sequences in a batch", "tokens/s", vec![line]);
    }
    Ok(measurement)
}
