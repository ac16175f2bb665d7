//! `host plugin check` over plugins with one fault each, and over sound ones.

use std::path::{Path, PathBuf};
use std::process::Command as System;

use assert_cmd::Command;
use herald_testing::{compile, folder, repository, run, third_party};
use serde_json::Value;

use crate::home;

/// What a check said: its exit code, the faults of its summary, and all of its lines.
struct Said {
    code: Option<i32>,
    faults: Vec<String>,
    lines: Vec<Value>,
}

fn check(plugin: &Path, part: &str, timeout: u32) -> Said {
    let home = home();
    let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
    command
        .env("HOME", home.path())
        .env("HERALD_PLUGIN_PATH", herald_testing::cpu_plugin().parent().expect("a folder"));
    command.args(["--allow-insecure-plugins", "plugin", "check", "--json", "--only", part]);
    command.args(["--timeout", &timeout.to_string()]).arg(plugin);
    let output = command.output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let summary = lines.pop().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let faults = summary["faults"].as_array().unwrap_or_else(|| panic!("{summary}"));
    let faults = faults.iter().filter_map(|fault| Some(fault.as_str()?.to_owned())).collect();
    Said { code: output.status.code(), faults, lines }
}

/// The file of a faulty plugin's source.
fn source(name: &str) -> String {
    format!("backends/conformance/tests/faulty/{name}.c")
}

/// Checks that each macro of a source makes a plugin with exactly this fault.
fn each_is_named(name: &str, part: &str, timeout: u32, faults: &[(&str, &str)]) {
    let folder = folder();
    for (fault, expected) in faults {
        let said = check(&compile(&source(name), fault, folder.path()), part, timeout);
        let failed: Vec<&Value> = said.lines.iter().filter(|line| line["outcome"] == "failed").collect();
        assert_eq!(said.faults, [*expected], "{fault}: {failed:#?}");
        assert_eq!(said.code, Some(1), "{fault}");
    }
}

/// Checks that a plugin passes, and that something of it was checked.
fn passes(plugin: &Path, part: &str, at_least: usize) {
    let said = check(plugin, part, 60);
    let failed: Vec<&Value> = said.lines.iter().filter(|line| line["outcome"] == "failed").collect();
    assert_eq!(said.code, Some(0), "{}: {failed:#?}", plugin.display());
    let passed = said.lines.iter().filter(|line| line["outcome"] == "passed").count();
    assert!(passed >= at_least, "only {passed} checks of {} passed: {:#?}", plugin.display(), said.lines);
}

#[test]
fn plugins_that_cannot_be_loaded() {
    each_is_named("head", "layers", 60, &[("NO_FORWARD", "refused"), ("WRONG_VERSION", "refused")]);
}

#[test]
fn probes_that_end_the_process() {
    each_is_named("head", "layers", 60, &[("PROBE_ABORTS", "crashes"), ("PROBE_EXITS", "exits")]);
}

/// Most of this is waiting, so both wait at once.
#[test]
fn calls_that_hang() {
    std::thread::scope(|scope| {
        for fault in ["PROBE_HANGS", "FORWARD_HANGS"] {
            scope.spawn(move || each_is_named("head", "layers", 5, &[(fault, "hangs")]));
        }
    });
}

#[test]
fn calls_that_end_the_process() {
    each_is_named("head", "layers", 60, &[("FORWARD_CRASHES", "crashes"), ("FORWARD_EXITS", "exits")]);
}

#[test]
fn layers_that_compute_wrongly() {
    let faults = [
        ("NOT_WRITTEN", "not-written"),
        ("WRONG_SIGN", "wrong-sign"),
        ("WRONG_RESULT", "wrong-result"),
        ("NOT_A_NUMBER", "not-finite"),
        ("BATCH_DEPENDENT", "batch-dependent"),
        ("UNSTABLE", "unstable"),
    ];
    each_is_named("head", "layers", 60, &faults);
}

#[test]
fn layers_that_touch_what_is_not_theirs() {
    let faults = [
        ("WRITES_PAST", "writes-outside"),
        ("WRITES_PAST_SCRATCH", "writes-outside"),
        ("SMALL_SCRATCH", "writes-outside"),
        ("READS_PAST_WEIGHT", "reads-outside"),
    ];
    each_is_named("head", "layers", 60, &faults);
}

#[test]
fn layers_that_break_the_rules() {
    let faults = [
        ("STARTS_THREAD", "starts-threads"),
        ("STARTS_PROCESS", "starts-threads"),
        ("ALLOCATES", "allocates"),
        ("CREATE_REFUSES", "refuses"),
        ("NO_SENTENCE", "bad-message"),
    ];
    each_is_named("head", "layers", 60, &faults);
}

#[test]
fn layers_whose_states_are_wrong() {
    let faults = [
        ("NO_STATE", "wrong-length"),
        ("SMALL_STATE", "reads-outside"),
        ("FORGETS_STATE", "batch-dependent"),
    ];
    each_is_named("conv", "layers", 60, &faults);
}

// backends/conformance/tests/faulty.rs has those that don't end their process.
#[test]
fn a_tokenizer_that_reads_past_its_text() {
    each_is_named("tokenizer", "tokenizers", 60, &[("READS_PAST", "reads-outside")]);
}

#[test]
fn a_tier_whose_list_lies() {
    each_is_named("tier", "tiers", 60, &[("LIST_OF_2_61", "wrong-length")]);
}

#[test]
fn sound_plugins_pass() {
    let folder = folder();
    let sound = |name: &str| compile(&source(name), &format!("SOUND_{}", name.to_uppercase()), folder.path());
    passes(&sound("head"), "layers", 3);
    passes(&sound("conv"), "layers", 3);
    passes(&sound("tokenizer"), "tokenizers", 15);
    passes(&sound("tier"), "tiers", 30);
    passes(&in_cpp(folder.path()), "layers", 3);
}

#[test]
fn the_examples_pass_also_as_they_were_first_published() {
    let folder = folder();
    let in_c = compile("examples/plugin-c/example.c", "EXAMPLE", folder.path());
    let in_rust = third_party("examples/plugin-rust", "herald_example_rust");
    let published = repository().join("herald-api/tests/data/abi/libherald_example_c.v0.1.0.so");
    let published = published.is_file().then_some(published).filter(|_| cfg!(target_arch = "x86_64"));
    for plugin in [in_c, in_rust].into_iter().chain(published) {
        passes(&plugin, "layers,tokenizers", 20);
    }
}

/// The sound plugin in C++.
fn in_cpp(folder: &Path) -> PathBuf {
    let library = folder.join("libherald_embedding.so");
    run(System::new("c++")
        .args(["-std=c++17", "-shared", "-fPIC", "-I"])
        .arg(repository().join("include"))
        .arg("-o")
        .arg(&library)
        .arg(repository().join("backends/conformance/tests/faulty/embedding.cpp")));
    library
}
