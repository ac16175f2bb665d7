//! For `cargo test`: every check in this process, beside the reference, and one panic with all that failed.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use herald_api::Hardware;
use herald_api::abi::ENTRY_SYMBOL;
use herald_api::import::{Entry, Plugin};
use libloading::Library;

use crate::{Finding, Observer, Outcome, Part, Sink, Violation, check, check_probe, report_faults};

/// How long one check may take. It separates what ends from what hangs, on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(120);

/// Tells a process which of the checks are its own: "1/2" is the second of two processes.
const SHARE: &str = "HERALD_CONFORMANCE_SHARE";

/// Processes that [`assert_conforms_in_processes`] deals the checks out to.
const PROCESSES: usize = 2;

/// Checks everything that a plugin offers, beside the reference backend, which this crate brings along.
///
/// One that says that it can't run on this machine passes. A plugin that crashes ends the test's process, and one that hangs has it ended; both are said on stderr first, with the
/// check. `host plugin check` makes these checks in a process of their own, and goes on after such a one.
///
/// ```no_run
/// use herald_api::import::Plugin;
/// # unsafe extern "C" fn herald_plugin_v1() -> *const herald_api::abi::HeraldPlugin { std::ptr::null() }
///
/// // SAFETY: it is this crate's own entry, which export_plugin! made.
/// let plugin = unsafe { Plugin::load(herald_plugin_v1, Box::new(()), |_, _| {}) };
/// herald_conformance::assert_conforms(&plugin.expect("the plugin loads"));
/// ```
///
/// # Panics
/// Where a check fails, with every one that did.
pub fn assert_conforms(plugin: &Plugin) {
    assert_parts_conform(plugin, &Part::ALL);
}

/// As [`assert_conforms`], of these parts only.
///
/// # Panics
/// As [`assert_conforms`].
pub fn assert_parts_conform(plugin: &Plugin, parts: &[Part]) {
    assert_share_conforms(plugin, parts, Share::ALL);
}

/// As [`assert_conforms`], in processes that run at once: each check touches memory that nobody may, and sees what the process
/// has, so threads can't share them out. `test` is the name of the test that calls this, which is run again in two processes
/// for each of `environments`; each sets these variables, and makes every other check.
///
/// # Panics
/// As [`assert_conforms`].
pub fn assert_conforms_in_processes(
    test: &str,
    environments: &[&[(&str, &str)]],
    plugin: impl FnOnce() -> Plugin,
) {
    if let Some(share) = Share::of_this_process() {
        return assert_share_conforms(&plugin(), &Part::ALL, share);
    }
    let begin = |variables: &[(&str, &str)], index: usize| -> (String, Child) {
        let share = format!("{index}/{PROCESSES}");
        let mut command = Command::new(std::env::current_exe().expect("a test knows its own path"));
        command.args(["--exact", test]).env(SHARE, &share).envs(variables.iter().copied());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        (format!("{variables:?}, {share}"), command.spawn().expect("it can be run"))
    };
    let running: Vec<(String, Child)> = environments
        .iter()
        .flat_map(|variables| (0..PROCESSES).map(|index| begin(variables, index)))
        .collect();
    for (name, child) in running {
        let output = child.wait_with_output().expect("its output");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        // A name that no test has would be no failure.
        assert!(output.status.success() && text.contains("1 passed"), "{name}: {text}");
    }
}

/// Every `of`-th check, beginning with the one after `index` others.
#[derive(Clone, Copy)]
struct Share {
    index: usize,
    of: usize,
}

impl Share {
    const ALL: Self = Self { index: 0, of: 1 };

    fn of_this_process() -> Option<Self> {
        let share = std::env::var(SHARE).ok()?;
        let numbers =
            share.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((index, of)) if index < of => Some(Self { index, of }),
            _ => panic!("{SHARE} is {share:?}, where two numbers as in \"0/2\" were expected"),
        }
    }
}

