//! Real models beside what `transformers` computes from them. They are large, so each is tested only where
//! tools/fetch_models.py has brought it.

use std::fs;

use herald::{ActivationPrecision, EmbedOptions, LoadOptions, NeuroEngine};
use herald_testing::{backends, fetched, repository};
use safetensors::SafeTensors;

use crate::predictions::{self, Distance, words};

const TEXTS: [&str; 5] = [
    "What is gravity?",
    "The capital of France is Paris.",
    "日本語の文章を埋め込む。",
    "def add(a, b):\n    return a + b",
    "Ünïcode naïve café — “quotes” & emoji 🎉 in one line, with numbers 12345.",
];

/// The tokens of texts, and their embeddings of length 1: `transformers` in float32, on the published weights.
fn check_embeddings(name: &str) {
    let Some(path) = fetched(name) else {
        println!("{name} is not tested: tools/fetch_models.py {name} brings it");
        return;
    };
    let expected = fs::read(repository().join("host/tests/data/real/embeddings.safetensors"));
    let expected = expected.expect("the test data is there");
    let expected = SafeTensors::deserialize(&expected).expect("the test data is a safetensors file");
    let words = |index: usize, what: &str| -> Vec<[u8; 4]> {
        let tensor = expected.tensor(&format!("{name}.{index}.{what}")).expect("the tensor is there");
        tensor.data().chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]).collect()
    };
    for (backend, options) in backends() {
        let engine = NeuroEngine::load(&path, options).unwrap_or_else(|error| panic!("{name}: {error}"));
        let options = EmbedOptions { normalize: true, ..EmbedOptions::default() };
        let embeddings = engine.embed_texts(&TEXTS, &options).expect("embeddings");
        for (index, embedding) in embeddings.iter().enumerate() {
            let ids = engine.tokenizer().encode_prompt(TEXTS[index], false).expect("tokens");
            let wanted: Vec<u32> = words(index, "ids").into_iter().map(u32::from_le_bytes).collect();
            assert_eq!(ids, wanted, "{name}, text {index}");
            let wanted = words(index, "embedding").into_iter().map(f32::from_le_bytes);
            let cosine: f64 = embedding.iter().zip(wanted).map(|(a, b)| f64::from(*a) * f64::from(b)).sum();
            assert!(cosine >= 0.999_999, "{name} on {backend}, text {index}: the cosine is {cosine}");
        }
    }
}

#[test]
fn all_minilm() {
    check_embeddings("all-minilm-l6-v2");
}

#[test]
fn embeddinggemma() {
    check_embeddings("embeddinggemma-300m");
}

/// With activations of 8 bits, predictions diverge at most half as much as llama.cpp's, which has 8 bits too; with 16 they are as good as
/// exact.
#[test]
fn qwen_coder() {
    let Some(path) = fetched("qwen2.5-coder-0.5b-instruct") else {
        println!("it is not tested: tools/fetch_models.py qwen2.5-coder-0.5b-instruct brings it");
        return;
    };
    let data =
        fs::read(repository().join("host/tests/data/real/qwen2.5-coder-0.5b-instruct.exact.safetensors"));
    let data = data.expect("the test data is there");
    let exact = SafeTensors::deserialize(&data).expect("the test data is a safetensors file");
    let number = |name: String| f64::from(f32::from_le_bytes(words(&exact, &name)[0]));
    let llama_cpp = [0, 1].map(|text| Distance {
        divergence: number(format!("t{text}.llama_cpp_kl")),
        agreement: number(format!("t{text}.llama_cpp_top1")),
    });
    for (backend, options) in backends() {
        for (activations, share) in [(ActivationPrecision::Int8, 0.5), (ActivationPrecision::Int16, 0.01)] {
            let options = LoadOptions { activations: Some(activations), ..options.clone() };
            let engine =
                NeuroEngine::load(&path, &options).unwrap_or_else(|error| panic!("{backend}: {error}"));
            predictions::check(&format!("{backend}, {activations:?}"), &engine, &exact, &llama_cpp, share);
        }
    }
}
