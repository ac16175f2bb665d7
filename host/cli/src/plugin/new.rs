//! `host plugin new`: a small plugin to begin with, which builds, computes, and passes `host plugin check`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::templates::{self, Template};
use crate::failure::Failure;
use crate::output;

/// Write a small plugin that builds, computes and passes `host plugin check`
///
/// It is a whole plugin of few lines, to be grown: a layer, a tokenizer or a memory tier that is really computed. The folder of one in C or
/// C++ has a copy of herald_plugin.h, so that it needs nothing else. Files that are there already are never overwritten.
#[derive(Debug, Args)]
pub(crate) struct New {
    /// The plugin's name, by which --backend finds it: 1 to 64 of A-Z a-z 0-9 - _
    name: String,
    /// The folder to write it to [default: the name, in the working directory]
    folder: Option<PathBuf>,
    /// The language to write it in
    #[arg(long)]
    lang: Language,
    /// What the plugin offers
    #[arg(long, default_value = "layers")]
    kind: Kind,
    /// Rust: the folder of the crate herald-api [default: the installation's, or the checkout's that this program was built in]
    #[arg(long, value_name = "FOLDER", value_hint = clap::ValueHint::DirPath)]
    herald_api: Option<PathBuf>,
}

/// The languages that plugins are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    C,
    #[value(alias = "c++")]
    Cpp,
    Rust,
}

/// What a plugin offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// An engine layer: a gated MLP over F32 weights
    Layers,
    /// A tokenizer: the longest match
    Tokenizer,
    /// A memory tier: pages in RAM
    Tier,
}

/// Names that the host gives a meaning to, or that HERALD's own plugins have.
const TAKEN: [&str; 4] = ["auto", "cpu", "simd", "blas"];

impl New {
    pub(super) fn run(self) -> Result<(), Failure> {
        check_name(&self.name)?;
        let api = match self.lang {
            Language::Rust => api_crate(self.herald_api.as_deref())?,
            _ if self.herald_api.is_some() => {
                return Err(Failure::Usage("--herald-api is for --lang rust".to_owned()));
            }
            _ => None,
        };
        let template = Template { name: &self.name, language: self.lang, kind: self.kind };
        let folder = self.folder.clone().unwrap_or_else(|| PathBuf::from(&self.name));
        write(&folder, &template.files(api.as_deref()))?;
        output::line(format_args!("{}", folder.display()))?;
        let library = Path::new(template.build_folder()).join(template.library());
        output::note(format_args!(
            "next: cd {} && {} && host plugin check ./{}",
            templates::shell_word(&folder.display().to_string()),
            template.build_command(),
            library.display()
        ));
        if self.lang == Language::Rust && api.is_none() {
            output::note(
                "the crate herald-api was not found: say in Cargo.toml where it is (docs/PLUGINS.md has the choices)",
            );
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), Failure> {
    let wrong =
        |expected: String| Failure::Usage(format!("{name:?} is no name for a plugin, where {expected}"));
    if !(1..=64).contains(&name.len())
        || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    {
        return Err(wrong("1 to 64 of A-Z a-z 0-9 - _ were expected".to_owned()));
    }
    if TAKEN.contains(&name) {
        return Err(wrong(format!("one of its own was expected: HERALD uses {}", TAKEN.join(", "))));
    }
    Ok(())
}

/// Writes files into a folder, which is made if it isn't there. All of them, or, if any is there already, none.
fn write(folder: &Path, files: &[(&str, String)]) -> Result<(), Failure> {
    if let Some((name, _)) = files.iter().find(|(name, _)| folder.join(name).symlink_metadata().is_ok()) {
        let path = folder.join(name);
        return Err(Failure::Failed(format!(
            "{}: it is there already, and is not overwritten",
            path.display()
        )));
    }
    for (name, text) in files {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent)
            .map_err(|error| Failure::file(parent, "the folder can't be made", &error))?;
        create(&path, text).map_err(|error| Failure::file(&path, "it can't be written", &error))?;
    }
    Ok(())
}

/// Writes a file that must not be there.
fn create(path: &Path, text: &str) -> io::Result<()> {
    fs::File::create_new(path)?.write_all(text.as_bytes())
}

/// The folder of the crate herald-api: as the user says, or where an installation or a checkout has it.
fn api_crate(said: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    if let Some(folder) = said {
        if !is_api_crate(folder) {
            return Err(Failure::Failed(format!(
                "{}: it is not the folder of the crate herald-api, whose Cargo.toml was expected in it",
                folder.display()
            )));
        }
        let folder = dunce::canonicalize(folder);
        let wrong =
            |error: io::Error| Failure::file(said.unwrap_or(Path::new("")), "it can't be read", &error);
        return folder.map(Some).map_err(wrong);
    }
    let program = std::env::current_exe().and_then(dunce::canonicalize).unwrap_or_default();
    let installed = program.ancestors().nth(2).map(|prefix| prefix.join("share/herald/herald-api"));
    let checkouts = program.ancestors().skip(1).map(|folder| folder.join("herald-api"));
    Ok(installed.into_iter().chain(checkouts).find(|folder| is_api_crate(folder)))
}

fn is_api_crate(folder: &Path) -> bool {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    manifest.lines().any(|line| line.trim() == "name = \"herald-api\"")
}
