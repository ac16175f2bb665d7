//! What the tests share: the built plugins, and models.

#![allow(dead_code, unreachable_pub)] // Each test binary uses some of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use herald::plugin::Search;
use herald::{LoadOptions, NeuroEngine};
use tempfile::TempDir;

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("host is a folder of the repository").to_owned()
}

/// The folder of this build's executables, where the plugins are built to.
pub fn build_folder() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    exe.parent().and_then(Path::parent).expect("tests are in target/PROFILE/deps").to_owned()
}

/// The cpu plugin, built if this run has not built it yet.
pub fn cpu_plugin() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built(&["--package", "herald-cpu"], "herald_cpu")).clone()
}

/// The blas plugin, built if this run has not built it yet.
pub fn blas_plugin() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built(&["--package", "herald-blas"], "herald_blas")).clone()
}

/// The library as a C program links it, built if this run has not built it yet.
pub fn c_library() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built(&["--package", "herald-host", "--lib"], "herald")).clone()
}

/// A dynamic library of the workspace, once cargo has built it.
fn built(arguments: &[&str], name: &str) -> PathBuf {
    let folder = build_folder();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet"]).args(arguments).current_dir(repository());
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    if let Some(target) = folder.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    assert!(cargo.status().expect("cargo can be run").success(), "{name} does not build");
    folder.join(format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX))
}

/// Runs a compiler or the like, and gives up with what it said where it fails.
pub fn run(command: &mut Command) {
    // Nothing of the test run's own build goes on to a build within it.
    command.stdin(Stdio::null()).env_remove("CARGO_MAKEFLAGS").env_remove("MAKEFLAGS");
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} can't be run: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A folder for a test's plugins, which nobody else may write to.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Compiles a C plugin with a macro defined.
pub fn compile(source: &str, fault: &str, folder: &Path) -> PathBuf {
    let library = folder.join(format!("libherald_{}.so", fault.to_lowercase()));
    run(Command::new("cc")
        .args(["-std=c11", "-shared", "-fPIC", "-I"])
        .arg(repository().join("include"))
        .arg(format!("-D{fault}"))
        .arg("-o")
        .arg(&library)
        .arg(repository().join(source))
        .arg("-lm"));
    library
}

/// A search for these plugins alone.
pub fn search(files: &[&Path]) -> Search {
    let files = files.iter().map(|file| (*file).to_owned()).collect();
    Search { files, ..Search::default() }
}

/// Options that load the cpu plugin alone.
pub fn cpu_options() -> LoadOptions {
    let search = Search { files: vec![cpu_plugin()], allow_insecure: true, ..Search::default() };
    LoadOptions { search, ..LoadOptions::default() }
}

/// A model of the test data.
pub fn tiny(name: &str) -> PathBuf {
    repository().join("host/tests/data/tiny").join(format!("{name}.f32.gguf"))
}

/// Each backend that runs on this machine, by name, with options that load it alone.
pub fn backends() -> &'static [(&'static str, LoadOptions)] {
    static FOUND: OnceLock<Vec<(&str, LoadOptions)>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let others = [("simd", "herald-simd", "herald_simd"), ("blas", "herald-blas", "herald_blas")];
        let mut found = vec![("cpu", cpu_options())];
        for (name, package, library) in others {
            let plugin = built(&["--package", package], library);
            let search = Search { files: vec![plugin], allow_insecure: true, ..Search::default() };
            let options = LoadOptions { search, ..LoadOptions::default() };
            match NeuroEngine::load(&tiny("llama"), &options) {
                Ok(_) => found.push((name, options)),
                Err(error) => println!("{name} doesn't run on this machine: {error}"),
            }
        }
        found
    })
}

/// A model of the test data, loaded with the cpu plugin.
pub fn load_tiny(name: &str) -> NeuroEngine {
    NeuroEngine::load(&tiny(name), &cpu_options()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// SmolLM2-135M-Instruct's file, fetched if this machine has not got it yet.
pub fn smollm2() -> PathBuf {
    static PULLED: OnceLock<PathBuf> = OnceLock::new();
    let pulled = PULLED.get_or_init(|| {
        let output = Command::new(env!("CARGO_BIN_EXE_host"))
            .args(["pull", "smollm2-135m-instruct"])
            .output()
            .expect("the program can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim_end())
    });
    pulled.clone()
}

/// SmolLM2-135M-Instruct, loaded with the cpu plugin.
pub fn load_smollm2() -> NeuroEngine {
    NeuroEngine::load(&smollm2(), &cpu_options()).unwrap_or_else(|error| panic!("{error}"))
}
