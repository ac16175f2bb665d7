//! What the program keeps: sessions and states are whole or named as damaged, whoever died while they were written.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use herald_testing::{cpu_plugin, tiny};

use crate::{fails, home, host, json, stderr};

const UNFINISHED: &str = ".herald-unfinished-";

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder").flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_saved_state_with_a_flipped_bit_is_never_loaded() {
    let home = home();
    let state = home.path().join("state");
    let save = || {
        let mut command = host(&home);
        command.arg("--model").arg(tiny("llama")).args([
            "generate",
            "once upon a time",
            "-n",
            "4",
            "--quiet",
        ]);
        command.arg("--save-state").arg(&state).assert().success();
    };
    let load = || {
        let mut command = host(&home);
        command.arg("--model").arg(tiny("llama")).args(["generate", "-n", "2", "--quiet", "--load-state"]);
        command.arg(&state).assert()
    };
    save();
    load().success();
    let whole = fs::read(&state).expect("the file");
    for (at, words) in [(whole.len() - 3, "its part"), (100, "its header"), (3, "")] {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&state, bytes).expect("the file");
        fails(load(), &["state", "can't be read", words]);
    }
    let mut zeros = whole.clone();
    let header = u64::from_le_bytes(whole[..8].try_into().expect("eight bytes")) as usize;
    zeros[8 + header..].fill(0);
    fs::write(&state, zeros).expect("the file");
    fails(load(), &["its part", "is damaged"]);
    // A left-over of a run that was killed goes with the next save.
    let left = home.path().join(format!("{UNFINISHED}old"));
    fs::write(&left, vec![0; 100_000]).expect("a file");
    save();
    assert!(!left.exists());
    load().success();
}

#[cfg(unix)]
#[test]
fn a_sessions_lock_is_no_link() {
    use std::os::unix::fs::symlink;
    let home = home();
    let folder = home.path().join("sessions");
    fs::create_dir(&folder).expect("a folder");
    let precious = home.path().join("precious");
    fs::write(&precious, "years of work").expect("a file");
    symlink(&precious, folder.join("talk.lock")).expect("a link");
    let mut chat = host(&home);
    chat.arg("--model").arg(tiny("llama")).args(["chat", "--session", "talk", "--session-dir"]).arg(&folder);
    fails(chat.write_stdin("hello\n").assert(), &["talk.lock", "symbolic link"]);
    assert_eq!(fs::read(&precious).expect("the file"), b"years of work");
}

