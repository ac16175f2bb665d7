//! Checkpoints that the program converts: the small ones of `host/convert`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{GREEDY, fails, home, host, json, misused, stderr};

pub(crate) fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../convert/tests/data").join(name)
}

#[test]
fn converted_checkpoints_run() {
    let home = home();
    for name in ["llama_llama3", "mistral", "gemma2", "qwen35", "gpt_oss.mxfp4"] {
        let out = home.path().join("out.gguf");
        let report = json(
            &host(&home).arg("convert").args([&checkpoint(name), &out]).arg("--json").assert().success(),
        );
        assert_eq!(report["bytes"], fs::metadata(&out).unwrap().len());
        host(&home).arg("--model").arg(&out).args(GREEDY).assert().success();
    }
    let out = home.path().join("bert.gguf");
    host(&home).arg("convert").args([&checkpoint("bert"), &out]).assert().success();
    let embedded =
        json(&host(&home).args(["embed", "--json", "--model"]).arg(&out).arg("a text").assert().success());
    assert_eq!(embedded["embeddings"][0].as_array().unwrap().len(), 16);
}

#[test]
fn a_type_and_a_name_are_taken() {
    let home = home();
    let out = home.path().join("out.gguf");
    let assert = host(&home)
        .arg("convert")
        .args([&checkpoint("llama_llama3"), &out])
        .args(["--type", "q4_k", "--name", "Small"])
        .assert()
        .success();
    assert!(stderr(&assert).contains("not a multiple of Q4_K's 256: Q5_0 instead"), "{}", stderr(&assert));
    let info = json(&host(&home).args(["info", "--json"]).arg(&out).assert().success());
    assert_eq!(info["metadata"]["general.name"], "Small");
    host(&home).arg("--model").arg(&out).args(GREEDY).assert().success();
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let home = home();
    let out = home.path().join("out.gguf");
    fs::write(&out, "kept").unwrap();
    let convert = |from: &Path| host(&home).arg("convert").args([from, &out]).assert();
    fails(convert(home.path()), &["no model.safetensors"]);
    fails(convert(Path::new("nowhere")), &["nowhere"]);
    misused(host(&home).args(["convert", "a", "b", "--type", "q9"]).assert(), &["q9", "iq4_xs"]);
    assert_eq!(fs::read_to_string(&out).unwrap(), "kept");
    // Nothing is left of a file that couldn't be finished.
    let into = home.path().join("none").join("out.gguf");
    fails(
        host(&home).arg("convert").args([&checkpoint("llama_llama3"), &into]).assert(),
        &["can't be written"],
    );
}
