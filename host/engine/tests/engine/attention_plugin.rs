//! The attention example, written in C from docs/PLUGINS.md alone: it computes what the cpu backend does, over short sequences and
//! over a long context whose older pages are compressed and selected.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use herald::{Capacity, LoadOptions, MemoryOptions, MemoryUsage, NeuroEngine};
use herald_testing::{cpu_plugin, folder, make_plugin, search, tiny};

const NAME: &str = "example-attention";

/// A model whose attention layers the plugin file computes, or the cpu backend where there is none.
fn load(model: &Path, plugin: Option<&Path>, options: &LoadOptions) -> NeuroEngine {
    let cpu = cpu_plugin();
    let files: Vec<&Path> = plugin.into_iter().chain([cpu.as_path()]).collect();
    let options = LoadOptions {
        search: herald::plugin::Search { allow_insecure: true, ..search(&files) },
        backend: plugin.map(|_| NAME.to_owned()),
        calibrations: None,
        // Other tests run beside this one, and the models are small.
        threads: NonZeroUsize::new(1),
        ..options.clone()
    };
    NeuroEngine::load(model, &options).unwrap_or_else(|error| panic!("{}: {error}", model.display()))
}

/// How many layers the plugin computes.
fn layers_of(engine: &NeuroEngine) -> usize {
    engine.backends().iter().find(|(name, _)| name == NAME).map_or(0, |(_, layers)| *layers)
}

fn ids(len: usize) -> Vec<u32> {
    (0..len as u32).map(|position| position.wrapping_mul(position) % 59 + 1).collect()
}

/// Between two rows of logits, the largest difference, in standard deviations of the first.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let mean = a.iter().sum::<f32>() / a.len() as f32;
    let deviation = (a.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / a.len() as f32).sqrt();
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / deviation
}

/// Two sequences in one batch, the first in two pieces: the logits of their last tokens.
fn logits(engine: &NeuroEngine) -> Vec<f32> {
    let ids = ids(90);
    let mut one = engine.sequence().expect("a sequence");
    engine.prefill(&mut one, &ids[..50]).expect("a prompt runs");
    engine.prefill(&mut one, &ids[50..]).expect("a prompt goes on");
    let mut two = engine.sequence().expect("a sequence");
    engine.prefill(&mut two, &ids[7..20]).expect("a prompt runs");
    engine.decode(&mut [(&mut one, 5), (&mut two, 6)]).expect("tokens")
}

/// Each RoPE kind, QK-norm, biases, windows, soft caps and post-norms, by the models that have them.
#[test]
fn it_computes_what_cpu_does() {
    let folder = folder();
    let plugin = make_plugin("plugin-attention", folder.path());
    let options = LoadOptions { page_tokens: 16, max_batch: 40, ..LoadOptions::default() };
    for name in
        ["llama", "llama_linear", "llama_llama3", "qwen2", "qwen3", "gemma2", "gemma3", "olmo2", "phi3"]
    {
        let (own, cpu) = (load(&tiny(name), Some(&plugin), &options), load(&tiny(name), None, &options));
        assert!(layers_of(&own) > 0, "{name}: the plugin computes nothing");
        assert_eq!(layers_of(&cpu), 0);
        let distance = distance(&logits(&cpu), &logits(&own));
        assert!(distance < 0.01, "{name}: the logits are off by {distance} standard deviations");
    }
    // It says no to YaRN, and the model runs all the same.
    assert_eq!(layers_of(&load(&tiny("qwen3_yarn"), Some(&plugin), &options)), 0);
}

/// Ten thousand tokens through small tiers: most pages are compressed or archived, and each pass selects a few of them.
#[test]
fn it_takes_part_in_a_long_context() {
    const PAGE: usize = 64;
    const TOKENS: usize = 10_000;
    let folder = folder();
    let plugin = make_plugin("plugin-attention", folder.path());
    let memory = MemoryOptions {
        active: Capacity::Tokens(4 * PAGE),
        compressed: Capacity::Tokens(100 * PAGE),
        selected_pages: Some(8),
        archive: Some(folder.path().to_owned()),
        ..MemoryOptions::default()
    };
    let options = LoadOptions {
        page_tokens: PAGE,
        memory,
        max_batch: 512,
        context: Some(1 << 20),
        ..LoadOptions::default()
    };
    let run = |plugin: Option<&PathBuf>| {
        let engine = load(&tiny("llama"), plugin.map(PathBuf::as_path), &options);
        let mut sequence = engine.sequence().expect("a sequence");
        let mut all = engine.prefill(&mut sequence, &ids(TOKENS)).expect("the prompt runs");
        for token in 1..8 {
            all.extend(engine.decode(&mut [(&mut sequence, token)]).expect("a token"));
        }
        let usage = engine.memory_usage();
        (layers_of(&engine), usage, all)
    };
    let (own_layers, own_usage, own) = run(Some(&plugin));
    let (cpu_layers, cpu_usage, cpu) = run(None);
    assert!(own_layers > 0 && cpu_layers == 0);
    // The same pages lie in the same tiers, and as many were selected and brought: from RAM (hits) and from the file (misses).
    assert!(own_usage.compressed.pages > 0 && own_usage.archived.pages > 0, "{own_usage:?}");
    let pages = |usage: &MemoryUsage| usage.tiers().map(|(_, stats)| stats.pages);
    assert_eq!(pages(&own_usage), pages(&cpu_usage));
    let selected = |usage: &MemoryUsage| usage.compressed.hits + usage.compressed.misses;
    assert!(own_usage.compressed.hits > 0 && own_usage.compressed.misses > 0, "{own_usage:?}");
    assert_eq!(selected(&own_usage), selected(&cpu_usage));
    let distance = distance(&cpu, &own);
    assert!(distance < 0.1, "the logits are off by {distance} standard deviations");
}
