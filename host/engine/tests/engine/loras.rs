//! Adapters (LoRA): what `peft` computes with one, what is beside it, what is kept of it, and what is refused.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use herald::gguf::{Gguf, Value, Writer};
use herald::sampler::SamplerConfig;
use herald::schedule::{Request, Scheduler, SchedulerOptions};
use herald::{BatchEntry, GenerateOptions, LoadOptions, LoraFile, LoraScale, NeuroEngine, Sequence};
use herald_api::DType;
use herald_testing::{backends, cpu_options, repository, tiny};
use safetensors::SafeTensors;

/// The adapter of the tiny llama model.
fn adapter() -> PathBuf {
    repository().join("host/tests/data/lora/llama_lora.gguf")
}

fn file(path: PathBuf, name: &str, scale: f32) -> LoraFile {
    LoraFile { path, name: Some(name.to_owned()), scale }
}

/// The tiny llama model with its adapter, in sequences that ask for it alone.
fn load(options: &LoadOptions) -> NeuroEngine {
    let loras = vec![file(adapter(), "tuned", 0.0)];
    let options = LoadOptions { loras, ..options.clone() };
    NeuroEngine::load(&tiny("llama"), &options).unwrap_or_else(|error| panic!("{error}"))
}

/// The prompt of the expected logits, and these.
fn expected(path: &str) -> (Vec<u32>, Vec<f32>) {
    let bytes = fs::read(repository().join(path)).expect("the test data is there");
    let tensors = SafeTensors::deserialize(&bytes).expect("the test data is a safetensors file");
    let words = |name: &str| {
        let data = tensors.tensor(name).expect("the tensor is there").data();
        data.as_chunks::<4>().0.to_vec()
    };
    let ids = words("ids").into_iter().map(u32::from_le_bytes).collect();
    (ids, words("logits").into_iter().map(f32::from_le_bytes).collect())
}

/// A sequence with the adapter at this scale.
fn sequence(engine: &NeuroEngine, scale: f32) -> Sequence {
    let mut sequence = engine.sequence().expect("a sequence");
    engine.set_loras(&mut sequence, &[LoraScale { index: 0, scale }]).expect("the adapter is loaded");
    sequence
}

fn logits(engine: &NeuroEngine, sequence: &mut Sequence, ids: &[u32], piece: usize) -> Vec<f32> {
    let mut logits = Vec::new();
    for piece in ids.chunks(piece) {
        engine.logits(sequence, piece, &mut |row| logits.extend_from_slice(row)).expect("a pass");
    }
    logits
}

/// With the adapter and without, as far as 16-bit keys and values allow.
#[test]
fn logits_are_those_of_peft() {
    let (ids, with) = expected("host/tests/data/lora/llama_lora.expected.safetensors");
    let (_, without) = expected("host/tests/data/tiny/llama.expected.safetensors");
    let off = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
    assert!(off(&with, &without) > 0.5, "the adapter changes nothing");
    for (backend, options) in backends() {
        let engine = load(options);
        for piece in [ids.len(), 1, 7] {
            for (scale, expected) in [(1.0, &with), (0.0, &without)] {
                let error = off(&logits(&engine, &mut sequence(&engine, scale), &ids, piece), expected);
                println!("{backend} in pieces of {piece} at scale {scale}: off by at most {error}");
                assert!(error <= 0.001, "{backend} in pieces of {piece} at scale {scale}: off by {error}");
            }
        }
    }
}

/// Runs these sequences together, pieces of 16 tokens of each in a pass; gives each one's logits.
fn together(engine: &NeuroEngine, sequences: &mut [Sequence], ids: &[u32]) -> Vec<Vec<f32>> {
    let mut logits = vec![Vec::new(); sequences.len()];
    for piece in ids.chunks(16) {
        let entry = |sequence| BatchEntry { sequence, ids: piece, logits: piece.len() };
        let mut entries: Vec<BatchEntry<'_>> = sequences.iter_mut().map(entry).collect();
        let mut rows = Vec::new();
        engine.step(&mut entries, &mut |some| rows.extend_from_slice(some)).expect("a pass");
        let each = rows.len() / logits.len();
        for (rows, logits) in rows.chunks_exact(each).zip(&mut logits) {
            logits.extend_from_slice(rows);
        }
    }
    logits
}

