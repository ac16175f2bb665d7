//! The program from a user's side: what it prints where, its exit codes, and its error messages.

mod calibrate;
#[cfg(unix)]
mod chat;
mod commands;
mod convert;
mod docs;
mod faulty_plugins;
mod files;
mod gguf;
mod hostile;
mod hub;
#[cfg(unix)]
mod install;
mod kept;
#[cfg(unix)]
mod limits;
mod loras;
mod mistakes;
mod plugin_new;
#[cfg(unix)]
mod plugins;
mod self_check;
mod serve;
mod states;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use herald_testing::{cpu_plugin, simd_plugin, smollm2, tiny};
use serde_json::Value;
use tempfile::TempDir;

/// The program in a folder of its own: beside where it was built, other plugins may have been built too.
fn program() -> &'static Path {
    static ALONE: OnceLock<PathBuf> = OnceLock::new();
    ALONE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("alone");
        std::fs::create_dir_all(&folder).expect("a folder");
        let built = Path::new(env!("CARGO_BIN_EXE_host"));
        let alone = folder.join(built.file_name().expect("a name"));
        if alone.exists() {
            std::fs::remove_file(&alone).expect("an earlier run's goes");
        }
        std::fs::hard_link(built, &alone).expect("another name for the program");
        alone
    })
}

/// The program with the cpu plugin and an empty home folder.
pub(crate) fn host(home: &TempDir) -> Command {
    let mut command = Command::new(program());
    for variable in ["HERALD_MODEL", "HERALD_PLUGIN_PATH", "HERALD_CONFIG"] {
        command.env_remove(variable);
    }
    for variable in
        ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"]
    {
        command.env_remove(variable);
    }
    command.env("HERALD_BACKEND", "cpu");
    command.env("HOME", home.path()).env("XDG_CACHE_HOME", home.path().join("cache"));
    command.env("XDG_CONFIG_HOME", home.path().join("config")).env("XDG_DATA_HOME", home.path().join("data"));
    command.env("XDG_STATE_HOME", home.path().join("state")).arg("--allow-insecure-plugins");
    command.arg("--plugin").arg(cpu_plugin());
    command
}

/// The program with a real model, and with the simd plugin where that runs: scalar code takes ten times as long.
pub(crate) fn host_of_real_model(home: &TempDir) -> Command {
    let mut command = host(home);
    if let Some(plugin) = simd_plugin() {
        command.env("HERALD_BACKEND", "simd").arg("--plugin").arg(plugin);
    }
    command.arg("--model").arg(smollm2());
    command
}

pub(crate) fn home() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Runs the program with a tiny model.
pub(crate) fn on(model: &str, arguments: &[&str]) -> Assert {
    let home = home();
    host(&home).arg("--model").arg(tiny(model)).args(arguments).assert()
}

pub(crate) fn stdout(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stdout.clone()).expect("UTF-8")
}

pub(crate) fn stderr(assert: &Assert) -> String {
    String::from_utf8(assert.get_output().stderr.clone()).expect("UTF-8")
}

pub(crate) fn json(assert: &Assert) -> Value {
    serde_json::from_str(&stdout(assert)).expect("one JSON object")
}

/// Asserts a failure: exit code 1, nothing on stdout, and one error on stderr with these words.
#[track_caller]
pub(crate) fn fails(assert: Assert, words: &[&str]) {
    ends(assert, 1, words);
}

/// Asserts wrong usage: the same with exit code 2.
#[track_caller]
pub(crate) fn misused(assert: Assert, words: &[&str]) {
    ends(assert, 2, words);
}

#[track_caller]
pub(crate) fn ends(assert: Assert, code: i32, words: &[&str]) {
    let assert = assert.code(code);
    let said = stderr(&assert);
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    for word in words {
        assert!(errors[0].contains(word), "{said:?} does not say {word:?}");
    }
    assert_eq!(stdout(&assert), "");
}

pub(crate) const GREEDY: [&str; 6] = ["generate", "hello world", "-n", "8", "--ignore-eos", "--quiet"];
