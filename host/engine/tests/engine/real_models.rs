//! Real models beside what `transformers` computes from them. They are large, so each is tested only where
//! tools/fetch_models.py has brought it.

use std::fs;

use herald::{EmbedOptions, NeuroEngine};
use herald_testing::{backends, fetched, repository};
use safetensors::SafeTensors;

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
