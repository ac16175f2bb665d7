//! `host bench`: runs the suites on the backends and reports the results.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use herald::agreement::REFERENCE;
use herald::backend_choice::{Shapes, pick_backends};
use herald::files::{Readers, Unfinished};
use herald::gguf::Gguf;
use herald::plugin::{Plugins, this_machine};
use herald::threads::available_threads;
use herald::{NeuroEngine, model};
use herald_suites::{
    self, BackendRow, Effort, Fingerprint, Limits, Machine, ModelFacts, Outcome, Report, Suite,
};

use super::model::Model;
use super::outputs::Outputs;
use super::processes::Processes;
use super::{agents, baselines, table, wrong};
use crate::failure::Failure;
use crate::interrupt::Lookout;
use crate::options::EngineOptions;
use crate::{output, progress};

/// Which benchmarks to run, how thoroughly, and where results go.
#[derive(Debug, Args)]
pub(super) struct Suites {
    /// The suites to run [default: all]
    #[arg(value_name = "SUITE", value_parser = clap::builder::PossibleValuesParser::new(Suite::ALL.map(Suite::name)))]
    suites: Vec<String>,
    /// One round of each, and smaller sizes
    #[arg(long)]
    quick: bool,
    /// More rounds and larger sizes: may take an hour
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// Seconds that the benchmarks of one backend may take; those that are left count as too slow [default: 1800; 600 with
    /// --quick, 14400 with --full]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    time_limit: Option<u64>,
    /// Print one JSON object with all results instead of the tables
    // With a value it is what it was once: a file to write, beside the tables.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", hide_default_value = true)]
    json: Option<PathBuf>,
    /// Write a report with verdicts, bars and curves to an HTML file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Save this run under a name, for later comparisons
    #[arg(long, value_name = "NAME", value_parser = baselines::name)]
    save_baseline: Option<String>,
    /// Compare with a saved run
    #[arg(long, value_name = "NAME", value_parser = baselines::name)]
    compare: Option<String>,
}

