//! An adapter's file (LoRA): it is loaded beside a model, or refused by a sentence.

use herald::{LoadOptions, LoraFile, NeuroEngine};

use super::state::{engine, model, options};
use super::{DEFAULT, Target};

pub(super) const TARGET: Target = Target {
    name: "adapter",
    run,
    seeds,
    words: &[
        "general.type",
        "adapter",
        "adapter.type",
        "lora",
        "adapter.lora.alpha",
        "adapter.alora.invocation_tokens",
        "blk.0.attn_q.weight.lora_a",
        "blk.2.ffn_down.weight.lora_b",
        "token_embd.weight.lora_a",
    ],
    max_len: 128 << 10,
    ..DEFAULT
};

fn seeds() -> Vec<Vec<u8>> {
    let adapter = super::super::folder().join("../host/tests/data/lora/llama_lora.gguf");
    std::fs::read(adapter).into_iter().collect()
}

fn run(input: &[u8]) -> String {
    // What is loaded once for all inputs doesn't count for this one.
    engine();
    let Ok(folder) = tempfile::tempdir() else { return "no folder".to_owned() };
    let path = folder.path().join("adapter");
    if std::fs::write(&path, input).is_err() {
        return "no file".to_owned();
    }
    let loras = vec![LoraFile { path: path.clone(), name: None, scale: 1.0 }];
    let loaded = NeuroEngine::load(&model(), &LoadOptions { loras, ..options() });
    super::told(loaded, |_| "loaded".to_owned()).replace(&*path.to_string_lossy(), "FILE")
}
