//! The benchmarks through the library: real work passes their checks, and nothing else does. Speed does not matter here.

use std::path::PathBuf;

use herald::LoadOptions;
use herald::plugin::Search;
use herald_suites::{
    Agents, BackendRow, Benchmark, Context, Conversations, Effort, Fingerprint, Limits, Machine, ModelFacts,
    Outcome, Report, Suite, compare, page,
};
use herald_testing::{cpu_options, cpu_plugin, smollm2, third_party, tiny};

/// A plugin whose layers immediately return zeros.
fn zeros_plugin() -> PathBuf {
    third_party("host/tests/plugins/zeros", "herald_zeros")
}

/// The zeros plugin's layers with cpu's tokenizer and memory tiers.
fn zeros_options() -> LoadOptions {
    let search =
        Search { files: vec![zeros_plugin(), cpu_plugin()], allow_insecure: true, ..Search::default() };
    LoadOptions { search, backend: Some("zeros".to_owned()), ..LoadOptions::default() }
}

fn quick(options: &LoadOptions) -> Context {
    let options = LoadOptions { context: Some(4096), ..options.clone() };
    Context::new(tiny("llama"), &options, Effort::Quick, true)
}

fn all() -> impl Iterator<Item = &'static Benchmark> {
    Suite::ALL.into_iter().flat_map(|suite| suite.benchmarks())
}

/// Judges with a machine and a model whose targets anything reaches, so that only checks decide.
fn judged(benchmark: &Benchmark, found: Result<herald_suites::Measurement, String>) -> Outcome {
    let machine = Machine {
        threads: 1,
        read_bytes_per_s: 1e-9,
        float_macs_per_s: 1e-9,
        int8_macs_per_s: 1e-9,
        int16_macs_per_s: 1e-9,
    };
    let model = ModelFacts { weight_bytes: 1, file_bytes: 1, macs: 2, head_macs: 1, ..ModelFacts::default() };
    Outcome::of(benchmark, "cpu", found, 1.0, &Limits { machine: &machine, model: &model })
}

#[test]
fn there_are_33_and_their_names_differ() {
    let counts = Suite::ALL.map(|suite| (suite.name(), suite.benchmarks().len()));
    assert_eq!(counts, [("performance", 7), ("model", 10), ("memory", 7), ("throughput", 9)]);
    let mut names: Vec<_> = all().map(|benchmark| (benchmark.suite.name(), benchmark.name)).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 33);
    for benchmark in all() {
        assert!(benchmark.method.len() > 20, "{} says how it measures", benchmark.name);
        assert!(Benchmark::find(benchmark.suite, benchmark.name).is_some());
    }
}

#[test]
fn real_work_passes_every_check() {
    let context = quick(&cpu_options());
    for benchmark in all() {
        let found = benchmark.measure(&context).unwrap_or_else(|error| panic!("{}: {error}", benchmark.name));
        assert!(found.figure.is_finite() && !found.samples.is_empty(), "{}: {found:?}", benchmark.name);
        for check in &found.checks {
            assert!(check.passed, "{}: {check:?}", benchmark.name);
        }
    }
}

#[test]
fn zeros_pass_nothing() {
    let context = quick(&zeros_options());
    let names: Vec<_> =
        context.engine().expect("the model").backends().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["zeros"]);
    for benchmark in all() {
        let found = benchmark.measure(&context).map_err(|error| error.to_string());
        let outcome = judged(benchmark, found);
        assert!(!outcome.verdict.passed && !outcome.verdict.passed_fixed, "{}: {outcome:?}", benchmark.name);
        assert!(!outcome.verdict.reasons.is_empty());
    }
}

/// A trained model must also predict English.
#[test]
fn a_trained_model_must_predict_text() {
    let loading = Benchmark::find(Suite::Model, "loading").expect("it is there");
    let found =
        loading.measure(&Context::new(smollm2(), &cpu_options(), Effort::Quick, false)).expect("a figure");
    assert!(found.checks.iter().all(|check| check.passed), "{:?}", found.checks);
    // Untrained weights don't.
    let found = loading
        .measure(&Context::new(tiny("llama"), &cpu_options(), Effort::Quick, false))
        .expect("a figure");
    let failed: Vec<_> = found.checks.iter().filter(|check| !check.passed).collect();
    assert!(matches!(failed[..], [check] if check.what.contains("perplexity")), "{:?}", found.checks);
}

