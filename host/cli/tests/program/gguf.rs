//! `host gguf`: what goes around comes back with the same tensors, and no input is harmed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;

use assert_cmd::assert::Assert;
use herald::gguf::{Gguf, Value};
use herald_testing::tiny;
use tempfile::TempDir;

use crate::{GREEDY, fails, home, host, json, misused, stdout};

fn gguf(home: &TempDir, arguments: &[&str]) -> Assert {
    host(home).current_dir(home.path()).args(["gguf", "--quiet"]).args(arguments).assert()
}

/// The names and digests of a model's tensors, which splitting and merging must keep.
fn tensors(path: &Path) -> Vec<(String, Vec<u8>)> {
    let gguf = Gguf::open(path).expect("a model");
    gguf.tensors().map(|info| (info.name().to_owned(), gguf.bytes(info).to_vec())).collect()
}

fn text(path: &Path) -> String {
    let home = home();
    stdout(&host(&home).arg("--model").arg(path).args(GREEDY).assert().success())
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn what_is_split_and_merged_is_the_same_model() {
    let home = home();
    let model = tiny("llama");
    let whole = tensors(&model);
    let split = gguf(&home, &["split", path_text(&model), "parts", "--max-tensors", "5", "--json"]);
    let report = json(&split.success());
    let parts: Vec<PathBuf> = report["parts"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|part| home.path().join(part["path"].as_str().expect("a path")))
        .collect();
    let count = whole.len().div_ceil(5);
    assert_eq!(parts.len(), count);
    assert!(parts[0].ends_with(format!("parts-00001-of-{count:05}.gguf")), "{parts:?}");
    let first = Gguf::open(&parts[0]).expect("a split model");
    assert_eq!(first.metadata().value("split.count"), Some(Value::U16(count as u16)));
    assert_eq!(first.metadata().value("split.no"), Some(Value::U16(0)));
    assert_eq!(first.metadata().value("split.tensors.count"), Some(Value::I32(whole.len() as i32)));
    assert!(tensors(&parts[0]) == whole && text(&parts[0]) == text(&model));
    // What is there stays.
    fails(
        gguf(&home, &["split", path_text(&model), "parts", "--max-tensors", "5"]),
        &["there already", "00001-of"],
    );

    gguf(&home, &["merge", path_text(&parts[0]), "whole.gguf"]).success();
    let merged = home.path().join("whole.gguf");
    assert!(tensors(&merged) == whole && text(&merged) == text(&model));
    let (before, after) = (Gguf::open(&model).expect("a model"), Gguf::open(&merged).expect("a model"));
    assert!(before.metadata().iter().eq(after.metadata().iter()));
    let into_itself = gguf(&home, &["merge", path_text(&parts[0]), path_text(&parts[1])]);
    misused(into_itself, &["another output file"]);
    assert!(tensors(&parts[0]) == whole);

    // By size: no part has more, but for a tensor that is larger by itself.
    let bytes = whole.iter().map(|(_, bytes)| bytes.len()).max().expect("a tensor") - 1;
    let by_size =
        gguf(&home, &["split", "whole.gguf", "small", "--max-size", &format!("{bytes}B"), "--json"]);
    let report = json(&by_size.success());
    let parts = report["parts"].as_array().expect("a list");
    assert!(parts.len() > 1, "{report}");
    assert!(tensors(&home.path().join(parts[0]["path"].as_str().expect("a path"))) == whole);
    assert_eq!(unfinished(home.path()), 0);
}

fn unfinished(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).expect("the folder").flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".herald")).count()
}

#[test]
fn values_are_set_in_place_or_in_a_new_file() {
    let home = home();
    let model = home.path().join("model.gguf");
    fs::copy(tiny("llama"), &model).expect("a copy");
    let before = fs::read(&model).expect("the file");
    let value = |path: &Path, key: &str| {
        let gguf = Gguf::open(path).expect("a model");
        gguf.metadata().value(key).map(|value| format!("{value:?}"))
    };
    let number = "llama.context_length";
    let report = json(&gguf(&home, &["set", "model.gguf", &format!("{number}=48"), "--json"]).success());
    assert_eq!(report["in_place"], true);
    assert_eq!(value(&model, number).as_deref(), Some("U32(48)"));
    let after = fs::read(&model).expect("the file");
    let differing = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert!(before.len() == after.len() && differing <= 4, "{differing} bytes");

    let sets = ["set", "model.gguf", "general.name=a longer name than before", "herald.test=-3", "--json"];
    assert_eq!(json(&gguf(&home, &sets).success())["in_place"], false);
    assert_eq!(value(&model, "herald.test").as_deref(), Some("I32(-3)"));
    assert_eq!(value(&model, number).as_deref(), Some("U32(48)"));
    assert!(tensors(&model) == tensors(&tiny("llama")));
    let kept = fs::read(&model).expect("the file");
    gguf(&home, &["set", "model.gguf", "herald.test=5", "--output", "other.gguf"]).success();
    assert_eq!(value(&home.path().join("other.gguf"), "herald.test").as_deref(), Some("I32(5)"));

    for (set, words) in [
        ("llama.context_length=many", "an integer"),
        ("llama.context_length=-1", "u32"),
        ("tokenizer.ggml.tokens=a", "array"),
    ] {
        fails(gguf(&home, &["set", "model.gguf", set]), &[words]);
    }
    misused(gguf(&home, &["set", "model.gguf", "split.no=1"]), &["split.no"]);
    misused(gguf(&home, &["set", "model.gguf", "a=1", "-o", "model.gguf"]), &["another output file"]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&model, home.path().join("link.gguf")).expect("a link");
        fails(gguf(&home, &["set", "link.gguf", "herald.test=5"]), &["symbolic link", "--output"]);
    }
    assert!(kept == fs::read(&model).expect("the file"), "what failed changed nothing");
    assert_eq!(unfinished(home.path()), 0);
}

