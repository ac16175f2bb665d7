//! `host backends`: the plugins that were found, and which one is chosen.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use herald::agreement::REFERENCE;
use herald::backend_choice::{self, Choice, Record, Records, Shapes};
use herald::gguf::Gguf;
use herald::plugin::{ChooseError, Plugins, this_machine};
use herald::threads::{self, locked};
use herald::{LoadOptions, calibrate_within, model};
use herald_api::Hardware;
use serde_json::json;

use super::failure::Failure;
use super::interrupt::Lookout;
use super::options::EngineOptions;
use super::{output, progress, store, system};

/// List the plugins, what they offer, which is chosen and why, and which were refused and why
#[derive(Debug, Args)]
pub(super) struct Backends {
    /// Measure each plugin with the model first, and save the result, by which `auto` then chooses
    #[arg(long)]
    calibrate: bool,
    /// How long each plugin may compute while it is measured; one whose single call takes longer than twice that hangs
    #[arg(long, value_name = "SECONDS", default_value = "60", requires = "calibrate", value_parser = clap::value_parser!(u32).range(1..=3600))]
    timeout: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What was found and chosen.
struct Found {
    plugins: Plugins,
    choice: Result<Choice, ChooseError>,
    /// Files in the calibrations' folder that are no calibrations.
    ignored: Vec<String>,
    /// The calibration that was just made, and its file.
    measured: Option<(Record, std::path::PathBuf)>,
}

impl Backends {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let load = options.load_options();
        let measured = self.calibrate.then(|| measure(options, &load, self.timeout)).transpose()?;
        let plugins = Plugins::discover(&load.search, &this_machine());
        let shapes = match &measured {
            Some((record, _)) => Some(record.model.clone()),
            None => store::find_local(options.model()).and_then(|path| shapes(&path)),
        };
        let threads = load.threads.unwrap_or_else(threads::available_threads).get();
        let choice = backend_choice::pick_backends(&plugins, &load, threads, shapes.as_ref())
            .map(|chosen| chosen.choice);
        let Records { ignored, .. } =
            load.calibrations.as_deref().map(backend_choice::read).unwrap_or_default();
        let found = Found { plugins, choice, ignored, measured };
        if self.json {
            found.as_json(&load)?;
        } else {
            found.print()?;
        }
        // Where a plugin that was named can't be used, the choice says so.
        found.choice.map(drop).map_err(|error| Failure::Failed(error.to_string()))
    }
}

/// Measures all plugins, each for so many seconds at most, and saves the result.
fn measure(
    options: &EngineOptions,
    load: &LoadOptions,
    seconds: u32,
) -> Result<(Record, std::path::PathBuf), Failure> {
    let path = options.model_path()?;
    let folder = load.calibrations.as_deref().ok_or_else(|| {
        Failure::Failed("the user's cache folder, where calibrations are saved, can't be found".to_owned())
    })?;
    let lookout = Lookout::begin();
    let spinner = progress::spinner("calibrating", options.quiet);
    let limit = Duration::from_secs(seconds.into());
    let watch = HangWatch::begin(limit * 2);
    let record = calibrate_within(&path, load, limit, &mut |what| {
        watch.begins(what);
        spinner.set_message(progress::message(what));
        lookout.go_on()
    });
    drop(watch);
    spinner.finish_and_clear();
    let record = record?;
    let kept = backend_choice::keep(&record, folder)
        .map_err(|error| Failure::file(folder, "the calibration can't be saved in it", &error))?;
    Ok((record, kept))
}

/// Ends the program where a plugin's call doesn't return while it is measured: nothing else can end such a call.
struct HangWatch(Arc<Mutex<Option<(String, Instant)>>>);

