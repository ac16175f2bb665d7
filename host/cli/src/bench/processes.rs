//! Runs benchmarks in child processes, so that none counts another's memory, and a plugin that crashes or is too slow costs
//! no more than its own results.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use herald::agreement::Sample;
use herald_suites::{Benchmark, Conversations, Effort, Measurement, Suite};
use serde::Deserialize;

use super::worker::{self, Message};
use crate::failure::Failure;
use crate::interrupt::Lookout;

/// How often a process that says nothing is looked after.
const PAUSE: Duration = Duration::from_millis(50);

/// How the processes of one backend are started.
pub(super) struct Processes<'a> {
    /// The program's options (see `EngineOptions::arguments`).
    pub(super) arguments: Vec<OsString>,
    pub(super) effort: Effort,
    pub(super) synthetic: bool,
    /// How long they may take in all.
    pub(super) limit: Duration,
    /// When that is over.
    pub(super) deadline: Instant,
    pub(super) lookout: &'a Lookout,
}

/// A benchmark's measurement or why there is none, and seconds.
pub(super) type Found = (Result<Measurement, String>, f64);

/// A child, ended and waited for when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail where it has ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a wait ended.
enum Waited<T> {
    For(T),
    /// Until the deadline.
    TooLong,
}

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
                if Instant::now() >= self.deadline {
                    left.drain(..).for_each(|lost| ended(lost, (Err(self.too_slow()), 0.0)));
                    break;
                }
                self.process(suite, &mut left, begun, ended)?;
            }
        }
        Ok(())
    }

    fn too_slow(&self) -> String {
        format!("the backend is too slow: its {} s (--time-limit) are over", self.limit.as_secs())
    }

    /// Runs one process. It removes the benchmarks that it has done from `left`, at least one.
    fn process(
        &self,
        suite: Suite,
        left: &mut VecDeque<&'static Benchmark>,
        begun: &mut dyn FnMut(&'static Benchmark),
        ended: &mut dyn FnMut(&'static Benchmark, Found),
    ) -> Result<(), Failure> {
        let mut command = self.worker()?;
        command.args(["--suite", suite.name()]);
        match self.effort {
            Effort::Quick => drop(command.arg("--quick")),
            Effort::Full => drop(command.arg("--full")),
            Effort::Usual => {}
        }
        if self.synthetic {
            command.arg("--synthetic");
        }
        command.args(left.iter().map(|benchmark| benchmark.name));
        let mut process = Process(command.stdout(Stdio::piped()).spawn().map_err(failed)?);
        let lines = lines(&mut process.0);
        let mut unexpected = None;
        let too_slow = loop {
            let line = match self.wait_for_line(&lines)? {
                Waited::For(Some(line)) => line,
                Waited::For(None) => break false,
                Waited::TooLong => break true,
            };
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
        };
        if too_slow {
            if let Some(lost) = left.pop_front() {
                ended(lost, (Err(self.too_slow()), 0.0));
            }
            return Ok(());
        }
        let Waited::For(status) = self.wait(&mut process.0, self.deadline)? else { return Ok(()) };
        if let Some(lost) = left.pop_front() {
            let printed = unexpected.map_or(String::new(), |line| format!(", and printed {line:?}"));
            ended(lost, (Err(format!("its process ended without a result ({}){printed}", of(status))), 0.0));
        }
        Ok(())
    }

    /// What the backend computes, and how long that took; or why it says nothing.
    pub(super) fn sample(
        &self,
        file: &Path,
        limit: Duration,
    ) -> Result<Result<(Sample, Duration), String>, Failure> {
        let mut command = self.worker()?;
        let start = Instant::now();
        command.arg("--sample").arg(file).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = Process(command.spawn().map_err(failed)?);
        let said = said(&mut child.0);
        let Waited::For(status) = self.wait(&mut child.0, start + limit)? else {
            return Ok(Err(format!(
                "it is too slow: it computed a prompt of 72 tokens in no less than {} s",
                limit.as_secs()
            )));
        };
        if status.success() {
            return Ok(worker::read_sample(file).map(|sample| (sample, start.elapsed())));
        }
        // The program's own sentence, where it lived to say one.
        let said = said.recv().unwrap_or_default();
        let sentence = said.lines().find_map(|line| line.strip_prefix("error: ")).map(str::to_owned);
        Ok(Err(sentence.unwrap_or_else(|| format!("its process ended without a result ({})", of(status)))))
    }

    /// What conversations cost, of which the longest have so many turns and tokens; `None` where that can't be measured in time.
    pub(super) fn conversations(
        &self,
        [turns, tokens, conversations]: [u32; 3],
    ) -> Result<Option<Vec<Conversations>>, Failure> {
        /// As `host bench agents` prints it.
        #[derive(Deserialize)]
        struct Said {
            scenarios: Vec<Conversations>,
        }

        let mut command = Command::new(env::current_exe().map_err(failed)?);
        command.args(&self.arguments).args(["--quiet", "bench", "agents", "--json"]).stdin(Stdio::null());
        for (name, value) in [("--turns", turns), ("--tokens", tokens), ("--conversations", conversations)] {
            command.arg(name).arg(value.to_string());
        }
        let mut process = Process(command.stdout(Stdio::piped()).spawn().map_err(failed)?);
        let lines = lines(&mut process.0);
        let mut text = String::new();
        loop {
            match self.wait_for_line(&lines)? {
                Waited::For(Some(line)) => text.push_str(&line),
                Waited::For(None) => break,
                Waited::TooLong => return Ok(None),
            }
        }
        Ok(serde_json::from_str(&text).ok().map(|said: Said| said.scenarios))
    }

    fn worker(&self) -> Result<Command, Failure> {
        let mut command = Command::new(env::current_exe().map_err(failed)?);
        command.args(&self.arguments).args(["bench", "worker"]).stdin(Stdio::null());
        Ok(command)
    }

    /// The next line, `None` at the end.
    fn wait_for_line(&self, lines: &Receiver<String>) -> Result<Waited<Option<String>>, Failure> {
        loop {
            match lines.recv_timeout(PAUSE) {
                Ok(line) => return Ok(Waited::For(Some(line))),
                Err(RecvTimeoutError::Disconnected) => return Ok(Waited::For(None)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.is_over(self.deadline)? {
                return Ok(Waited::TooLong);
            }
        }
    }

    fn wait(&self, child: &mut Child, deadline: Instant) -> Result<Waited<ExitStatus>, Failure> {
        loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                // An interruption ends the child too.
                self.is_over(deadline)?;
                return Ok(Waited::For(status));
            }
            if self.is_over(deadline)? {
                return Ok(Waited::TooLong);
            }
            std::thread::sleep(PAUSE / 5);
        }
    }

    fn is_over(&self, deadline: Instant) -> Result<bool, Failure> {
        if self.lookout.go_on() { Ok(Instant::now() >= deadline) } else { Err(Failure::Interrupted) }
    }
}

fn failed(error: std::io::Error) -> Failure {
    Failure::Failed(format!("a process for benchmarks can't be started: {error}"))
}

/// What a child prints, line by line, until its end.
fn lines(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(out) = child.stdout.take() {
        std::thread::spawn(move || {
            let lines = BufReader::new(out).lines().map_while(Result::ok);
            lines.map(|line| sender.send(line)).take_while(Result::is_ok).for_each(drop);
        });
    }
    receiver
}

/// All that a child says on stderr, at its end.
fn said(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(err) = child.stderr.take() {
        std::thread::spawn(move || {
            let lines: Vec<String> = BufReader::new(err).lines().map_while(Result::ok).take(100).collect();
            let _ = sender.send(lines.join("\n"));
        });
    }
    receiver
}

fn of(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("signal {signal}");
    }
    status.code().map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"))
}
