//! Faulty plugins, from a user's side: whose fault it was, that the others go on, and that nothing hangs or dies without a word.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use herald_testing::{compile, compile_cpp, cpu_plugin, folder, tiny};
use serde_json::Value;
use tempfile::TempDir;

use super::{GREEDY, fails, home, host, json, stderr, stdout};

fn faulty(fault: &str, folder: &Path) -> PathBuf {
    compile("host/tests/plugins/faulty.c", fault, folder)
}

/// The program beside the plugins of a folder.
fn beside(home: &TempDir, folder: &Path) -> Command {
    let mut command = host(home);
    command.env("HERALD_PLUGIN_PATH", folder).arg("--model").arg(tiny("llama"));
    command
}

/// The program with this plugin named, and preferred.
fn with(home: &TempDir, plugin: &Path, arguments: &[&str]) -> Assert {
    let mut command = host(home);
    command.env("HERALD_BACKEND", "auto").arg("--plugin").arg(plugin);
    command.arg("--model").arg(tiny("llama")).args(arguments).assert()
}

/// Why the file of this name was refused.
fn reason<'r>(report: &'r Value, name: &str) -> &'r str {
    let refused = report["refused"].as_array().expect("a list");
    let found =
        refused.iter().find(|refused| refused["path"].as_str().is_some_and(|path| path.ends_with(name)));
    found.unwrap_or_else(|| panic!("{name} is not refused: {report}"))["reason"].as_str().expect("a sentence")
}

#[test]
fn a_plugin_that_dies_when_it_is_tried_is_refused_by_name_and_the_others_go_on() {
    let (home, folder) = (home(), folder());
    let expected = stdout(&beside(&home, folder.path()).args(GREEDY).assert().success());
    let faults = [
        ("LOAD_ABORTS", "by SIGABRT"),
        ("PROBE_ABORTS", "by SIGABRT"),
        ("PROBE_CRASHES", "by SIGSEGV"),
        ("PROBE_EXITS", "with exit code 0"),
    ];
    for (fault, _) in faults {
        faulty(fault, folder.path());
    }
    compile_cpp("host/tests/plugins/throws.cpp", folder.path());
    faulty("NEWER", folder.path());
    let report = json(&beside(&home, folder.path()).args(["backends", "--json"]).assert().success());
    for (name, how) in faults.into_iter().chain([("THROWS", "by SIGABRT")]) {
        let sentence = format!("its probe ended the process {how}, where an answer within 5 s was expected");
        assert_eq!(reason(&report, &format!("libherald_{}.so", name.to_lowercase())), sentence);
    }
    let names: Vec<&str> = report["backends"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|row| row["name"].as_str())
        .collect();
    assert!(names.contains(&"cpu") && names.contains(&"example-c"), "{names:?}");
    // What became of each is remembered.
    let known = fs::read_to_string(home.path().join("cache/herald/plugins.json")).expect("a record");
    let known: Value = serde_json::from_str(&known).expect("JSON");
    let (answered, failed) = (known["plugins"].to_string(), known["failed"].to_string());
    assert!(answered.contains("libherald_cpu") && answered.contains("libherald_newer"), "{known}");
    for name in ["load_aborts", "probe_aborts", "probe_crashes", "probe_exits", "throws"] {
        assert!(failed.contains(name) && !answered.contains(name), "{name}: {known}");
    }
    let verbose = GREEDY.map(|word| if word == "--quiet" { "-v" } else { word });
    let generated = beside(&home, folder.path()).args(verbose).assert().success();
    assert_eq!(stdout(&generated).trim(), expected.trim());
    let said = stderr(&generated);
    for (fault, how) in faults {
        let name =
            format!("libherald_{}.so: refused: its probe ended the process {how}", fault.to_lowercase());
        assert_eq!(said.matches(&name).count(), 1, "{said}");
    }
}

/// Most of this is waiting, so all wait at once.
#[test]
fn plugins_that_hang_hold_nobody_up_for_long() {
    std::thread::scope(|scope| {
        scope.spawn(a_plugin_that_hangs_when_it_is_tried_is_refused_after_a_while);
        scope.spawn(a_plugin_that_hangs_while_it_is_measured_is_named);
        scope.spawn(a_call_that_hangs_can_be_interrupted);
    });
}

fn a_plugin_that_hangs_when_it_is_tried_is_refused_after_a_while() {
    let (home, folder) = (home(), folder());
    faulty("PROBE_HANGS", folder.path());
    let report = json(&beside(&home, folder.path()).args(["backends", "--json"]).assert().success());
    let sentence = "its probe gave no answer, where an answer within 5 s was expected";
    assert_eq!(reason(&report, "libherald_probe_hangs.so"), sentence);
    assert_eq!(report["chosen"], "cpu");
    // It is not waited for again: not by any command, until it is checked, which fails as well, or changes.
    let again = || json(&beside(&home, folder.path()).args(["backends", "--json"]).assert().success());
    let remembered = again();
    let said = reason(&remembered, "libherald_probe_hangs.so");
    assert!(said.starts_with(sentence) && said.contains("less than an hour ago"), "{said}");
    assert!(said.contains("`host plugin check FILE`"), "{said}");
    let file = folder.path().join("libherald_probe_hangs.so");
    host(&home).args(["plugin", "check", "--timeout", "1"]).arg(&file).assert().code(1);
    assert_eq!(reason(&again(), "libherald_probe_hangs.so"), sentence);
    faulty("NEWER", folder.path());
    fs::rename(folder.path().join("libherald_newer.so"), &file).expect("a repaired plugin");
    assert!(again()["backends"].to_string().contains("example-c"));
}

