//! `host gguf hash`: what tells a model's files and tensors from others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::PathBufValueParser;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::arguments::Listed;
use crate::failure::Failure;
use crate::interrupt::Lookout;
use crate::options::EngineOptions;
use crate::{output, progress, store};

/// Print the SHA-256 of a model's files and of each of its tensors, or compare them with such a list
#[derive(Debug, Args)]
#[command(
    after_help = "A tensor's digest is that of its bytes, so it stays the same when a file is split, merged or given other metadata. A
file's line is as sha256sum writes it; a tensor's has its name behind a colon.

Examples:
  host gguf hash model.gguf > model.sha256
  host gguf hash model.gguf --check model.sha256"
)]
pub(crate) struct Hash {
    /// The model: a GGUF file (of a split model, the first part), or a name that `host pull` knows
    #[arg(value_name = "PATH|NAME", value_parser = Listed::new(PathBufValueParser::new(), store::values), hide_possible_values = true)]
    file: PathBuf,
    /// Compare with the list in this file, and fail where something differs
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Names and digests in the model's order: of files, and of tensors.
struct Digests {
    files: Vec<(String, String)>,
    /// Each with the index of its file.
    tensors: Vec<(usize, String, String)>,
}

impl Hash {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let expected = self.check.as_deref().map(read_list).transpose()?;
        let path = store::file(&self.file, options.quiet)?;
        let digests = digests(&path, options.quiet)?;
        match (&self.check, expected) {
            (Some(list), Some(expected)) => self.compare(&digests, list, expected),
            _ => self.print(&digests),
        }
    }

    fn print(&self, digests: &Digests) -> Result<(), Failure> {
        if self.json {
            let files: Vec<_> =
                digests.files.iter().map(|(name, digest)| json!({"file": name, "sha256": digest})).collect();
            let tensor = |(file, name, digest): &(usize, String, String)| json!({"file": digests.files[*file].0, "tensor": name, "sha256": digest});
            let tensors: Vec<_> = digests.tensors.iter().map(tensor).collect();
            return output::json(&json!({"files": files, "tensors": tensors}));
        }
        for (name, digest) in &digests.files {
            output::line(format_args!("{digest}  {name}"))?;
        }
        for (file, name, digest) in &digests.tensors {
            output::line(format_args!("{digest}  {}:{name}", digests.files[*file].0))?;
        }
        Ok(())
    }

    /// Says what differs from the list. Of tensors only the names count: the file may be another.
    fn compare(
        &self,
        digests: &Digests,
        list: &Path,
        mut expected: BTreeMap<String, String>,
    ) -> Result<(), Failure> {
        let files = digests.files.iter().map(|(name, digest)| (name.clone(), digest));
        let tensors = digests.tensors.iter().map(|(_, name, digest)| (format!(":{name}"), digest));
        let (mut differing, mut equal) = (Vec::new(), 0);
        for (name, digest) in files.chain(tensors) {
            match expected.remove(&name) {
                Some(listed) if listed == *digest => equal += 1,
                Some(_) => differing.push(name),
                None => {}
            }
        }
        let is_tensor = |name: &&String| name.starts_with(':');
        let missing: Vec<&String> = expected.keys().filter(is_tensor).collect();
        if self.json {
            output::json(&json!({
                "ok": differing.is_empty() && missing.is_empty() && equal > 0,
                "equal": equal,
                "differing": differing.iter().map(|name| shown(name)).collect::<Vec<_>>(),
                "missing": missing.iter().map(|name| shown(name)).collect::<Vec<_>>(),
            }))?;
        }
        let sentence = match (differing.first(), missing.first()) {
            (Some(name), _) => {
                format!(
                    "{} of {} digests differ from {}'s, that of {} first",
                    differing.len(),
                    differing.len() + equal,
                    list.display(),
                    shown(name)
                )
            }
            (None, Some(name)) => {
                format!("{} tensors of {} are missing, {} first", missing.len(), list.display(), shown(name))
            }
            (None, None) if equal == 0 => {
                format!(
                    "{}: it lists nothing that the model has, where its files and tensors were expected",
                    list.display()
                )
            }
            _ if self.json => return Ok(()),
            _ => return output::line(format_args!("{equal} digests are equal")),
        };
        Err(Failure::Failed(format!("{}: {sentence}", self.file.display())))
    }
}

/// A list's name as a person reads it.
fn shown(name: &str) -> &str {
    name.strip_prefix(':').unwrap_or(name)
}

/// The digests of a list by name: a file's own, a tensor's behind a colon.
fn read_list(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let text = fs::read_to_string(path).map_err(|error| Failure::file(path, "it can't be read", &error))?;
    let mut found = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let entry = line
            .split_once(|space: char| space.is_whitespace())
            .filter(|(digest, _)| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let Some((digest, name)) = entry else {
            return Err(Failure::Failed(format!(
                "{}: line {} is {line:?}, where a SHA-256 and a name were expected",
                path.display(),
                number + 1
            )));
        };
        // sha256sum marks files that it read as bytes with a star.
        let name = name.trim_start().trim_start_matches('*');
        // A file may have any name; a letter before a colon is a Windows drive.
        let of_tensor = name.split_once(".gguf:").or_else(|| {
            name.split_once(':').filter(|(file, tensor)| file.len() > 1 && !tensor.ends_with(".gguf"))
        });
        let name = match of_tensor {
            Some((_, tensor)) => format!(":{tensor}"),
            None => name.rsplit(['/', '\\']).next().unwrap_or(name).to_owned(),
        };
        found.insert(name, digest.to_ascii_lowercase());
    }
    Ok(found)
}

fn digests(path: &Path, quiet: bool) -> Result<Digests, Failure> {
    let gguf = super::opened(path)?;
    let tensor_bytes: u64 = gguf.tensors().map(|info| info.bytes() as u64).sum();
    let bar = progress::weighted(gguf.file_bytes() + tensor_bytes, quiet);
    let lookout = Lookout::begin();
    let mut digests = Digests { files: Vec::new(), tensors: Vec::new() };
    let go_on = |bytes: usize| {
        bar.inc(bytes as u64);
        if lookout.go_on() { Ok(()) } else { Err(Failure::Interrupted) }
    };
    for path in gguf.paths() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        digests.files.push((name, of_file(path, &go_on)?));
    }
    for info in gguf.tensors() {
        let mut digest = Sha256::new();
        for piece in gguf.bytes(info).chunks(1 << 22) {
            digest.update(piece);
            go_on(piece.len())?;
        }
        gguf.give_back(info);
        digests.tensors.push((info.part(), info.name().to_owned(), store::hexadecimal(&digest.finalize())));
    }
    bar.finish_and_clear();
    Ok(digests)
}

fn of_file(path: &Path, go_on: &dyn Fn(usize) -> Result<(), Failure>) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::file(path, "it can't be read", &error);
    let mut file = File::open(path).map_err(failed)?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let len = file.read(&mut buffer).map_err(failed)?;
        if len == 0 {
            return Ok(store::hexadecimal(&digest.finalize()));
        }
        digest.update(&buffer[..len]);
        go_on(len)?;
    }
}
