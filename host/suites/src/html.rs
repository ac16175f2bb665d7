//! A run as one self-contained HTML page.

use minijinja::{AutoEscape, Environment, Value, context};

use super::Suite;
use super::chart;
use super::measurement::Chart;
use super::report::{BackendRow, Conversations, Outcome, Report};
use super::target::{Better, short};
use herald::{Error, Result};

const TEMPLATE: &str = include_str!("report.html");

/// The page.
///
/// # Errors
/// If the template can't be rendered, which no known report causes.
pub fn page(report: &Report) -> Result<String> {
    let failed = |error: minijinja::Error| Error::Invalid(format!("the page can't be written: {error:#}"));
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page", TEMPLATE).map_err(failed)?;
    let template = environment.get_template("page").map_err(failed)?;
    template.render(values(report)).map_err(failed)
}

fn values(report: &Report) -> Value {
    let ran: Vec<&str> = report
        .backends
        .iter()
        .filter(|backend| backend.skipped.is_none())
        .map(|backend| &backend.name[..])
        .collect();
    let chosen =
        report.backends.iter().find(|backend| backend.chosen).map_or("", |backend| &backend.name[..]);
    let suites: Vec<Value> = Suite::ALL
        .into_iter()
        .map(|suite| {
            let rows: Vec<Value> = suite
                .benchmarks()
                .iter()
                .filter_map(|benchmark| {
                    let here = |result: &&Outcome| result.suite == suite && result.name == benchmark.name;
                    let results: Vec<&Outcome> =
                        ran.iter().filter_map(|backend| report.of_backend(backend).find(here)).collect();
                    (!results.is_empty()).then(|| row(&results))
                })
                .collect();
            context! { name => suite.name(), rows => rows }
        })
        .collect();
    let charts: Vec<Value> = report
        .chosen()
        .filter_map(|result| result.measurement.as_ref())
        .flat_map(|found| &found.charts)
        .map(drawn)
        .filter(|chart| !chart.is_undefined())
        .collect();
    let failures: Vec<Value> = report
        .results
        .iter()
        .filter(|result| !result.verdict.passed)
        .map(|result| {
            context! {
                backend => result.backend.clone(),
                name => readable(&result.name),
                suite => result.suite.name(),
                reasons => result.verdict.reasons.clone(),
            }
        })
        .collect();
    let machine = &report.machine;
    context! {
        model => report.model.name.clone(),
        synthetic => report.model.synthetic,
        complete => report.complete,
        file => short(report.model.file_bytes as f64 / 1e6),
        cpu => report.fingerprint.cpu.clone(),
        threads => report.fingerprint.threads,
        memory => report.fingerprint.memory_gib,
        version => report.fingerprint.version.clone(),
        effort => report.fingerprint.effort.clone(),
        read => short(machine.read_bytes_per_s / 1e9),
        floats => short(machine.float_macs_per_s / 1e9),
        ints => short(machine.int8_macs_per_s / 1e9),
        minutes => short(report.seconds / 60.0),
        began => report.began,
        chosen => chosen,
        fastest => fastest(report),
        backends => report.backends.iter().map(|backend| backend_row(report, backend)).collect::<Vec<_>>(),
        suites => suites,
        charts => charts,
        conversations => report.conversations.iter().map(conversation).collect::<Vec<_>>(),
        failures => failures,
    }
}

/// A backend's line: how many benchmarks it passed, and how fast it decodes.
fn backend_row(report: &Report, backend: &BackendRow) -> Value {
    let results: Vec<&Outcome> = report.of_backend(&backend.name).collect();
    let passed = results.iter().filter(|result| result.verdict.passed).count();
    let fixed = results.iter().filter(|result| result.verdict.passed_fixed).count();
    let speed = results.iter().find(|result| result.name == "inference_medium");
    context! {
        name => backend.name.clone(),
        variant => backend.variant.clone(),
        chosen => backend.chosen,
        skipped => backend.skipped.clone(),
        passed => passed,
        fixed => fixed,
        total => results.len(),
        all => passed == results.len(),
        speed => speed.and_then(|result| result.figure).map(short),
    }
}

/// A line of the conversations' table.
fn conversation(of: &Conversations) -> Value {
    context! {
        name => of.name.clone(),
        requests => of.requests,
        new => of.new_tokens,
        computed => of.computed_tokens,
        ratio => format!("{:.3}", of.ratio()),
        median => short(of.median_first_token_s * 1e3),
        longest => short(of.max_first_token_s * 1e3),
    }
}

/// The backend that decodes fastest.
fn fastest(report: &Report) -> Option<String> {
    let speeds = report.results.iter().filter(|result| result.name == "inference_medium");
    let best = speeds.max_by(|a, b| a.figure.unwrap_or(0.0).total_cmp(&b.figure.unwrap_or(0.0)))?;
    best.figure.map(|_| best.backend.clone())
}

/// One benchmark on all backends: bars on one scale that also shows target and limit.
fn row(results: &[&Outcome]) -> Value {
    let first = results[0];
    let figures = results.iter().filter_map(|result| result.figure);
    let target = first.verdict.target;
    // A distant limit would leave the bars no room, so it is only printed as a number.
    let max = figures.chain(target).fold(0.0_f64, f64::max);
    let limit = first.verdict.limit;
    let shown = limit.filter(|limit| *limit <= max * 3.0);
    let scale = max.max(shown.unwrap_or(0.0)).max(f64::MIN_POSITIVE);
    let part = |value: f64| (value / scale * 100.0).clamp(0.0, 100.0);
    let bars: Vec<Value> = results
        .iter()
        .map(|result| {
            let found = result.measurement.as_ref();
            let details: Vec<String> = found
                .map(|found| &found.details[..])
                .unwrap_or_default()
                .iter()
                .map(|detail| format!("{} {} {}", detail.name, short(detail.value), detail.unit))
                .collect();
            context! {
                backend => result.backend.clone(),
                figure => result.figure.map(short),
                width => result.figure.map_or(0.0, part),
                passed => result.verdict.passed,
                fixed => result.verdict.passed_fixed,
                spread => (result.spread > 0.0).then(|| short(result.spread * 100.0)),
                details => details.join(" · "),
                notes => found.map(|found| found.notes.clone()).unwrap_or_default(),
                reasons => result.verdict.reasons.clone(),
            }
        })
        .collect();
    context! {
        name => readable(&first.name),
        method => first.method.clone(),
        unit => first.unit.clone(),
        sign => if first.better == Better::Higher { "≥" } else { "≤" },
        target => target.map(short),
        target_at => target.map(part),
        adaptive => first.verdict.adaptive_target.map(short),
        limit => limit.map(short),
        limit_at => shown.map(part),
        bars => bars,
    }
}

fn drawn(chart: &Chart) -> Value {
    let svg = chart::svg(chart);
    if svg.is_empty() {
        return Value::UNDEFINED;
    }
    let names: Vec<String> = chart.lines.iter().map(|line| line.name.clone()).collect();
    context! { title => chart.title.clone(), y => chart.y.clone(), names => names, svg => Value::from_safe_string(svg) }
}

/// A name with spaces.
fn readable(name: &str) -> String {
    name.replace('_', " ")
}
