//! `host docs` and `host cache` from a user's side.

use std::fs;

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use herald_testing::{cpu_plugin, tiny};
use serde_json::Value;
use tempfile::TempDir;

/// Runs the program with the cpu plugin, a tiny model, and a home folder with the texts.
fn run(home: &TempDir, model: &str, arguments: &[&str]) -> Assert {
    let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
    for variable in ["HERALD_MODEL", "HERALD_PLUGIN_PATH", "HERALD_DOCUMENTS"] {
        command.env_remove(variable);
    }
    command.env("HERALD_BACKEND", "cpu").env("HOME", home.path());
    command.env("XDG_DATA_HOME", home.path().join("data")).env("XDG_CACHE_HOME", home.path().join("cache"));
    command.arg("--allow-insecure-plugins").arg("--plugin").arg(cpu_plugin()).arg("--model").arg(tiny(model));
    command.arg("--quiet").args(arguments).write_stdin("a text from stdin about boats").assert()
}

fn home() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn json(assert: Assert) -> Value {
    serde_json::from_slice(&assert.success().get_output().stdout).expect("one JSON object")
}

#[track_caller]
fn fails(assert: Assert, code: i32, words: &[&str]) {
    let assert = assert.code(code);
    let said = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
    assert!(words.iter().all(|word| said.contains(word)), "{said:?} does not say {words:?}");
}

#[test]
fn texts_are_added_found_listed_and_removed() {
    let home = home();
    let file = home.path().join("animals.txt");
    fs::write(&file, "The quick brown fox jumps over the lazy dog.").expect("a file");
    let file = file.to_str().expect("UTF-8");
    let added = json(run(&home, "llama", &["docs", "add", file, "--json"]));
    assert_eq!((added["id"].as_u64(), added["name"].as_str()), (Some(1), Some("animals.txt")));
    let added = json(run(&home, "llama", &["docs", "add", "-", "--name", "boats", "--json"]));
    assert_eq!((added["id"].as_u64(), added["chunks"].as_u64()), (Some(2), Some(1)));

    let hits = json(run(&home, "llama", &["docs", "search", "fox", "-k", "1", "--json"]));
    assert_eq!(hits["hits"].as_array().map(Vec::len), Some(1));
    assert_eq!(hits["hits"][0]["name"], "animals.txt");
    assert_eq!(hits["hits"][0]["word_rank"], 1);
    let table = run(&home, "llama", &["docs", "search", "boats"]).success();
    let table = String::from_utf8_lossy(&table.get_output().stdout).into_owned();
    assert!(table.contains("MEANING") && table.contains("a text from stdin"), "{table}");

    let usage = json(run(&home, "llama", &["docs", "usage", "--json"]));
    assert_eq!(usage["texts"]["documents"], 2);
    assert!(
        usage["folder"].as_str().is_some_and(|folder| folder.ends_with("data/herald/documents")),
        "{usage}"
    );
    let list = json(run(&home, "llama", &["docs", "list", "--json"]));
    assert_eq!(list["documents"][1]["name"], "boats");

    // Another model's vectors are refused by name, and nothing is lost.
    fails(
        run(&home, "qwen3", &["docs", "search", "fox"]),
        1,
        &["qwen3.f32.gguf", "llama.f32.gguf", "another folder"],
    );
    let other = home.path().join("other");
    let other = other.to_str().expect("UTF-8");
    json(run(&home, "qwen3", &["docs", "add", file, "--folder", other, "--json"]));

    let damaged = home.path().join("data/herald/documents/00000002.memory");
    let mut bytes = fs::read(&damaged).expect("the file");
    let middle = bytes.len() - 10;
    bytes[middle] ^= 8;
    fs::write(&damaged, bytes).expect("the file");
    fails(run(&home, "llama", &["docs", "list"]), 0, &["00000002.memory", "checksum", "left out"]);
    assert_eq!(json(run(&home, "llama", &["docs", "tidy", "--json"]))["removed_files"], 1);
    assert_eq!(json(run(&home, "llama", &["docs", "remove", "1", "--json"]))["removed"], 1);
    fails(run(&home, "llama", &["docs", "remove", "1"]), 1, &["no text 1"]);
    assert_eq!(json(run(&home, "qwen3", &["docs", "clear", "--folder", other, "--json"]))["removed"], 1);
    assert_eq!(json(run(&home, "llama", &["docs", "usage", "--json"]))["texts"]["documents"], 0);
}