/// The parts' values are set where they are: in the first.
#[test]
fn a_split_model_keeps_its_parts() {
    let home = home();
    gguf(&home, &["split", path_text(&tiny("llama")), "m", "--max-tensors", "8"]).success();
    let first = fs::read_dir(home.path())
        .expect("the folder")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path_text(path).contains("m-00001-of"))
        .expect("the first part");
    gguf(&home, &["set", path_text(&first), "general.name=other"]).success();
    assert!(tensors(&first) == tensors(&tiny("llama")));
}

#[test]
fn digests_tell_files_and_tensors_apart() {
    let home = home();
    let model = home.path().join("model.gguf");
    fs::copy(tiny("llama"), &model).expect("a copy");
    let list = stdout(&gguf(&home, &["hash", "model.gguf"]).success());
    let line = list.lines().next().expect("the file's");
    if let Ok(expected) = Process::new("sha256sum").arg("model.gguf").current_dir(home.path()).output() {
        assert_eq!(String::from_utf8_lossy(&expected.stdout).trim(), line);
    }
    assert_eq!(list.lines().count(), 1 + tensors(&model).len());
    fs::write(home.path().join("list"), &list).expect("the list");
    gguf(&home, &["hash", "model.gguf", "--check", "list"]).success();
    // Tensors keep theirs in other files, and what is damaged is named.
    gguf(&home, &["split", "model.gguf", "s", "--max-tensors", "9"]).success();
    let parts = fs::read_dir(home.path()).expect("the folder").flatten();
    let first = parts.map(|entry| entry.path()).find(|path| path_text(path).contains("s-00001-of"));
    gguf(&home, &["hash", path_text(&first.expect("the first part")), "--check", "list"]).success();
    // So they do where the file has no ending.
    fs::copy(&model, home.path().join("blob")).expect("a copy");
    let unnamed = stdout(&gguf(&home, &["hash", "blob"]).success());
    fs::write(home.path().join("unnamed"), unnamed).expect("the list");
    let said = stdout(&gguf(&home, &["hash", "model.gguf", "--check", "unnamed"]).success());
    assert!(said.starts_with(&tensors(&model).len().to_string()), "{said}");
    let mut bytes = fs::read(&model).expect("the file");
    *bytes.last_mut().expect("a byte") ^= 1;
    fs::write(&model, bytes).expect("the file");
    let last = tensors(&model).pop().expect("a tensor").0;
    let report = gguf(&home, &["hash", "model.gguf", "--check", "list", "--json"]).code(1);
    let report = json(&report);
    assert_eq!(report["differing"], serde_json::json!(["model.gguf", last]));
    fs::write(home.path().join("wrong"), "no list\n").expect("a file");
    fails(gguf(&home, &["hash", "model.gguf", "--check", "wrong"]), &["line 1", "SHA-256"]);
}

#[test]
fn damaged_input_gets_a_sentence() {
    let home = home();
    let bytes = fs::read(tiny("llama")).expect("a model");
    fs::write(home.path().join("cut.gguf"), &bytes[..bytes.len() / 2]).expect("a file");
    fs::write(home.path().join("text.gguf"), "no model").expect("a file");
    for file in ["cut.gguf", "text.gguf", "none.gguf"] {
        for arguments in [
            &["split", file, "p", "--max-size", "1MB"][..],
            &["merge", file, "o.gguf"],
            &["set", file, "a=1"],
            &["hash", file],
        ] {
            fails(gguf(&home, arguments), &[file]);
        }
    }
    fails(gguf(&home, &["merge", path_text(&tiny("llama")), "o.gguf"]), &["whole model"]);
    misused(gguf(&home, &["split", "cut.gguf", "p"]), &["required arguments"]);
    let mut left: Vec<_> =
        fs::read_dir(home.path()).expect("the folder").flatten().map(|entry| entry.file_name()).collect();
    left.sort();
    left.retain(|name| name.to_string_lossy().ends_with(".gguf"));
    assert_eq!(left, ["cut.gguf", "text.gguf"]);
}
