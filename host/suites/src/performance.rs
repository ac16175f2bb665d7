//! The suite `performance`: what a user notices.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::context::Context;
use super::measurement::Measurement;
use super::target::Target;
use super::{Benchmark, Suite, corpus, mixed_load, questions, serving};
use herald::MultiTierMemoryManager;
use herald::metrics::{ProcessMemory, process_memory};
use herald::{Capacity, MemoryOptions};
use herald::{Error, Result};
use herald::{GenerateOptions, LoadOptions, NeuroEngine};

/// Tokens of the long context.
const CAPACITY: usize = 1_000_000;
/// How many of the latest stay at full precision.
const ACTIVE: usize = 2_048;
/// Maximum peak memory, in GB.
const CAPACITY_GB: f64 = 11.8;

pub(super) const BENCHMARKS: [Benchmark; 7] = [
    Benchmark {
        suite: Suite::Performance,
        name: "model_loading",
        method: "In its own process: loads the model up to 5 times, each time after dropping the previous engine; the file \
                 is in the system's page cache.",
        unit: "s",
        target: Target::at_most(0.7)
            .or_share(0.02, |limits| limits.model.file_bytes as f64 / limits.machine.read_bytes_per_s),
        fresh: true,
        weight: 2,
        run: model_loading,
    },
    Benchmark {
        suite: Suite::Performance,
        name: "context_capacity",
        method: "In its own process: peak memory with a sequence of 1,000,000 tokens in the memory tiers, the latest 2,048 \
                 of them active. Real text runs through the layers up to a bound (see the notes), and copies of the pages \
                 that the layers wrote fill the rest of the tiers; with --full every token runs through the layers. Then \
                 the model decodes at that depth.",
        unit: "GB",
        target: Target::at_most(CAPACITY_GB),
        fresh: true,
        weight: 20,
        run: context_capacity,
    },
    Benchmark {
        suite: Suite::Performance,
        name: "token_generation",
        method: "100 tokens after a short prompt, greedy, the prompt included. Median of up to 7 rounds.",
        unit: "s",
        target: Target::at_most(0.8).or_share(0.4, |limits| limits.prompt(16.0) + 100.0 / limits.decode(1.0)),
        fresh: false,
        weight: 5,
        run: token_generation,
    },
    Benchmark {
        suite: Suite::Performance,
        name: "memory_patterns",
        method: "In its own process, five rounds after a warm-up: eight contexts of the memory manager are filled, \
                 compressed, optimised and cleared. Growth of the process's memory after a round against before the first, \
                 the worst of the rounds.",
        unit: "%",
        target: Target::at_most(5.0),
        fresh: true,
        weight: 6,
        run: memory_patterns,
    },
    Benchmark {
        suite: Suite::Performance,
        name: "system_throughput",
        method: "Eight requests at once, each with a prompt of about 20 tokens and 64 tokens to generate: generated tokens \
                 over the whole time. Median of up to 3 rounds; answers are compared with those of requests that run alone.",
        unit: "tokens/s",
        target: Target::at_least(125.0).or_share(0.2, |limits| limits.serve(20.0, 64.0, 8.0)),
        fresh: false,
        weight: 8,
        run: system_throughput,
    },
    Benchmark {
        suite: Suite::Performance,
        name: "reasoning",
        method: "Five questions, one after another, each answered under a JSON schema of three fields that constrains \
                 sampling: seconds for all. Median of up to 3 rounds; every answer must match the schema.",
        unit: "s",
        target: Target::at_most(5.0)
            .or_share(0.2, |limits| 5.0 * (limits.prompt(50.0) + 48.0 / limits.decode(1.0))),
        fresh: false,
        weight: 5,
        run: reasoning,
    },
    Benchmark {
        suite: Suite::Performance,
        name: "concurrent_operations",
        method: "20 operations (continue, score, tokenize, fork, answer under a schema) on 4 threads over one engine: \
                 seconds for all; each result must equal that of the serial run before it.",
        unit: "s",
        target: Target::at_most(10.0)
            .or_share(0.2, |limits| 20.0 * (limits.prompt(25.0) + 12.0 / limits.decode(1.0))),
        fresh: false,
        weight: 5,
        run: concurrent_operations,
    },
];

fn memory() -> Result<ProcessMemory> {
    process_memory()
        .ok_or_else(|| Error::Invalid("the system does not report this process's memory".to_owned()))
}

