//! `include/herald_plugin.h` is generated from the ABI's types, and compiles as C11 and C++17.
//!
//! `HERALD_BLESS=1 cargo test -p herald-api` writes it anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PREAMBLE: &str = "\
/*
 * Write a plugin for HERALD: engine layers, tokenizers or memory tiers, in any language that speaks C.
 *
 * A plugin is a dynamic library that exports one function:
 *
 *     const HeraldPlugin *herald_plugin_v1(void);
 *
 * It returns a table that lives as long as the library is loaded. docs/PLUGINS.md walks through one.
 *
 * The rules of this interface:
 *  - Every struct begins with struct_size, which its maker sets to sizeof. Fields are only ever appended: touch a field
 *    only where struct_size covers it. A null function is \"not offered\".
 *  - A call that can fail returns a HERALD_STATUS_* and fills the caller's HeraldError with one sentence that says what,
 *    where, and what was expected. A constant that you don't know is an error, never ignored.
 *  - Who creates, destroys; what one side allocates, the other never frees; buffers are the caller's.
 *  - No exception, panic or longjmp crosses.
 *  - A plugin starts no compute threads: it is handed HeraldParallel. A forward call allocates nothing.
 *
 * Generated from herald-api; not to be edited.
 */";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("herald-api is a folder of the repository")
        .to_owned()
}

fn generated() -> String {
    let mut config = cbindgen::Config {
        language: cbindgen::Language::C,
        header: Some(PREAMBLE.to_owned()),
        include_guard: Some("HERALD_PLUGIN_H".to_owned()),
        cpp_compat: true,
        documentation_style: cbindgen::DocumentationStyle::C99,
        style: cbindgen::Style::Both,
        usize_is_size_t: true,
        no_includes: true,
        sys_includes: vec!["stddef.h".to_owned(), "stdint.h".to_owned()],
        after_includes: Some(
            "\n#if defined(_WIN32)\n#define HERALD_EXPORT __declspec(dllexport)\n#else\n#define HERALD_EXPORT \
             __attribute__((visibility(\"default\")))\n#endif\n\n// Handles: what is in them, \
             only the plugin that made them knows.\ntypedef struct HeraldLayer HeraldLayer;\ntypedef struct \
             HeraldTokenizer HeraldTokenizer;\ntypedef struct HeraldTier HeraldTier;"
                .to_owned(),
        ),
        trailer: Some(
            "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n// A plugin's entry, which every plugin defines: its table, \
             which lives as long as the library is loaded.\n// Any thread; null where the plugin can't be \
             used.\nHERALD_EXPORT const HeraldPlugin *herald_plugin_v1(void);\n\n#ifdef __cplusplus\n}\n#endif"
                .to_owned(),
        ),
        ..cbindgen::Config::default()
    };
    // Structs that nothing but a table's functions refers to are part of the header all the same.
    config.export.include = ["HeraldPlugin", "HeraldTask"].map(str::to_owned).to_vec();
    config.export.exclude = ["ENTRY_SYMBOL", "MAX_STRUCT_SIZE"].map(str::to_owned).to_vec();
    let source = |name: &str| repository().join("herald-api/src").join(name);
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(source("abi/plugin.rs"))
        .with_src(source("layers/mod.rs"))
        .with_src(source("abi/layer.rs"))
        .with_src(source("abi/tokenizer.rs"))
        .with_src(source("abi/tier.rs"))
        .generate()
        .expect("cbindgen reads the ABI's sources");
    let mut text = Vec::new();
    bindings.write(&mut text);
    guard_error(&String::from_utf8(text).expect("cbindgen writes UTF-8"))
}

/// `herald.h` defines `HeraldError` too, so each header lets the other go first.
fn guard_error(header: &str) -> String {
    let begin = header.find("// The caller's own buffer").expect("HeraldError's comment");
    let end = "} HeraldError;\n";
    let end = header.find(end).expect("HeraldError's end") + end.len();
    let (before, definition, after) = (&header[..begin], &header[begin..end], &header[end..]);
    format!("{before}#ifndef HERALD_ERROR_DEFINED\n#define HERALD_ERROR_DEFINED\n{definition}#endif\n{after}")
}

#[test]
fn the_header_is_up_to_date() {
    let path = repository().join("include/herald_plugin.h");
    let fresh = generated();
    if std::env::var_os("HERALD_BLESS").is_some() {
        fs::write(&path, &fresh).expect("the header can be written");
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == fresh, "{} is stale: run HERALD_BLESS=1 cargo test -p herald-api", path.display());
}

fn compiles(compiler: &str, standard: &str, extension: &str, source: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join(format!("check.{extension}"));
    fs::write(&file, source).expect("the source can be written");
    let output = Command::new(compiler)
        .args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I"])
        .arg(repository().join("include"))
        .arg(&file)
        .output()
        .unwrap_or_else(|error| panic!("{compiler} can't be run: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_header_compiles_as_c11_and_cpp17() {
    let source = "#include <herald_plugin.h>\nint main(void) { return (int)sizeof(HeraldPlugin) == 0; }\n";
    compiles("cc", "-std=c11", "c", source);
    compiles("c++", "-std=c++17", "cpp", source);
}

/// The golden layouts hold for the C compiler too: the header says the same as the Rust types.
#[test]
fn c_agrees_on_every_offset() {
    let report = herald_api::layout::report().expect("the feature `layout` is on in tests");
    let mut source = "#include <herald_plugin.h>\n".to_owned();
    for line in report.lines() {
        let parts: Vec<&str> = line.splitn(5, ' ').collect();
        let [name, field, offset, size, _] = parts[..] else { panic!("the line {line:?}") };
        source += &format!(
            "_Static_assert(offsetof({name}, {field}) == {offset}, \"{name}.{field}\");\n\
             _Static_assert(sizeof((({name} *)0)->{field}) == {size}, \"{name}.{field}\");\n"
        );
    }
    compiles("cc", "-std=c11", "c", &source);
}

/// The file was made where C's char is signed.
#[cfg(target_arch = "x86_64")]
#[test]
fn layouts_are_as_published() {
    let path = repository().join("herald-api/tests/golden/abi_v1.txt");
    let fresh = herald_api::layout::report().expect("the feature `layout` is on in tests");
    if std::env::var_os("HERALD_BLESS").is_some() && !path.exists() {
        fs::write(&path, fresh).expect("the golden file can be written");
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        fresh == stored,
        "the ABI's layout moved without a version change. Fields may only be appended; where that is what happened, \
         delete {} and run HERALD_BLESS=1 cargo test -p herald-api",
        path.display()
    );
}
