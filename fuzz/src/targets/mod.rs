//! What is fuzzed.

mod adapter;
mod archive;
mod chat;
mod checkpoint;
mod forms;
mod gguf;
mod http;
mod hub;
mod imatrix;
mod plugin;
mod state;
mod tokenizer;

/// A reader of untrusted input.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Reads an input, and says in one line what came of it.
    pub(crate) run: fn(&[u8]) -> String,
    /// Inputs to begin with, beside those in the folder of seeds.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// What inputs are made of.
    pub(crate) words: &'static [&'static str],
    /// Bytes of an input, at most.
    pub(crate) max_len: usize,
    /// CPU time for an input. A build for debugging takes some times more than a release.
    pub(crate) cpu_ms: u64,
    /// Memory for an input.
    pub(crate) memory_mb: usize,
    /// Another's code panics within, and catches that.
    pub(crate) panics_within: bool,
}

/// All targets.
pub(crate) const TARGETS: &[Target] = &[
    adapter::TARGET,
    archive::TARGET,
    chat::TARGET,
    checkpoint::TARGET,
    forms::TARGET,
    gguf::TARGET,
    http::TARGET,
    hub::TARGET,
    imatrix::TARGET,
    plugin::TARGET,
    state::TARGET,
    tokenizer::TARGET,
];

/// What a target has unless it says otherwise.
const DEFAULT: Target = Target {
    name: "",
    run: |_| String::new(),
    seeds: Vec::new,
    words: &[],
    max_len: 32 << 10,
    cpu_ms: 2000,
    memory_mb: 256,
    panics_within: false,
};

/// The parts of a text input, with lines of `--` between.
fn parts(input: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(input).split("\n--\n").map(str::to_owned).collect()
}

/// A result as the line that a target answers.
fn told<T, E: std::fmt::Display>(result: Result<T, E>, well: impl FnOnce(T) -> String) -> String {
    match result {
        Ok(value) => well(value),
        Err(error) => error.to_string(),
    }
}
