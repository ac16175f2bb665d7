//! The suite `throughput`: long jobs, and many requests at once.

use std::time::Instant;

use super::context::Context;
use super::measurement::{Line, Measurement, median, quantile};
use super::serving::{self, Served};
use super::target::Target;
use super::{Benchmark, Suite, corpus, mixed_load, questions};
use herald::metrics::Quantiles;
use herald::schedule::{Request, Scheduler, SchedulerOptions};
use herald::{Error, Result};

/// Numbers of simultaneous requests.
const LOADS: [usize; 5] = [10, 25, 50, 100, 200];
/// Number of different prompts among them.
const PROMPTS: usize = 40;
/// Tokens that each request generates.
const GENERATED: usize = 16;
/// Share of the best load's throughput that 200 requests must keep.
const KEPT_AT_MAX_LOAD: f64 = 0.8;

const fn benchmark(
    name: &'static str,
    weight: u32,
    target: Target,
    method: &'static str,
    run: fn(&Context) -> Result<Measurement>,
) -> Benchmark {
    Benchmark { suite: Suite::Throughput, name, method, unit: "tokens/s", target, fresh: false, weight, run }
}

const fn load(
    name: &'static str,
    weight: u32,
    method: &'static str,
    run: fn(&Context) -> Result<Measurement>,
) -> Benchmark {
    let target = Target::at_least(125.0).or_share(0.2, |limits| limits.serve(20.0, GENERATED as f64, 32.0));
    benchmark(name, weight, target, method, run)
}

pub(super) const BENCHMARKS: [Benchmark; 9] = [
    Benchmark {
        unit: "MB/s",
        ..benchmark(
            "tokenization",
            2,
            Target::at_least(10.0),
            "One thread encodes 2 MB of varied text (words, made-up words, numbers, punctuation, non-ASCII letters). Median of \
             up to 5 rounds; decoding must give the same text.",
            tokenization,
        )
    },
    benchmark(
        "inference",
        8,
        Target::at_least(125.0).or_share(0.4, |limits| limits.serve(20.0, 24.0, 1.0)),
        "100 requests one after another, each with a different prompt of about 20 tokens and 24 tokens to generate: generated \
         tokens over the whole time, prompts included.",
        inference,
    ),
    Benchmark {
        unit: "queries/s",
        ..benchmark(
            "reasoning",
            8,
            Target::at_least(1.0).or_share(0.1, |limits| limits.serve(50.0, 48.0, 16.0) / 48.0),
            "50 questions at once, 16 of them running together, each answered under a JSON schema that constrains sampling: \
             answers per second; every one must match the schema.",
            reasoning,
        )
    },
    Benchmark {
        unit: "tasks/s",
        ..benchmark(
            "concurrent",
            10,
            Target::at_least(2.0)
                .or_share(0.2, |limits| 1.0 / (limits.prompt(25.0) + 12.0 / limits.decode(1.0))),
            "100 operations (continue, score, tokenize, fork, answer under a schema) on 4 threads over one engine: operations \
             per second; each result must equal that of the serial run before it.",
            concurrent,
        )
    },
    load(
        "load_10",
        2,
        "10 requests at once, up to 32 of them running together: prompts of about 20 tokens, 16 tokens to generate, 40 \
         different prompts in turn. Generated tokens over the time from the first request to the last answer; each answer \
         must equal the one that its prompt gets alone.",
        |context| at_once(context, 10),
    ),
    load("load_25", 2, "As load_10, with 25 requests at once.", |context| at_once(context, 25)),
    load("load_50", 3, "As load_10, with 50 requests at once.", |context| at_once(context, 50)),
    load("load_100", 5, "As load_10, with 100 requests at once.", |context| at_once(context, 100)),
    Benchmark {
        target: Target::relative(),
        ..load(
            "load_200",
            10,
            "As load_10, with 200 requests at once: at least 80% of the best throughput of all loads.",
            |context| at_once(context, 200),
        )
    },
];

fn tokenization(context: &Context) -> Result<Measurement> {
    let engine = context.engine()?;
    let text = corpus::varied(context.effort.pick(200_000, 2_000_000, 8_000_000));
    let mut ids = Vec::new();
    let samples = context.rounds(5, || {
        let start = Instant::now();
        ids = engine.tokenizer().encode(&text, false)?;
        Ok(text.len() as f64 / 1e6 / start.elapsed().as_secs_f64())
    })?;
    // Some vocabularies add a space before every text.
    let back = engine.tokenizer().decode(&ids, false)?;
    let same = back.trim_start() == text.trim_start();
    Ok(Measurement::of(samples)
        .check("decoding gives the same text", same, if same { "it does" } else { "it does not" })
        .detail("bytes per token", text.len() as f64 / ids.len() as f64, ""))
}