fn model_loading(context: &Context) -> Result<Measurement> {
    let mut memory_bytes = 0;
    let samples = context.rounds(5, || {
        let engine = context.load()?;
        memory_bytes = memory()?.rss_bytes;
        Ok(engine.load_time().as_secs_f64())
    })?;
    Ok(Measurement::of(samples).detail("memory afterwards", memory_bytes as f64 / 1e6, "MB"))
}

fn context_capacity(context: &Context) -> Result<Measurement> {
    let memory_options =
        MemoryOptions { active: Capacity::Tokens(ACTIVE), ..context.options().memory.clone() };
    let options =
        LoadOptions { context: Some(CAPACITY + 64), memory: memory_options, ..context.options().clone() };
    let engine = NeuroEngine::load(&context.model, &options)?;
    let computed = context.effort.pick(3_072, 6_144, CAPACITY);
    let text = corpus::varied(computed * 5);
    let mut ids = engine.tokenizer().encode_prompt(&text, false)?;
    if ids.len() < computed {
        ids = ids.iter().copied().cycle().take(computed).collect();
    }
    ids.truncate(computed);
    let mut sequence = engine.sequence()?;
    let start = Instant::now();
    let mut logits = engine.prefill(&mut sequence, &ids)?;
    let prompt_s = start.elapsed().as_secs_f64();
    let at_bound = memory()?;
    engine.stretch(&mut sequence, CAPACITY)?;
    let start = Instant::now();
    let decoded = 8;
    for _ in 0..decoded {
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(id, _)| id);
        logits = engine.decode(&mut [(&mut sequence, best as u32)])?;
    }
    let decode_s = start.elapsed().as_secs_f64();
    let usage = engine.memory_usage();
    let held = usage.total().tokens;
    let layers = engine.layers_with_pages().max(1) as u64;
    let finite = logits.iter().all(|logit| logit.is_finite());
    let depth = sequence.tokens().len();
    let mut found = Measurement::of(vec![memory()?.peak_bytes as f64 / 1e9])
        .check(
            "the tiers hold 1,000,000 tokens of each layer",
            held / layers >= CAPACITY as u64,
            format!("{}", held / layers),
        )
        .check(
            "the model decodes at that depth",
            finite && depth == CAPACITY + decoded,
            format!("{depth} tokens"),
        )
        .detail("tokens through the layers", computed as f64, "tokens")
        .detail("their speed", computed as f64 / prompt_s, "tokens/s")
        .detail("memory after those", at_bound.rss_bytes as f64 / 1e9, "GB")
        .detail("decoding at 1,000,000 tokens", decoded as f64 / decode_s, "tokens/s");
    for (kind, stats) in usage.tiers() {
        found = found.detail(&format!("{} tier", kind.name()), stats.bytes as f64 / 1e9, "GB");
    }
    Ok(match computed < CAPACITY {
        true => found.note(format!(
            "{computed} tokens of text ran through the layers; copies of their pages filled the tiers to {CAPACITY} (--full \
             runs all through the layers)"
        )),
        false => found.note(format!("all {CAPACITY} tokens ran through the layers")),
    })
}

fn token_generation(context: &Context) -> Result<Measurement> {
    let engine = context.engine()?;
    let ids = engine.tokenizer().encode_prompt(corpus::SHORT, false)?;
    let options = GenerateOptions { max_tokens: Some(100), ignore_eos: true, ..GenerateOptions::default() };
    let (mut tokens, mut text) = (0, String::new());
    let samples = context.rounds(7, || {
        let mut sequence = engine.sequence()?;
        let start = Instant::now();
        let answer = engine.generate(&mut sequence, &ids, &options, &mut || true, &mut |_| true)?;
        let seconds = start.elapsed().as_secs_f64();
        (tokens, text) = (answer.tokens.len(), answer.text);
        Ok(seconds)
    })?;
    let found = Measurement::of(samples);
    let speed = 100.0 / found.figure;
    Ok(found
        .check("100 tokens were generated", tokens == 100, format!("{tokens} were"))
        .check(
            "their text is not empty",
            !text.trim().is_empty(),
            format!("{} characters", text.chars().count()),
        )
        .detail("speed", speed, "tokens/s"))
}