fn assert_share_conforms(plugin: &Plugin, parts: &[Part], share: Share) {
    let reference = match reference() {
        Ok(reference) => reference,
        Err(why) => panic!("the reference can't be loaded: {why}"),
    };
    report_faults(say);
    let mut failures = Failures {
        failed: Vec::new(),
        passed: 0,
        begun: 0,
        share: Share::ALL,
        watchdog: watchdog(plugin.name().to_owned()),
    };
    // Each process needs to know whether the plugin runs here.
    if check_probe(plugin, &Hardware::features_only(), &mut Sink::new(&mut failures)) {
        failures.share = share;
        check(plugin, &reference, parts, &mut Sink::new(&mut failures));
    }
    let Failures { failed, passed, .. } = failures;
    let name = plugin.name();
    assert!(failed.is_empty(), "{name}: of {} checks failed:\n{}", passed + failed.len(), failed.join("\n"));
    assert!(passed > 0, "{name}: there was nothing to check");
}

/// Loads the reference backend. Linked into the test it would define the plugin's own entry a second time; but cargo builds its
/// library too, beside the tests of the crate that depends on this one.
fn reference() -> Result<Plugin, String> {
    let name = format!("{}herald_cpu{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let executable = std::env::current_exe().map_err(|error| error.to_string())?;
    let beside = |folder: PathBuf| [folder.join(&name), folder.join("deps").join(&name)];
    let files: Vec<PathBuf> =
        executable.ancestors().skip(1).take(2).flat_map(|folder| beside(folder.to_owned())).collect();
    let file = files.iter().find(|file| file.is_file()).ok_or_else(|| {
        format!("{name}, which cargo builds with herald-conformance, is not beside {}", executable.display())
    })?;
    // SAFETY: the library is the reference backend, which cargo built; its entry is a plugin's by its name.
    unsafe {
        let library = Library::new(file).map_err(|error| error.to_string())?;
        let entry = *library.get::<Entry>(ENTRY_SYMBOL).map_err(|error| error.to_string())?;
        Plugin::load(entry, Box::new(library), |_, _| {}).map_err(|error| error.to_string())
    }
}

/// Keeps what failed, and tells the watchdog what is being checked.
struct Failures {
    failed: Vec<String>,
    passed: usize,
    begun: usize,
    share: Share,
    watchdog: Sender<Option<String>>,
}

impl Observer for Failures {
    fn begins(&mut self, subject: &str) -> bool {
        let number = self.begun;
        self.begun += 1;
        if number % self.share.of != self.share.index {
            return false;
        }
        // Where there is no watchdog, the checks run without.
        let _ = self.watchdog.send(Some(subject.to_owned()));
        true
    }

    fn ends(&mut self, finding: Finding) {
        let _ = self.watchdog.send(None);
        match finding.outcome {
            Outcome::Failed(fault, sentence) => {
                self.failed.push(format!("{}: {fault}: {sentence}", finding.subject));
            }
            Outcome::Passed(_) => self.passed += 1,
            Outcome::Skipped(_) => {}
        }
    }
}

/// A thread that ends the process when a check takes too long. It is told of each check that begins, and of its end, and ends
/// with the other side.
fn watchdog(name: String) -> Sender<Option<String>> {
    let (sender, receiver) = mpsc::channel::<Option<String>>();
    std::thread::spawn(move || {
        let mut current: Option<String> = None;
        loop {
            match receiver.recv_timeout(LIMIT) {
                Ok(next) => current = next,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(subject) = &current {
                        eprintln!("{name}: {subject}: hangs: it didn't return within {} s", LIMIT.as_secs());
                        std::process::abort();
                    }
                }
            }
        }
    });
    sender
}

/// Says what a plugin touched, from a signal handler: without memory of its own.
fn say(violation: &Violation) {
    use std::io::Write;
    let mut bytes = [0; 512];
    let mut rest = &mut bytes[..];
    // A longer sentence is cut.
    let _ = writeln!(rest, "{}: {violation}", violation.fault());
    let left = rest.len();
    // What failed may have held stderr's lock, and the file itself has none.
    #[cfg(unix)]
    // SAFETY: the bytes are this function's own, and stderr is open, or the write fails.
    unsafe {
        libc::write(2, bytes.as_ptr().cast(), bytes.len() - left)
    };
    #[cfg(not(unix))]
    let _ = std::io::stderr().write_all(&bytes[..bytes.len() - left]);
}