/// Sequences with and without the adapter share passes. Those without it compute, to the bit, what they compute in an engine that
/// has none; and where a backend promises that a batch changes nothing, each computes what it computes alone.
#[test]
fn sequences_share_passes_and_change_nothing() {
    let (ids, _) = expected("host/tests/data/lora/llama_lora.expected.safetensors");
    let scales = [0.0, 1.0, -0.5, 0.0, 1.0];
    for (backend, options) in backends() {
        let engine = load(options);
        let mut sequences: Vec<Sequence> = scales.iter().map(|scale| sequence(&engine, *scale)).collect();
        let mixed = together(&engine, &mut sequences, &ids);
        assert!(mixed[1] != mixed[0] && mixed[2] != mixed[0], "{backend}: the adapter changes nothing");
        let plain = NeuroEngine::load(&tiny("llama"), options).expect("the model loads");
        let mut sequences: Vec<Sequence> =
            scales.iter().map(|_| plain.sequence().expect("a sequence")).collect();
        let without = together(&plain, &mut sequences, &ids);
        for index in [0, 3] {
            assert!(mixed[index] == without[index], "{backend}: the adapter changes sequences without it");
        }
        let alone = |scale: &f32| logits(&engine, &mut sequence(&engine, *scale), &ids, 16);
        if *backend == "simd" {
            for (scale, mixed) in scales.iter().zip(&mixed) {
                assert!(
                    &alone(scale) == mixed,
                    "{backend}: a sequence at scale {scale} depends on those beside it"
                );
            }
        }
    }
}

fn options(scale: f32, max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens: Some(max_tokens),
        ignore_eos: true,
        sampler: SamplerConfig { temperature: 0.0, ..SamplerConfig::default() },
        loras: Some(vec![LoraScale { index: 0, scale }]),
        ..GenerateOptions::default()
    }
}

fn answer(engine: &NeuroEngine, prompt: &[u32], options: &GenerateOptions) -> (Vec<u32>, usize) {
    let mut sequence = engine.sequence().expect("a sequence");
    let generated = engine.generate(&mut sequence, prompt, options, &mut || true, &mut |_| true);
    let generated = generated.expect("an answer");
    (generated.tokens, generated.shared_tokens)
}

/// A repeating prompt, after which drafts come.
fn prompt() -> Vec<u32> {
    (0..150).map(|position| 3 + position % 10 * 37).collect()
}

#[test]
fn the_prefix_cache_keeps_adapters_apart() {
    let engine = load(&cpu_options());
    let fresh = LoadOptions { prefix_bytes: 0, max_draft: 0, ..cpu_options() };
    let fresh = load(&fresh);
    let prompt = prompt();
    let expected: Vec<Vec<u32>> =
        [0.0, 1.0, 0.5].iter().map(|scale| answer(&fresh, &prompt, &options(*scale, 20)).0).collect();
    assert!(expected[0] != expected[1] && expected[1] != expected[2], "the adapter changes no answer");
    for (turn, shared) in [0, 149].into_iter().enumerate() {
        for (scale, expected) in [0.0, 1.0, 0.5].into_iter().zip(&expected) {
            let (tokens, found) = answer(&engine, &prompt, &options(scale, 20));
            assert_eq!(&tokens, expected, "turn {turn} at scale {scale}");
            assert_eq!(found, shared, "turn {turn} at scale {scale}");
        }
    }
    // A client's own key doesn't reach what is computed with an adapter.
    let key = Some("tuned".to_owned());
    assert_eq!(answer(&engine, &prompt, &GenerateOptions { cache_key: key, ..options(1.0, 1) }).1, 0);
}

