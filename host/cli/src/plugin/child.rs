//! `host plugin worker`: the process that runs the checks, for [`super::watch`]. It says in lines of JSON what it is about to
//! check, and what came of it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use clap::Args;
use herald::plugin::{Search, load_file, this_machine};
use herald_api::import::Plugin;
use herald_conformance::{Fault, Finding, Observer, Outcome, Sink, Violation};
use serde::{Deserialize, Serialize};

use super::check::PartName;
use crate::failure::Failure;
use crate::options::EngineOptions;
use crate::system;

/// The most address space that a plugin gets to be checked in.
const MEMORY_BYTES: u64 = 8 << 30;

/// Run the checks in this process
#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// The plugin's library
    file: PathBuf,
    /// Check only these parts of it
    #[arg(long)]
    only: Vec<PartName>,
    /// Leave out so many checks from the first on
    #[arg(long, default_value_t = 0)]
    skip: usize,
    /// Leave out every check whose group has this name
    #[arg(long)]
    without: Vec<String>,
}

/// A line from the process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// This check begins.
    Begins(String),
    /// This check is left out.
    LeftOut(String),
    /// This check has ended.
    Ends(String, Ended),
    /// The plugin touched memory that wasn't its own: the fault's name, and a sentence. The process is about to end.
    Touched(String, String),
    /// Every check has ended.
    Done,
}

/// What came of a check.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ended {
    Passed(String),
    Failed(String, String),
    Skipped(String),
}

impl From<Outcome> for Ended {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Passed(figure) => Self::Passed(figure),
            Outcome::Failed(fault, sentence) => Self::Failed(fault.name().to_owned(), sentence),
            Outcome::Skipped(why) => Self::Skipped(why),
        }
    }
}

/// Sends what happens to the parent.
struct Sender {
    to: &'static File,
    skip: usize,
    without: Vec<String>,
    n_checks: usize,
}

impl Sender {
    fn send(&mut self, message: &Message) {
        let line = serde_json::to_string(message).unwrap_or_default() + "\n";
        // Where the parent is gone, nobody is interested.
        if self.to.write_all(line.as_bytes()).is_err() {
            std::process::exit(1);
        }
    }
}

impl Observer for Sender {
    fn begins(&mut self, subject: &str) -> bool {
        self.n_checks += 1;
        if self.n_checks <= self.skip {
            return false;
        }
        let left_out = self.without.iter().any(|group| group == group_of(subject));
        let message = if left_out { Message::LeftOut } else { Message::Begins };
        self.send(&message(subject.to_owned()));
        !left_out
    }

    fn ends(&mut self, finding: Finding) {
        self.send(&Message::Ends(finding.subject, finding.outcome.into()));
    }
}

/// A check's group: its subject up to the first comma.
pub(super) fn group_of(subject: &str) -> &str {
    subject.split(',').next().unwrap_or(subject)
}

/// The check of loading, which everything else needs.
pub(super) const LOAD: &str = "load";

/// Where results go.
static PARENT: OnceLock<File> = OnceLock::new();

impl Worker {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let unwritten = |error| Failure::Failed(format!("the results can't be written: {error}"));
        let taken = system::take_stdout().map_err(unwritten)?;
        let to = PARENT.get_or_init(|| taken);
        system::bound_process(MEMORY_BYTES);
        herald_conformance::report_faults(on_fault);
        let reference = reference(&options.search())?;
        let mut sender = Sender { to, skip: self.skip, without: self.without, n_checks: 0 };
        let mut sink = Sink::new(&mut sender).alone();
        let load = || load_file(&self.file, options.allow_insecure_plugins);
        let mut plugin = None;
        sink.check(LOAD, || match load() {
            Ok(loaded) => {
                let found = format!("{} {}", loaded.name(), loaded.version());
                plugin = Some(loaded);
                Outcome::Passed(found)
            }
            Err(refused) => {
                let what = format!("{}: {}", refused.path.display(), refused.reason);
                Outcome::Failed(Fault::Refused, what)
            }
        });
        // A process that goes on after another leaves the check out, and needs the plugin all the same.
        let plugin = if self.skip > 0 { load().ok() } else { plugin };
        if let Some(plugin) = plugin
            && herald_conformance::check_probe(&plugin, &this_machine(), &mut sink)
        {
            herald_conformance::check(&plugin, &reference, &PartName::parts(&self.only), &mut sink);
        }
        sender.send(&Message::Done);
        // The plugin's own threads and destructors have nothing to say any more.
        std::process::exit(0);
    }
}

/// The plugin that results are compared with: one of those that `--plugin` names, or in the usual folders.
fn reference(search: &Search) -> Result<Plugin, Failure> {
    let name = format!("{}herald_cpu{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let named = search.files.iter().filter(|file| file.file_name() == Some(OsStr::new(&name))).cloned();
    let mut files = named.chain(search.folders().iter().map(|folder| folder.join(&name)));
    let file = files.find(|file| file.is_file()).ok_or_else(|| {
        let folders: Vec<String> =
            search.folders().iter().map(|folder| folder.display().to_string()).collect();
        Failure::Failed(format!(
            "{name}, with whose results a plugin's are compared, is in none of the folders for plugins: {}",
            folders.join(", ")
        ))
    })?;
    load_file(&file, search.allow_insecure).map_err(|refused| {
        Failure::Failed(format!(
            "{}, with whose results a plugin's are compared: {}",
            refused.path.display(),
            refused.reason
        ))
    })
}

/// Writes a [`Message::Touched`], from a signal handler: without memory of its own.
fn on_fault(violation: &Violation) {
    let mut line = Line { bytes: [0; 512], len: 0 };
    // The sentence is of plain words and numbers, which JSON takes as they are.
    let _ = writeln!(line, "{{\"Touched\":[\"{}\",\"{violation}\"]}}", violation.fault());
    if let Some(parent) = PARENT.get() {
        system::write_from_handler(parent, &line.bytes[..line.len]);
    }
}

/// A text in place.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
