//! Trying a plugin that is new to this machine in a process of its own, before it is loaded into this one.
//!
//! A plugin's first calls are its author's code in the user's process: one that hangs there hangs every command, and one that
//! aborts ends every command, in both cases without a name. A child process loads and probes it first. What became of
//! the child says who it was.
//!
//! The child is the program `host`, started again (`host __probe-plugin FILE`). A program that embeds the library has no
//! such command, so an installed `host` of the same version does it; where there is none, the plugin is probed at once.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::known::KnownPlugins;
use super::load::CheckedFile;
use crate::folders;

/// The hidden command of `host` that [`probe_and_exit`] is behind.
pub const COMMAND: &str = "__probe-plugin";

/// The variable that turns the trial off.
const SWITCH: &str = "HERALD_PROBE";

/// What a child prints first, so that another program, or another version, is not taken for one.
const GREETING: &str = concat!("herald-probe ", env!("CARGO_PKG_VERSION"), "\n");

/// The exit code of a child whose plugin answered, whatever it answered: a number that nothing else uses.
const ANSWERED: i32 = 86;

/// What is said of a plugin that failed a while ago, and is not tried again now.
const REMEMBERED: &str = "that was less than an hour ago, and it is tried again after that, when its file changes, or after \
                          `host plugin check FILE`";

/// Children at once.
const AT_ONCE: usize = 4;

/// How plugins that are new to this machine are tried.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The program that is started; `None`: plugins are probed in this process at once.
    pub program: Option<PathBuf>,
    /// The folder where it is recorded what became of them; `None`: each is tried each time.
    pub record: Option<PathBuf>,
    /// How long a plugin may take.
    pub limit: Duration,
}

impl Default for Trial {
    /// None.
    fn default() -> Self {
        Self { program: None, record: None, limit: Duration::from_secs(5) }
    }
}

impl Trial {
    /// Trials by a program, unless the environment turns them off.
    #[must_use]
    pub fn by(program: Option<PathBuf>) -> Self {
        let is_off = std::env::var_os(SWITCH).is_some_and(|value| value == "off");
        Self { program: program.filter(|_| !is_off), record: folders::probed_plugins(), ..Self::default() }
    }

    /// Forgets that a plugin was refused, so that it is tried again when it is next looked for.
    pub fn forgive(&self, plugin: &Path) {
        if let Ok(path) = dunce::canonicalize(plugin) {
            let mut known = KnownPlugins::read(self.record.as_deref());
            known.forgive(&path);
            known.keep();
        }
    }

    /// Tries each of the files that needs it: `Err` with a sentence for those that may not be loaded here.
    pub(super) fn run(&self, files: &[&CheckedFile]) -> Vec<Result<(), String>> {
        let mut results: Vec<Result<(), String>> = files.iter().map(|_| Ok(())).collect();
        let Some(program) = &self.program else { return results };
        let mut known = KnownPlugins::read(self.record.as_deref());
        let mut new = Vec::new();
        for (index, file) in files.iter().enumerate().filter(|(_, file)| !file.is_loaded()) {
            match known.failure(file) {
                Some(reason) => results[index] = Err(format!("{reason}; {REMEMBERED}")),
                None if known.has(file) => {}
                None => new.push(index),
            }
        }
        for some in new.chunks(AT_ONCE) {
            let children: Vec<_> =
                some.iter().map(|index| (*index, Running::start(program, &files[*index].path))).collect();
            for (index, child) in children {
                match child.and_then(|child| child.outcome(self.limit)) {
                    Ok(Outcome::Answered) => known.add(files[index]),
                    Ok(Outcome::Failed(sentence)) => {
                        known.add_failure(files[index], &sentence);
                        results[index] = Err(sentence);
                    }
                    Err(reason) => {
                        tracing::debug!("{}: no trial: {reason}", files[index].path.display());
                    }
                }
            }
        }
        known.keep();
        results
    }
}

