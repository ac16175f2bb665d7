//! What a sequence has seen, copied, taken back, and saved for another process.

use std::path::Path;

use herald::sampler::SamplerConfig;
use herald::{Capacity, GenerateOptions, LoadOptions, MemoryOptions, NeuroEngine, SavedExtras, Sequence};
use herald_testing::{cpu_options, load_tiny, tiny};
use safetensors::tensor::SafeTensors;

/// Models of every kind of state: Mamba, Mamba-2 beside attention, short convolutions, delta nets, pages that blocks share,
/// latents, and pages alone.
const MODELS: [&str; 8] =
    ["jamba", "falcon_h1", "lfm2", "qwen35", "kimi_linear", "gemma4_e", "deepseek2_lite", "llama"];

/// A prompt that takes several pieces.
pub(crate) fn prompt() -> Vec<u32> {
    (0..75).map(|position| 3 + position * 37 % 500).collect()
}

/// The logits of some more tokens.
pub(crate) fn go_on(engine: &NeuroEngine, sequence: &mut Sequence) -> Vec<f32> {
    let mut logits = Vec::new();
    engine.logits(sequence, &[7, 99, 321], &mut |row| logits.extend_from_slice(row)).expect("a pass");
    logits
}

#[test]
fn a_fork_goes_on_by_itself() {
    for name in MODELS {
        let engine = load_tiny(name);
        let mut sequence = engine.sequence().expect("a sequence");
        engine.prefill(&mut sequence, &prompt()).expect("a pass");
        let mut fork = engine.fork(&sequence).expect("a fork");
        engine.prefill(&mut fork, &[11, 12, 13]).expect("a pass");
        let mut again = engine.fork(&sequence).expect("a fork");
        assert_eq!(again.tokens(), prompt());
        let expected = go_on(&engine, &mut sequence);
        assert!(go_on(&engine, &mut again) == expected, "{name}: a fork goes on otherwise");
        assert!(go_on(&engine, &mut fork) != expected, "{name}: a fork that has seen more goes on the same");
    }
}

#[test]
fn a_sequence_is_taken_back() {
    for name in MODELS {
        let engine = load_tiny(name);
        let mut sequence = engine.sequence().expect("a sequence");
        engine.prefill(&mut sequence, &prompt()).expect("a pass");
        let expected = go_on(&engine, &mut sequence);
        engine.rewind(&mut sequence, prompt().len()).expect("the way back");
        assert_eq!(sequence.tokens(), prompt());
        assert!(go_on(&engine, &mut sequence) == expected, "{name}: it goes on otherwise");
        engine.rewind(&mut sequence, 0).expect("the way back");
        assert!(sequence.tokens().is_empty());
    }
}

#[test]
fn a_saved_sequence_goes_on_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in MODELS {
        let path = folder.path().join(name);
        let engine = load_tiny(name);
        let mut sequence = engine.sequence().expect("a sequence");
        engine.prefill(&mut sequence, &prompt()).expect("a pass");
        engine.save(&sequence, &[42], &path).expect("a file");
        let expected = go_on(&engine, &mut sequence);
        drop((sequence, engine));
        let engine = load_tiny(name);
        let mut restored = engine.restore(&path).expect("the sequence");
        assert_eq!((restored.sequence.tokens(), &restored.pending[..]), (&prompt()[..], &[42][..]));
        assert!(go_on(&engine, &mut restored.sequence) == expected, "{name}: it goes on otherwise");
    }
}

/// Tiers of which each has pages of a prompt of 300 tokens.
fn in_tiers(name: &str) -> NeuroEngine {
    let memory = MemoryOptions {
        active: Capacity::Tokens(32),
        compressed: Capacity::Tokens(48),
        selected_pages: Some(3),
        ..MemoryOptions::default()
    };
    let options = LoadOptions { page_tokens: 16, memory, ..cpu_options() };
    NeuroEngine::load(&tiny(name), &options).expect("the model loads")
}

#[test]
fn a_saved_sequence_comes_back_in_its_tiers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prompt: Vec<u32> = (0..300).map(|position| 3 + position * 37 % 500).collect();
    for name in ["jamba", "falcon_h1", "qwen35", "kimi_linear", "llama"] {
        let path = folder.path().join(name);
        let engine = in_tiers(name);
        let mut sequence = engine.sequence().expect("a sequence");
        engine.prefill(&mut sequence, &prompt).expect("a pass");
        engine.save(&sequence, &[42], &path).expect("a file");
        let pages = |engine: &NeuroEngine| engine.memory_usage().tiers().map(|(_, stats)| stats.pages);
        let before = pages(&engine);
        assert!(before.iter().all(|pages| *pages > 0), "{name}: {before:?}");
        // A fork shares what is there.
        let mut fork = engine.fork(&sequence).expect("a fork");
        assert_eq!(pages(&engine), before, "{name}");
        let expected = go_on(&engine, &mut sequence);
        assert!(go_on(&engine, &mut fork) == expected, "{name}: a fork goes on otherwise");
        drop((sequence, fork, engine));
        let engine = in_tiers(name);
        let mut restored = engine.restore(&path).expect("the sequence");
        assert_eq!(pages(&engine), before, "{name}");
        assert!(go_on(&engine, &mut restored.sequence) == expected, "{name}: it goes on otherwise");
        drop(restored);
        assert_eq!(pages(&engine), [0; 3], "{name}");
    }
}