fn inference(context: &Context) -> Result<Measurement> {
    let engine = context.engine()?;
    let count = context.effort.pick(10, 100, 100);
    let (mut seconds, mut tokens, mut distinct) = (Vec::new(), 0, std::collections::HashSet::new());
    let start = Instant::now();
    for index in 0..count {
        let request = serving::request(engine, index, 24)?;
        let begun = Instant::now();
        let answer = serving::alone(engine, &request)?;
        seconds.push(begun.elapsed().as_secs_f64());
        tokens += answer.len();
        distinct.insert(answer);
    }
    let speed = tokens as f64 / start.elapsed().as_secs_f64();
    let times = Quantiles::of(&mut seconds);
    Ok(Measurement::of(vec![speed])
        .check("each request gets all its tokens", tokens == count * 24, format!("{tokens} were generated"))
        .check(
            "different prompts get different answers",
            distinct.len() > count / 2,
            format!("{}", distinct.len()),
        )
        .detail("a request, median", times.median, "s")
        .detail("99th percentile", times.p99, "s"))
}

fn reasoning(context: &Context) -> Result<Measurement> {
    let engine = context.engine()?;
    let count = context.effort.pick(8, 50, 50);
    let options = SchedulerOptions {
        max_running: 16.min(engine.max_batch()),
        queue: count,
        ..SchedulerOptions::default()
    };
    let scheduler = Scheduler::start(std::sync::Arc::clone(engine), options)?;
    let requests = (0..count)
        .map(|index| {
            let prompt = questions::prompt(engine, index)?;
            Ok(Request { prompt, options: questions::options(), client: String::new() })
        })
        .collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let tickets =
        requests.into_iter().map(|request| scheduler.submit(request)).collect::<Result<Vec<_>>>()?;
    let (mut valid, mut totals) = (0, Vec::new());
    for ticket in tickets {
        let answer = ticket.wait()?;
        totals.push(answer.metrics.total_s);
        valid += usize::from(questions::matches_schema(&answer.generated.text));
    }
    let speed = count as f64 / start.elapsed().as_secs_f64();
    Ok(Measurement::of(vec![speed])
        .check("every answer matches the schema", valid == count, format!("{valid} of {count} do"))
        .detail("an answer, median", median(&totals), "s")
        .detail("99th percentile", quantile(&totals, 0.99), "s"))
}

fn concurrent(context: &Context) -> Result<Measurement> {
    let count = context.effort.pick(20, 100, 100);
    let done = mixed_load::run(context.engine()?, count, 4)?;
    let mut found = Measurement::of(vec![count as f64 / done.concurrent_s]).detail(
        "one after another",
        count as f64 / done.serial_s,
        "tasks/s",
    );
    found.checks.push(done.check);
    Ok(found)
}

/// The result of `requests` requests at once, measured once per process.
fn served(context: &Context, requests: usize) -> Result<Served> {
    if let Some((_, served)) = context.served.borrow().iter().find(|(count, _)| *count == requests) {
        return Ok(served.clone());
    }
    let engine = context.engine()?;
    let mut alone = context.alone.borrow_mut();
    let requests: Vec<Request> = (0..requests)
        .map(|index| serving::request(engine, index % PROMPTS, GENERATED))
        .collect::<Result<_>>()?;
    for request in &requests {
        if !alone.contains_key(&request.prompt) {
            alone.insert(request.prompt.clone(), serving::alone(engine, request)?);
        }
    }
    let served = serving::serve(engine, &requests, 32, &alone)?;
    context.served.borrow_mut().push((requests.len(), served.clone()));
    Ok(served)
}

fn at_once(context: &Context, requests: usize) -> Result<Measurement> {
    let found = served(context, requests)?;
    let mut measurement = Measurement::of(vec![found.speed()])
        .detail("a request, median", found.latency(0.5), "s")
        .detail("99th percentile", found.latency(0.99), "s")
        .detail("first token, median", median(&found.firsts), "s")
        .detail("first token, 99th percentile", quantile(&found.firsts, 0.99), "s")
        .detail("sequences in a step, median", found.batch, "");
    measurement.checks = found.checks();
    if requests != LOADS[LOADS.len() - 1] {
        return Ok(measurement);
    }
    let all = LOADS
        .into_iter()
        .map(|load| Ok((load as f64, served(context, load)?)))
        .collect::<Result<Vec<(f64, Served)>>>()?;
    let best = all.iter().map(|(_, served)| served.speed()).fold(0.0, f64::max);
    if best <= 0.0 {
        return Err(Error::Invalid("no load generated a token".to_owned()));
    }
    measurement.relative_target = Some((best * KEPT_AT_MAX_LOAD, "80% of the best load's".to_owned()));
    let line = |name: &str, of: &dyn Fn(&Served) -> f64| Line {
        name: name.to_owned(),
        points: all.iter().map(|(load, served)| (*load, of(served))).collect(),
    };
    Ok(measurement
        .chart("Throughput by load", "requests at once", "tokens/s", vec![line("tokens/s", &Served::speed)])
        .chart(
            "Latency by load",
            "requests at once",
            "seconds per request",
            vec![
                line("median", &|served| served.latency(0.5)),
                line("99th percentile", &|served| served.latency(0.99)),
                line("first token, median", &|served| median(&served.firsts)),
            ],
        )
        .chart("Memory while 200 requests are served", "seconds", "MB", found.memory()))
}