/// Who turns the trial off gets what the plugin does to the process.
#[test]
fn the_trial_can_be_turned_off() {
    let (home, folder) = (home(), folder());
    faulty("PROBE_EXITS", folder.path());
    let assert = beside(&home, folder.path()).env("HERALD_PROBE", "off").arg("backends").assert();
    assert_eq!(stdout(&assert.success()), "");
}

/// Many processes at once, none of which knows the plugins yet.
#[test]
fn processes_may_try_plugins_at_once() {
    let (home, folder) = (home(), folder());
    faulty("NEWER", folder.path());
    let file = env!("CARGO_BIN_EXE_host");
    let children: Vec<Child> = (0..6)
        .map(|_| {
            let mut process = Process::new(file);
            process.args(["--allow-insecure-plugins", "backends", "--json"]).stdout(Stdio::piped());
            process.env("HERALD_PLUGIN_PATH", folder.path()).env("HOME", home.path());
            process.env("XDG_CACHE_HOME", home.path().join("cache")).spawn().expect("it starts")
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("example-c"));
    }
    let cache = home.path().join("cache/herald");
    let text = fs::read_to_string(cache.join("plugins.json")).expect("a record");
    assert!(serde_json::from_str::<Value>(&text).expect("JSON")["plugins"].is_array());
    let left = fs::read_dir(&cache)
        .expect("the folder")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("."));
    assert_eq!(left.count(), 0, "temporary files are left");
}

#[test]
fn a_named_plugin_that_cannot_be_used_is_an_error() {
    let (home, folder) = (home(), folder());
    let text = folder.path().join("libherald_text.so");
    fs::write(&text, "not a library").expect("a file");
    let files = [
        (folder.path().join("nothing.so"), "it can't be opened"),
        (text, "no library that this system can load"),
        (faulty("NO_HARDWARE", folder.path()), "a machine that nobody has built"),
        (faulty("PROBE_EXITS", folder.path()), "its probe ended the process with exit code 0"),
    ];
    for (file, words) in &files {
        let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
        for arguments in [&["generate", "once"][..], &["info"], &["tokenize", "once"], &["bench", "speed"]] {
            fails(with(&home, file, arguments), &[name, "the plugin can't be used", words]);
        }
        // This lists what there is first.
        let assert = with(&home, file, &["backends"]).code(1);
        assert!(stdout(&assert).contains("cpu") && stderr(&assert).contains(words), "{}", stderr(&assert));
    }
}

#[test]
fn a_plugin_file_that_was_cut_off_is_named() {
    let (home, folder) = (home(), folder());
    let whole = fs::read(cpu_plugin()).expect("the plugin");
    for len in [0, 100, 1000, 5000, 100_000, 500_000] {
        let file = folder.path().join("libherald_cut.so");
        fs::write(&file, &whole[..len]).expect("a file");
        fails(with(&home, &file, &["generate", "once"]), &["libherald_cut.so", "was cut off"]);
        let assert = beside(&home, folder.path()).args(["generate", "once", "-n", "2"]).assert().success();
        assert!(stderr(&assert).contains("libherald_cut.so: refused: it has"), "{}", stderr(&assert));
    }
}

#[test]
fn verbose_says_who_computes_what() {
    let (home, folder) = (home(), folder());
    let file = faulty("NEWER", folder.path());
    let mut command = host(&home);
    command.env("HERALD_BACKEND", "example-c").arg("--plugin").arg(file).arg("--model").arg(tiny("llama"));
    let said = stderr(&command.args(["generate", "once", "-n", "2", "-v"]).assert().success());
    for words in [
        "info: example-c: 3 of 8 layers (mlp of blocks 0-2)",
        "info: cpu: 5 of 8 layers (embedding, attention of blocks 0-2, head), memory tiers (active",
        "the tokenizer",
    ] {
        assert!(said.contains(words), "{said:?} does not say {words:?}");
    }
    // A plugin of few kinds is not asked for each layer.
    let text = stdout(&with(&home, &faulty("HEAD_FLAT", folder.path()), &["backends"]).success());
    assert!(text.contains("faulty is asked first for head layers"), "{text}");
}

