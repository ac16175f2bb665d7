//! Tokenizers and tiers with one fault each, checked in this process: the faults that don't end it.

use std::path::{Path, PathBuf};
use std::process::Command;

use herald_api::import::{Entry, Plugin};
use herald_conformance::{Finding, Observer, Outcome, Part, Sink};

/// Collects findings.
#[derive(Default)]
struct Collected(Vec<Finding>);

impl Observer for Collected {
    fn begins(&mut self, _subject: &str) -> bool {
        true
    }

    fn ends(&mut self, finding: Finding) {
        self.0.push(finding);
    }
}

/// The checks count the process's memory and bound its files: runs the test of this name in a process of its own.
fn alone(test: &str, body: impl FnOnce()) {
    const OWN_PROCESS: &str = "HERALD_TEST_OWN_PROCESS";
    if std::env::var_os(OWN_PROCESS).is_some() {
        return body();
    }
    let mut command = Command::new(std::env::current_exe().expect("a test knows its own path"));
    let output = command.args(["--exact", test]).env(OWN_PROCESS, "1").output().expect("it can be run");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // A name that no test has would be no failure.
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn cpu() -> Plugin {
    // SAFETY: it is the crate's own entry, linked into the test.
    let plugin = unsafe { Plugin::load(herald_cpu::herald_plugin_v1, Box::new(()), |_, _| {}) };
    plugin.expect("the plugin loads")
}

/// Compiles the source of this name with a macro defined.
fn compile(name: &str, fault: &str, folder: &Path) -> PathBuf {
    let library = folder.join(format!("libherald_{}.so", fault.to_lowercase()));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-shared", "-fPIC", "-I"])
        .arg(here.join("../../include"))
        .arg(format!("-D{fault}"))
        .arg("-o")
        .arg(&library)
        .arg(here.join(format!("tests/faulty/{name}.c")))
        .output()
        .expect("a C compiler");
    assert!(output.status.success(), "{fault}: {}", String::from_utf8_lossy(&output.stderr));
    library
}

/// The plugin that a macro makes of a source.
fn built(name: &str, fault: &str) -> Plugin {
    let folder = tempfile::tempdir().expect("a folder");
    // SAFETY: a library of our own, whose entry is as the header says. It stays loaded when its file is gone.
    unsafe {
        let library = libloading::Library::new(compile(name, fault, folder.path())).expect("it loads");
        let entry: Entry = *library.get(b"herald_plugin_v1").expect("its entry");
        Plugin::load(entry, Box::new(library), |_, _| {}).expect("a sound table")
    }
}

/// What the checks of parts find.
fn findings(plugin: &Plugin, parts: &[Part]) -> Vec<Finding> {
    let mut collected = Collected::default();
    herald_conformance::check(plugin, &cpu(), parts, &mut Sink::new(&mut collected).alone());
    collected.0
}

/// Checks that each macro of a source makes a plugin with exactly this fault: the first is what is to be found, others may
/// follow from it.
fn each_is_named(name: &str, part: Part, faults: &[(&str, &[&str])]) {
    for (macro_name, expected) in faults {
        let failed: Vec<Finding> = findings(&built(name, macro_name), &[part])
            .into_iter()
            .filter(|finding| matches!(finding.outcome, Outcome::Failed(..)))
            .collect();
        let named = |name: &str| {
            failed
                .iter()
                .any(|finding| matches!(finding.outcome, Outcome::Failed(fault, _) if fault.name() == name))
        };
        assert!(named(expected[0]), "{macro_name}: {failed:#?}");
        let strange = failed.iter().find(
            |finding| !matches!(finding.outcome, Outcome::Failed(fault, _) if expected.contains(&fault.name())),
        );
        assert_eq!(strange, None, "{macro_name}");
    }
}

/// Checks that a plugin passes, and that so much of it was checked.
fn passes(plugin: &Plugin, parts: &[Part], at_least: usize) {
    let findings = findings(plugin, parts);
    let failed: Vec<&Finding> =
        findings.iter().filter(|finding| matches!(finding.outcome, Outcome::Failed(..))).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let passed = findings.iter().filter(|finding| matches!(finding.outcome, Outcome::Passed(_))).count();
    assert!(passed >= at_least, "only {passed} passed: {findings:#?}");
}

#[test]
fn the_reference() {
    alone("the_reference", || {
        passes(&cpu(), &[Part::Tokenizers, Part::Tiers], 240);
    });
}

#[test]
fn sound_plugins() {
    alone("sound_plugins", || {
        passes(&built("tokenizer", "SOUND"), &[Part::Tokenizers], 17);
        passes(&built("tier", "SOUND"), &[Part::Tiers], 35);
    });
}

#[test]
fn tokenizers() {
    alone("tokenizers", || {
        let faults: [(&str, &[&str]); 8] = [
            ("COUNT_LIES", &["wrong-length"]),
            ("ID_OUT_OF_RANGE", &["wrong-result"]),
            ("WRONG_DECODE", &["wrong-result"]),
            ("QUADRATIC", &["hangs"]),
            ("IGNORES_ROOM", &["writes-outside"]),
            ("KEEPS_VOCABULARY", &["reads-outside"]),
            ("TAKES_CONTRADICTION", &["accepts-damage"]),
            ("LEAKS", &["leaks"]),
        ];
        each_is_named("tokenizer", Part::Tokenizers, &faults);
    });
}

#[test]
fn tiers_whose_lengths_lie() {
    alone("tiers_whose_lengths_lie", || {
        let faults: [(&str, &[&str]); 4] = [
            ("LIST_OF_2_61", &["wrong-length"]),
            ("LIST_OF_2_42", &["wrong-length"]),
            ("LIST_GROWS", &["wrong-length"]),
            ("VIEW_LENGTH_LIES", &["wrong-length"]),
        ];
        each_is_named("tier", Part::Tiers, &faults);
    });
}

#[test]
fn tiers_that_give_or_keep_the_wrong_pages() {
    alone("tiers_that_give_or_keep_the_wrong_pages", || {
        let faults: [(&str, &[&str]); 5] = [
            ("GIVES_ANOTHER", &["loses-data"]),
            ("GET_WRITES_PAST", &["writes-outside"]),
            ("DROPS_NOTHING", &["wrong-status", "wrong-length", "loses-data"]),
            ("DROP_LEAKS", &["leaks"]),
            ("IGNORES_CAPACITY", &["wrong-status"]),
        ];
        each_is_named("tier", Part::Tiers, &faults);
    });
}

#[test]
fn archives_that_take_damage_or_a_full_disk_for_sound() {
    alone("archives_that_take_damage_or_a_full_disk_for_sound", || {
        let faults: [(&str, &[&str]); 2] =
            [("TAKES_DAMAGE", &["accepts-damage"]), ("SILENT_WHEN_FULL", &["loses-data"])];
        each_is_named("tier", Part::Tiers, &faults);
    });
}