/// The program that tries plugins for a library in `folder`: beside it, or in `bin` of the same prefix, where another `host` may
/// be that asks name servers.
pub(super) fn installed_program(folder: &Path) -> Option<PathBuf> {
    let [installed, built] = ["herald", "host"].map(|name| format!("{name}{}", std::env::consts::EXE_SUFFIX));
    let beside = [folder.join(&installed), folder.join(built)];
    let found = beside.into_iter().chain(folder.parent().map(|prefix| prefix.join("bin").join(installed)));
    let trusted = |program: &PathBuf| program.is_file() && herald_trusted_files::check(program).is_ok();
    found.into_iter().find(trusted)
}

/// How a trial ended.
enum Outcome {
    /// With an answer.
    Answered,
    /// Without one, as a sentence.
    Failed(String),
}

/// A child at work.
struct Running {
    child: Child,
    started: Instant,
}

impl Running {
    fn start(program: &Path, plugin: &Path) -> Result<Self, String> {
        let mut command = Command::new(program);
        command.arg(COMMAND).arg(plugin);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(Self { child, started: Instant::now() })
    }

    /// Waits for the end. The error says why the child doesn't count.
    fn outcome(mut self, limit: Duration) -> Result<Outcome, String> {
        let mut pause = Duration::from_micros(200);
        let status = loop {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                break Some(status);
            }
            if self.started.elapsed() >= limit {
                break None;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        if status.is_none() {
            // Also waits, so that no zombie is left.
            self.child.kill().map_err(|error| error.to_string())?;
            self.child.wait().map_err(|error| error.to_string())?;
        }
        // The child has closed its end: it goes before the plugin is loaded.
        let mut greeting = vec![0; GREETING.len()];
        let said = self.child.stdout.as_mut().map(|out| out.read_exact(&mut greeting));
        if !matches!(said, Some(Ok(()))) || greeting != GREETING.as_bytes() {
            return Err("the program can't try plugins, or is of another version".to_owned());
        }
        let expected = format!("where an answer within {} s was expected", limit.as_secs_f32());
        Ok(match status {
            Some(status) if status.code() == Some(ANSWERED) => Outcome::Answered,
            Some(status) => {
                Outcome::Failed(format!("its probe ended the process {}, {expected}", cause(status)))
            }
            None => Outcome::Failed(format!("its probe gave no answer, {expected}")),
        })
    }
}

fn cause(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("by {}", signal_name(signal));
    }
    status.code().map_or_else(|| "without an exit code".to_owned(), |code| format!("with exit code {code}"))
}

/// A signal's name, or its number where few have met it.
#[cfg(unix)]
fn signal_name(signal: i32) -> String {
    let known = [
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGSYS, "SIGSYS"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGXCPU, "SIGXCPU"),
    ];
    let name = known.iter().find(|(number, _)| *number == signal);
    name.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

/// The child's part: loads and probes the plugin, and ends the process as [`Trial`] expects it. What the plugin answers
/// doesn't count here: the parent asks it once more.
pub fn probe_and_exit(plugin: &Path) -> ! {
    let mut out = std::io::stdout().lock();
    if out.write_all(GREETING.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
    drop(out);
    leave_the_parent();
    // The parent has checked whose file it is.
    if let Ok(plugin) = CheckedFile::open(plugin, true).and_then(CheckedFile::load) {
        let _ = plugin.probe(&super::this_machine());
    }
    std::process::exit(ANSWERED)
}

/// Lets the child end by itself, and silently.
#[cfg(not(unix))]
fn leave_the_parent() {
    #[cfg(windows)]
    crate::system::quiet_faults();
    // The parent may be killed while the plugin hangs.
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(10));
        std::process::abort()
    });
}

/// Lets the child end by itself, silently, and without a core file.
#[cfg(unix)]
fn leave_the_parent() {
    use std::os::fd::AsRawFd;

    if let Ok(nowhere) = std::fs::File::options().write(true).open("/dev/null") {
        // SAFETY: both are open descriptors. The parent then sees the end of what the child says, even if a plugin leaves a
        // process behind.
        unsafe { libc::dup2(nowhere.as_raw_fd(), libc::STDOUT_FILENO) };
    }
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: it reads the struct. Where it fails, there may be a core file.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) };
    // The parent may be killed while the plugin hangs.
    // SAFETY: without a handler, the signal ends the process.
    unsafe { libc::alarm(10) };
}
