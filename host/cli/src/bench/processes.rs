//! Runs benchmarks in child processes, so that none counts another's memory, and a crashing plugin costs one benchmark.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};

use herald_suites::{Benchmark, Effort, Measurement, Suite};

use super::worker::Message;
use crate::failure::Failure;
use crate::interrupt::Lookout;

/// How the processes are started.
pub(super) struct Processes<'a> {
    /// The program's options (see `EngineOptions::arguments`).
    pub(super) arguments: Vec<OsString>,
    pub(super) effort: Effort,
    pub(super) synthetic: bool,
    pub(super) lookout: &'a Lookout,
}

/// A benchmark's measurement or why there is none, and seconds.
pub(super) type Found = (Result<Measurement, String>, f64);

impl Processes<'_> {
    /// Runs a suite: benchmarks that need a fresh process in one each, the others in one. Calls `begun` and `ended` for each.
    pub(super) fn run(
        &self,
        suite: Suite,
        begun: &mut dyn FnMut(&'static Benchmark),
        ended: &mut dyn FnMut(&'static Benchmark, Found),
    ) -> Result<(), Failure> {
        let (fresh, shared): (Vec<_>, Vec<_>) =
            suite.benchmarks().iter().partition(|benchmark| benchmark.fresh);
        let mut groups: Vec<Vec<&'static Benchmark>> = fresh.into_iter().map(|one| vec![one]).collect();
        groups.push(shared);
        for group in groups {
            let mut left: VecDeque<_> = group.into();
            // A process that dies loses one benchmark; the next process does the rest.
            while !left.is_empty() {
                self.process(suite, &mut left, begun, ended)?;
            }
        }
        Ok(())
    }

    /// Runs one process. It removes the benchmarks that it has done from `left`, at least one.
    fn process(
        &self,
        suite: Suite,
        left: &mut VecDeque<&'static Benchmark>,
        begun: &mut dyn FnMut(&'static Benchmark),
        ended: &mut dyn FnMut(&'static Benchmark, Found),
    ) -> Result<(), Failure> {
        let failed = |error: std::io::Error| {
            Failure::Failed(format!("a process for benchmarks can't be started: {error}"))
        };
        let mut command = Command::new(env::current_exe().map_err(failed)?);
        command.args(&self.arguments).args(["bench", "worker", "--suite", suite.name()]);
        match self.effort {
            Effort::Quick => drop(command.arg("--quick")),
            Effort::Full => drop(command.arg("--full")),
            Effort::Usual => {}
        }
        if self.synthetic {
            command.arg("--synthetic");
        }
        command.args(left.iter().map(|benchmark| benchmark.name));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let mut unexpected = None;
        if let Some(lines) = child.stdout.take() {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                match (serde_json::from_str(&line), left.front().copied()) {
                    (Ok(Message::Begun(name)), Some(next)) if name == next.name => begun(next),
                    (Ok(Message::Ended(name, found, seconds)), Some(next)) if name == next.name => {
                        left.pop_front();
                        ended(next, (found, seconds));
                    }
                    _ => {
                        unexpected.get_or_insert(line);
                    }
                }
            }
        }
        let status = child.wait().map_err(failed)?;
        if !self.lookout.go_on() {
            return Err(Failure::Interrupted);
        }
        if let Some(lost) = left.pop_front() {
            let printed = unexpected.map_or(String::new(), |line| format!(", and printed {line:?}"));
            ended(lost, (Err(format!("its process ended without a result ({}){printed}", of(status))), 0.0));
        }
        Ok(())
    }
}

fn of(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("signal {signal}");
    }
    status.code().map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"))
}