impl Suites {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let effort = match (self.quick, self.full) {
            (true, _) => Effort::Quick,
            (_, true) => Effort::Full,
            _ => Effort::Usual,
        };
        let (printed, file, suite) = self.json();
        let mut named: Vec<Suite> = self.suites.iter().filter_map(|name| name.parse().ok()).collect();
        named.extend(suite);
        let suites: Vec<Suite> =
            Suite::ALL.into_iter().filter(|suite| named.is_empty() || named.contains(suite)).collect();
        // Fail before minutes of work, not after.
        let baseline = self.compare.as_deref().map(baselines::load).transpose()?;
        for file in [file, self.html.as_deref()].into_iter().flatten() {
            writable(file)?;
        }
        if file.is_some() && !options.quiet {
            output::note(
                "note: --json prints the results now, and needs no file; it is written all the same",
            );
        }
        let (start, began) = (Instant::now(), SystemTime::now());
        let model = Model::find(options)?;
        let lookout = Lookout::begin();
        let (machine, facts) = {
            let engine = NeuroEngine::load(&model.path, &options.load_options())?;
            (Machine::measure(engine.pool()), ModelFacts::of(&engine, model.synthetic))
        };
        let limit = self.limit(effort);
        let start_processes = |backend: &str| Processes {
            arguments: options.arguments(&model.path, backend),
            effort,
            synthetic: model.synthetic,
            limit,
            deadline: Instant::now() + limit,
            lookout: &lookout,
        };
        let (mut backends, has_reference) = backends(options, &model.path)?;
        wrong::leave_out(&mut backends, has_reference, &start_processes)?;
        let mut report = Report {
            began: began.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            seconds: 0.0,
            complete: false,
            fingerprint: Fingerprint::of(machine.threads, &facts, effort),
            machine,
            model: facts,
            backends,
            results: Vec::new(),
            conversations: Vec::new(),
        };
        let outputs = Outputs { json: file, html: self.html.as_deref() };
        let measured =
            measure(&mut report, &suites, options, &start_processes, &mut |report: &mut Report| {
                report.seconds = start.elapsed().as_secs_f64();
                outputs.write(report)
            });
        let measured = match measured {
            Ok(()) if named.is_empty() => converse(&mut report, effort, options, &start_processes),
            measured => measured,
        };
        if matches!(measured, Err(Failure::Interrupted)) && !report.results.is_empty() {
            if let Some(names) = outputs.names() {
                output::note(format_args!("interrupted: what was finished is in {names}"));
            }
            if printed {
                output::json(&report)?;
            }
        }
        measured?;
        report.complete = true;
        report.seconds = start.elapsed().as_secs_f64();
        outputs.write(&report)?;
        self.conclude(options, &report, &suites, baseline.as_ref())
    }

    /// How long the benchmarks of one backend may take.
    fn limit(&self, effort: Effort) -> Duration {
        Duration::from_secs(self.time_limit.unwrap_or(match effort {
            Effort::Quick => 600,
            Effort::Usual => 1800,
            Effort::Full => 14400,
        }))
    }

    /// Prints the results, and fails where the chosen backend did.
    fn conclude(
        &self,
        options: &EngineOptions,
        report: &Report,
        suites: &[Suite],
        baseline: Option<&Report>,
    ) -> Result<(), Failure> {
        let (printed, ..) = self.json();
        match printed {
            true => output::json(report)?,
            false => table::print(report, suites)?,
        }
        if !printed && !report.conversations.is_empty() {
            output::line("")?;
            agents::print(&report.conversations)?;
        }
        if let Some((name, baseline)) = self.compare.as_deref().zip(baseline).filter(|_| !printed) {
            for difference in report.fingerprint.differences(&baseline.fingerprint) {
                output::note(format_args!("warning: {name} is not quite comparable: {difference}"));
            }
            table::print_changes(name, &herald_suites::compare(baseline, report))?;
        }
        if let Some(name) = &self.save_baseline {
            let path = baselines::save(name, report)?;
            if !options.quiet {
                output::note(format_args!("saved as {name} ({})", path.display()));
            }
        }
        let total = report.chosen().count();
        let passed = report.chosen().filter(|result| result.verdict.passed).count();
        let fixed = report.chosen().filter(|result| result.verdict.passed_fixed).count();
        let name = report.backends.iter().find(|backend| backend.chosen).map_or("", |backend| &backend.name);
        if !printed {
            output::line(format!("\n{passed} of {total} pass on {name}; {fixed} reach the fixed targets."))?;
        }
        match total - passed {
            0 => Ok(()),
            failed => Err(Failure::Failed(format!("{failed} of {total} benchmarks fail on {name}"))),
        }
    }
}

impl Suites {
    /// Whether to print JSON, the file to write it to, and the suite that was meant where a file's name once stood.
    fn json(&self) -> (bool, Option<&Path>, Option<Suite>) {
        let Some(value) = &self.json else { return (false, None, None) };
        let suite = value.to_str().and_then(|name| name.parse().ok());
        if suite.is_some() || value == Path::new("-") {
            return (true, None, suite);
        }
        (false, Some(value), None)
    }
}

/// Measures what conversations cost on the chosen backend: a run of everything has what agents' clients meet too.
fn converse<'p>(
    report: &mut Report,
    effort: Effort,
    options: &EngineOptions,
    processes: &dyn Fn(&str) -> Processes<'p>,
) -> Result<(), Failure> {
    let size = match effort {
        Effort::Quick => return Ok(()),
        Effort::Usual => [8, 4_000, 4],
        Effort::Full => [20, 16_000, 8],
    };
    let Some(chosen) = report.backends.iter().find(|backend| backend.chosen) else { return Ok(()) };
    if !options.quiet {
        output::note(format_args!("{}: conversations", chosen.name));
    }
    match processes(&chosen.name).conversations(size)? {
        Some(measured) => report.conversations = measured,
        None => output::note(
            "warning: conversations were not measured: the process for them gave no figures in time",
        ),
    }
    Ok(())
}

