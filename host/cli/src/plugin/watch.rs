//! Watches the process that runs the checks: one that hangs is ended, and one that has ended is followed by another that goes
//! on after the check that ended it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use herald_conformance::{Fault, Part};

use super::child::{Ended, LOAD, Message, group_of};
use super::report::Report;
use crate::failure::Failure;
use crate::system;

/// After so many checks of a group have ended their process, its others are left out.
const MOST_OF_A_GROUP: usize = 2;

/// After so many checks have ended their process, the rest is left out.
const MOST_ENDED: usize = 16;

/// All checks together may take as long as so many that hang.
const MOST_LIMITS: u32 = 60;

/// The checks of a plugin, from outside.
pub(super) struct Watch<'w> {
    pub(super) file: &'w Path,
    pub(super) parts: &'w [Part],
    /// Plugins that the program was told of: the reference may be among them.
    pub(super) plugins: &'w [PathBuf],
    pub(super) allow_insecure: bool,
    pub(super) verbose: u8,
    /// How long a check may take.
    pub(super) limit: Duration,
}

/// How a process ended.
enum End {
    /// Every check was made.
    Done,
    /// This check ended it.
    Of(String, Ended),
    /// It ended before the first check.
    Early(ExitStatus),
}

impl Watch<'_> {
    /// Runs all checks.
    pub(super) fn run(&self, report: &mut Report) -> Result<(), Failure> {
        let deadline = Instant::now() + self.limit * MOST_LIMITS;
        let mut n_checks = 0;
        let mut ended: HashMap<String, usize> = HashMap::new();
        loop {
            let given_up: Vec<&str> = ended
                .iter()
                .filter(|(_, count)| **count >= MOST_OF_A_GROUP)
                .map(|(group, _)| group.as_str())
                .collect();
            let (subject, outcome) = match self.process(&mut n_checks, &given_up, deadline, report)? {
                End::Done => return Ok(()),
                End::Of(subject, outcome) => (subject, outcome),
                End::Early(status) => {
                    let sentence = format!("the process for the checks ended before the first ({status})");
                    return Err(Failure::Failed(sentence));
                }
            };
            n_checks += 1;
            *ended.entry(group_of(&subject).to_owned()).or_default() += 1;
            let is_load = subject == LOAD;
            report.ended(&subject, outcome)?;
            let total: usize = ended.values().sum();
            if is_load || total >= MOST_ENDED || Instant::now() >= deadline {
                if !is_load {
                    report.cut_short(format!(
                        "{total} checks ended their process or took too long: the rest is left out"
                    ));
                }
                return Ok(());
            }
        }
    }

    /// Runs one process, which leaves out the first `n_checks` checks, and adds those that it has made.
    fn process(
        &self,
        n_checks: &mut usize,
        given_up: &[&str],
        deadline: Instant,
        report: &mut Report,
    ) -> Result<End, Failure> {
        let mut child = self.start(*n_checks, given_up)?;
        let messages = receive(&mut child);
        let mut current: Option<String> = None;
        let mut touched = None;
        let hangs = loop {
            let limit = self.limit.min(deadline.saturating_duration_since(Instant::now()));
            match messages.recv_timeout(limit) {
                Ok(Message::Begins(subject)) => {
                    report.begins(&subject);
                    current = Some(subject);
                }
                Ok(Message::LeftOut(subject)) => {
                    *n_checks += 1;
                    report.left_out(&subject);
                }
                Ok(Message::Ends(subject, outcome)) => {
                    *n_checks += 1;
                    current = None;
                    report.ended(&subject, outcome)?;
                }
                Ok(Message::Touched(fault, sentence)) => touched = Some((fault, sentence)),
                Ok(Message::Done) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Ok(End::Done);
                }
                Err(RecvTimeoutError::Timeout) => break true,
                Err(RecvTimeoutError::Disconnected) => break false,
            }
        };
        if hangs {
            let _ = child.kill();
        }
        let failed = |error| Failure::Failed(format!("the process for the checks is lost: {error}"));
        let status = child.wait().map_err(failed)?;
        let Some(subject) = current else { return Ok(End::Early(status)) };
        let outcome = match (hangs, touched) {
            (true, _) => {
                let seconds = self.limit.as_secs();
                Ended::Failed(Fault::Hangs.name().to_owned(), format!("it didn't return within {seconds} s"))
            }
            (false, Some((fault, sentence))) => Ended::Failed(fault, sentence),
            (false, None) => of_status(status),
        };
        Ok(End::Of(subject, outcome))
    }

    fn start(&self, skip: usize, given_up: &[&str]) -> Result<Child, Failure> {
        let failed = |error: std::io::Error| {
            Failure::Failed(format!("a process for the checks can't be started: {error}"))
        };
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        if self.allow_insecure {
            command.arg("--allow-insecure-plugins");
        }
        for plugin in self.plugins {
            command.arg("--plugin").arg(plugin);
        }
        match self.verbose {
            0 => drop(command.arg("--quiet")),
            1.. => drop(command.arg(format!("-{}", "v".repeat(self.verbose.into())))),
        }
        command.args(["plugin", "worker", "--skip", &skip.to_string()]);
        for part in self.parts {
            command.args(["--only", part.name()]);
        }
        for group in given_up {
            command.args(["--without", group]);
        }
        command.arg("--").arg(self.file);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)
    }
}

/// The messages of a process, read as they come: the channel ends with its stdout.
fn receive(child: &mut Child) -> Receiver<Message> {
    let (sender, receiver) = mpsc::channel();
    if let Some(lines) = child.stdout.take() {
        std::thread::spawn(move || {
            // A line that is no message was written by somebody else, if it was written whole.
            let lines = BufReader::new(lines).lines().map_while(Result::ok);
            for message in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

/// What a process's end says about the check that it was making.
fn of_status(status: ExitStatus) -> Ended {
    if let Some(cause) = system::cause(status) {
        let sentence = format!("it ended the process by {cause}");
        return Ended::Failed(Fault::Crashes.name().to_owned(), sentence);
    }
    let code = status.code().map_or_else(String::new, |code| format!(" with code {code}"));
    Ended::Failed(Fault::Exits.name().to_owned(), format!("it exited the process{code}"))
}
