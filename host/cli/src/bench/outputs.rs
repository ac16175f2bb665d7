//! The files that a run of the suites writes: after each suite, so that an interruption costs no more than what was running.

use std::io::Write;
use std::path::Path;

use herald::files::{Readers, Unfinished};
use herald_suites::Report;

use crate::failure::Failure;

/// Where the report goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outputs<'p> {
    pub(super) json: Option<&'p Path>,
    pub(super) html: Option<&'p Path>,
}

impl Outputs<'_> {
    /// Writes the report, whole or not at all. What is no file (a terminal, a pipe) gets it once, at the end.
    pub(super) fn write(&self, report: &Report) -> Result<(), Failure> {
        if let Some(path) = self.json {
            let text = serde_json::to_string_pretty(report)
                .map_err(|error| Failure::Failed(format!("the report can't be written as JSON: {error}")))?;
            write(path, &(text + "\n"), report.complete)?;
        }
        if let Some(path) = self.html {
            write(path, &herald_suites::page(report)?, report.complete)?;
        }
        Ok(())
    }

    /// The files, for people.
    pub(super) fn names(&self) -> Option<String> {
        let names: Vec<String> =
            [self.json, self.html].into_iter().flatten().map(|path| path.display().to_string()).collect();
        (!names.is_empty()).then(|| names.join(" and "))
    }
}

fn write(path: &Path, text: &str, complete: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::file(path, "it can't be written", &error);
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return if complete { std::fs::write(path, text).map_err(failed) } else { Ok(()) };
    }
    // A link is kept, and what it leads to replaced.
    let path = &dunce::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut file = Unfinished::create(path, Readers::Usual).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.keep(path).map_err(failed)
}