/// Killed at any time, a save leaves the former state or the new one, and nothing beside it once there is another.
#[test]
fn a_save_that_is_killed_leaves_a_whole_state() {
    let home = home();
    let state = home.path().join("state");
    let command = |action: &str, tokens: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
        command.env("HOME", home.path()).env("HERALD_BACKEND", "cpu").arg("--allow-insecure-plugins");
        command.arg("--plugin").arg(cpu_plugin()).arg("--model").arg(tiny("llama"));
        command.args(["generate", "once upon a time", "--ignore-eos", "--quiet", "-n", tokens]).arg(action);
        command.arg(&state).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let begun = Instant::now();
    assert!(command("--save-state", "40").status().expect("it runs").success());
    let whole = begun.elapsed().max(Duration::from_millis(50));
    for part in 1..=12 {
        let mut child = command("--save-state", "40").spawn().expect("it runs");
        std::thread::sleep(whole * part / 12);
        child.kill().expect("it is killed");
        child.wait().expect("it has ended");
        assert!(command("--load-state", "1").status().expect("it runs").success(), "after part {part}");
    }
    assert!(command("--save-state", "40").status().expect("it runs").success());
    let left: Vec<_> = names(home.path()).into_iter().filter(|name| name.starts_with(UNFINISHED)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn logits_are_compared_and_ids_are_passed_on() {
    let home = home();
    let at = |name: &str| home.path().join(name);
    let on_llama = || {
        let mut command = host(&home);
        command.arg("--model").arg(tiny("llama"));
        command
    };
    let ids = on_llama().args(["tokenize", "--json", "--", "a quick brown fox"]).assert().success();
    let ids = ids.get_output().stdout.clone();
    for (name, pieces) in [("a", "1000"), ("b", "3")] {
        let mut command = on_llama();
        command.args(["logits", "--ids", "-", "--pieces", pieces, "--out"]).arg(at(name));
        command.write_stdin(ids.clone()).assert().success();
    }
    let compare = |a: &str, b: &str, more: &[&str]| {
        host(&home).args(["logits", "compare"]).args([at(a), at(b)]).args(more).assert()
    };
    let found = json(&compare("a", "a", &["--json", "--max-kl", "0"]).success());
    assert_eq!((&found["kl"]["max"], &found["top1_agreement"]), (&0.0.into(), &1.0.into()));
    let found = json(&compare("a", "b", &["--json", "--max-kl", "1e-4"]).success());
    assert_eq!(found["top1_agreement"], 1.0);
    assert!(found["kl"]["mean"].as_f64().is_some_and(|kl| kl < 1e-4), "{found}");
    let table = compare("a", "b", &[]).success();
    assert!(String::from_utf8_lossy(&table.get_output().stdout).contains("most likely token after 100.00%"));

    // Other logits: one of each token's is raised.
    let mut bytes = fs::read(at("a")).expect("the file");
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&50_f32.to_le_bytes());
    fs::write(at("c"), &bytes).expect("a file");
    let failed = compare("a", "c", &["--max-kl", "0.01"]).code(1);
    assert!(
        stderr(&failed).contains("mean KL divergence") && stderr(&failed).contains("0.01"),
        "{}",
        stderr(&failed)
    );
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(at("c"), &bytes).expect("a file");
    fails(compare("a", "c", &[]), &["the logit NaN after token"]);
    on_llama().args(["logits", "--text", "-", "--out"]).arg(at("d")).write_stdin("other").assert().success();
    fails(compare("a", "d", &[]), &["tokens"]);
    fs::write(at("e"), "no logits").expect("a file");
    fails(compare("a", "e", &[]), &["e: ", "safetensors"]);
    fails(compare("a", "none", &[]), &["none: "]);
}

#[cfg(unix)]
#[test]
fn files_as_the_field_has_them() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let home = home();
    let at = |name: &str| home.path().join(name);
    // A path that is no UTF-8, as an argument and in JSON.
    let odd = home.path().join(OsStr::from_bytes(b"caf\xe9.gguf"));
    fs::copy(tiny("llama"), &odd).expect("a copy");
    host(&home).arg("--model").arg(&odd).args(["generate", "x", "-n", "2", "--quiet"]).assert().success();
    json(&host(&home).args(["info", "--json", "--no-tensors"]).arg(&odd).assert().success());
    host(&home).env("HERALD_MODEL", &odd).args(["tokenize", "x"]).assert().success();
    // What was downloaded instead of a model.
    fs::write(at("lfs.gguf"), "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n")
        .expect("a file");
    fails(
        host(&home).arg("info").arg(at("lfs.gguf")).assert(),
        &["lfs.gguf", "Git LFS pointer", "git lfs pull"],
    );
    std::os::unix::fs::symlink(at("pruned"), at("broken.gguf")).expect("a link");
    let broken = host(&home).arg("--model").arg(at("broken.gguf")).args(["generate", "x"]).assert();
    fails(broken, &["broken.gguf", "symbolic link to", "pruned, which isn't there"]);
    // Byte order marks.
    fs::write(at("plain"), "hello").expect("a file");
    fs::write(at("marked"), "\u{feff}hello").expect("a file");
    let tokens = |name: &str| {
        json(
            &host(&home)
                .arg("--model")
                .arg(tiny("llama"))
                .args(["tokenize", "--json", "-f"])
                .arg(at(name))
                .assert()
                .success(),
        )
    };
    assert_eq!(tokens("plain"), tokens("marked"));
    fs::write(at("schema"), "\u{feff}{\"type\": \"boolean\"}").expect("a file");
    let mut command = host(&home);
    command.arg("--model").arg(tiny("llama")).args(["generate", "x", "-n", "8", "--quiet", "--json-schema"]);
    command.arg(at("schema")).assert().success();
    fs::write(at("marked.toml"), "\u{feff}threads = 1\n").expect("a file");
    let mut command = host(&home);
    command.arg("--config").arg(at("marked.toml")).arg("--model").arg(tiny("llama"));
    command.args(["tokenize", "x"]).assert().success();
    // A home that can't have folders: what needs none works, and what needs one says so.
    let homeless = |arguments: &[&str]| {
        let mut command = host(&home);
        for variable in ["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"] {
            command.env_remove(variable);
        }
        command.env("HOME", "/dev/null").arg("--model").arg(tiny("llama")).args(arguments).assert()
    };
    homeless(&["generate", "x", "-n", "2", "--quiet"]).success();
    fails(homeless(&["docs", "list"]), &["/dev/null", "folder"]);
    fails(homeless(&["chat", "--session", "x"]), &["/dev/null", "folder"]);
}

/// Weights are packed into the cache folder once, unless that isn't wanted, and can be removed.
#[cfg(unix)]
#[test]
fn packed_weights_are_listed_and_removed() {
    let home = home();
    let generate = |options: &[&str]| {
        let mut command = crate::host_of_real_model(&home);
        let assert =
            command.args(options).args(["generate", "Once", "-n", "4", "--quiet"]).assert().success();
        crate::stdout(&assert)
    };
    let packs = |options: &[&str]| {
        json(&host(&home).args(["cache", "packs", "--json"]).args(options).assert().success())
    };
    let text = generate(&["--no-pack-cache"]);
    assert!(packs(&[])["packs"].as_array().is_some_and(Vec::is_empty));
    assert_eq!(generate(&[]), text);
    if herald_testing::simd_plugin().is_none() {
        return;
    }
    let kept = &packs(&[])["packs"];
    let (plugin, bytes) = (&kept[0]["plugin"], &kept[0]["bytes"]);
    assert!(plugin == "simd" && bytes.as_u64().is_some_and(|bytes| bytes > 50_000_000), "{kept}");
    assert_eq!(generate(&[]), text);
    assert_eq!(&packs(&["--clear"])["bytes"], bytes);
    assert!(packs(&[])["packs"].as_array().is_some_and(Vec::is_empty));
    // A folder that is in the way is no reason to fail.
    fs::remove_dir_all(home.path().join("cache/herald/packs")).expect("the folder");
    fs::write(home.path().join("cache/herald/packs"), "a file").expect("a file");
    assert_eq!(generate(&[]), text);
}
