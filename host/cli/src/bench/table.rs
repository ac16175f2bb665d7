//! A run's tables on the terminal.

use herald_suites::{Better, Change, Comparison, Outcome, Report, Suite};

use crate::failure::Failure;
use crate::output;

/// A figure with about three digits.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A result in one line.
pub(super) fn line(result: &Outcome) -> String {
    let word = if result.verdict.passed { "pass" } else { "FAIL" };
    let figure =
        result.figure.map_or("no figure".to_owned(), |figure| format!("{} {}", short(figure), result.unit));
    let sign = if result.better == Better::Higher { ">=" } else { "<=" };
    let target = result.verdict.target.map_or(String::new(), |target| {
        let here = match result.verdict.adaptive_target {
            Some(here) if result.verdict.passed && !result.verdict.passed_fixed => {
                format!("; this machine allows {}", short(here))
            }
            _ => String::new(),
        };
        format!(" (target {sign} {}{here})", short(target))
    });
    let reasons = match result.verdict.reasons.is_empty() {
        true => String::new(),
        false => format!(": {}", result.verdict.reasons.join("; ")),
    };
    let (backend, suite, name) = (&result.backend, result.suite, &result.name);
    format!("{word}  {backend}  {suite} {name}  {figure}{target}{reasons}")
}

/// Prints suites by backends, and what failed.
pub(super) fn print(report: &Report, suites: &[Suite]) -> Result<(), Failure> {
    let mut header = vec![String::new()];
    header.extend(report.backends.iter().map(|backend| {
        let name = backend.name.to_uppercase();
        if backend.chosen { format!("{name} (CHOSEN)") } else { name }
    }));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut table = output::table(&header);
    let mut add = |name: &str, suite: Option<Suite>| {
        let mut row = vec![name.into()];
        for backend in &report.backends {
            let results = || {
                report
                    .of_backend(&backend.name)
                    .filter(|result| suite.is_none_or(|suite| result.suite == suite))
            };
            let passed = results().filter(|result| result.verdict.passed).count();
            row.push(output::number(match backend.skipped {
                Some(_) => "not run".to_owned(),
                None => format!("{passed} of {}", results().count()),
            }));
        }
        table.add_row(row);
    };
    suites.iter().for_each(|suite| add(suite.name(), Some(*suite)));
    if suites.len() > 1 {
        add("all", None);
    }
    output::print_table(&table)?;
    for backend in &report.backends {
        if let Some(reason) = &backend.skipped {
            let name = &backend.name;
            output::line(format!("\n{name} was not run: {reason}"))?;
        }
    }
    let failed: Vec<&Outcome> = report.results.iter().filter(|result| !result.verdict.passed).collect();
    if !failed.is_empty() {
        output::line("")?;
        let mut table = output::table(&["FAILED", "BACKEND", "FIGURE", "TARGET", "WHY"]);
        for result in failed {
            table.add_row(vec![
                format!("{} {}", result.suite, result.name).into(),
                result.backend.as_str().into(),
                output::number(
                    result
                        .figure
                        .map_or("-".to_owned(), |figure| format!("{} {}", short(figure), result.unit)),
                ),
                output::number(result.verdict.target.map_or("-".to_owned(), short)),
                result.verdict.reasons.join("; ").into(),
            ]);
        }
        output::print_table(&table)?;
    }
    Ok(())
}

/// Prints the changes since a baseline that exceed the noise.
pub(super) fn print_changes(name: &str, changes: &[Comparison]) -> Result<(), Failure> {
    let moved: Vec<&Comparison> = changes.iter().filter(|change| change.change != Change::Same).collect();
    let worse = moved.iter().filter(|change| change.change == Change::Worse).count();
    output::line(format!(
        "\nCompared with {name}: {} benchmarks, {worse} worse and {} better beyond noise.",
        changes.len(),
        moved.len() - worse
    ))?;
    if moved.is_empty() {
        return Ok(());
    }
    let mut table = output::table(&["CHANGED", "BACKEND", "BEFORE", "NOW", "GAIN", "NOISE", ""]);
    for change in moved {
        let figure = |value: Option<f64>| {
            output::number(value.map_or("-".to_owned(), |value| format!("{} {}", short(value), change.unit)))
        };
        let percent = |share: f64| format!("{:.1}%", share * 100.0);
        table.add_row(vec![
            change.name.clone().into(),
            change.backend.as_str().into(),
            figure(change.before),
            figure(change.now),
            output::number(percent(change.gain)),
            output::number(percent(change.noise)),
            if change.change == Change::Worse { "REGRESSION" } else { "better" }.into(),
        ]);
    }
    output::print_table(&table)
}