#[test]
fn random_numbers_go_on_too() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("sequence");
    let sampler = SamplerConfig { temperature: 1.0, seed: Some(9), ..SamplerConfig::default() };
    let generate = |engine: &NeuroEngine, sequence: &mut Sequence, ids: &[u32], random, most| {
        let (max_tokens, ignore_eos, sampler) = (Some(most), true, sampler.clone());
        let options =
            GenerateOptions { max_tokens, random, sampler, ignore_eos, ..GenerateOptions::default() };
        engine.generate(sequence, ids, &options, &mut || true, &mut |_| true).expect("tokens")
    };
    let engine = load_tiny("llama");
    let mut whole = engine.sequence().expect("a sequence");
    let expected = generate(&engine, &mut whole, &[5, 6, 7], None, 20).tokens;
    let mut half = engine.sequence().expect("a sequence");
    let begun = generate(&engine, &mut half, &[5, 6, 7], None, 8);
    let extras = SavedExtras { pending: &begun.tokens[7..], sampler: Some(begun.random), notes: "mine" };
    engine.save_with(&half, &extras, &path).expect("a file");
    let mut restored = engine.restore(&path).expect("the sequence");
    assert_eq!(restored.notes, "mine");
    let rest = generate(&engine, &mut restored.sequence, &restored.pending, restored.sampler, 12).tokens;
    assert_eq!([begun.tokens, rest].concat(), expected);
}

#[track_caller]
fn refuses(engine: &NeuroEngine, path: &Path, words: &[&str]) {
    let Err(error) = engine.restore(path) else { panic!("{} was restored", path.display()) };
    let sentence = error.to_string();
    assert!(words.iter().all(|word| sentence.contains(word)) && !sentence.contains('\n'), "{sentence}");
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("saved");
    let engine = load_tiny("falcon_h1");
    let mut sequence = engine.sequence().expect("a sequence");
    engine.prefill(&mut sequence, &prompt()).expect("a pass");
    engine.save(&sequence, &[], &path).expect("a file");

    refuses(&load_tiny("jamba"), &path, &["saved", "model", "expected"]);
    let pages = LoadOptions { page_tokens: 16, ..cpu_options() };
    let other = NeuroEngine::load(&tiny("falcon_h1"), &pages).expect("the model");
    refuses(&other, &path, &["page_tokens", "64", "16"]);
    let context = LoadOptions { context: Some(20), ..cpu_options() };
    let other = NeuroEngine::load(&tiny("falcon_h1"), &context).expect("the model");
    refuses(&other, &path, &["75 tokens", "20"]);
    assert!(
        load_tiny("jamba").fork(&sequence).is_err_and(|error| error.to_string().contains("another engine"))
    );

    let whole = std::fs::read(&path).expect("the file");
    for len in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).expect("a file");
        refuses(&engine, &path, &["saved", "can't be read"]);
    }
    refuses(&engine, &folder.path().join("nothing"), &["nothing", "can't be read"]);
    let (_, header) = SafeTensors::read_metadata(&whole).expect("a header");
    let mut facts = header.metadata().clone().expect("facts");
    facts.insert("herald.version".to_owned(), "2".to_owned());
    facts.remove("herald.checksum");
    let tensors = SafeTensors::deserialize(&whole).expect("tensors").tensors();
    let former = safetensors::serialize(tensors, Some(facts)).expect("bytes");
    std::fs::write(&path, former).expect("a file");
    refuses(&engine, &path, &["herald.version 2", "without checksums", "3 was expected"]);
}

/// One bit of a saved sequence, wherever it is, or its data as zeros: the sentence names the part, and nothing is loaded.
#[test]
fn damage_anywhere_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("saved");
    let engine = in_tiers("jamba");
    let mut sequence = engine.sequence().expect("a sequence");
    let prompt: Vec<u32> = (0..300).map(|position| 3 + position * 37 % 500).collect();
    engine.prefill(&mut sequence, &prompt).expect("a pass");
    engine.save(&sequence, &[], &path).expect("a file");
    let whole = std::fs::read(&path).expect("the file");
    let (len, header) = SafeTensors::read_metadata(&whole).expect("a header");
    let data = len + 8;
    for (name, tensor) in header.tensors() {
        let (start, end) = tensor.data_offsets;
        for at in [start, usize::midpoint(start, end), end.saturating_sub(1)] {
            if start == end {
                continue;
            }
            let mut bytes = whole.clone();
            bytes[data + at] ^= 1 << (at % 8);
            std::fs::write(&path, bytes).expect("a file");
            refuses(&engine, &path, &["saved", &format!("its part {name}"), "is damaged"]);
        }
    }
    for at in (0..data).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, bytes).expect("a file");
        refuses(&engine, &path, &["saved", "can't be read"]);
    }
    let mut zeros = whole.clone();
    zeros[data..].fill(0);
    std::fs::write(&path, zeros).expect("a file");
    refuses(&engine, &path, &["its part", "is damaged"]);
    std::fs::write(&path, &whole).expect("a file");
    engine.restore(&path).expect("the whole file");
}
