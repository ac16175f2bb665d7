//! SmolLM2-135M-Instruct, a real model: its tokens, its predictions and its greedy text against what the exact weights
//! give (dequantised to float32, computed in float32 by PyTorch).

use std::fs;

use herald::{ActivationPrecision, LoadOptions, NeuroEngine};
use herald_testing::{backends, load_smollm2, repository, smollm2};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::predictions::{self, Distance};

fn data(name: &str) -> Vec<u8> {
    fs::read(repository().join("host/tests/data/smollm2").join(name)).expect("the test data is there")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&data(name)).expect("the test data is JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().expect("a list of ids");
    list.iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// The model on each backend that runs on this machine, by the backend's name, with activations of 16 bits.
fn on_each_backend(each: impl Fn(&str, &NeuroEngine)) {
    for (name, options) in backends() {
        let options = LoadOptions { activations: Some(ActivationPrecision::Int16), ..options.clone() };
        let engine = NeuroEngine::load(&smollm2(), &options);
        each(name, &engine.unwrap_or_else(|error| panic!("{name}: {error}")));
    }
}

/// The model on the simd backend with activations of a precision, where this machine runs it.
fn on_simd(activations: ActivationPrecision) -> Option<NeuroEngine> {
    let (_, options) = backends().iter().find(|(name, _)| *name == "simd")?;
    let options = LoadOptions { activations: Some(activations), ..options.clone() };
    Some(NeuroEngine::load(&smollm2(), &options).expect("the model"))
}

/// A token's logits don't depend on the tokens that it is computed beside, to the bit: what the simd backend promises.
#[test]
fn results_do_not_depend_on_how_a_batch_is_cut() {
    ActivationPrecision::ALL.into_iter().filter_map(on_simd).for_each(|engine| check_cuts(&engine));
}

fn check_cuts(engine: &NeuroEngine) {
    // More than a segment of attention, so that single tokens' segments are shared out.
    let ids: Vec<u32> = (0..600).map(|index| 300 + index * 7919 % 40_000).collect();
    let (first, rest) = ids.split_at(560);
    let mut beginning = engine.sequence().expect("a sequence");
    engine.prefill(&mut beginning, first).expect("a pass");
    let in_pieces = |size: usize| {
        let mut sequence = engine.fork(&beginning).expect("a copy");
        let mut logits: Vec<u32> = Vec::new();
        for piece in rest.chunks(size) {
            let mut last = Vec::new();
            engine.logits(&mut sequence, piece, &mut |row| last = row.to_vec()).expect("a pass");
            // Every fortieth token is the last of a piece, however it is cut.
            if sequence.tokens().len().is_multiple_of(40) {
                logits.extend(last.iter().map(|logit| logit.to_bits()));
            }
        }
        logits
    };
    let expected = in_pieces(40);
    for size in [1, 5, 8] {
        assert!(in_pieces(size) == expected, "in pieces of {size} the logits are others");
    }
}

#[test]
fn texts_have_the_expected_tokens() {
    let engine = load_smollm2();
    for case in json("smollm2_tokens.json").as_array().expect("a list of cases") {
        let text = case["text"].as_str().expect("a text");
        for (key, special) in [("ids", false), ("ids_special", true)] {
            let found = engine.tokenizer().encode(text, special).expect("tokens");
            assert_eq!(found, ids(&case[key]), "{text:?}, {key}");
            assert_eq!(engine.tokenizer().decode(&found, true).expect("text"), text);
        }
    }
}

/// The mean Kullback-Leibler divergence from the exact predictions, over their 64 likeliest tokens, is no more than
/// llama.cpp's on the same file, and the likeliest token is as often the exact one.
#[test]
fn predictions_are_as_close_as_llama_cpps() {
    on_each_backend(|backend, engine| check_predictions(backend, engine, 1.0));
}

/// And with int8 activations, no more than half of that.
#[test]
fn predictions_of_int8_activations_are_closer_than_llama_cpps() {
    if let Some(engine) = on_simd(ActivationPrecision::Int8) {
        check_predictions("simd, int8", &engine, 0.5);
    }
}

fn check_predictions(who: &str, engine: &NeuroEngine, share: f64) {
    let bytes = data("smollm2_exact_top64.safetensors");
    let exact = SafeTensors::deserialize(&bytes).expect("the test data is a safetensors file");
    let expected = json("smollm2_expected.json");
    let texts = expected["prefill"].as_array().expect("a list of texts").iter();
    let llama_cpp: Vec<Distance> = texts
        .map(|text| {
            let number = |name: &str| text[name].as_f64().expect("a number");
            Distance { divergence: number("mean_kl_llamacpp"), agreement: number("top1_llamacpp") }
        })
        .collect();
    predictions::check(who, engine, &exact, &llama_cpp, share);
}

/// Greedy text is as expected up to the first step at which the two best logits are less than 0.05 apart.
#[test]
fn greedy_text_is_as_expected() {
    on_each_backend(check_greedy_text);
}

fn check_greedy_text(backend: &str, engine: &NeuroEngine) {
    for case in json("smollm2_expected.json")["greedy"].as_array().expect("a list of prompts") {
        let prompt = case["prompt"].as_str().expect("a prompt");
        let prompt_ids = engine.tokenizer().encode(prompt, true).expect("tokens");
        assert_eq!(prompt_ids, ids(&case["prompt_ids"]), "{prompt:?}");
        let margins = case["margins"].as_array().expect("a list of margins");
        let sure =
            margins.iter().take_while(|margin| margin.as_f64().is_some_and(|margin| margin >= 0.05)).count();
        let expected = &ids(&case["greedy_ids"])[..sure];
        let options = herald::GenerateOptions {
            max_tokens: Some(sure),
            sampler: herald::sampler::SamplerConfig { temperature: 0.0, ..Default::default() },
            ..Default::default()
        };
        let mut sequence = engine.sequence().expect("a sequence");
        let generated = engine
            .generate(&mut sequence, &prompt_ids, &options, &mut || true, &mut |_| true)
            .expect("a generation");
        println!("{backend}: {sure} tokens of {prompt:?}: {:?}", generated.text);
        assert_eq!(generated.tokens, expected, "{backend}: {prompt:?}");
    }
}