#[test]
fn a_text_that_is_kept_already_is_not_kept_twice() {
    let home = home();
    let add = |more: &[&str]| {
        json(run(&home, "llama", &[&["docs", "add", "-", "--name", "boats", "--json"], more].concat()))
    };
    assert_eq!((&add(&[])["id"], &add(&[])["id"]), (&1.into(), &1.into()));
    let again = run(&home, "llama", &["docs", "add", "-", "--name", "boats"]).success();
    assert_eq!(again.get_output().stdout, b"1 \"boats\": it is kept already\n");
    // Another text of the name is kept beside it, as long as nobody says otherwise.
    let file = home.path().join("boats");
    fs::write(&file, "another text about boats").expect("a file");
    let file = file.to_str().expect("UTF-8");
    assert_eq!(json(run(&home, "llama", &["docs", "add", file, "--json"]))["id"], 2);
    let replaced = json(run(&home, "llama", &["docs", "add", file, "--replace", "--json"]));
    assert_eq!((&replaced["id"], &replaced["kept_already"]), (&2.into(), &true.into()));
    assert_eq!(replaced["replaced"], serde_json::json!([1]));
    let list = json(run(&home, "llama", &["docs", "list", "--json"]));
    assert_eq!(list["documents"].as_array().map(Vec::len), Some(1));
    assert_eq!(add(&["--replace"])["replaced"], serde_json::json!([2]));
}

#[test]
fn questions_are_answered_from_texts() {
    let home = home();
    json(run(&home, "llama", &["docs", "add", "--name", "boats", "--json"]));
    let prompt = run(&home, "llama", &["docs", "ask", "--prompt-only", "Where are boats?"]).success();
    let prompt = String::from_utf8_lossy(&prompt.get_output().stdout).into_owned();
    assert!(prompt.contains("[1] boats:\na text from stdin about boats\n"), "{prompt}");
    assert!(prompt.trim_end().ends_with("Question: Where are boats?"), "{prompt}");
    let answer =
        json(run(&home, "llama", &["docs", "ask", "-n", "4", "--ignore-eos", "--json", "Where are boats?"]));
    assert_eq!(answer["hits"][0]["name"], "boats");
    assert!(answer["answer"].is_string() && answer["prompt_tokens"].as_u64() > Some(20), "{answer}");
    let template = home.path().join("template");
    fs::write(&template, "{{ notes | length }}: {{ question }}").expect("a file");
    let template = template.to_str().expect("UTF-8");
    let own =
        run(&home, "llama", &["docs", "ask", "--prompt-only", "--template", template, "Why?"]).success();
    assert_eq!(own.get_output().stdout, b"1: Why?\n");
    fails(
        run(&home, "llama", &["docs", "ask", "--budget", "3", "Where are all of the boats?"]),
        1,
        &["at most 3"],
    );
    fails(run(&home, "llama", &["docs", "ask", "--template", "/nowhere", "x"]), 1, &["/nowhere"]);
}

#[test]
fn saved_sequences_are_shown_and_compressed() {
    let home = home();
    let state = home.path().join("state");
    let state = state.to_str().expect("UTF-8");
    let prompt = "all work and no play ".repeat(40);
    let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
    command.env("HERALD_BACKEND", "cpu").env("HOME", home.path()).arg("--allow-insecure-plugins");
    command.arg("--plugin").arg(cpu_plugin()).arg("--model").arg(tiny("llama")).args(["-c", "2000"]);
    command.args(["generate", &prompt, "-n", "2", "--ignore-eos", "--save-state", state]).assert().success();
    let on_state =
        |arguments: &[&str]| json(run(&home, "llama", &[&["-c", "2000", "cache"], arguments].concat()));
    let usage = on_state(&["usage", state, "--json"]);
    assert!(usage["tokens"].as_u64() > Some(300) && usage["tiers"][0]["pages"].as_u64() > Some(6), "{usage}");
    let smaller = home.path().join("smaller");
    let smaller = smaller.to_str().expect("UTF-8");
    let done = on_state(&["compress", state, "--keep", "64", "--output", smaller, "--json"]);
    assert!(done["moved"]["pages"].as_u64() > Some(0), "{done}");
    assert!(done["file_bytes_after"].as_u64() < done["file_bytes_before"].as_u64(), "{done}");
    assert_eq!(on_state(&["usage", smaller, "--json"])["tokens"], usage["tokens"]);
    fails(run(&home, "llama", &["cache", "compress", "/nowhere/state"]), 1, &["/nowhere/state"]);
}

#[test]
fn leaks_are_looked_for() {
    let home = home();
    let report = json(run(&home, "llama", &["cache", "leaks", "--rounds", "2", "--tokens", "100", "--json"]));
    assert_eq!((report["leaks"].as_bool(), report["rounds"].as_u64()), (Some(false), Some(8)));
    assert_eq!(report["stats"]["held_pages"], 0);
    fails(run(&home, "llama", &["cache", "leaks", "--rounds", "0"]), 2, &["0"]);
    for group in ["cache", "docs"] {
        fails(run(&home, "llama", &[group, "nonsense"]), 2, &["nonsense"]);
    }
}

/// Version 0.1.0 kept texts in the folder `memory`: it is used if it exists.
#[test]
fn texts_of_an_earlier_version_are_found() {
    let home = home();
    json(run(&home, "llama", &["docs", "add", "--name", "boats", "--json"]));
    let herald = home.path().join("data/herald");
    fs::rename(herald.join("documents"), herald.join("memory")).expect("a folder");
    assert_eq!(json(run(&home, "llama", &["docs", "usage", "--json"]))["texts"]["documents"], 1);
}
