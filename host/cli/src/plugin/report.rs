//! What `host plugin check` prints.

use std::io::{self, IsTerminal};

use serde::Serialize;

use super::child::{Ended, group_of};
use crate::failure::Failure;
use crate::output;

/// Findings as they come, and how many there were.
pub(super) struct Report {
    json: bool,
    verbose: bool,
    quiet: bool,
    colors: bool,
    group: Group,
    passed: usize,
    failed: usize,
    skipped: usize,
    /// The faults' names, each once.
    faults: Vec<String>,
    cut_short: Option<String>,
}

/// Findings of one group that aren't printed by themselves.
#[derive(Default)]
struct Group {
    name: String,
    passed: usize,
    skipped: usize,
    left_out: usize,
    /// Why the first of the skipped was.
    why: String,
}

/// A finding as JSON.
#[derive(Serialize)]
struct Line<'l> {
    check: &'l str,
    outcome: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'l str>,
    detail: &'l str,
}

/// The numbers of findings as JSON.
#[derive(Serialize)]
struct Summary<'s> {
    passed: usize,
    failed: usize,
    skipped: usize,
    faults: &'s [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_short: Option<&'s str>,
}

impl Report {
    pub(super) fn new(json: bool, verbose: bool, quiet: bool) -> Self {
        let colors = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            json,
            verbose,
            quiet,
            colors,
            group: Group::default(),
            passed: 0,
            failed: 0,
            skipped: 0,
            faults: Vec::new(),
            cut_short: None,
        }
    }

    /// A check begins.
    pub(super) fn begins(&mut self, subject: &str) {
        tracing::debug!("checking {subject}");
    }

    /// A check has ended.
    pub(super) fn ended(&mut self, subject: &str, ended: Ended) -> Result<(), Failure> {
        let (outcome, fault, detail) = match ended {
            Ended::Passed(figure) => ("passed", None, figure),
            Ended::Failed(fault, sentence) => ("failed", Some(fault), sentence),
            Ended::Skipped(why) => ("skipped", None, why),
        };
        // A plugin's own sentences are among it.
        let detail = detail.replace('\n', " ");
        match outcome {
            "passed" => self.passed += 1,
            "failed" => self.failed += 1,
            _ => self.skipped += 1,
        }
        if let Some(fault) = fault.as_ref().filter(|fault| !self.faults.contains(fault)) {
            self.faults.push(fault.clone());
        }
        if self.json {
            let line = Line { check: subject, outcome, fault: fault.as_deref(), detail: &detail };
            return output::json_line(&line);
        }
        self.enter(group_of(subject))?;
        match (outcome, fault) {
            (_, Some(fault)) => self.print("FAILED", &format!("{subject}: {fault}: {detail}")),
            (outcome, _) if self.verbose => {
                let colon = if detail.is_empty() { "" } else { ": " };
                self.print(outcome, &format!("{subject}{colon}{detail}"))
            }
            ("passed", _) => {
                self.group.passed += 1;
                Ok(())
            }
            _ => {
                if self.group.skipped == 0 {
                    self.group.why = detail;
                }
                self.group.skipped += 1;
                Ok(())
            }
        }
    }

    /// A check is left out, since others of its group ended the process.
    pub(super) fn left_out(&mut self, subject: &str) {
        self.skipped += 1;
        if self.enter(group_of(subject)).is_ok() {
            self.group.left_out += 1;
        }
    }

    /// Checks are left out altogether.
    pub(super) fn cut_short(&mut self, why: String) {
        self.cut_short = Some(why);
    }

    /// Prints what the last group came to, where this is another.
    fn enter(&mut self, name: &str) -> Result<(), Failure> {
        if self.group.name == name {
            return Ok(());
        }
        let group = std::mem::replace(&mut self.group, Group { name: name.to_owned(), ..Group::default() });
        if self.json || self.verbose {
            return Ok(());
        }
        let checks = |count: usize| match count {
            1 => String::new(),
            count => format!(", {count} checks"),
        };
        if group.passed > 0 && !self.quiet {
            self.print("passed", &format!("{}{}", group.name, checks(group.passed)))?;
        }
        if group.skipped > 0 && !self.quiet {
            let of = if group.skipped == 1 { "" } else { "the first: " };
            self.print("skipped", &format!("{}{}: {of}{}", group.name, checks(group.skipped), group.why))?;
        }
        if group.left_out > 0 {
            let why = "others ended the process";
            self.print("skipped", &format!("{}{}: {why}", group.name, checks(group.left_out)))?;
        }
        Ok(())
    }

    fn print(&self, outcome: &str, text: &str) -> Result<(), Failure> {
        let color = match outcome {
            "passed" => "32",
            "FAILED" => "31",
            _ => "33",
        };
        output::marked(self.colors.then_some(color), &format!("{outcome:<8}"), text)
    }

    /// Prints the summary; fails where a check did.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        self.enter("")?;
        let Self { passed, failed, skipped, .. } = *self;
        if self.json {
            let cut_short = self.cut_short.as_deref();
            output::json_line(&Summary { passed, failed, skipped, faults: &self.faults, cut_short })?;
        } else if !self.quiet {
            output::line(format_args!("{passed} checks passed, {failed} failed, {skipped} skipped"))?;
        }
        let cut_short = self.cut_short.as_ref().map_or_else(String::new, |why| format!("; {why}"));
        if failed > 0 {
            let all = passed + failed;
            let faults = self.faults.join(", ");
            return Err(Failure::Failed(format!("{failed} of {all} checks failed: {faults}{cut_short}")));
        }
        Ok(())
    }
}
