//! `host backends --calibrate`, and that other commands follow its measurements.

use std::fs;

use assert_cmd::Command;
use herald_testing::{cpu_plugin, folder, tiny};
use serde_json::Value;

#[test]
fn the_program_calibrates_and_explains_its_choice() {
    let home = folder();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
        for variable in ["HERALD_MODEL", "HERALD_PLUGIN_PATH", "HERALD_BACKEND"] {
            command.env_remove(variable);
        }
        command.env("HOME", home.path()).env("XDG_CACHE_HOME", home.path().join("cache"));
        command.arg("--allow-insecure-plugins").arg("--plugin").arg(cpu_plugin());
        let output =
            command.arg("--model").arg(tiny("llama")).args(arguments).output().expect("it can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        (String::from_utf8(output.stdout).expect("UTF-8"), said)
    };
    let json = |arguments: &[&str]| -> Value { serde_json::from_str(&run(arguments).0).expect("JSON") };
    assert_eq!(json(&["backends", "--json"])["choice"]["by"], "score");
    let (text, _) = run(&["backends", "--calibrate"]);
    assert!(text.contains("MEASURED") && text.contains("since it is the fastest here"), "{text}");
    let report = json(&["backends", "--json"]);
    assert!(
        report["choice"]["by"] == "calibration" && report["reason"] == report["choice"]["why"],
        "{report}"
    );
    for arguments in [&["info", "--json"][..], &["bench", "speed", "-p", "8", "-n", "2", "--json"]] {
        assert_eq!(json(arguments)["choice"], report["choice"], "{arguments:?}");
    }
    let calibrations = home.path().join("cache/herald/calibrations");
    let foreign = calibrations.join("foreign.json");
    fs::write(&foreign, "{}").expect("a file");
    for arguments in [&["backends"][..], &["generate", "once", "--max-tokens", "1"]] {
        let (_, said) = run(arguments);
        assert_eq!(said.matches("foreign.json: ignored").count(), 1, "{said}");
    }
    assert_eq!(json(&["backends", "--json"])["ignored"].as_array().map(Vec::len), Some(1));
}

/// A plugin's path may be no UTF-8: it is recorded as its bytes, and found again.
#[cfg(target_os = "linux")]
#[test]
fn plugins_at_any_path_are_calibrated() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::{home, host, json};
    let (home, folder) = (home(), folder());
    let odd = folder.path().join(OsStr::from_bytes(b"caf\xe9"));
    fs::create_dir(&odd).expect("a folder");
    let file = herald_testing::compile("host/tests/plugins/faulty.c", "NEWER", &odd);
    let by = |arguments: &[&str]| {
        let mut command = host(&home);
        command.env("HERALD_BACKEND", "auto").arg("--plugin").arg(&file).arg("--model").arg(tiny("llama"));
        json(&command.args(arguments).assert().success())
    };
    let report = by(&["backends", "--calibrate", "--json"]);
    assert!(report["choice"]["by"] == "calibration", "{report}");
    assert!(by(&["backends", "--json"])["choice"]["by"] == "calibration", "it is not recognised");
}
