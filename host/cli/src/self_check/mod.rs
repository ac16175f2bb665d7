//! `host self-check`: whether this installation works.

mod compute;
mod place;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use herald::plugin::{Plugins, this_machine};
use herald::{backend_choice, threads};
use serde::Serialize;
use serde_json::json;

use super::failure::Failure;
use super::interrupt::Lookout;
use super::options::EngineOptions;
use super::output;

/// Check this installation: program, plugins, library, cache folder, memory, and that every backend computes rightly
#[derive(Debug, Args)]
#[command(
    after_help = "One line for each check: `ok`, or `wrong` with what is wrong and what to do. The exit code is 1 if anything is wrong.
Every backend that runs here computes a random model of two megabytes, in a process of its own, and its results
are compared with those of `cpu`. Nothing is downloaded.

Examples:
  host self-check
  host self-check --json"
)]
pub(super) struct SelfCheck {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Compute with the model that `--model` names, and write what came of it to this file
    #[arg(long, hide = true, value_name = "FILE")]
    worker: Option<PathBuf>,
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Finding {
    /// What was checked, in one or two words.
    check: &'static str,
    ok: bool,
    /// What was found, or what is wrong.
    found: String,
    /// What the user can do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, ok: true, found: found.into(), remedy: None }
    }

    fn wrong(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, ok: false, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn print(&self, colors: bool) -> Result<(), Failure> {
        let (color, word) = if self.ok { ("32", "ok   ") } else { ("31", "wrong") };
        let remedy = self.remedy.as_ref().map_or(String::new(), |remedy| format!("; {remedy}"));
        output::marked(colors.then_some(color), word, &format!("{}: {}{remedy}", self.check, self.found))
    }
}

/// Findings, which are printed as they come unless they are to be JSON.
struct Findings {
    all: Vec<Finding>,
    json: bool,
    colors: bool,
}

impl Findings {
    fn add(&mut self, finding: Finding) -> Result<(), Failure> {
        if !self.json {
            finding.print(self.colors)?;
        }
        self.all.push(finding);
        Ok(())
    }
}

impl SelfCheck {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        if let Some(file) = &self.worker {
            return compute::work(options, file);
        }
        let colors = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let mut findings = Findings { all: Vec::new(), json: self.json, colors };
        findings.add(place::program())?;
        let plugins = Plugins::discover(&options.search(), &this_machine());
        check_plugins(&plugins, options, &mut findings)?;
        for finding in place::library() {
            findings.add(finding)?;
        }
        findings.add(place::cache())?;
        findings.add(place::memory())?;
        findings.add(place::cpu())?;
        let lookout = Lookout::begin();
        compute::check(&plugins, options, &lookout, &mut |finding| findings.add(finding))?;
        self.end(&findings.all)
    }

    fn end(&self, all: &[Finding]) -> Result<(), Failure> {
        let wrong = all.iter().filter(|finding| !finding.ok).count();
        if self.json {
            output::json(&json!({
                "ok": wrong == 0,
                "version": env!("CARGO_PKG_VERSION"),
                "checks": all,
            }))?;
        }
        match wrong {
            0 => Ok(()),
            1 => Err(Failure::Failed(format!("1 of {} checks found something wrong", all.len()))),
            wrong => Err(Failure::Failed(format!("{wrong} of {} checks found something wrong", all.len()))),
        }
    }
}

/// Each plugin's file, and which of them is chosen.
fn check_plugins(plugins: &Plugins, options: &EngineOptions, findings: &mut Findings) -> Result<(), Failure> {
    for loaded in &plugins.usable {
        let (plugin, probe) = (&loaded.plugin, &loaded.probe);
        findings.add(Finding::ok(
            "plugin",
            format!(
                "{}: {} {}, {}, score {}",
                loaded.path.display(),
                plugin.name(),
                plugin.version(),
                probe.variant,
                probe.score
            ),
        ))?;
    }
    for refused in &plugins.refused {
        let what = format!("{}: {}", refused.path.display(), refused.reason);
        findings.add(match refused.is_unsuited {
            true => Finding::ok("plugin", format!("{what} (so it isn't used)")),
            false => {
                Finding::wrong("plugin", what, "install HERALD again, or remove what doesn't belong there")
            }
        })?;
    }
    let load = options.load_options();
    let threads = load.threads.unwrap_or_else(threads::available_threads).get();
    findings.add(match backend_choice::pick_backends(plugins, &load, threads, None) {
        Ok(picked) => Finding::ok("choice", picked.choice.why),
        Err(error) => Finding::wrong(
            "choice",
            error.to_string(),
            "install HERALD again, or name a backend that is there",
        ),
    })
}