fn memory_patterns(context: &Context) -> Result<Measurement> {
    let memory_options = MemoryOptions { active: Capacity::Tokens(256), ..context.options().memory.clone() };
    let options = LoadOptions { memory: memory_options, ..context.options().clone() };
    let manager = MultiTierMemoryManager::new(Arc::new(NeuroEngine::load(&context.model, &options)?));
    let engine = manager.engine();
    let length = context.effort.pick(384, 768, 768).min(engine.context());
    let text = corpus::varied(length * 6);
    let mut ids = engine.tokenizer().encode_prompt(&text, false)?;
    ids.truncate(length);
    let (mut peak, mut lost) = (0, 0);
    let mut round = || -> Result<()> {
        let names: Vec<String> = (0..8).map(|index| format!("context {index}")).collect();
        for name in &names {
            manager.add_to_active_memory(name, &ids)?;
        }
        peak = peak.max(memory()?.rss_bytes);
        for name in &names {
            manager.compress_memory(name, 64)?;
        }
        manager.optimize_memory()?;
        for name in &names {
            lost += usize::from(manager.tokens(name)? != ids);
        }
        manager.clear_all_active_memory()?;
        manager.optimize_memory()?;
        Ok(())
    };
    round()?;
    let before = memory()?.rss_bytes;
    let mut growth = Vec::new();
    for _ in 0..context.effort.pick(2, 5, 10) {
        round()?;
        growth.push((memory()?.rss_bytes as f64 / before as f64 - 1.0) * 100.0);
    }
    let left = manager.get_memory_leak_stats()?.held_pages;
    let worst = growth.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut found = Measurement::of(growth)
        .check("no token is lost", lost == 0, format!("{lost} contexts lost some"))
        .check("no page is left", left == 0, format!("{left} are"))
        .detail("before a round", before as f64 / 1e6, "MB")
        .detail("peak within a round", peak as f64 / 1e6, "MB");
    found.figure = worst;
    Ok(found)
}

fn system_throughput(context: &Context) -> Result<Measurement> {
    let engine = context.engine()?;
    let requests = (0..8).map(|index| serving::request(engine, index, 64)).collect::<Result<Vec<_>>>()?;
    let mut expected = HashMap::new();
    for request in &requests {
        expected.insert(request.prompt.clone(), serving::alone(engine, request)?);
    }
    let (mut checks, mut last) = (Vec::new(), None);
    let samples = context.rounds(3, || {
        let served = serving::serve(engine, &requests, 8, &expected)?;
        checks.extend(served.checks().into_iter().filter(|check| !check.passed || last.is_none()));
        let speed = served.speed();
        last = Some(served);
        Ok(speed)
    })?;
    let mut found = Measurement::of(samples);
    found.checks = checks;
    if let Some(served) = last {
        found = found.detail("first token, median", super::measurement::median(&served.firsts), "s").detail(
            "sequences in a step, median",
            served.batch,
            "",
        );
    }
    Ok(found)
}

fn reasoning(context: &Context) -> Result<Measurement> {
    let engine = context.engine()?;
    let options = questions::options();
    let (mut valid, mut questions_run, mut tokens) = (0, 0, 0);
    let samples = context.rounds(3, || {
        let start = Instant::now();
        for index in 0..5 {
            let prompt = questions::prompt(engine, index)?;
            let mut sequence = engine.sequence()?;
            let answer = engine.generate(&mut sequence, &prompt, &options, &mut || true, &mut |_| true)?;
            questions_run += 1;
            tokens += answer.tokens.len();
            valid += usize::from(questions::matches_schema(&answer.text));
        }
        Ok(start.elapsed().as_secs_f64())
    })?;
    Ok(Measurement::of(samples)
        .check(
            "every answer matches the schema",
            valid == questions_run,
            format!("{valid} of {questions_run} do"),
        )
        .detail("tokens of an answer", tokens as f64 / questions_run as f64, ""))
}

fn concurrent_operations(context: &Context) -> Result<Measurement> {
    let engine = context.engine()?;
    let (mut serial, mut checks) = (Vec::new(), Vec::new());
    let samples = context.rounds(3, || {
        let done = mixed_load::run(engine, 20, 4)?;
        serial.push(done.serial_s);
        checks.push(done.check);
        Ok(done.concurrent_s)
    })?;
    let mut found =
        Measurement::of(samples).detail("one after another", super::measurement::median(&serial), "s");
    let failed = checks.iter().position(|check| !check.passed).unwrap_or(0);
    found.checks.push(checks.swap_remove(failed));
    Ok(found)
}
