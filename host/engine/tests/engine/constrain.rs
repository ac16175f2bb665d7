//! Answers in a given form. The models' weights are random, so whatever is well-formed in their answers, the form did.

use std::sync::Arc;

use herald::sampler::SamplerConfig;
use herald::schedule::{Request, Scheduler, SchedulerOptions};
use herald::{Constraint, Finish, GenerateOptions, Generated, NeuroEngine};
use herald_testing::{load_smollm2, load_tiny};
use serde_json::{Value, json};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 3},
            "address": {
                "type": "object",
                "properties": {"street": {"type": "string"}, "flat": {"type": ["number", "null"], "minimum": -9, "maximum": 999}},
                "required": ["street", "flat"],
                "additionalProperties": false
            }
        },
        "required": ["name", "age", "address"],
        "additionalProperties": false
    })
}

/// Whether a value is of [`schema`].
fn conforms(value: &Value) -> bool {
    let Some(fields) = value.as_object() else { return false };
    let known = fields.keys().all(|key| ["name", "age", "tags", "address"].contains(&key.as_str()));
    let address = &value["address"];
    known
        && value["name"].is_string()
        && value["age"].as_u64().is_some_and(|age| age <= 150)
        && address["street"].is_string()
        && (address["flat"].is_number() || address["flat"].is_null())
        && fields.get("tags").is_none_or(|tags| {
            let tags = tags.as_array().expect("an array");
            tags.len() <= 3 && tags.iter().all(|tag| tag == "red" || tag == "green")
        })
}

fn options(constraint: Constraint, most: usize, seed: u64) -> GenerateOptions {
    GenerateOptions {
        max_tokens: Some(most),
        constraint: Some(constraint),
        sampler: SamplerConfig {
            temperature: if seed == 0 { 0.0 } else { 1.5 },
            seed: Some(seed),
            ..SamplerConfig::default()
        },
        ..GenerateOptions::default()
    }
}

fn generate(engine: &NeuroEngine, options: &GenerateOptions) -> Generated {
    let mut sequence = engine.sequence().expect("a sequence");
    engine.generate(&mut sequence, &[5, 6, 7], options, &mut || true, &mut |_| true).expect("an answer")
}

/// Every answer parses and conforms, however few tokens it may have.
fn every_answer_conforms(model: &str) {
    let engine = load_tiny(model);
    let room: Vec<usize> = (90..130).step_by(3).chain([200, 400]).collect();
    for (seed, most) in room.into_iter().enumerate() {
        let generated = generate(&engine, &options(Constraint::JsonSchema(schema()), most, seed as u64));
        let parsed: Value = serde_json::from_str(&generated.text)
            .unwrap_or_else(|error| panic!("{model}, {most} tokens: {error} in {:?}", generated.text));
        assert!(conforms(&parsed), "{model}, {most} tokens: {parsed}");
        assert!(
            matches!(generated.finish, Finish::Complete | Finish::EndToken(_)),
            "{model}, {most} tokens: {:?}",
            generated.finish
        );
        assert!(generated.tokens.len() <= most);
    }
}

#[test]
fn byte_level_bpe_follows_a_schema() {
    every_answer_conforms("llama");
}

#[test]
fn sentencepiece_follows_a_schema() {
    every_answer_conforms("gemma3");
}

#[test]
fn a_regular_expression_matches_whole_answers() {
    let engine = load_tiny("llama");
    for (regex, matches) in [
        (r"[0-9]{4}-[0-9]{2}", (|text| text.len() == 7 && text.as_bytes()[4] == b'-') as fn(&str) -> bool),
        (r"(yes|no|maybe)", |text| ["yes", "no", "maybe"].contains(&text)),
        (r"[a-z ]*!", |text| text.ends_with('!') && text.matches('!').count() == 1),
        (r"(äöü)+", |text| !text.is_empty() && text.replace("äöü", "").is_empty()),
    ] {
        for seed in 0..6 {
            let generated = generate(&engine, &options(Constraint::Regex(regex.to_owned()), 30, seed));
            assert!(matches(&generated.text), "{regex}: {:?}", generated.text);
        }
    }
}

