//! Metrics of a scheduler's work add up to what its requests were given.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use herald::metrics::{MemoryProfiler, PerformanceMonitor};
use herald::schedule::{Request, Scheduler, SchedulerOptions, Ticket};
use herald::{GenerateOptions, NeuroEngine};
use herald_testing::load_tiny;

fn request(n: usize) -> Request {
    let options = GenerateOptions { max_tokens: Some(n), ignore_eos: true, ..GenerateOptions::default() };
    Request { prompt: vec![9; 10 + n], options, ..Request::default() }
}

/// The samples of a Prometheus text, by name and labels; checks that each line is one or a comment.
fn samples(text: &str) -> HashMap<String, f64> {
    assert!(text.ends_with("# EOF\n"), "{text}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

fn served(engine: &Arc<NeuroEngine>) -> Scheduler {
    let options = SchedulerOptions { max_running: 4, ..SchedulerOptions::default() };
    Scheduler::start(Arc::clone(engine), options).expect("a scheduler")
}

#[test]
fn the_whole_is_the_sum_of_the_requests() {
    let engine = Arc::new(load_tiny("llama"));
    let scheduler = served(&engine);
    let tickets: Vec<Ticket> = (1..=12).map(|n| scheduler.submit(request(n)).expect("a slot")).collect();
    let answers: Vec<_> = tickets.into_iter().map(|ticket| ticket.wait().expect("an answer")).collect();
    let cancelled = scheduler.submit(request(400)).expect("a slot");
    drop(cancelled.next());
    cancelled.cancel();
    cancelled.wait().expect("an end");
    let report = scheduler.metrics().report();
    assert_eq!((report.requests.cut, report.requests.cancelled, report.requests.failed), (12, 1, 0));
    assert!(report.phases[0].tokens + report.shared_tokens >= 12 * 10 + 78 + 410);
    // The first token of each comes with its prompt's last piece.
    assert!(report.phases[1].tokens >= 78 - 12);
    let most = |of: fn(&herald::metrics::RequestMetrics) -> f64| {
        answers.iter().map(|answer| of(&answer.metrics)).fold(0.0, f64::max)
    };
    assert!(report.first_token_s.max + 2e-6 >= most(|m| m.first_token_s) * 0.998);
    assert!(report.between_tokens_s.max + 2e-6 >= most(|m| m.between_tokens_s.max) * 0.998);
    assert!(report.batch_sequences.max <= 4.0 && report.batch_sequences.max >= 2.0);
    assert!(report.queue_s.max > 0.0 && report.steps > 12);

    let text = scheduler.metrics().prometheus(&engine);
    let samples = samples(&text);
    let is = |name: &str, value: f64| assert_eq!(samples.get(name), Some(&value), "{name} in {text}");
    is("herald_requests_cut_total", 12.0);
    is("herald_requests_cancelled_total", 1.0);
    is("herald_first_token_seconds_count", 13.0);
    is("herald_steps_total", report.steps as f64);
    // What was computed stays for later requests, in each of three layers.
    let cache = engine.cache_report();
    assert!(cache.pages >= 7 && cache.active_tokens == report.shared_tokens, "{cache:?}");
    is("herald_tier_pages{tier=\"active\"}", 3.0 * cache.pages as f64);
    is("herald_cache_pages", cache.pages as f64);
    is("herald_cache_hit_tokens_total{tier=\"active\"}", report.shared_tokens as f64);
    is("herald_cache_bytes{place=\"memory\"}", cache.bytes as f64);
    assert!(samples["herald_memory_resident_bytes"] > 1e6, "{text}");
    assert!(samples["herald_generated_tokens_total"] >= 78.0, "{text}");

    let json = serde_json::to_value(&report).expect("JSON");
    assert_eq!(json["requests"]["cut"], 12);
    assert_eq!(json["phases"][1]["phase"], "decode");
    assert!(json["between_tokens_s"]["p99"].as_f64().expect("a number") > 0.0);
}

#[test]
fn a_profiler_sees_what_is_left_behind() {
    let engine = Arc::new(load_tiny("llama"));
    let profiler = MemoryProfiler::start(Arc::clone(&engine));
    let mark = profiler.snapshot("before");
    let mut kept = engine.sequence().expect("a sequence");
    engine.prefill(&mut kept, &[1; 100]).expect("a pass");
    let leak = profiler.leak_since(&mark);
    // Three layers of two pages of 64 tokens.
    assert!(leak.leaks() && leak.pages == 6, "{leak:?}");
    assert_eq!(leak.tier_bytes as usize, kept.bytes());
    profiler.snapshot("after");
    drop(kept);
    assert!(!profiler.leak_since(&mark).leaks());
    let kept = profiler.snapshots();
    let labels: Vec<&str> = kept.iter().map(|snapshot| snapshot.label.as_str()).collect();
    assert_eq!(labels, ["before", "after"]);
    assert_eq!(kept[1].tiers[0].pages, 6);
    assert!(profiler.peak_bytes() >= kept[1].process.rss_bytes / 2);
}

#[test]
fn a_monitor_follows_the_work() {
    let engine = Arc::new(load_tiny("llama"));
    let scheduler = served(&engine);
    let counts = Arc::clone(scheduler.metrics());
    let monitor =
        PerformanceMonitor::start(Arc::clone(&engine), counts, Duration::from_millis(1)).expect("a monitor");
    scheduler.submit(request(200)).expect("a slot").wait().expect("an answer");
    let end = Instant::now() + Duration::from_secs(30);
    let done = |monitor: &PerformanceMonitor| {
        monitor.samples().last().is_some_and(|sample| sample.generated_tokens >= 199)
    };
    while !done(&monitor) && Instant::now() < end {
        std::thread::yield_now();
    }
    let samples = monitor.samples();
    assert!(done(&monitor), "{samples:?}");
    assert!(samples.is_sorted_by(|a, b| a.memory.at_s <= b.memory.at_s));
    assert!(samples.iter().all(|sample| sample.memory.process.rss_bytes > 0));
}