#[test]
fn requests_of_a_scheduler_have_their_own_adapters() {
    let (engine, fresh) = (load(&cpu_options()), load(&LoadOptions { prefix_bytes: 0, ..cpu_options() }));
    let scheduler = Scheduler::start(engine.into(), SchedulerOptions::default()).expect("a scheduler");
    let scales = [1.0, 0.0, 0.25, 1.0, 0.0];
    let request = |scale| Request { prompt: prompt(), options: options(scale, 12), client: String::new() };
    let tickets: Vec<_> =
        scales.iter().map(|scale| scheduler.submit(request(*scale)).expect("a slot")).collect();
    for (scale, ticket) in scales.iter().zip(tickets) {
        let tokens = ticket.wait().expect("an answer").generated.tokens;
        assert_eq!(tokens, answer(&fresh, &prompt(), &options(*scale, 12)).0, "at scale {scale}");
    }
    let wrong = GenerateOptions { loras: Some(vec![LoraScale { index: 7, scale: 1.0 }]), ..options(1.0, 1) };
    let wrong = Request { prompt: prompt(), options: wrong, client: String::new() };
    let error = scheduler.submit(wrong).map(drop).expect_err("there is no such adapter").to_string();
    assert!(error.starts_with("there is no adapter 7"), "{error}");
}

#[test]
fn saved_sequences_and_forks_keep_their_adapters() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("sequence");
    let engine = load(&cpu_options());
    let mut sequence = sequence(&engine, 0.5);
    engine.prefill(&mut sequence, &prompt()).expect("a pass");
    engine.save(&sequence, &[], &path).expect("it is saved");
    let mut fork = engine.fork(&sequence).expect("a fork");
    let mut restored = engine.restore(&path).expect("it is restored").sequence;
    assert_eq!(restored.loras(), [LoraScale { index: 0, scale: 0.5 }]);
    let next = logits(&engine, &mut sequence, &[7, 99], 2);
    assert!(
        logits(&engine, &mut restored, &[7, 99], 2) == next
            && logits(&engine, &mut fork, &[7, 99], 2) == next
    );
    let other =
        engine.set_loras(&mut sequence, &[]).expect_err("its tokens were computed with it").to_string();
    assert!(other.contains("152 tokens that were computed with other adapters"), "{other}");
    let plain = NeuroEngine::load(&tiny("llama"), &cpu_options()).expect("the model loads");
    let missing = plain.restore(&path).map(drop).expect_err("the adapter isn't loaded").to_string();
    assert!(missing.contains("\"tuned\" is needed, which isn't loaded"), "{missing}");
}

/// A copy of the adapter with other texts, numbers and tensors.
fn changed(folder: &Path, texts: &[(&str, &str)], rename: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    let gguf = Gguf::open(&adapter()).expect("the test data is there");
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter().filter(|(key, _)| texts.iter().all(|(other, _)| other != key))
    {
        writer.metadata(key, value).expect("an entry");
    }
    for (key, text) in texts {
        writer.metadata(key, Value::String(text.as_bytes())).expect("an entry");
    }
    let kept: Vec<_> = gguf.tensors().filter_map(|tensor| Some((tensor, rename(tensor.name())?))).collect();
    for (tensor, name) in &kept {
        writer.tensor(name, tensor.dtype(), tensor.dims()).expect("a tensor");
    }
    let path = folder.join("changed.gguf");
    let mut data = writer.begin(File::create(&path).expect("a file")).expect("a head");
    for (tensor, _) in &kept {
        data.tensor(gguf.bytes(tensor)).expect("data");
    }
    data.finish().expect("a file");
    path
}

/// Why a model refuses an adapter.
fn refusal(model: &str, path: PathBuf, scale: f32) -> String {
    let loras = vec![file(path, "a", scale)];
    let loaded = NeuroEngine::load(&tiny(model), &LoadOptions { loras, ..cpu_options() });
    loaded.map(drop).expect_err("it is refused").to_string()
}

/// The adapter, whose last number is none.
fn with_a_nan(folder: &Path) -> PathBuf {
    let mut bytes = fs::read(adapter()).expect("the adapter");
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    let path = folder.join("nan.gguf");
    fs::write(&path, bytes).expect("it is written");
    path
}