#[test]
fn results_that_are_no_numbers_are_blamed_on_who_made_them() {
    let (home, folder) = (home(), folder());
    let text = folder.path().join("text");
    fs::write(&text, "once upon a time there was a model").expect("a file");
    let perplexity = ["perplexity", "--file", text.to_str().expect("UTF-8")];
    let nan = faulty("FORWARD_NAN", folder.path());
    for arguments in [&["generate", "once"][..], &perplexity] {
        fails(with(&home, &nan, arguments), &["faulty, mlp layer of block 0: the activation 0", "is NaN"]);
    }
    let silent = faulty("HEAD_SILENT", folder.path());
    for arguments in [&["generate", "once"][..], &perplexity] {
        fails(with(&home, &silent, arguments), &["faulty, head layer", "the logit 0", "is NaN"]);
    }
    let flat = faulty("HEAD_FLAT", folder.path());
    fails(with(&home, &flat, &perplexity), &["no perplexity", "faulty", "predicts nothing"]);
}

#[test]
fn a_plugin_that_computes_wrongly_is_not_measured() {
    let (home, folder) = (home(), folder());
    for (fault, words) in [
        ("FORWARD_NEGATED", "it computes wrongly: its logits differ from those of cpu"),
        ("FORWARD_NAN", "is NaN"),
        ("HEAD_FLAT", "by a relative error of 1.000, where at most 0.25 was expected"),
    ] {
        let file = faulty(fault, folder.path());
        let assert = with(&home, &file, &["backends", "--calibrate"]).success();
        let text = stdout(&assert);
        assert!(text.contains("faulty was not measured: ") && text.contains(words), "{fault}: {text}");
        assert!(text.contains("cpu is asked first for each layer, since it is the fastest here"), "{text}");
    }
}

/// A call that never returns can't be left out, but is named.
fn a_plugin_that_hangs_while_it_is_measured_is_named() {
    let (home, folder) = (home(), folder());
    let file = faulty("FORWARD_HANGS", folder.path());
    let assert = with(&home, &file, &["backends", "--calibrate", "--timeout", "1"]).code(1);
    let said = stderr(&assert);
    assert!(said.contains("faulty: no answer for 2 s: the plugin hangs"), "{said}");
    assert!(!home.path().join("cache/herald/calibrations").exists(), "nothing was measured");
}

fn signal(child: &Child) {
    // SAFETY: the child has not been waited for, so the number is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) }, 0);
}

/// Waits until something is true: long enough for any machine, since it only ends a test that fails.
#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(600), "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn spawn(home: &TempDir, configure: impl FnOnce(&mut Process)) -> Child {
    let mut process = Process::new(env!("CARGO_BIN_EXE_host"));
    process.env("HOME", home.path()).env("XDG_CACHE_HOME", home.path().join("cache"));
    process.env_remove("HERALD_BACKEND").env_remove("HERALD_PLUGIN_PATH").arg("--allow-insecure-plugins");
    process
        .arg("--plugin")
        .arg(cpu_plugin())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    configure(&mut process);
    process.spawn().expect("it starts")
}

fn a_call_that_hangs_can_be_interrupted() {
    let (home, folder) = (home(), folder());
    let (file, mark) = (faulty("FORWARD_HANGS", folder.path()), folder.path().join("mark"));
    // Once more, or after a while: a service's manager sends one signal.
    for signals in [2, 1] {
        let mut child = spawn(&home, |process| {
            process.arg("--plugin").arg(&file).arg("--model").arg(tiny("llama")).args(["generate", "once"]);
            process.env("FAULTY_MARK", &mark);
        });
        wait_until("the call", || mark.exists());
        signal(&child);
        let said = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let words =
            "waiting for the running call to end, 10 s at most; Ctrl-C once more ends the program at once";
        assert!(said.map_while(Result::ok).any(|line| line.contains(words)));
        if signals == 2 {
            signal(&child);
        }
        assert_eq!(child.wait().expect("it ends").code(), Some(1));
        fs::remove_file(&mark).expect("the mark");
    }
}

#[test]
fn an_interrupted_benchmark_leaves_what_is_finished() {
    let (home, folder) = (home(), folder());
    faulty("FORWARD_NEGATED", folder.path());
    let file = folder.path().join("report.json");
    let mut child = spawn(&home, |process| {
        process.env("HERALD_PLUGIN_PATH", folder.path()).arg("--model").arg(tiny("llama"));
        process.args(["bench", "--quick", "model", "memory", "--json"]).arg(&file);
    });
    let said = child.stderr.take().expect("stderr");
    let said = std::thread::spawn(move || std::io::read_to_string(said));
    wait_until("the first suite", || file.exists());
    signal(&child);
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    let said = said.join().expect("it is read").expect("text");
    assert!(said.contains("interrupted: what was finished is in"), "{said}");
    let report: Value = serde_json::from_str(&fs::read_to_string(&file).expect("a report")).expect("JSON");
    assert!(report["complete"] == false && report["results"].as_array().is_some_and(|list| !list.is_empty()));
    // The plugin that says of itself that it is the best here computes wrongly.
    let rows = report["backends"].as_array().expect("a list");
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).expect("a row");
    assert!(
        row("faulty")["skipped"].as_str().is_some_and(|reason| reason.contains("computes wrongly")),
        "{report}"
    );
    assert!(row("faulty")["chosen"] == false && rows.iter().any(|row| row["chosen"] == true));
}
