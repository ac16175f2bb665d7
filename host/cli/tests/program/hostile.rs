//! Models whose files are made to command a terminal, or to keep the program busy for ever.

use std::fs::File;

use herald::gguf::Writer;
use herald_api::DType;
use herald_testing::tiny_with;

use crate::{fails, home, host, stderr, stdout};

/// Sets a terminal's title, clears its screen, turns the direction, and begins a line of the program's own.
const COMMANDS: &str = "\x1b]0;title\x07\x1b[2J\u{9b}1m\u{202e}\u{2028}\rx\nerror: forged\n\nwarning: forged";

/// Asserts that a terminal would show this and do nothing else, and that all its lines are the program's own.
#[track_caller]
fn is_harmless(text: &str) {
    let commands = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(commands), "{text:?}");
    let forged = |line: &str| line.starts_with("error: forged") || line.starts_with("warning: forged");
    assert!(!text.lines().any(forged), "{text}");
}

#[test]
fn names_and_texts_in_a_file_are_harmless() {
    let home = home();
    let key = format!("general.{}", COMMANDS.replace('.', ""));
    let path = tiny_with(home.path(), &[("general.name", COMMANDS), (&key, COMMANDS)]);
    let shown = host(&home).arg("--model").arg(&path).arg("info").assert().success();
    is_harmless(&stdout(&shown));
    is_harmless(&stderr(&shown));
    assert!(stdout(&shown).contains("\\x1b]0;title\\x07"), "{}", stdout(&shown));
    let shown = host(&home).arg("--model").arg(&path).args(["info", "--json"]).assert().success();
    is_harmless(&stdout(&shown));
    let json: serde_json::Value = serde_json::from_str(&stdout(&shown)).expect("JSON");
    assert_eq!(json["metadata"]["general.name"], COMMANDS, "JSON's escapes change nothing");

    let mut writer = Writer::new();
    writer.metadata("general.architecture", COMMANDS).expect("an entry");
    writer.tensor(&COMMANDS.replace('w', "v"), DType::F32, &[1]).expect("a tensor");
    let path = home.path().join("names.gguf");
    let mut data = writer.begin(File::create(&path).expect("a file")).expect("a head");
    data.tensor(&[0; 4]).expect("data");
    data.finish().expect("a file");
    for command in [&["info"][..], &["generate", "x"]] {
        let shown = host(&home).arg("--model").arg(&path).args(command).assert();
        is_harmless(&stdout(&shown));
        is_harmless(&stderr(&shown));
    }
}

#[test]
fn names_of_files_and_arguments_are_harmless() {
    let home = home();
    let name = COMMANDS.replace('/', "");
    for arguments in
        [&["--model", &name, "info"][..], &["pull", &name], &[&name], &["generate", "x", "--threads", &name]]
    {
        let shown = host(&home).args(arguments).assert().failure();
        is_harmless(&stdout(&shown));
        is_harmless(&stderr(&shown));
    }
}

#[test]
fn a_templates_exception_is_one_error() {
    let home = home();
    let source = format!("{{{{ raise_exception(\"{}\") }}}}", COMMANDS.replace('\n', "\\n"));
    let path = tiny_with(home.path(), &[("tokenizer.chat_template", &source)]);
    let shown = host(&home).arg("--model").arg(&path).args(["generate", "--chat", "x"]).assert();
    is_harmless(&stderr(&shown));
    fails(shown, &["refuses these messages: \\x1b]0;title\\x07"]);
}

#[test]
fn templates_that_never_end_are_cut_off() {
    let home = home();
    let pairs = "{% set ns = namespace(s=[],t=[]) %}{% for i in range(60) %}{% set ns.s = [ns.s,ns.s] %}\
                 {% set ns.t = [ns.t,ns.t] %}{% endfor %}";
    for source in [
        "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s|length }}",
        &format!("{pairs}{{{{ ns.s == ns.t }}}}"),
        &format!("{pairs}{{{{ [ns.s,ns.t]|sort|length }}}}"),
    ] {
        let path = tiny_with(home.path(), &[("tokenizer.chat_template", source)]);
        let ended =
            host(&home).arg("--model").arg(&path).args(["generate", "--chat", "-n", "1", "Hello"]).assert();
        fails(ended, &["chat template, line 1: used more than"]);
    }
}
