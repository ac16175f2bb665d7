//! The example plugins are built as their READMEs and docs/PLUGINS.md say, loaded through the boundary, and hold to what they promise.

mod layer;
mod page;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod published;
mod tokenizer;
mod versions;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use herald_api::import::Plugin;
use herald_api::{Hardware, LayerKind, abi};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

/// Where the plugins are built: kept between runs, so that only what changed is compiled.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("examples")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} can't be run: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

static C: LazyLock<PathBuf> = LazyLock::new(|| {
    std::fs::create_dir_all(target()).expect("the folder can be made");
    let plugin = target().join("libherald_example_c.so");
    // make takes no target with a space in its path, which the repository's may have.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let built = folder.path().join("example.so");
    run(Command::new("make")
        .current_dir(examples().join("plugin-c"))
        .arg(format!("PLUGIN={}", built.display())));
    // By way of a file of this process's own: another test run may have the old one loaded.
    let fresh = target().join(format!("{}.so", std::process::id()));
    std::fs::copy(&built, &fresh).expect("the plugin can be copied");
    std::fs::rename(&fresh, &plugin).expect("the plugin can be renamed");
    plugin
});

static RUST: LazyLock<PathBuf> = LazyLock::new(|| {
    let manifest = examples().join("plugin-rust/Cargo.toml");
    // The folder where herald-testing builds plugins, so that this one is compiled once for all tests.
    let exe = std::env::current_exe().expect("a test knows its own path");
    let folder = exe.ancestors().nth(2).expect("tests are in target/PROFILE/deps").join("plugins");
    let mut cargo = Command::new(env!("CARGO"));
    run(cargo.args(["build", "--locked", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&folder));
    folder.join("debug/libherald_example_rust.so")
});

/// Both plugins, loaded.
fn plugins() -> [Plugin; 2] {
    [load(&C), load(&RUST)]
}

fn load(path: &Path) -> Plugin {
    // SAFETY: the library is one of the examples, which do nothing when they are loaded.
    let library = unsafe { libloading::Library::new(path) }.expect("the plugin can be loaded");
    // SAFETY: it is HERALD's plugin, whose entry has this type; the library is kept by the plugin.
    unsafe {
        let entry: libloading::Symbol<'_, herald_api::import::Entry> =
            library.get(abi::ENTRY_SYMBOL.as_bytes()).expect("the entry is there");
        let entry = *entry;
        Plugin::load(entry, Box::new(library), |_, _| ()).expect("the plugin is sound")
    }
}

#[test]
fn they_say_what_they_offer() {
    let hardware = Hardware::detect(2, 0);
    for (plugin, (name, variant)) in plugins().iter().zip([("example-c", "c"), ("example-rust", "rust")]) {
        assert_eq!((plugin.name(), plugin.version()), (name, "1.0.0"));
        assert_eq!(plugin.layer_kinds(), [LayerKind::Mlp]);
        assert!(plugin.offers_tokenizers() && plugin.tier_kinds().is_empty());
        let probe = plugin.probe(&hardware).expect("they run anywhere");
        assert_eq!((probe.score, probe.variant.as_str()), (50, variant));
    }
}
