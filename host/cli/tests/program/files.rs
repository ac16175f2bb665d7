//! Files that the program makes: quantised models and synthesised ones.

use std::fs;
use std::path::Path;

use herald_testing::tiny;
use serde_json::Value;
use tempfile::TempDir;

use crate::{GREEDY, fails, home, host, json, misused, stderr};

/// A tiny model, converted to another type.
fn quantized(home: &TempDir, dtype: &str) -> std::path::PathBuf {
    let out = home.path().join(format!("{dtype}.gguf"));
    host(home).arg("quantize").args([&tiny("llama"), &out]).args(["--type", dtype]).assert().success();
    out
}

#[test]
fn a_quantized_model_runs_and_says_what_it_is() {
    let home = home();
    for dtype in ["f16", "q8_0", "Q4_0", "iq4_nl"] {
        let out = quantized(&home, dtype);
        let info = json(&host(&home).args(["info", "--json"]).arg(&out).assert().success());
        let tensors = info["tensors"].as_array().unwrap();
        let of = |name: &str| {
            tensors.iter().find(|tensor| tensor["name"] == name).map(|tensor| tensor["type"].clone())
        };
        assert_eq!(of("blk.0.attn_q.weight"), Some(dtype.to_uppercase().into()));
        assert_eq!(of("blk.0.attn_norm.weight"), Some("F32".into()));
        host(&home).arg("--model").arg(&out).args(GREEDY).assert().success();
    }
    // Only the models are left behind.
    let files = fs::read_dir(home.path()).unwrap().filter_map(Result::ok);
    let others = files.filter(|file| file.path().extension().is_none_or(|extension| extension != "gguf"));
    assert!(others.filter(|file| file.file_name().to_string_lossy().starts_with(".host")).count() == 0);
}

#[test]
fn quantize_says_where_it_departs_from_the_wish() {
    let home = home();
    let out = home.path().join("out.gguf");
    let assert = host(&home)
        .arg("quantize")
        .args([&tiny("llama"), &out])
        .args(["--type", "q4_k", "--json"])
        .assert()
        .success();
    assert!(stderr(&assert).contains("not a multiple of Q4_K's 256: Q5_0 instead"), "{}", stderr(&assert));
    let report = json(&assert);
    assert_eq!(report["bytes"], fs::metadata(&out).unwrap().len());
    assert_eq!(report["fallbacks"][0]["wanted"], "Q4_K");
    // It warns about quantising twice.
    let again = home.path().join("again.gguf");
    let assert = host(&home).arg("quantize").args([&out, &again]).args(["--type", "q4_0"]).assert().success();
    assert!(stderr(&assert).contains("quantized already"), "{}", stderr(&assert));
}

#[test]
fn quantize_keeps_what_is_there_when_it_fails() {
    let home = home();
    let input = home.path().join("in.gguf");
    fs::copy(tiny("llama"), &input).unwrap();
    let before = fs::read(&input).unwrap();
    let quantize = |to: &Path, dtype: &str| {
        host(&home).arg("quantize").args([input.as_path(), to]).args(["--type", dtype]).assert()
    };
    misused(quantize(&input, "q8_0"), &["in.gguf", "another output file"]);
    misused(quantize(&home.path().join(".").join("in.gguf"), "q8_0"), &["another output file"]);
    assert_eq!(fs::read(&input).unwrap(), before);
    misused(quantize(&home.path().join("out.gguf"), "q9"), &["q9", "iq4_xs"]);
    fails(quantize(Path::new("/dev/full"), "q8_0"), &["/dev/full", "can't be written"]);
    fails(
        quantize(&home.path().join("none").join("out.gguf"), "q8_0"),
        &["none/out.gguf", "can't be written"],
    );
    fails(
        host(&home).arg("quantize").args(["none.gguf", "out.gguf", "--type", "q8_0"]).assert(),
        &["none.gguf"],
    );
}