#[test]
fn what_is_not_computed_with_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let same = |name: &str| Some(name.to_owned());
    let renamed = |from: &'static str, to: &'static str| move |name: &str| Some(name.replace(from, to));
    let refused = |texts: &[(&str, &str)], rename: &dyn Fn(&str) -> Option<String>| {
        refusal("llama", changed(folder.path(), texts, rename), 1.0)
    };
    for (error, expected) in [
        (refusal("llama", tiny("llama"), 1.0), "general.type is \"model\", where \"adapter\" was expected"),
        (refusal("qwen2", adapter(), 1.0), "general.architecture is \"llama\", where \"qwen2\" was expected"),
        (
            refusal("llama_linear", adapter(), 1.0),
            "[64, 4] and [4, 32], where [32, rank] and [rank, 16] were expected",
        ),
        (refusal("llama", adapter(), f32::NAN), "the scale NaN, where a finite number was expected"),
        (
            refused(&[("adapter.type", "dora")], &same),
            "adapter.type is \"dora\", where \"lora\" was expected",
        ),
        (refused(&[("adapter.alora.invocation_tokens", "x")], &same), "adapter.alora.invocation_tokens"),
        (refused(&[], &renamed("blk.0.attn_q.weight", "blk.9.attn_q.weight")), "updates blk.9.attn_q.weight"),
        (refused(&[], &renamed("blk.0.attn_q.weight", "token_embd.weight")), "updates token_embd.weight"),
        (
            refused(&[], &renamed("lora_b", "dora_scale")),
            "dora_scale, where names that end in .lora_a or .lora_b",
        ),
        (
            refused(&[], &|name| Some(name.to_owned()).filter(|name| name != "blk.0.attn_q.weight.lora_b")),
            "blk.0.attn_q.weight.lora_a without blk.0.attn_q.weight.lora_b",
        ),
        (refused(&[], &|_| None), "the adapter has no tensors"),
        (refusal("llama", with_a_nan(folder.path()), 1.0), "holds NaN, where finite numbers were expected"),
    ] {
        assert!(
            error.contains(expected) && !error.contains('\n'),
            "{error}, where {expected:?} was expected"
        );
    }
    let loras = vec![file(adapter(), "a", 1.0), file(adapter(), "a", 1.0)];
    let twice = NeuroEngine::load(&tiny("llama"), &LoadOptions { loras, ..cpu_options() });
    let twice = twice.map(drop).expect_err("two of one name").to_string();
    assert!(twice.starts_with("two adapters are called \"a\""), "{twice}");
}

/// Two adapters add up: the same one twice, each at half the scale, is nearly the one.
#[test]
fn adapters_add_up() {
    let (ids, with) = expected("host/tests/data/lora/llama_lora.expected.safetensors");
    let loras = vec![file(adapter(), "a", 0.5), file(adapter(), "b", 0.5)];
    let engine =
        NeuroEngine::load(&tiny("llama"), &LoadOptions { loras, ..cpu_options() }).expect("it loads");
    let logits = logits(&engine, &mut engine.sequence().expect("a sequence"), &ids, 32);
    let error = logits.iter().zip(&with).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
    assert!(error <= 0.001, "off by {error}");
}

/// Of an adapter in bfloat16 come the logits of one whose float32 numbers are the same.
#[test]
fn adapters_may_be_of_other_types() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gguf = Gguf::open(&adapter()).expect("the test data is there");
    let load = |dtype: DType| {
        let mut writer = Writer::new();
        for (key, value) in gguf.metadata().iter() {
            writer.metadata(key, value).expect("an entry");
        }
        for tensor in gguf.tensors() {
            writer.tensor(tensor.name(), dtype, tensor.dims()).expect("a tensor");
        }
        let path = folder.path().join(dtype.name());
        let mut data = writer.begin(File::create(&path).expect("a file")).expect("a head");
        for tensor in gguf.tensors() {
            // The upper halves of float32 numbers, with zeros below where these are wanted whole.
            let words = gguf.bytes(tensor).as_chunks::<4>().0;
            let bytes: Vec<u8> = match dtype {
                DType::Bf16 => words.iter().flat_map(|word| [word[2], word[3]]).collect(),
                _ => words.iter().flat_map(|word| [0, 0, word[2], word[3]]).collect(),
            };
            data.tensor(&bytes).expect("data");
        }
        data.finish().expect("a file");
        let options = LoadOptions { loras: vec![file(path, "a", 1.0)], ..cpu_options() };
        NeuroEngine::load(&tiny("llama"), &options).unwrap_or_else(|error| panic!("{error}"))
    };
    let [halves, whole] = [DType::Bf16, DType::F32].map(|dtype| {
        let engine = load(dtype);
        logits(&engine, &mut engine.sequence().expect("a sequence"), &prompt()[..20], 20)
    });
    assert!(halves == whole, "bfloat16 is read otherwise");
}
