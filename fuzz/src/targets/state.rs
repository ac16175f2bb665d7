//! A saved sequence's file: it is opened, or refused by a sentence.

use std::path::PathBuf;
use std::sync::OnceLock;

use herald::plugin::Search;
use herald::{LoadOptions, NeuroEngine, SavedExtras};

use super::{DEFAULT, Target};

pub(super) const TARGET: Target = Target {
    name: "state",
    run,
    seeds,
    words: &[
        "\"dtype\":",
        "\"U8\"",
        "\"shape\":",
        "\"data_offsets\":",
        "\"__metadata__\":",
        "herald.version",
        "tokens",
        "pending",
    ],
    max_len: 512 << 10,
    ..DEFAULT
};

/// A small model.
pub(super) fn model() -> PathBuf {
    super::super::folder().join("../host/tests/data/tiny/llama.f32.gguf")
}

/// Options with the plugin that is built beside this program.
pub(super) fn options() -> LoadOptions {
    let beside = std::env::current_exe().expect("this program's path");
    let plugin = beside.with_file_name("libherald_cpu.so");
    let search = Search { files: vec![plugin], allow_insecure: true, ..Search::default() };
    LoadOptions { search, ..LoadOptions::default() }
}

/// The small model, loaded.
pub(super) fn engine() -> &'static NeuroEngine {
    static ENGINE: OnceLock<NeuroEngine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        super::super::memory::allow_all();
        NeuroEngine::load(&model(), &options())
            .unwrap_or_else(|error| panic!("{error}; build the cpu plugin first"))
    })
}

fn seeds() -> Vec<Vec<u8>> {
    let engine = engine();
    let made = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("state");
        let mut sequence = engine.sequence()?;
        engine.prefill(&mut sequence, &(3..80).collect::<Vec<u32>>())?;
        let extras = SavedExtras { pending: &[5], notes: "{\"messages\":[]}", ..SavedExtras::default() };
        engine.save_with(&sequence, &extras, &path)?;
        Ok(std::fs::read(&path)?)
    };
    made().into_iter().collect()
}

fn run(input: &[u8]) -> String {
    let engine = engine();
    let Ok(folder) = tempfile::tempdir() else { return "no folder".to_owned() };
    let path = folder.path().join("state");
    if std::fs::write(&path, input).is_err() {
        return "no file".to_owned();
    }
    super::told(engine.restore(&path), |_| "restored".to_owned()).replace(&*path.to_string_lossy(), "FILE")
}
