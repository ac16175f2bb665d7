//! Shared by the tests: the built plugins, the C library, models, and compilers.

pub mod hub;

use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use herald::gguf::{Gguf, Value, Writer};
use herald::plugin::Search;
use herald::{LoadOptions, NeuroEngine};
use tempfile::TempDir;

/// The repository's root.
///
/// # Panics
/// If this crate isn't two folders below it.
#[must_use]
pub fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    root.expect("host/testing is in the repository").to_owned()
}

/// The folder of this build's executables.
///
/// # Panics
/// If the running program isn't a cargo test.
#[must_use]
pub fn build_folder() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    exe.parent().and_then(Path::parent).expect("tests are in target/PROFILE/deps").to_owned()
}

/// The cpu plugin.
#[must_use]
pub fn cpu_plugin() -> PathBuf {
    plugin("cpu")
}

/// The blas plugin.
#[must_use]
pub fn blas_plugin() -> PathBuf {
    plugin("blas")
}

/// A backend's plugin, which cargo built with this crate because it depends on all of them.
fn plugin(backend: &str) -> PathBuf {
    let file = build_folder().join("deps").join(dynamic_library(&format!("herald_{backend}")));
    assert!(file.is_file(), "{} is missing, where cargo builds it with herald-testing", file.display());
    file
}

/// A dynamic library's file name on this system.
fn dynamic_library(name: &str) -> String {
    format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// The library that a C program links, built once per test run.
///
/// # Panics
/// If it does not build.
#[must_use]
pub fn c_library() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built(&["--lib", "--test", "capi"], &dynamic_library("herald"))).clone()
}

/// The program `host`, built with the tests of `host/cli` or now.
fn program() -> PathBuf {
    let name = format!("host{}", std::env::consts::EXE_SUFFIX);
    let program = build_folder().join(&name);
    if program.is_file() { program } else { built(&["--bin", "host", "--test", "program"], &name) }
}

/// Builds a file of this build's folder with cargo, from `targets` of the workspace.
///
/// Cargo compiles a crate anew for each set of features, and which features a crate has follows from the packages that are
/// built and from whether a test is among them. So this builds the whole workspace's targets of a kind, with a test: then
/// all but the file itself is there, from the build of the tests.
fn built(targets: &[&str], name: &str) -> PathBuf {
    let folder = build_folder();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--workspace"]).args(targets).current_dir(repository());
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    if let Some(target) = folder.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    run(&mut cargo);
    folder.join(name)
}

/// Builds a Rust plugin with its own workspace, in the folder `workspace` of the repository.
///
/// # Panics
/// If it does not build.
#[must_use]
pub fn third_party(workspace: &str, name: &str) -> PathBuf {
    let target = build_folder().join("plugins");
    run(Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--target-dir"])
        .arg(&target)
        .current_dir(repository().join(workspace)));
    target.join("debug").join(dynamic_library(name))
}

/// Runs a compiler or another tool, and panics with its stderr if it fails.
pub fn run(command: &mut Command) {
    // The nested build must not join the outer one's job server.
    command.stdin(Stdio::null()).env_remove("CARGO_MAKEFLAGS").env_remove("MAKEFLAGS");
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} can't be run: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A folder for a test's plugins that nobody else may write to.
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    only_ours(folder.path());
    folder
}

/// Takes the right to write to a file or folder from others, who have it where the umask gives it to a shared group.
fn only_ours(path: &Path) {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, mode).expect("permissions");
    }
    // A new file's access list is its folder's, and a temporary folder is its user's own.
    #[cfg(not(unix))]
    let _ = path;
}

/// Compiles a C plugin with a macro defined.
pub fn compile(source: &str, fault: &str, folder: &Path) -> PathBuf {
    let library = folder.join(dynamic_library(&format!("herald_{}", fault.to_lowercase())));
    run(Command::new("cc")
        .args(["-std=c11", "-shared", "-fPIC", "-I"])
        .arg(repository().join("include"))
        .arg(format!("-D{fault}"))
        .arg("-o")
        .arg(&library)
        .arg(repository().join(source))
        .arg("-lm"));
    only_ours(&library);
    library
}

/// Builds an example plugin with its own Makefile, in `folder`.
///
/// # Panics
/// If it does not build.
pub fn make_plugin(example: &str, folder: &Path) -> PathBuf {
    let library = folder.join(dynamic_library(&format!("herald_{}", example.replace('-', "_"))));
    run(Command::new("make")
        .arg("-C")
        .arg(repository().join("examples").join(example))
        .arg(format!("PLUGIN={}", library.display())));
    only_ours(&library);
    library
}