/// A report of one benchmark, with this figure on one backend and a crash on another.
fn report(figure: f64) -> Report {
    let benchmark = Benchmark::find(Suite::Model, "inference_medium").expect("it is there");
    let context = quick(&cpu_options());
    let mut found = benchmark.measure(&context).expect("a figure");
    found.figure = figure;
    found.samples = vec![figure * 0.99, figure, figure * 1.01];
    let model = ModelFacts { name: "<tiny>.gguf".to_owned(), ..ModelFacts::default() };
    let backend = |name: &str, chosen, skipped: Option<&str>| BackendRow {
        name: name.to_owned(),
        variant: "v".to_owned(),
        chosen,
        skipped: skipped.map(str::to_owned),
    };
    let mut crashed = judged(benchmark, Err("its process ended without a result (signal 11)".to_owned()));
    crashed.backend = "other".to_owned();
    Report {
        began: 0,
        seconds: 1.0,
        complete: true,
        fingerprint: Fingerprint::of(1, &model, Effort::Quick),
        machine: Machine::default(),
        model,
        backends: vec![
            backend("cpu", true, None),
            backend("other", false, None),
            backend("blas", false, Some("no <BLAS> was found")),
        ],
        results: vec![judged(benchmark, Ok(found)), crashed],
        conversations: vec![Conversations {
            name: "each <turn> appended".to_owned(),
            requests: 8,
            new_tokens: 1000,
            computed_tokens: 1010,
            median_first_token_s: 0.5,
            max_first_token_s: 0.75,
        }],
    }
}

#[test]
fn a_report_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("report.json");
    let report = report(100.0);
    report.write(&file).expect("it is written");
    assert_eq!(Report::read(&file).expect("it is read"), report);
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&file).expect("a file")).expect("JSON");
    let result = &json["results"][0];
    for (key, value) in
        [("suite", "model"), ("name", "inference_medium"), ("backend", "cpu"), ("unit", "tokens/s")]
    {
        assert_eq!(result[key], value);
    }
    assert!(result["figure"].is_f64() && result["target"].is_f64() && result["adaptive_target"].is_f64());
    assert!(result["passed"].is_boolean() && json["results"][1]["figure"].is_null());
    std::fs::write(&file, "{}").expect("a file");
    assert!(Report::read(&file).expect_err("it is none").to_string().contains("can't be read"));
}

#[test]
fn the_page_has_what_a_reader_needs_and_loads_nothing() {
    let page = page(&report(100.0)).expect("a page");
    for words in [
        "fastest backend here is <strong>cpu</strong>",
        "0 of 1 pass",
        "no &lt;BLAS&gt; was found",
        "&lt;tiny&gt;.gguf",
        "signal 11",
        "inference medium",
        "<td>each &lt;turn&gt; appended</td><td>8</td><td>1000</td><td>1010</td><td>1.010</td><td>500</td><td>750</td>",
    ] {
        assert!(page.contains(words), "{words:?} is missing in {page}");
    }
    for outside in ["http:", "https:", "src=", "<script", "@import", "url("] {
        assert!(!page.contains(outside), "{outside:?} is in the page");
    }
    let unfinished = "it has what was finished";
    assert!(!page.contains(unfinished));
    let page = self::page(&Report { complete: false, ..report(100.0) }).expect("a page");
    assert!(page.contains(unfinished), "{page}");
}

#[test]
fn runs_are_compared_by_benchmark_and_backend() {
    let (before, after) = (report(100.0), report(80.0));
    let changes = compare(&before, &after);
    assert_eq!(changes.len(), 2);
    assert!((changes[0].gain + 0.2).abs() < 1e-9 && changes[0].noise < 0.1, "{:?}", changes[0]);
    assert_eq!(changes[0].change, herald_suites::Change::Worse);
    assert_eq!(changes[1].change, herald_suites::Change::Same, "it crashed then too");
    assert_eq!(before.fingerprint.differences(&after.fingerprint), Vec::<String>::new());
    let other = Fingerprint { cpu: "another".to_owned(), ..after.fingerprint.clone() };
    assert_eq!(before.fingerprint.differences(&other).len(), 1);
}

/// A growing conversation computes what is new in it, whoever sends it again in whichever way.
#[test]
fn conversations_compute_what_is_new() {
    for model in ["llama", "granite_hybrid", "qwen35"] {
        let folder = tempfile::tempdir().expect("a folder");
        let agents =
            Agents { turns: 4, tokens: 320, answer: 8, conversations: 2, folder: folder.path().to_owned() };
        let options = LoadOptions { page_tokens: 16, max_batch: 64, ..cpu_options() };
        let scenarios = agents.measure(&tiny(model), &options, &mut |_| true).expect("figures");
        let counts: Vec<_> = scenarios.iter().map(|scenario| scenario.turns.len()).collect();
        assert_eq!(counts, [4, 1, 1, 6, 8], "{model}");
        for scenario in &scenarios {
            // Beside what is new, the token that ended an answer, and from the last states' place on, less than a page.
            let spare = 1 + if model == "llama" { 0 } else { 16 };
            let most = scenario.new_tokens() + spare * scenario.turns.len();
            let computed = scenario.computed_tokens();
            assert!(computed <= most, "{model}, {}: {computed} of {most}: {scenario:?}", scenario.name);
            assert!(scenario.median_first_token_s() <= scenario.max_first_token_s());
        }
        assert!(scenarios[1].cache.archived_tokens > 300, "{model}: {:?}", scenarios[1].cache);
    }
    let short = Agents { turns: 3, tokens: 10, answer: 8, conversations: 2, folder: PathBuf::new() };
    let error =
        short.measure(&tiny("llama"), &cpu_options(), &mut |_| true).expect_err("a refusal").to_string();
    assert!(error.contains("at least 4 turns"), "{error}");
}
