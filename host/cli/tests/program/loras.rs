//! Adapters by `--lora`.

use super::*;

/// The adapter of the tiny llama model, with more behind its path.
fn adapter(more: &str) -> String {
    let path = herald_testing::repository().join("host/tests/data/lora/llama_lora.gguf");
    format!("{}{more}", path.display())
}

fn text(arguments: &[&str]) -> String {
    let generate = ["generate", "once upon a time", "-n", "12", "--ignore-eos"];
    let assert = on("llama", &[&generate, arguments].concat());
    stdout(&assert.success())
}

#[test]
fn an_adapter_changes_the_text_by_its_scale() {
    let plain = text(&[]);
    let (whole, none) = (text(&["--lora", &adapter("")]), text(&["--lora", &adapter(":0")]));
    assert!(whole != plain && none == plain, "{plain:?}, {whole:?}, {none:?}");
    // Twice half of it is all of it.
    let [a, b] = ["a", "b"].map(|name| format!("{name}={}", adapter(":0.5")));
    assert_eq!(text(&["--lora", &a, "--lora", &b]), whole);
}

#[test]
fn the_configuration_names_adapters_too() {
    let home = home();
    let config = home.path().join("config.toml");
    std::fs::write(&config, format!("lora = [{:?}]\n", adapter(""))).expect("a file");
    let generate = ["generate", "once upon a time", "-n", "12", "--ignore-eos", "--config"];
    let assert = host(&home).arg("--model").arg(tiny("llama")).args(generate).arg(&config).assert().success();
    assert_eq!(stdout(&assert), text(&["--lora", &adapter("")]));
}

#[test]
fn a_saved_sequence_needs_its_adapter() {
    let folder = home();
    let state = folder.path().join("state").display().to_string();
    let (one, half) = (adapter(""), adapter(":0.5"));
    let go_on = ["generate", "-n", "4", "--load-state", &state];
    on("llama", &["generate", "once", "-n", "4", "--lora", &one, "--save-state", &state]).success();
    on("llama", &[&go_on[..], &["--lora", &one]].concat()).success();
    fails(on("llama", &[&go_on[..], &["--lora", &half]].concat()), &["other adapters (LoRA) or scales"]);
    fails(on("llama", &go_on), &["the adapter \"llama_lora\" is needed, which isn't loaded"]);
}

#[test]
fn what_is_no_adapter_of_the_model_is_refused() {
    let model = tiny("llama").display().to_string();
    let with = |model: &str, lora: &str| on(model, &["generate", "x", "--lora", lora]);
    fails(with("llama", &model), &["general.type is", "where \"adapter\" was expected"]);
    fails(with("qwen2", &adapter("")), &["general.architecture is \"llama\", where \"qwen2\" was expected"]);
    fails(with("llama", "/nowhere/x.gguf"), &["/nowhere/x.gguf cannot be opened"]);
    fails(with("llama", &adapter(":inf")), &["the scale inf, where a finite number was expected"]);
}
