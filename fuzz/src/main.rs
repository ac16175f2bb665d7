//! Feeds readers of untrusted input what nobody would write: `herald-fuzz TARGET --seconds 20`.
//!
//! A target gets mutated inputs, beginning with those in `fuzz/seeds/TARGET`, and must answer each within a limit of CPU
//! time and of memory, without a panic, and with one sentence where it refuses. A child process does the work; when it
//! dies, the input that it had is kept, and its path is printed. `herald-fuzz TARGET FILE...` runs inputs again.
//!
//! No compiler flags and no other tools are needed, so that every change can be tested with the stable toolchain. Instead
//! of the code's coverage, the sentences guide it: an input with an answer of a new kind is mutated further.

mod child;
mod memory;
mod mutate;
mod targets;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use targets::{TARGETS, Target};

/// What a run was asked for.
struct Run {
    target: &'static Target,
    seconds: u64,
    seed: u64,
    /// Inputs to run again, instead of mutated ones.
    files: Vec<PathBuf>,
    /// The input in work, which the child shares with its parent.
    shared: Option<PathBuf>,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(None) => {
            for target in TARGETS {
                println!("{}", target.name);
            }
            ExitCode::SUCCESS
        }
        Ok(Some(run)) => match (&run.shared, run.files.is_empty()) {
            (Some(shared), _) => child::fuzz(run.target, run.seconds, run.seed, shared),
            (None, false) => child::replay(run.target, &run.files),
            (None, true) => parent(&run),
        },
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Run>, String> {
    let name = arguments.next().unwrap_or_else(|| "--list".to_owned());
    if name == "--list" {
        return Ok(None);
    }
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.ok_or_else(|| format!("there is no target {name}; --list lists them"))?;
    let mut run = Run { target, seconds: 20, seed: 1, files: Vec::new(), shared: None };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is no number"));
        match argument.as_str() {
            "--seconds" => run.seconds = number(value()?)?,
            "--seed" => run.seed = number(value()?)?,
            "--shared" => run.shared = Some(value()?.into()),
            _ => run.files.push(argument.into()),
        }
    }
    Ok(Some(run))
}

/// The folder of this crate's sources.
fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs the work in a child, and keeps the input that it died of.
fn parent(run: &Run) -> ExitCode {
    match supervise(run) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(kept)) => {
            let name = run.target.name;
            eprintln!("error: {name} failed; its input is kept: {}", kept.display());
            eprintln!("again: herald-fuzz {name} {}", kept.display());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {}: {error}", run.target.name);
            ExitCode::FAILURE
        }
    }
}

fn supervise(run: &Run) -> std::io::Result<Option<PathBuf>> {
    let shared = tempfile::NamedTempFile::new()?;
    shared.as_file().set_len(child::SHARED_BYTES as u64)?;
    let status = Command::new(std::env::current_exe()?)
        .arg(run.target.name)
        .args(["--seconds", &run.seconds.to_string(), "--seed", &run.seed.to_string(), "--shared"])
        .arg(shared.path())
        .stdin(Stdio::null())
        .status()?;
    if status.success() {
        return Ok(None);
    }
    eprintln!("{}: {status}", run.target.name);
    let input = child::shared_input(&std::fs::read(shared.path())?);
    let failures = folder().join("failures");
    std::fs::create_dir_all(&failures)?;
    let path = failures.join(format!("{}-{:016x}", run.target.name, mutate::hash(&input)));
    std::fs::write(&path, input)?;
    Ok(Some(path))
}
