//! A published checkpoint: its configuration, its tokenizer's file and its weights become a model's file, or are refused by a sentence.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use herald::threads::ThreadPool;
use herald_convert::checkpoint::{Checkpoint, CheckpointError, Conversion, ConvertOptions};
use tempfile::TempDir;

use super::{DEFAULT, Target};

pub(super) const TARGET: Target = Target {
    name: "checkpoint",
    run,
    seeds,
    words: &[
        "\"vocab_size\":",
        "\"num_hidden_layers\":",
        "\"head_dim\":",
        "\"rope_parameters\":{\"rope_type\":\"llama3\"}",
        "\"layer_types\":[\"mamba\",\"attention\"]",
        "Qwen3_5ForCausalLM",
        "MixtralForCausalLM",
        "\"data_offsets\":[0,",
        "\"dtype\":\"U8\"",
        "NaN",
        "-Infinity",
    ],
    max_len: 80 << 10,
    ..DEFAULT
};

/// Between the files of an input.
const BETWEEN: &[u8] = b"\n--\n";

const FILES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

/// The tests' checkpoints of few parts.
fn seeds() -> Vec<Vec<u8>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/convert/tests/data");
    let read = |name: &str| {
        let files = FILES.iter().map(|file| fs::read(data.join(name).join(file)).ok());
        files.collect::<Option<Vec<_>>>().map(|files| files.join(BETWEEN))
    };
    ["qwen3_moe", "granite_hybrid_dense", "qwen35"].into_iter().filter_map(read).collect()
}

fn run(input: &[u8]) -> String {
    let folder = TempDir::new().expect("a folder for temporary files");
    let said = super::told(convert(input, folder.path()), |bytes| format!("{bytes} bytes"));
    // The folder has another name each time.
    said.replace(&*folder.path().to_string_lossy(), "")
}

fn convert(input: &[u8], folder: &Path) -> Result<usize, CheckpointError> {
    let mut rest = input;
    for (index, file) in FILES.iter().enumerate() {
        let between = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN);
        let end = between.filter(|_| index + 1 < FILES.len()).unwrap_or(rest.len());
        fs::write(folder.join(file), &rest[..end]).expect("a file for temporary use");
        rest = rest.get(end + BETWEEN.len()..).unwrap_or_default();
    }
    let checkpoint = Checkpoint::open(folder)?;
    let conversion = Conversion::new(&checkpoint, &ConvertOptions::default())?;
    let pool = ThreadPool::new(NonZeroUsize::MIN).expect("a pool of this thread alone");
    Ok(conversion.write(&pool, Vec::new(), &mut |_| true)?.len())
}
