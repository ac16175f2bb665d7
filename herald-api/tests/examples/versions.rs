//! Plugins built against other versions of the header: copies of it, with fields taken away or appended, as an earlier or a
//! later 1.x would have it. They load and run.

use std::fs;
use std::path::Path;
use std::process::Command;

use herald_api::import::Plugin;
use herald_api::{EncodeOptions, Tokenizer, Vocabulary};

use crate::layer::an_mlp_runs;
use crate::{examples, load, run};

/// The C example, built against a changed header.
fn built_against(change: impl FnOnce(String) -> String) -> (tempfile::TempDir, Plugin) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("../include/herald_plugin.h");
    let changed = change(fs::read_to_string(header).expect("the header can be read"));
    fs::write(folder.path().join("herald_plugin.h"), changed).expect("the header can be written");
    let plugin = folder.path().join("libherald_example_c.so");
    let mut make = Command::new("make");
    make.arg("-C").arg(examples().join("plugin-c")).arg(format!("PLUGIN={}", plugin.display()));
    run(make.arg(format!("HERALD_INCLUDE={}", folder.path().display())));
    let plugin = load(&plugin);
    (folder, plugin)
}

/// Takes the last field of a struct away.
fn without_last_field(header: &str, name: &str, field: &str) -> String {
    let end = header.find(&format!("}} {name};")).expect("the struct is there");
    let start = header[..end].rfind(field).expect("the field is there");
    let start = header[..start].rfind("\n  //").map_or(start, |comment| comment + 1);
    header[..start].to_owned() + &header[end..]
}

/// Appends fields to a struct.
fn with_more_fields(header: &str, name: &str) -> String {
    let end = format!("}} {name};");
    assert!(header.contains(&end));
    header.replace(&end, &format!("  // Later.\n  uint32_t (*later)(uint64_t);\n  uint64_t more[7];\n{end}"))
}

fn runs(plugin: &Plugin) {
    an_mlp_runs(plugin);
    let vocabulary =
        Vocabulary { model: "longest-match", tokens: vec![b"a", b"ab"], ..Vocabulary::default() };
    let tokenizer = plugin.create_tokenizer(&vocabulary).expect("the tokenizer");
    let mut ids = Vec::new();
    tokenizer.encode("aab", EncodeOptions::default(), &mut ids).expect("ids");
    assert_eq!(ids, [0, 1]);
}

#[test]
fn an_older_header() {
    let (_folder, plugin) = built_against(|header| {
        let header = without_last_field(&header, "HeraldPlugin", "const struct HeraldTierTable *tiers;");
        let header = without_last_field(&header, "HeraldTierTable", "uint32_t (*search)");
        without_last_field(&header, "HeraldSequence", "void *state;")
    });
    runs(&plugin);
}

#[test]
fn a_newer_header() {
    let (_folder, plugin) = built_against(|header| {
        [
            "HeraldPlugin",
            "HeraldLayerTable",
            "HeraldTokenizerTable",
            "HeraldLayerDesc",
            "HeraldTask",
            "HeraldCall",
        ]
        .iter()
        .fold(header, |header, name| with_more_fields(&header, name))
    });
    runs(&plugin);
}
