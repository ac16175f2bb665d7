//! Sequences that are saved and continue in another process.

use assert_cmd::Command;
use herald_testing::{cpu_plugin, load_tiny, tiny};

fn generate(model: &str, arguments: &[&str]) -> Vec<u32> {
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
    command.env("HOME", home.path()).arg("--allow-insecure-plugins").arg("--plugin").arg(cpu_plugin());
    command.arg("--model").arg(tiny(model)).args(["generate", "--ignore-eos", "--json"]).args(arguments);
    let output = command.assert().success().get_output().stdout.clone();
    let report: serde_json::Value = serde_json::from_slice(&output).expect("JSON");
    serde_json::from_value(report["tokens"].clone()).expect("token ids")
}

#[test]
fn a_saved_sequence_continues_with_the_same_tokens() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("state");
    let state = path.to_str().expect("UTF-8");
    for model in ["granite_hybrid", "mamba", "qwen35"] {
        let whole = generate(model, &["once upon a time", "-n", "24"]);
        let mut parts = generate(model, &["once upon a time", "-n", "9", "--save-state", state]);
        parts.extend(generate(model, &["-n", "5", "--load-state", state, "--save-state", state]));
        parts.extend(generate(model, &["-n", "10", "--load-state", state]));
        assert_eq!(parts, whole, "{model}");
    }
}

/// `host info` computes from the shapes the same size that the layers request.
#[test]
fn info_says_how_much_states_take() {
    for model in ["mamba", "nemotron_h", "lfm2", "falcon_h1", "qwen35", "kimi_linear", "llama"] {
        let engine = load_tiny(model);
        let home = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
        command.env("HOME", home.path()).args(["info", "--json", "--no-tensors"]).arg(tiny(model));
        let output = command.assert().success().get_output().stdout.clone();
        let report: serde_json::Value = serde_json::from_slice(&output).expect("JSON");
        let bytes = engine.sequence().expect("a sequence").bytes();
        assert_eq!(report["model"]["state_bytes"], bytes, "{model}");
    }
}