/// Compiles a C++ plugin.
pub fn compile_cpp(source: &str, folder: &Path) -> PathBuf {
    let source = repository().join(source);
    let name = source.file_stem().and_then(|stem| stem.to_str()).expect("a file's name");
    let library = folder.join(dynamic_library(&format!("herald_{name}")));
    run(Command::new("c++")
        .args(["-std=c++17", "-shared", "-fPIC", "-I"])
        .arg(repository().join("include"))
        .arg("-o")
        .arg(&library)
        .arg(&source));
    only_ours(&library);
    library
}

/// A search for these plugins only.
pub fn search(files: &[&Path]) -> Search {
    let files = files.iter().map(|file| (*file).to_owned()).collect();
    Search { files, ..Search::default() }
}

/// Options that load only the cpu plugin, on one thread: tests run beside each other, and sharing a tiny model's loops out takes
/// longer than computing them. [`backends`] has engines on all threads.
pub fn cpu_options() -> LoadOptions {
    let search = Search { files: vec![cpu_plugin()], allow_insecure: true, ..Search::default() };
    LoadOptions { search, threads: NonZeroUsize::new(1), ..LoadOptions::default() }
}

/// A tiny model of the test data.
pub fn tiny(name: &str) -> PathBuf {
    repository().join("host/tests/data/tiny").join(format!("{name}.f32.gguf"))
}

/// The tiny llama model with these texts in its metadata, in a file of its own.
///
/// # Panics
/// If it can't be written.
pub fn tiny_with(folder: &Path, texts: &[(&str, &str)]) -> PathBuf {
    let gguf = Gguf::open(&tiny("llama")).expect("the test data is there");
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        if texts.iter().all(|(changed, _)| *changed != key) {
            writer.metadata(key, value).expect("an entry");
        }
    }
    for (key, text) in texts {
        writer.metadata(key, Value::String(text.as_bytes())).expect("an entry");
    }
    for tensor in gguf.tensors() {
        writer.tensor(tensor.name(), tensor.dtype(), tensor.dims()).expect("a tensor");
    }
    let path = folder.join("texts.gguf");
    let mut data = writer.begin(File::create(&path).expect("a file")).expect("a head");
    for tensor in gguf.tensors() {
        data.tensor(gguf.bytes(tensor)).expect("data");
    }
    data.finish().expect("a file");
    path
}

/// Each backend that runs on this machine: its name, and options that load only it.
pub fn backends() -> &'static [(&'static str, LoadOptions)] {
    static FOUND: OnceLock<Vec<(&str, LoadOptions)>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found = vec![("cpu", LoadOptions { threads: None, ..cpu_options() })];
        for name in ["simd", "blas"] {
            let search = Search { files: vec![plugin(name)], allow_insecure: true, ..Search::default() };
            let options = LoadOptions { search, ..LoadOptions::default() };
            match NeuroEngine::load(&tiny("llama"), &options) {
                Ok(_) => found.push((name, options)),
                Err(error) => println!("{name} doesn't run on this machine: {error}"),
            }
        }
        found
    })
}

/// A tiny model of the test data, loaded with the cpu plugin.
pub fn load_tiny(name: &str) -> NeuroEngine {
    NeuroEngine::load(&tiny(name), &cpu_options()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// SmolLM2-135M-Instruct's file, fetched if this machine doesn't have it yet.
pub fn smollm2() -> PathBuf {
    static PULLED: OnceLock<PathBuf> = OnceLock::new();
    let pulled = PULLED.get_or_init(|| {
        let output = Command::new(program())
            .args(["pull", "smollm2-135m-instruct"])
            .output()
            .expect("the program can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim_end())
    });
    pulled.clone()
}

/// The file of a model that `tools/fetch_models.py` brings, where it has.
pub fn fetched(name: &str) -> Option<PathBuf> {
    let path = smollm2().with_file_name(format!("{name}.gguf"));
    path.exists().then_some(path)
}

/// Options that load a model on one thread: a tiny one with the cpu plugin, a real one with the simd plugin where that runs, since
/// scalar code takes ten times as long.
///
/// # Panics
/// If the model isn't there.
pub fn options_for(model: &Path) -> LoadOptions {
    let bytes = model.metadata().unwrap_or_else(|error| panic!("{}: {error}", model.display())).len();
    let simd = if bytes < 10_000_000 { None } else { simd_options() };
    LoadOptions { threads: NonZeroUsize::new(1), ..simd.cloned().unwrap_or_else(cpu_options) }
}

/// Options that load only the simd plugin, where that runs.
fn simd_options() -> Option<&'static LoadOptions> {
    backends().iter().find(|(name, _)| *name == "simd").map(|(_, options)| options)
}

/// The simd plugin, where that runs.
pub fn simd_plugin() -> Option<&'static Path> {
    Some(&simd_options()?.search.files[0])
}

/// SmolLM2-135M-Instruct, as [`options_for`] says.
pub fn load_smollm2() -> NeuroEngine {
    let model = smollm2();
    NeuroEngine::load(&model, &options_for(&model)).unwrap_or_else(|error| panic!("{error}"))
}