/// What a command reads it never replaces, whatever it writes.
#[test]
fn no_output_takes_the_place_of_an_input() {
    let home = home();
    let of = |name: &str| home.path().join(name);
    let (model, text, state, matrix) = (of("m.gguf"), of("t.txt"), of("s.state"), of("i.gguf"));
    fs::copy(tiny("llama"), &model).unwrap();
    fs::write(&text, "hello world ".repeat(40)).unwrap();
    let run = |arguments: &[&Path]| host(&home).arg("--model").arg(&model).args(arguments).assert();
    let p = Path::new;
    run(&[p("imatrix"), &matrix, p("--window"), p("16"), p("--file"), &text]).success();
    run(&[p("generate"), p("a"), p("-n"), p("2"), p("--save-state"), &state]).success();
    let everything = || [&model, &text, &state, &matrix].map(|path| fs::read(path).unwrap());
    let before = everything();
    for output in [&model, &text] {
        misused(run(&[p("imatrix"), output, p("-f"), &text]), &["another output file"]);
        misused(run(&[p("logits"), p("--text"), &text, p("-o"), output]), &["another output file"]);
        let saved = run(&[p("generate"), p("-f"), &text, p("-n"), p("2"), p("--save-state"), output]);
        misused(saved, &["another output file"]);
    }
    misused(
        run(&[p("quantize"), &model, &matrix, p("-T"), p("q8_0"), p("--imatrix"), &matrix]),
        &["the importance matrix", "another output file"],
    );
    // A saved sequence takes no other file's place, and nothing is computed for a place that isn't there.
    fails(
        run(&[p("generate"), p("a"), p("--save-state"), &matrix]),
        &["i.gguf", "no saved sequence", "would be lost"],
    );
    fails(run(&[p("cache"), p("compress"), &state, p("-o"), &matrix]), &["i.gguf", "would be lost"]);
    fails(run(&[p("cache"), p("usage"), &text]), &["t.txt", "no saved sequence"]);
    fails(run(&[p("generate"), p("a"), p("--save-state"), &of("none").join("s")]), &["none", "isn't there"]);
    misused(run(&[p("logits"), p("--text"), &text, p("-o"), p("-")]), &["stdout", "./-"]);
    assert_eq!(everything(), before);
    let copy = of("checkpoint");
    fs::create_dir(&copy).unwrap();
    for file in fs::read_dir(crate::convert::checkpoint("llama_llama3"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| file.is_file())
    {
        fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
    }
    let config = fs::read(copy.join("config.json")).unwrap();
    misused(
        host(&home).arg("convert").args([&copy, &copy.join("config.json")]).assert(),
        &["a file of the checkpoint", "another output file"],
    );
    assert_eq!(fs::read(copy.join("config.json")).unwrap(), config);
}

/// A file that takes another's place has its readers, and no others.
#[cfg(unix)]
#[test]
fn a_model_that_is_written_anew_keeps_its_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let home = home();
    let model = home.path().join("private.gguf");
    fs::copy(tiny("llama"), &model).unwrap();
    fs::set_permissions(&model, fs::Permissions::from_mode(0o600)).unwrap();
    host(&home).args(["gguf", "set"]).arg(&model).arg("general.note=hello").assert().success();
    assert_eq!(fs::metadata(&model).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Models that the program knows by name are taken by name where a file is expected.
#[cfg(unix)]
#[test]
fn a_model_that_was_pulled_is_taken_by_its_name() {
    let home = home();
    let name = "smollm2-135m-instruct";
    let folder = home.path().join("cache/herald/models");
    fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink(herald_testing::smollm2(), folder.join(format!("{name}.gguf"))).unwrap();
    let info = json(&host(&home).args(["info", "--no-tensors", "--json", name]).assert().success());
    assert_eq!(info["model"]["blocks"], 30);
    let shown = crate::stdout(&host(&home).args(["info", "--no-tensors", name]).assert().success());
    assert!(shown.contains("98.36 MB"), "{shown}");
    let out = home.path().join("out.gguf");
    let quantize = host(&home).args(["quantize", name]).arg(&out).args(["--type", "q2_k", "--json"]).assert();
    let report = json(&quantize.success());
    assert_eq!(report["bytes"], fs::metadata(&out).unwrap().len());
    let listed = json(&host(&home).args(["pull", "--json"]).assert().success());
    assert_eq!(
        (&listed["models"][0]["name"], &listed["models"][0]["bytes"]),
        (&name.into(), &98_362_432.into())
    );
    let table = crate::stdout(&host(&home).arg("pull").assert().success());
    assert!(table.contains("98.36 MB") && table.contains("Apache-2.0"), "{table}");
    assert_eq!(listed["models"][1]["terms"], "https://ai.google.dev/gemma/terms");
    let terms = ["ai.google.dev/gemma/terms", "host pull gemma-3-270m --accept-terms"];
    fails(host(&home).args(["pull", "gemma-3-270m"]).assert(), &terms);
    fails(host(&home).args(["generate", "--model", "gemma-3-270m", "Once"]).assert(), &terms);
    let pulled = json(&host(&home).args(["pull", name, "--json"]).assert().success());
    assert_eq!((&pulled["name"], &pulled["fetched"]), (&name.into(), &false.into()));
    fails(
        host(&home).arg("quantize").args(["gpt-5", "out.gguf", "--type", "q8_0"]).assert(),
        &["gpt-5", name],
    );
}

#[test]
fn synth_writes_models_that_run() {
    let home = home();
    let path = home.path().join("random.gguf");
    let file = path.to_str().expect("UTF-8");
    let arguments = ["synth", "--arch", "mamba2", "--like", "130m", "--type", "q4_k_m", file];
    let assert = host(&home).args(arguments).assert().success();
    assert_eq!(crate::stdout(&assert), format!("{file}\n"));
    assert!(stderr(&assert).contains("mamba2 130m") && stderr(&assert).contains("MB"), "{}", stderr(&assert));
    let eight_bits = ["synth", "--arch", "mamba2", "--like", "130m", "--type", "q8_0", "--json", file];
    let report = json(&host(&home).args(eight_bits).assert().success());
    assert_eq!(report["bytes"], fs::metadata(&path).unwrap().len());
    let report = json(&host(&home).args(["info", "--json", "--no-tensors", file]).assert().success());
    assert_eq!(report["unsupported"], Value::Null);
    assert_eq!(report["model"]["layers"]["mamba2"], 24);
    misused(
        host(&home).args(["synth", "--arch", "mamba2", "--like", "9t", file]).assert(),
        &["mamba2 9t", "granite_hybrid 350m"],
    );
}
