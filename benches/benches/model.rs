//! A whole model on each backend, with all threads: a prompt, limited by arithmetic, and single tokens, limited by reading
//! all weights. The model is the one that HERALD_MODEL names, or SmolLM2 if `host pull` has fetched it.

mod shared {
    pub(crate) mod summary;
}

use std::path::PathBuf;

use criterion::{SamplingMode, Throughput};
use herald::gguf::Gguf;
use herald::plugin::{Plugins, Search, this_machine};
use herald::{LoadOptions, NeuroEngine, Sequence, backend_choice};
use shared::summary::{Share, Summary};

/// Tokens of the prompt, which also precedes the timed single tokens.
const PROMPT: usize = 512;

/// The model's file, if there is one.
fn model() -> Option<PathBuf> {
    let named = std::env::var_os("HERALD_MODEL").filter(|name| !name.is_empty()).map(PathBuf::from);
    let pulled =
        || Some(backend_choice::calibrations_folder()?.parent()?.join("models/smollm2-135m-instruct.gguf"));
    named.or_else(pulled).filter(|path| path.is_file())
}

/// Bytes of weights that a token reads, and its multiply-adds, over all matrices. The embedding counts only if it is the
/// output head too. For a model with experts this counts all of them.
fn work(gguf: &Gguf) -> [u64; 2] {
    let tied = gguf.tensor("output.weight").is_none();
    let matrices = gguf.tensors().filter(|tensor| tensor.dims().len() > 1);
    let used = matrices.filter(|tensor| tied || tensor.name() != "token_embd.weight");
    used.fold([0, 0], |[bytes, elements], tensor| {
        [bytes + tensor.bytes() as u64, elements + tensor.elements() as u64]
    })
}

fn ids(engine: &NeuroEngine) -> Vec<u32> {
    let vocabulary = engine.plan().vocabulary;
    (0..PROMPT).map(|index| (index * 7919 % vocabulary) as u32).collect()
}

fn prefilled(engine: &NeuroEngine, ids: &[u32]) -> Sequence {
    let mut sequence = engine.sequence().expect("a sequence");
    engine.prefill(&mut sequence, ids).expect("a prompt");
    sequence
}

fn main() {
    let Some(path) = model() else {
        println!(
            "there is no model to measure: name one in HERALD_MODEL, or fetch one with `host pull smollm2-135m-instruct`"
        );
        return;
    };
    let search = Search { allow_insecure: true, ..Search::usual() };
    let plugins = Plugins::discover(&search, &this_machine());
    if plugins.usable.is_empty() {
        println!("there are no plugins to measure: build them first with cargo build --release");
        return;
    }
    let [bytes, elements] = work(&Gguf::open(&path).unwrap_or_else(|error| panic!("{error}")));
    let mut summary = Summary::begin();
    let mut criterion = summary.criterion();
    for loaded in &plugins.usable {
        let backend = loaded.plugin.name();
        let load = || {
            let options = LoadOptions {
                backend: Some(backend.to_owned()),
                search: search.clone(),
                ..LoadOptions::default()
            };
            NeuroEngine::load(&path, &options).unwrap_or_else(|error| panic!("{error}"))
        };
        let group_name = format!("model, {backend}");
        // Loaded when it is first needed: a run may leave the bench out.
        let mut engine = None;
        let mut group = criterion.benchmark_group(&group_name);
        group.sampling_mode(SamplingMode::Flat);
        let prompt = format!("prompt of {PROMPT}");
        group.throughput(Throughput::Elements(elements * PROMPT as u64));
        group.bench_function(&prompt, |bencher| {
            let engine = engine.get_or_insert_with(load);
            let ids = ids(engine);
            bencher.iter(|| prefilled(engine, &ids));
        });
        summary.compare_with(&group_name, &prompt, Share::IntOfAll);
        group.throughput(Throughput::ElementsAndBytes { elements, bytes });
        let mut sequence = None;
        group.bench_function("single token", |bencher| {
            let engine = engine.get_or_insert_with(load);
            let ids = ids(engine);
            let sequence = sequence.get_or_insert_with(|| prefilled(engine, &ids));
            bencher.iter(|| {
                engine.decode(&mut [(sequence, ids[0])]).expect("a token");
                // With recurrent states this fails and the sequence grows, which costs nothing.
                sequence.truncate(PROMPT);
            });
        });
        summary.compare_with(&group_name, "single token", Share::MemoryOfAll);
        group.finish();
    }
    criterion.final_summary();
    summary.print();
}
