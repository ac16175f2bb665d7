//! A user's mistakes, and the errors that they get.

use std::fs;
use std::path::Path;
use std::process::Command as Process;

use assert_cmd::Command;
use herald_testing::{cpu_plugin, tiny};

use crate::{GREEDY, fails, home, host, misused, on, stdout};

#[test]
fn missing_and_damaged_models_are_named() {
    let home = home();
    let damaged = home.path().join("damaged.gguf");
    let bytes = fs::read(tiny("llama")).expect("the test data is there");
    fs::write(&damaged, &bytes[..bytes.len() / 2]).expect("a file");
    for command in [&["generate", "x"][..], &["info"], &["tokenize", "--", "x"], &["bench", "speed"]] {
        fails(
            host(&home).args(["--model", "/nonexistent/m.gguf"]).args(command).assert(),
            &["/nonexistent/m.gguf"],
        );
        let damaged = host(&home).arg("--model").arg(&damaged).args(command).assert();
        fails(damaged, &["damaged.gguf", "expected"]);
    }
    let text = home.path().join("notes.txt");
    fs::write(&text, "these are notes\n").expect("a file");
    fails(host(&home).arg("--model").arg(&text).args(["generate", "x"]).assert(), &["notes.txt", "GGUF"]);
    fails(
        host(&home).arg("--model").arg(home.path()).args(["generate", "x"]).assert(),
        &["not a regular file"],
    );
}

#[test]
fn wrong_values_are_named() {
    let home = home();
    misused(on("llama", &["generate", "x", "--top-p", "1.5"]), &["top_p", "1.5"]);
    misused(on("llama", &["generate", "x", "--temperature=-1"]), &["temperature", "-1"]);
    fails(on("llama", &["generate", "x", "--logit-bias", "9999=1"]), &["9999"]);
    fails(on("llama", &["generate", "x", "--chat"]), &["chat template"]);
    fails(on("llama", &["--backend", "gpu", "generate", "x"]), &["no backend \"gpu\"", "cpu"]);
    let ids = home.path().join("ids.txt");
    fs::write(&ids, "1 2 banana").expect("a file");
    let (ids, out) = (ids.to_str().expect("UTF-8"), home.path().join("o.safetensors"));
    let out = out.to_str().expect("UTF-8");
    fails(on("llama", &["logits", "--ids", ids, "--out", out]), &["ids.txt", "word 3", "banana"]);
    fails(on("llama", &["logits", "--ids", "/nonexistent", "--out", out]), &["/nonexistent"]);
    assert!(!Path::new(out).exists(), "nothing is half-written");
    fails(on("llama", &["perplexity", "--file", "/nonexistent"]), &["/nonexistent"]);
    fails(host(&home).args(["pull", "gpt-5"]).assert(), &["gpt-5", "smollm2-135m-instruct"]);
}

/// The user's setting is named, and no plugin is blamed for what it makes of the activations.
#[test]
fn settings_that_make_nothing_of_a_model_are_named() {
    let home = home();
    for (set, words) in [
        ("llama.rope.freq_base=0", ["llama.rope.freq_base", "above 0"]),
        ("llama.attention.layer_norm_rms_epsilon=-1", ["layer_norm_rms_epsilon", "at least 0"]),
        ("general.type=adapter", ["general.type", "--lora"]),
    ] {
        let assert = host(&home).arg("--model").arg(tiny("llama")).args(["--set", set]).args(GREEDY).assert();
        fails(assert, &words);
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &["generate", "--nonsense"][..],
        &["nonsense"],
        &["generate", "x", "--temperature", "warm"],
        &["generate", "x", "--threads", "0"],
        &["logits", "--out", "x"],
        &["generate", "x", "--logit-bias", "a=b"],
        &[],
    ] {
        let assert = on("llama", arguments).code(2);
        assert_eq!(stdout(&assert), "");
    }
}

#[test]
fn without_a_plugin_one_sentence_says_so() {
    let home = home();
    // A copy of the program alone in a folder finds no plugin there.
    let program = home.path().join("host");
    fs::copy(env!("CARGO_BIN_EXE_host"), &program).expect("a copy");
    let mut command = Command::new(&program);
    command.env_remove("HERALD_PLUGIN_PATH").env("HOME", home.path()).arg("--model").arg(tiny("llama"));
    fails(command.args(["generate", "x"]).assert(), &["no backend plugin was found", "libherald_cpu"]);
}

#[test]
fn the_program_links_no_backend() {
    let output = Process::new("objdump")
        .args(["-p", env!("CARGO_BIN_EXE_host")])
        .output()
        .expect("objdump can be run");
    let headers = String::from_utf8_lossy(&output.stdout);
    let needed: Vec<_> = headers.lines().filter_map(|line| line.trim().strip_prefix("NEEDED")).collect();
    assert!(!needed.is_empty() && !needed.iter().any(|library| library.contains("herald")), "{needed:?}");
}

#[test]
fn a_reader_that_closes_stdout_early_is_no_error() {
    let home = home();
    let command = format!(
        "'{}' --allow-insecure-plugins --plugin '{}' --model '{}' generate hello -n 400 --ignore-eos | head -c 1 >/dev/null; \
         exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_host"),
        cpu_plugin().display(),
        tiny("llama").display()
    );
    let output = Process::new("bash")
        .args(["-c", &command])
        .env("HOME", home.path())
        .output()
        .expect("bash can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