impl HangWatch {
    /// Watches from the first work on, until this is dropped.
    fn begin(limit: Duration) -> Self {
        let work = Arc::new(Mutex::new(None::<(String, Instant)>));
        let watched = Arc::downgrade(&work);
        // Where there is no thread for it, nothing is watched.
        let _ = std::thread::Builder::new().spawn(move || {
            while let Some(work) = watched.upgrade() {
                if let Some((what, began)) = &*locked(&work) {
                    // The reference may take as long as it takes.
                    let is_reference = what.ends_with(&format!(" {REFERENCE}"));
                    if began.elapsed() > limit && !is_reference {
                        end_for_hanging(what, limit);
                    }
                }
                drop(work);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self(work)
    }

    /// Work of this description begins, such as "checking NAME".
    fn begins(&self, what: &str) {
        *locked(&self.0) = Some((what.to_owned(), Instant::now()));
    }
}

fn end_for_hanging(what: &str, limit: Duration) -> ! {
    output::note(format_args!(
        "error: {what}: no answer for {} s: the plugin hangs, and nothing was calibrated; leave its file out, or allow it more time \
         with --timeout",
        limit.as_secs()
    ));
    system::end_at_once()
}

/// The shapes of the model that the choice is for, if HERALD can run it.
fn shapes(path: &Path) -> Option<Shapes> {
    let gguf = Gguf::open(path).ok()?;
    Some(Shapes::of(&gguf, &model::plan(&gguf).ok()?))
}

impl Found {
    fn as_json(&self, load: &LoadOptions) -> Result<(), Failure> {
        let machine = this_machine();
        let choice = self.choice.as_ref().ok();
        let plugins: Vec<_> = self
            .plugins
            .usable
            .iter()
            .map(|loaded| {
                let plugin = &loaded.plugin;
                json!({
                    "name": plugin.name(),
                    "version": plugin.version(),
                    "description": plugin.description(),
                    "variant": loaded.probe.variant,
                    "score": loaded.probe.score,
                    "layers": plugin.layer_kinds().iter().map(|kind| kind.name()).collect::<Vec<_>>(),
                    "tokenizers": plugin.offers_tokenizers(),
                    "tiers": plugin.tier_kinds().iter().map(|kind| kind.name()).collect::<Vec<_>>(),
                    "path": loaded.path.to_string_lossy(),
                    "chosen": choice.is_some_and(|choice| choice.decode == plugin.name()),
                    "chosen_for_prompts": choice.is_some_and(|choice| choice.prefill == plugin.name()),
                })
            })
            .collect();
        let refused = self.plugins.refused.iter();
        let refused: Vec<_> = refused
            .map(|refused| json!({"path": refused.path.to_string_lossy(), "reason": refused.reason}))
            .collect();
        output::json(&json!({
            "backends": plugins,
            "refused": refused,
            "chosen": choice.map(|choice| &choice.decode),
            "reason": choice.map(|choice| &choice.why),
            "choice": choice,
            "calibration": self.measured.as_ref().map(|(record, kept)| json!({"kept": kept, "record": record})),
            "ignored": self.ignored,
            "searched": load.search.folders(),
            "cpus": machine.cpus,
            "cpu_features": machine.names_of(u64::MAX),
            "missing_cpu_features": machine.names_of_missing(u64::MAX),
        }))
    }

    fn print(&self) -> Result<(), Failure> {
        let mut table = output::table(&["NAME", "VERSION", "VARIANT", "SCORE", "OFFERS", "FILE"]);
        for loaded in &self.plugins.usable {
            let plugin = &loaded.plugin;
            let mut offers: Vec<String> = Vec::new();
            let layers: Vec<&str> = plugin.layer_kinds().iter().map(|kind| kind.name()).collect();
            if !layers.is_empty() {
                offers.push(format!("layers ({})", layers.join(", ")));
            }
            if plugin.offers_tokenizers() {
                offers.push("tokenizers".to_owned());
            }
            let tiers: Vec<&str> = plugin.tier_kinds().iter().map(|kind| kind.name()).collect();
            if !tiers.is_empty() {
                offers.push(format!("memory tiers ({})", tiers.join(", ")));
            }
            table.add_row(vec![
                plugin.name().into(),
                plugin.version().into(),
                loaded.probe.variant.as_str().into(),
                output::number(loaded.probe.score),
                offers.join("; ").into(),
                loaded.path.display().to_string().into(),
            ]);
        }
        if !self.plugins.usable.is_empty() {
            output::print_table(&table)?;
        }
        print_features(&this_machine())?;
        if let Some((record, kept)) = &self.measured {
            output::line("")?;
            print_figures(record)?;
            output::line(format!(
                "\nMeasured with {} on {} threads of {}, and saved in {}.",
                record.model.name,
                record.machine.threads,
                record.machine.cpu,
                kept.display()
            ))?;
        }
        if let Ok(choice) = &self.choice {
            output::line(format!("\n{}.", choice.why))?;
        }
        if !self.plugins.refused.is_empty() {
            output::line("\nRefused:")?;
            for refused in &self.plugins.refused {
                let reason = &refused.reason;
                output::line(format_args!("  {}: {reason}", refused.path.display()))?;
            }
        }
        for ignored in &self.ignored {
            output::note(format_args!("warning: {ignored}"));
        }
        Ok(())
    }
}

/// Which of the features that plugins choose their code by the CPU has, and which it lacks.
fn print_features(machine: &Hardware) -> Result<(), Failure> {
    let (there, missing) = (machine.names_of(u64::MAX), machine.names_of_missing(u64::MAX));
    let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    output::line(format!("\nCPU features: {}; missing: {}.", list(there), list(missing)))
}

fn print_figures(record: &Record) -> Result<(), Failure> {
    let mut table = output::table(&["MEASURED", "PROMPT", "TOKENS/S", "SPREAD", "DECODED/S", "SPREAD"]);
    let mut reasons = Vec::new();
    let percent = |share: f64| output::number(format!("{:.0}%", share * 100.0));
    for figures in &record.backends {
        let name = figures.plugin.name.as_str().into();
        table.add_row(match figures.speeds {
            Some(speeds) => vec![
                name,
                output::number(speeds.prompt_tokens),
                output::number(format!("{:.1}", speeds.prefill)),
                percent(speeds.spread[0]),
                output::number(format!("{:.1}", speeds.decode)),
                percent(speeds.spread[1]),
            ],
            None => {
                reasons.push((
                    &figures.plugin.name,
                    figures.refused.as_deref().unwrap_or("it computed nothing"),
                ));
                vec![name, output::number("-")]
            }
        });
    }
    output::print_table(&table)?;
    for (name, reason) in reasons {
        output::line("")?;
        output::line(format_args!("{name} was not measured: {reason}"))?;
    }
    Ok(())
}