/// Checks that results can be written there, without changing an existing file or leaving an empty one.
fn writable(path: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::file(path, "it can't be written", &error);
    match path.exists() {
        true => std::fs::OpenOptions::new().append(true).open(path).map(drop).map_err(failed),
        false => Unfinished::create(path, Readers::Usual).map(drop).map_err(failed),
    }
}

/// The backends to run, the chosen one first, and those that can't run here; and whether the reference is among all that were
/// found.
fn backends(options: &EngineOptions, model: &Path) -> Result<(Vec<BackendRow>, bool), Failure> {
    let load = options.load_options();
    let found = Plugins::discover(&load.search, &this_machine());
    let named = load.backend.clone().filter(|name| name != "auto");
    let threads = load.threads.unwrap_or_else(available_threads).get();
    let shapes = Gguf::open(model).ok().and_then(|gguf| Some(Shapes::of(&gguf, &model::plan(&gguf).ok()?)));
    // By a calibration where there is one: a plugin's own score may say anything.
    let picked =
        pick_backends(&found, &load, threads, shapes.as_ref()).map_err(herald::Error::from)?.choice.decode;
    let ranked = found.ranked(Some(&picked), &load.search).map_err(herald::Error::from)?;
    let mut rows: Vec<BackendRow> = ranked
        .iter()
        .filter(|loaded| !loaded.plugin.layer_kinds().is_empty())
        .take(if named.is_some() { 1 } else { usize::MAX })
        .enumerate()
        .map(|(rank, loaded)| BackendRow {
            name: loaded.plugin.name().to_owned(),
            variant: loaded.probe.variant.clone(),
            chosen: rank == 0,
            skipped: None,
        })
        .collect();
    if named.is_none() {
        for refused in &found.refused {
            let stem = refused.path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let name = stem.unwrap_or_default();
            let name =
                name.strip_prefix(std::env::consts::DLL_PREFIX).unwrap_or(&name).replace("herald_", "");
            // A refused copy of a backend that runs is not listed.
            if rows.iter().all(|row| row.name != name) {
                let (variant, chosen) = (String::new(), false);
                rows.push(BackendRow { name, variant, chosen, skipped: Some(refused.reason.clone()) });
            }
        }
    }
    Ok((rows, found.usable.iter().any(|loaded| loaded.plugin.name() == REFERENCE)))
}

/// Runs the suites on each backend, and judges the results. `save` keeps what there is, after each suite.
fn measure<'p>(
    report: &mut Report,
    suites: &[Suite],
    options: &EngineOptions,
    processes: &dyn Fn(&str) -> Processes<'p>,
    save: &mut dyn FnMut(&mut Report) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (machine, facts) = (report.machine, report.model.clone());
    let limits = Limits { machine: &machine, model: &facts };
    let ran: Vec<BackendRow> =
        report.backends.iter().filter(|backend| backend.skipped.is_none()).cloned().collect();
    let weights =
        suites.iter().flat_map(|suite| suite.benchmarks()).map(|benchmark| u64::from(benchmark.weight));
    let bar = progress::weighted(weights.sum::<u64>() * ran.len() as u64, options.quiet);
    for backend in ran {
        let processes = processes(&backend.name);
        for suite in suites {
            let results = &mut report.results;
            let first = results.len();
            let done = processes.run(
                *suite,
                &mut |benchmark| {
                    let name = &backend.name;
                    bar.set_message(progress::message(&format!("{name}: {suite} {}", benchmark.name)));
                },
                &mut |benchmark, (found, seconds)| {
                    let outcome = Outcome::of(benchmark, &backend.name, found, seconds, &limits);
                    if !options.quiet {
                        bar.suspend(|| output::note(table::line(&outcome)));
                    }
                    results.push(outcome);
                    bar.inc(u64::from(benchmark.weight));
                },
            );
            // In the suite's order, whichever ran first.
            let index = |result: &Outcome| {
                suite.benchmarks().iter().position(|benchmark| benchmark.name == result.name)
            };
            results[first..].sort_by_key(index);
            save(report)?;
            done?;
        }
    }
    bar.finish_and_clear();
    Ok(())
}
