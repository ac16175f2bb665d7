//! `host plugin new`: what it writes builds as its last line says, computes as the cpu backend does, and passes the check.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use herald_testing::{repository, run, tiny};
use tempfile::TempDir;

use crate::{GREEDY, fails, home, host, misused, stderr, stdout};

/// Writes a plugin into a folder with a space in its name, and builds it.
fn written(home: &TempDir, name: &str, lang: &str, kind: &str) -> PathBuf {
    let folder = home.path().join("a folder").join(name);
    let mut command = host(home);
    command.args(["plugin", "new", name, "--lang", lang, "--kind", kind]).arg(&folder);
    if lang == "rust" {
        command.arg("--herald-api").arg(repository().join("herald-api"));
    }
    let assert = command.assert().success();
    assert_eq!(stdout(&assert).trim_end(), folder.display().to_string());
    let file = format!("libherald_{}.so", name.to_lowercase().replace('-', "_"));
    assert!(stderr(&assert).contains(&file), "{}", stderr(&assert));
    if lang == "rust" {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin_new");
        // What the crate may use is in cargo's cache, since HERALD itself uses it.
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--quiet", "--offline", "--release"])
            .current_dir(&folder)
            .arg("--target-dir")
            .arg(&target);
        run(cargo.env("RUSTFLAGS", "-D warnings"));
        return target.join("release").join(file);
    }
    let mut make = Command::new("make");
    run(make.current_dir(&folder).env("CFLAGS", "-O2 -Werror").env("CXXFLAGS", "-O2 -Werror"));
    folder.join(file)
}

#[test]
fn layers_in_each_language_compute_what_cpu_does() {
    let home = home();
    let expected = host(&home).arg("--model").arg(tiny("llama")).args(GREEDY).assert().success();
    for (name, lang) in [("in-C", "c"), ("in_cpp", "cpp"), ("in-rust", "rust")] {
        let plugin = written(&home, name, lang, "layers");
        let mut command = host(&home);
        command.arg("--plugin").arg(&plugin).args(["--backend", name]).arg("--model").arg(tiny("llama"));
        let assert = command.args(GREEDY).assert().success();
        assert_eq!(stdout(&assert), stdout(&expected), "{name}");
        let mut command = host(&home);
        let assert =
            command.arg("--plugin").arg(&plugin).args(["backends", "--backend", name]).assert().success();
        let listed = stdout(&assert);
        assert!(listed.contains("layers (mlp)"), "{listed}");
        assert!(
            listed.contains(&format!("{name} is asked first for mlp layers, since it was named")),
            "{listed}"
        );
        host(&home).args(["plugin", "check"]).arg(&plugin).assert().success();
    }
}

#[test]
fn tokenizers_and_tiers_in_each_language_pass_the_check() {
    let home = home();
    let expected = host(&home).arg("--model").arg(tiny("llama")).args(GREEDY).assert().success();
    for lang in ["c", "cpp", "rust"] {
        for kind in ["tokenizer", "tier"] {
            let name = format!("a-{kind}-in-{lang}");
            let plugin = written(&home, &name, lang, kind);
            host(&home).args(["plugin", "check"]).arg(&plugin).assert().success();
            let mut command = host(&home);
            command.arg("--plugin").arg(&plugin).args(["--backend", &name]).arg("--model").arg(tiny("llama"));
            assert_eq!(stdout(&command.args(GREEDY).assert().success()), stdout(&expected), "{name}");
        }
    }
}

#[test]
fn nothing_is_overwritten() {
    let home = home();
    let folder = home.path().join("mine");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("LICENSE"), "mine").expect("a file");
    fs::write(folder.join("Makefile"), "mine").expect("a file");
    let new = |home: &TempDir| {
        let mut command = host(home);
        command.args(["plugin", "new", "mine", "--lang", "c"]).arg(&folder);
        command.assert()
    };
    fails(new(&home), &["Makefile", "there already"]);
    assert_eq!(fs::read_dir(&folder).expect("the folder").count(), 2, "all files or none");
    fs::remove_file(folder.join("Makefile")).expect("the file goes");
    new(&home).success();
    assert_eq!(fs::read_to_string(folder.join("LICENSE")).expect("the file"), "mine");
}

#[test]
fn names_and_places_are_checked() {
    let home = home();
    let new = |arguments: &[&str]| {
        let mut command = host(&home);
        command.current_dir(home.path()).args(["plugin", "new"]).args(arguments);
        command.assert()
    };
    for name in ["", "a b", "../up", "n\u{e4}me", &"x".repeat(65)] {
        misused(new(&[name, "--lang", "c"]), &["is no name for a plugin", "1 to 64 of A-Z a-z 0-9 - _"]);
    }
    misused(new(&["auto", "--lang", "c"]), &["auto", "one of its own"]);
    misused(new(&["mine", "--lang", "c", "--herald-api", "."]), &["--herald-api is for --lang rust"]);
    fails(new(&["mine", "--lang", "rust", "--herald-api", "."]), &["not the folder of the crate herald-api"]);
    assert!(!home.path().join("mine").exists());
    new(&["mine", "--lang", "c"]).success();
    assert!(home.path().join("mine/plugin.c").is_file());
}
