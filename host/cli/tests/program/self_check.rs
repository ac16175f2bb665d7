//! `host self-check`: a working installation, and each thing that may be wrong with one.

use std::fs;

use herald_testing::{compile, folder};
use serde_json::Value;

use crate::{home, host, json, misused, stdout};

/// The findings of a check.
fn of<'r>(report: &'r Value, check: &str) -> Vec<&'r Value> {
    let checks = report["checks"].as_array().expect("a list");
    checks.iter().filter(|finding| finding["check"] == check).collect()
}

fn text(finding: &Value) -> String {
    format!("{} {}", finding["found"].as_str().unwrap_or(""), finding["remedy"].as_str().unwrap_or(""))
}

#[test]
fn a_working_installation_is_found_to_work() {
    let home = home();
    let said = stdout(&host(&home).arg("self-check").assert().success());
    for (check, words) in [
        ("program", env!("CARGO_PKG_VERSION")),
        ("plugin", "libherald_cpu"),
        ("choice", "cpu"),
        ("cache folder", "writable"),
        ("memory", "available"),
        ("CPU", "features: "),
        ("computing", "cpu: 8 tokens generated"),
    ] {
        let line = said.lines().find(|line| line.starts_with(&format!("ok    {check}: ")));
        assert!(line.is_some_and(|line| line.contains(words)), "{check}: {said}");
    }
    assert!(said.lines().all(|line| line.starts_with("ok    ")), "{said}");
    let report = json(&host(&home).args(["self-check", "--json"]).assert().success());
    assert_eq!(report["ok"], true);
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert!(report["checks"].as_array().is_some_and(|checks| checks.len() == said.lines().count()));
}

/// The finding of `check` that names this.
fn named<'r>(report: &'r Value, check: &str, name: &str) -> &'r Value {
    let found = of(report, check).into_iter().find(|finding| text(finding).contains(name));
    found.unwrap_or_else(|| panic!("{check}: {name}: {report}"))
}

/// What is no plugin, and a plugin that computes wrongly, are told apart from the good one.
#[test]
fn faulty_plugins_are_named() {
    let (home, folder) = (home(), folder());
    fs::write(folder.path().join("libherald_text.so"), "no library").expect("a file");
    compile("host/tests/plugins/faulty.c", "FORWARD_NEGATED", folder.path());
    let check = || {
        let mut command = host(&home);
        command.env("HERALD_PLUGIN_PATH", folder.path()).args(["self-check", "--json"]);
        json(&command.assert().code(1))
    };
    let report = check();
    assert_eq!(report["ok"], false);
    let no_plugin = named(&report, "plugin", "libherald_text.so");
    assert!(no_plugin["ok"] == false && no_plugin["remedy"].is_string(), "{no_plugin}");
    assert_eq!(named(&report, "plugin", "libherald_cpu")["ok"], true);
    assert_eq!(named(&report, "plugin", "libherald_forward_negated")["ok"], true);
    assert_eq!(named(&report, "computing", "cpu: 8 tokens generated")["ok"], true);
    let negated = named(&report, "computing", "faulty: it computes wrongly");
    assert!(negated["ok"] == false && text(negated).contains("remove the plugin"), "{negated}");
}

/// A plugin that has nothing for this machine is no fault of the installation's.
#[test]
fn plugins_for_other_machines_are_no_fault() {
    let (home, folder) = (home(), folder());
    compile("host/tests/plugins/faulty.c", "NO_HARDWARE", folder.path());
    let mut command = host(&home);
    command.env("HERALD_PLUGIN_PATH", folder.path()).args(["self-check", "--json"]);
    let report = json(&command.assert().success());
    let other = named(&report, "plugin", "libherald_no_hardware");
    assert!(other["ok"] == true && text(other).contains("isn't used"), "{other}");
}

#[test]
fn a_cache_folder_that_cannot_be_written_is_named() {
    let home = home();
    fs::write(home.path().join("cache"), "no folder").expect("a file");
    let report = json(&host(&home).args(["self-check", "--json"]).assert().code(1));
    let cache = of(&report, "cache folder")[0];
    assert!(cache["ok"] == false && text(cache).contains("XDG_CACHE_HOME"), "{cache}");
}

#[test]
fn a_backend_that_is_not_there_is_an_error() {
    let home = home();
    let assert = host(&home).env("HERALD_BACKEND", "nonsense").arg("self-check").assert().code(1);
    let said = stdout(&assert);
    assert!(
        said.lines().any(|line| line.starts_with("wrong choice: ") && line.contains("nonsense")),
        "{said}"
    );
    assert!(said.contains("ok    computing: cpu"), "{said}");
    misused(host(&home).args(["self-check", "--context", "3"]).assert(), &["--context"]);
}

#[test]
fn no_room_for_the_model_is_named() {
    let home = home();
    let missing = home.path().join("missing");
    let report = json(&host(&home).env("TMPDIR", &missing).args(["self-check", "--json"]).assert().code(1));
    let computing = of(&report, "computing")[0];
    assert!(computing["ok"] == false && text(computing).contains("TMPDIR"), "{computing}");
}