#[test]
fn too_little_room_is_said() {
    let engine = load_tiny("llama");
    let generated = generate(&engine, &options(Constraint::JsonSchema(schema()), 3, 0));
    assert_eq!((generated.finish, generated.tokens.len()), (Finish::Length, 3));
}

#[test]
fn going_on_past_the_models_end_ends_where_the_form_does() {
    let engine = load_tiny("llama");
    for seed in 0..5 {
        let constraint = Constraint::Regex("[a-c]{1,6}".to_owned());
        let options = GenerateOptions { ignore_eos: true, ..options(constraint, 100, seed) };
        let generated = generate(&engine, &options);
        assert_eq!((generated.finish, generated.text.len()), (Finish::Complete, 6), "{:?}", generated.text);
    }
}

#[test]
fn wrong_forms_get_a_sentence() {
    let engine = load_tiny("llama");
    let refused = |constraint: Constraint| {
        let mut sequence = engine.sequence().expect("a sequence");
        let options = options(constraint, 9, 0);
        let done = engine.generate(&mut sequence, &[5], &options, &mut || true, &mut |_| true);
        let sentence = done.expect_err("a refusal").to_string();
        assert!(!sentence.contains('\n'), "{sentence:?}");
        sentence
    };
    let sentence = refused(Constraint::Regex("a(b".to_owned()));
    assert!(sentence.contains("regular expression can't be used"), "{sentence}");
    let unknown = json!({"type": "object", "properties": {"a": {"type": "martian"}}, "required": ["a"]});
    assert!(refused(Constraint::JsonSchema(unknown)).contains("JSON schema can't be used"));
    for text in ["", "{", "3", "\"x\"", "false"] {
        let sentence = Constraint::json_schema(text).expect_err("a refusal");
        assert!(sentence.contains("JSON schema is"), "{sentence}");
    }
    assert!(Constraint::json_schema("{}").is_ok() && Constraint::json_schema("true").is_ok());
}

/// Constrained and free requests share the steps, and each answer is the one given alone.
#[test]
fn constrained_requests_share_a_batch() {
    let engine = Arc::new(load_tiny("llama"));
    let scheduler = Scheduler::start(Arc::clone(&engine), SchedulerOptions::default()).expect("a scheduler");
    let all: Vec<GenerateOptions> = (0..12)
        .map(|index| {
            let mut options = options(Constraint::JsonSchema(schema()), 80 + index, 0);
            if index % 3 == 0 {
                options.constraint = None;
            }
            options
        })
        .collect();
    let tickets: Vec<_> = all
        .iter()
        .map(|options| {
            let request = Request { prompt: vec![5, 6, 7], options: options.clone(), client: String::new() };
            scheduler.submit(request).expect("a slot")
        })
        .collect();
    for (ticket, options) in tickets.into_iter().zip(&all) {
        assert_eq!(ticket.wait().expect("an answer").generated.text, generate(&engine, options).text);
    }
}

/// A real model's answers make sense too: the form leaves its choices to it.
#[test]
fn smollm2_answers_in_json() {
    let engine = load_smollm2();
    let schema = json!({
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 20}},
        "required": ["capital"],
        "additionalProperties": false
    });
    let prompt =
        "<|im_start|>user\nWhat is the capital of France? Answer as JSON.<|im_end|>\n<|im_start|>assistant\n";
    let prompt = engine.tokenizer().encode_prompt(prompt, true).expect("tokens");
    let mut sequence = engine.sequence().expect("a sequence");
    let options = options(Constraint::JsonSchema(schema), 40, 0);
    let generated =
        engine.generate(&mut sequence, &prompt, &options, &mut || true, &mut |_| true).expect("an answer");
    let value: Value = serde_json::from_str(&generated.text).expect("JSON");
    assert_eq!(value["capital"], "Paris");
}
