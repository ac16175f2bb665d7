//! Models of a hub, from pull to removal.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use herald_testing::hub::FakeHub;
use herald_testing::tiny;
use tempfile::TempDir;

use crate::{fails, home, json, stderr, stdout};

/// The program with this hub and nobody's settings.
fn host(home: &TempDir, hub: &FakeHub) -> Command {
    let mut command = crate::host(home);
    command.env("HF_ENDPOINT", &hub.address).env("NO_PROXY", "127.0.0.1");
    command
}

fn path_of(assert: &assert_cmd::assert::Assert) -> String {
    stdout(assert).trim_end().to_owned()
}

#[test]
fn a_model_is_pulled_used_shown_listed_and_removed() {
    let (home, hub) = (home(), FakeHub::start());
    let model = fs::read(tiny("llama")).expect("the test data is there");
    hub.repo("u/tiny-GGUF", &[("tiny-Q8_0.gguf", &model), ("tiny-Q4_K_M.gguf", &model[..])]);
    let run = |arguments: &[&str]| host(&home, &hub).args(arguments).assert();
    let generate = ["--model", "u/tiny-GGUF:q8_0", "generate", "hello", "-n", "4", "--ignore-eos"];
    fails(run(&generate), &["u/tiny-GGUF:q8_0", "`host pull u/tiny-GGUF:q8_0` fetches it"]);
    fails(run(&["pull", "u/tiny-GGUF", "--offline"]), &["u/tiny-GGUF", "--offline"]);
    fails(run(&["pull", "u/tiny-GGUF:Q5_0"]), &["no Q5_0", "Q8_0", "Q4_K_M"]);

    let pulled = run(&["pull", "hf.co/u/tiny-GGUF"]).success();
    let said = stderr(&pulled);
    for words in ["u/tiny-GGUF: Q4_K_M (", "licence: apache-2.0", "chosen of 2 by this machine's RAM"] {
        assert!(said.contains(words), "{said}");
    }
    let path = path_of(&pulled);
    let cache = home.path().join("cache/huggingface/hub/models--u--tiny-GGUF");
    assert!(Path::new(&path).starts_with(&cache) && fs::read(&path).expect("it is there") == model);
    let report = json(&run(&["pull", "u/tiny-GGUF:q8_0", "--json"]).success());
    assert_eq!((&report["fetched"], &report["hub"]["quant"]), (&true.into(), &"Q8_0".into()));
    assert_eq!((&report["bytes"], &report["hub"]["licence"]), (&model.len().into(), &"apache-2.0".into()));
    assert!(stderr(&run(&["pull", "u/tiny-GGUF"]).success()).contains("is already there"));
    assert_eq!(path_of(&run(&["pull", "u/tiny-GGUF", "--offline"]).success()), path);
    assert_eq!(path_of(&run(&["pull", &path]).success()), path);

    let of_file = stdout(&crate::on("llama", &generate[2..]).success());
    assert_eq!(stdout(&run(&generate).success()), of_file);
    let shown = json(&run(&["show", "u/tiny-GGUF", "--json"]).success());
    assert_eq!((&shown["architecture"], &shown["bytes"]), (&"llama".into(), &model.len().into()));
    let info = json(&run(&["info", "u/tiny-GGUF", "--json", "--no-tensors"]).success());
    assert_eq!((&shown["parameters"], &shown["context"]), (&info["parameters"], &info["model"]["context"]));

    let small = home.path().join("small.gguf");
    let small_path = small.to_str().expect("UTF-8");
    let quantized = run(&["quantize", "u/tiny-GGUF:q8_0", small_path, "--type", "q4_k_m", "--quiet"]);
    assert!(stdout(&quantized.success()).contains("small.gguf: "));
    let quant = json(&run(&["show", small_path, "--json"]).success());
    assert_eq!(quant["quant"], "Q4_K_M", "{quant}");
    let hashed = stdout(&run(&["gguf", "hash", "u/tiny-GGUF:q8_0"]).success());
    assert!(hashed.contains(".gguf:token_embd.weight"), "{hashed}");

    let listed = json(&run(&["ls", "--json"]).success());
    let mut names: Vec<&str> = listed["models"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|model| model["name"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["u/tiny-GGUF:Q4_K_M", "u/tiny-GGUF:Q8_0"]);
    let table = stdout(&run(&["ls"]).success());
    assert!(table.contains("u/tiny-GGUF:Q8_0") && table.contains("llama"), "{table}");

    fails(run(&["rm", "u/tiny-GGUF:Q8_0"]), &["u/tiny-GGUF:Q8_0", "--yes"]);
    let own = tiny("llama");
    fails(run(&["rm", "--yes", own.to_str().expect("UTF-8")]), &["nothing else is removed"]);
    fails(run(&["rm", "--yes", "u/other"]), &["u/other", "host ls"]);
    assert!(cache.exists() && own.exists());
    let removed = json(&run(&["rm", "--yes", "--json", "u/tiny-GGUF"]).success());
    assert_eq!(
        (removed["removed"].as_array().map(Vec::len), &removed["bytes"]),
        (Some(2), &model.len().into())
    );
    assert!(!cache.exists());
    fails(run(&generate), &["host pull"]);
}

#[test]
fn addresses_packages_and_damaged_files() {
    let (home, hub) = (home(), FakeHub::start());
    let model = fs::read(tiny("gemma3")).expect("the test data is there");
    hub.state().plain.insert("m.gguf".to_owned(), model.clone().into());
    let run = |arguments: &[&str]| host(&home, &hub).args(arguments).assert();
    let url = format!("{}/m.gguf", hub.storage);
    fails(run(&["info", &url]), &[&url, "host pull"]);
    let path = path_of(&run(&["pull", &url]).success());
    assert!(fs::read(&path).expect("it is there") == model);
    assert!(stdout(&run(&["info", &url]).success()).contains("gemma3"));
    assert_eq!(stdout(&run(&["rm", "--yes", "--quiet", &url]).success()), "");
    assert!(!Path::new(&path).exists());
    // It has a model's beginning and a model's size, and is none.
    let damaged = [b"GGUF", &vec![7; 5000][..]].concat();
    hub.state().plain.insert("m.gguf".to_owned(), damaged.into());
    fails(run(&["pull", &url]), &["m.gguf", "expected"]);

    let folder = home.path().join("cache/herald/models");
    let file = folder.join("gemma-3-270m.gguf");
    fs::create_dir_all(&folder).expect("a folder");
    fs::File::create(&file).and_then(|file| file.set_len(253_113_024)).expect("a file");
    let listed = stdout(&run(&["ls"]).success());
    assert!(listed.contains("gemma-3-270m") && listed.contains("damaged"), "{listed}");
    run(&["rm", "--yes", "gemma-3-270m"]).success();
    assert!(!file.exists());
    fails(run(&["rm", "--yes", "gemma-3-270m"]), &["gemma-3-270m", "not pulled"]);
    fails(run(&["pull", "gemma-3-270m", "--offline"]), &["gemma-3-270m", "--offline"]);
    fails(run(&["pull", "./none.gguf"]), &["./none.gguf", "no such file"]);
    fails(run(&["pull", "a/b/c"]), &["a/b/c", "USER/REPO"]);
}

/// What the chat template is, to the byte.
#[test]
fn a_models_template_is_shown() {
    let home = home();
    let model = herald_testing::smollm2();
    let model = model.to_str().expect("UTF-8");
    let shown = json(&crate::host(&home).args(["show", model, "--json"]).assert().success());
    assert_eq!((&shown["quant"], &shown["architecture"]), (&"Q4_1".into(), &"llama".into()));
    let template = stdout(&crate::host(&home).args(["show", model, "--template"]).assert().success());
    assert_eq!(shown["chat_template"].as_str(), template.strip_suffix('\n'));
    let table = stdout(&crate::host(&home).args(["show", model]).assert().success());
    for words in ["134.5 million", "98.36 MB", "8192 tokens", "--template"] {
        assert!(table.contains(words), "{table}");
    }
    let none = tiny("llama");
    fails(crate::host(&home).arg("show").arg(none).arg("--template").assert(), &["no chat template"]);
}
