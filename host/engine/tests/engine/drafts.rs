//! Speculative decoding: the same text, to the bit, with drafts and without.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use herald::gguf::{Array, Gguf, Value};
use herald::sampler::SamplerConfig;
use herald::schedule::{Event, Request, Scheduler, SchedulerOptions};
use herald::{Capacity, Constraint, GenerateOptions, Generated, LoadOptions, MemoryOptions, NeuroEngine};
use herald_testing::{backends, cpu_options, folder, smollm2, tiny};

/// Models that keep pages, latents, windows; experts; and recurrent states of each kind, alone and beside attention.
const MODELS: [&str; 13] = [
    "llama",
    "gemma3",
    "gemma4_e",
    "deepseek2_lite",
    "mixtral",
    "gpt_oss",
    "qwen35",
    "granite_hybrid",
    "mamba",
    "mamba2",
    "falcon_h1",
    "lfm2",
    "kimi_linear",
];

/// The backend whose layers promise batch invariance; `None` where it doesn't run.
pub(super) fn simd(max_draft: usize) -> Option<LoadOptions> {
    let (_, options) = backends().iter().find(|(name, _)| *name == "simd")?;
    Some(LoadOptions {
        page_tokens: 16,
        max_draft,
        min_draft: 12,
        threads: NonZeroUsize::new(1),
        ..options.clone()
    })
}

pub(super) fn load(path: &Path, options: &LoadOptions) -> NeuroEngine {
    NeuroEngine::load(path, options).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An engine that drafts and one that doesn't.
fn pair(path: &Path) -> Option<[NeuroEngine; 2]> {
    Some([load(path, &simd(31)?), load(path, &simd(0)?)])
}

/// Ways to choose tokens: greedy; drawn, which leaves drafts often; penalised, which depends on what came before.
pub(super) fn samplers() -> [SamplerConfig; 3] {
    let usual = SamplerConfig { seed: Some(1), ..SamplerConfig::default() };
    [
        usual.clone(),
        SamplerConfig { temperature: 0.8, top_k: 3, seed: Some(11), ..usual.clone() },
        SamplerConfig { temperature: 0.7, repetition_penalty: 1.05, seed: Some(5), top_logprobs: 2, ..usual },
    ]
}

fn prompt() -> Vec<u32> {
    (0..45).map(|position| 3 + (position % 9) * 17).collect()
}

/// All that a caller sees of a generation, but for what was drafted.
#[derive(Debug, PartialEq)]
pub(super) struct Seen {
    text: String,
    pub(super) tokens: Vec<u32>,
    logprobs: Vec<u32>,
    finish: herald::Finish,
    random: herald::sampler::SamplerState,
    sequence: Vec<u32>,
}

fn seen(generated: Generated, sequence: &[u32]) -> Seen {
    Seen {
        text: generated.text,
        tokens: generated.tokens,
        logprobs: generated.logprobs.iter().map(|logprob| logprob.to_bits()).collect(),
        finish: generated.finish,
        random: generated.random,
        sequence: sequence.to_vec(),
    }
}

/// Three generations on one sequence, one after another: what is seen of them, and how many drafted tokens came and didn't.
pub(super) fn turns(engine: &NeuroEngine, sampler: &SamplerConfig) -> (Vec<Seen>, [usize; 2]) {
    let mut sequence = engine.sequence().expect("a sequence");
    let (mut all, mut counts) = (Vec::new(), [0; 2]);
    for (turn, n) in [40, 1, 25].into_iter().enumerate() {
        let options = GenerateOptions {
            max_tokens: Some(n),
            sampler: sampler.clone(),
            ignore_eos: true,
            ..GenerateOptions::default()
        };
        let prompt = if turn == 0 { prompt() } else { vec![9, 8] };
        let generated = engine.generate(&mut sequence, &prompt, &options, &mut || true, &mut |_| true);
        let generated = generated.expect("an answer");
        counts[0] += generated.accepted_tokens;
        counts[1] += generated.drafted_tokens - generated.accepted_tokens;
        all.push(seen(generated, sequence.tokens()));
    }
    (all, counts)
}

#[test]
fn the_text_is_the_same_to_the_bit() {
    let mut all = [0; 2];
    for model in MODELS {
        let Some([with, without]) = pair(&tiny(model)) else { return };
        for sampler in samplers() {
            let ((found, counts), (expected, none)) = (turns(&with, &sampler), turns(&without, &sampler));
            assert_eq!(found, expected, "{model}, {sampler:?}");
            assert_eq!(none, [0; 2]);
            all = [all[0] + counts[0], all[1] + counts[1]];
        }
    }
    assert!(all[0] > 100 && all[1] > 100, "{all:?} drafted tokens came and didn't");
}

#[test]
fn a_backend_that_promises_nothing_drafts_nothing() {
    let engine = load(&tiny("llama"), &cpu_options());
    assert_eq!(turns(&engine, &SamplerConfig::default()).1, [0; 2]);
}

#[test]
fn requests_that_share_passes_get_the_same() {
    // (Of Mamba-2, a prompt in other pieces has other last bits.)
    for model in ["llama", "lfm2", "qwen35"] {
        let Some([with, plain]) = pair(&tiny(model)) else { return };
        let with = Arc::new(with);
        let scheduler =
            Scheduler::start(Arc::clone(&with), SchedulerOptions::default()).expect("a scheduler");
        let requests: Vec<Request> = (0..12)
            .map(|index: u32| {
                let drawn = samplers()[index as usize % 3].clone();
                let options = GenerateOptions {
                    max_tokens: Some(10 + index as usize * 3),
                    sampler: SamplerConfig { seed: Some(u64::from(index)), ..drawn },
                    stop: if index.is_multiple_of(3) { vec!["e".to_owned()] } else { Vec::new() },
                    ..GenerateOptions::default()
                };
                let prompt = (0..30).map(|position| 3 + (position % (4 + index)) * 13).collect();
                Request { prompt, options, client: index.to_string() }
            })
            .collect();
        let tickets: Vec<_> =
            requests.iter().map(|request| scheduler.submit(request.clone()).expect("a slot")).collect();
        for (request, ticket) in requests.iter().zip(tickets) {
            let (mut text, mut tokens) = (String::new(), Vec::new());
            let answer = loop {
                match ticket.next().expect("an end") {
                    Event::Token { sampled, text: piece, tail } => {
                        text.push_str(&piece);
                        tokens.extend((!tail).then_some(sampled.token));
                    }
                    Event::Done(answer) => break answer.generated,
                    Event::Failed(error) => panic!("{model}: {error}"),
                }
            };
            let mut sequence = plain.sequence().expect("a sequence");
            let (prompt, options) = (&request.prompt, &request.options);
            let expected = plain
                .generate(&mut sequence, prompt, options, &mut || true, &mut |_| true)
                .expect("an answer");
            assert_eq!((&text, &tokens), (&expected.text, &expected.tokens), "{model}");
            assert_eq!(seen(answer, &[]), seen(expected, &[]), "{model}");
        }
        let report = scheduler.metrics().report();
        assert!(report.drafted_tokens > report.accepted_tokens && report.accepted_tokens > 0, "{report:?}");
    }
}

/// Whoever takes no more gets no more, and a request's answer ends there.
#[test]
fn a_request_that_ends_amid_a_draft_has_what_was_seen() {
    let Some([engine, _]) = pair(&tiny("llama")) else { return };
    let engine = Arc::new(engine);
    for most in 1..20 {
        let options =
            GenerateOptions { max_tokens: Some(60), ignore_eos: true, ..GenerateOptions::default() };
        let mut sequence = engine.sequence().expect("a sequence");
        let mut left = most;
        let mut each = |output: &herald::TokenOutput<'_>| {
            left -= usize::from(!output.tail);
            left > 0
        };
        let alone =
            engine.generate(&mut sequence, &prompt(), &options, &mut || true, &mut each).expect("an answer");
        assert_eq!((alone.tokens.len(), &alone.finish), (most, &herald::Finish::Cancelled));
        assert_eq!(sequence.tokens().len(), prompt().len() + most - 1);

        let scheduler =
            Scheduler::start(Arc::clone(&engine), SchedulerOptions::default()).expect("a scheduler");
        let (sender, ended) = std::sync::mpsc::channel();
        let mut left = most;
        let sink = Box::new(move |event| match event {
            Event::Token { tail: false, .. } => {
                left -= 1;
                left > 0
            }
            Event::Done(answer) => sender.send(answer.generated).is_ok(),
            _ => true,
        });
        let request = Request { prompt: prompt(), options, client: String::new() };
        scheduler.submit_to(request, sink).expect("a slot");
        let shared = ended.recv().expect("an end");
        assert_eq!((shared.text, shared.tokens), (alone.text, alone.tokens));
    }
}

/// Pages that move down a tier do so between the same tokens.
#[test]
fn tiers_change_nothing() {
    for selected_pages in [Some(2), Some(64), None] {
        let memory =
            MemoryOptions { active: Capacity::Tokens(32), selected_pages, ..MemoryOptions::default() };
        let (Some(with), Some(without)) = (simd(31), simd(0)) else { return };
        let with = load(&tiny("llama"), &LoadOptions { memory: memory.clone(), ..with });
        let without = load(&tiny("llama"), &LoadOptions { memory, ..without });
        let ((found, counts), (expected, _)) =
            (turns(&with, &samplers()[0]), turns(&without, &samplers()[0]));
        assert_eq!(found, expected, "{selected_pages:?}");
        assert!(selected_pages == Some(2) || counts[0] > 0);
    }
}

#[test]
fn a_quotation_is_drafted_and_forms_hold() {
    let Some([with, without]) = pair(&smollm2()) else { return };
    let text = "Repeat the list: apple, banana, cherry, damson, elderberry, fig.\nThe list: apple, banana, cherry, damson, \
                elderberry, fig.\nThe list again: apple,";
    let prompt = with.tokenizer().encode_prompt(text, false).expect("ids");
    let schema = Constraint::json_schema(
        r#"{"type": "array", "items": {"enum": ["yes", "no"]}, "minItems": 6, "maxItems": 9}"#,
    );
    for constraint in [None, Some(schema.expect("a schema"))] {
        let options = GenerateOptions {
            max_tokens: Some(40),
            constraint,
            sampler: samplers()[0].clone(),
            ..GenerateOptions::default()
        };
        let [found, expected] = [&with, &without].map(|engine| {
            let mut sequence = engine.sequence().expect("a sequence");
            let generated = engine.generate(&mut sequence, &prompt, &options, &mut || true, &mut |_| true);
            (generated.expect("an answer"), sequence.tokens().to_vec())
        });
        assert!(
            found.0.accepted_tokens > 5,
            "{} of {} came",
            found.0.accepted_tokens,
            found.0.drafted_tokens
        );
        assert_eq!(seen(found.0, &found.1), seen(expected.0, &expected.1));
    }
}

/// A prompt whose tokens don't repeat, so that only a draft model has anything to say of what comes.
fn plain_prompt() -> Vec<u32> {
    (0..40).map(|position| 3 + position * 11 % 500).collect()
}

/// An engine that this model drafts for, wherever it can.
fn drafted(target: &Path, draft: &Path) -> Option<NeuroEngine> {
    Some(load(target, &LoadOptions { draft_model: Some(draft.to_owned()), ..simd(31)? }))
}

/// One generation: what is seen of it, and how many guesses there were and how many came.
pub(super) fn one(
    engine: &NeuroEngine,
    prompt: &[u32],
    n: usize,
    sampler: &SamplerConfig,
) -> (Seen, [usize; 2]) {
    let options = GenerateOptions {
        max_tokens: Some(n),
        sampler: sampler.clone(),
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    let mut sequence = engine.sequence().expect("a sequence");
    let generated = engine.generate(&mut sequence, prompt, &options, &mut || true, &mut |_| true);
    let generated = generated.expect("an answer");
    let guesses = [generated.guessed_tokens, generated.accepted_guesses];
    assert!(guesses[0] <= generated.drafted_tokens && guesses[1] <= generated.accepted_tokens);
    (seen(generated, sequence.tokens()), guesses)
}

/// Models with pages and with recurrent states, with themselves and with others as draft models.
#[test]
fn a_draft_model_changes_no_text() {
    for target in ["llama", "qwen35", "mamba", "granite_hybrid"] {
        let Some(without) = simd(0).map(|options| load(&tiny(target), &options)) else { return };
        for draft in [target, "qwen2", "lfm2"] {
            let Some(with) = drafted(&tiny(target), &tiny(draft)) else { return };
            let mut all = [0; 2];
            for sampler in samplers() {
                let (found, guesses) = one(&with, &plain_prompt(), 60, &sampler);
                assert_eq!(found, one(&without, &plain_prompt(), 60, &sampler).0, "{target}, {draft}");
                assert_eq!(turns(&with, &sampler).0, turns(&without, &sampler).0, "{target}, {draft}");
                all = [all[0] + guesses[0], all[1] + guesses[1]];
            }
            let [guessed, came] = all;
            assert!(guessed > 0 && came <= guessed, "{target}, {draft}: {all:?}");
            assert!((came > 20) == (draft == target), "{target}, {draft}: {all:?}");
        }
    }
}

/// What a model would say itself is what it says: by itself as its draft model, all guesses come.
#[test]
fn a_model_agrees_with_itself() {
    for model in ["llama", "qwen35"] {
        let Some(with) = drafted(&tiny(model), &tiny(model)) else { return };
        let (_, [guessed, came]) = one(&with, &plain_prompt(), 60, &samplers()[0]);
        assert!(guessed > 20 && came == guessed, "{model}: {came} of {guessed}");
    }
}

#[test]
fn a_draft_model_drafts_for_requests_that_share_passes() {
    for (target, draft) in [("llama", "llama"), ("llama", "lfm2"), ("qwen35", "llama")] {
        let Some(with) = drafted(&tiny(target), &tiny(draft)) else { return };
        let Some(plain) = simd(0).map(|options| load(&tiny(target), &options)) else { return };
        let options = SchedulerOptions { max_running: 3, ..SchedulerOptions::default() };
        let scheduler = Scheduler::start(Arc::new(with), options).expect("a scheduler");
        let requests: Vec<Request> = (0..6)
            .map(|index: u32| Request {
                prompt: (0..20 + index).map(|position| 3 + (position * 11 + index) % 500).collect(),
                options: GenerateOptions {
                    max_tokens: Some(30),
                    sampler: SamplerConfig { seed: Some(7), ..samplers()[index as usize % 3].clone() },
                    ignore_eos: true,
                    ..GenerateOptions::default()
                },
                client: index.to_string(),
            })
            .collect();
        let tickets: Vec<_> =
            requests.iter().map(|request| scheduler.submit(request.clone()).expect("a slot")).collect();
        for (request, ticket) in requests.iter().zip(tickets) {
            let answer = loop {
                match ticket.next().expect("an end") {
                    Event::Done(answer) => break answer.generated,
                    Event::Failed(error) => panic!("{target}, {draft}: {error}"),
                    Event::Token { .. } => {}
                }
            };
            let mut sequence = plain.sequence().expect("a sequence");
            let (prompt, options) = (&request.prompt, &request.options);
            let expected = plain.generate(&mut sequence, prompt, options, &mut || true, &mut |_| true);
            assert_eq!(seen(answer, &[]), seen(expected.expect("an answer"), &[]), "{target}, {draft}");
        }
        let report = scheduler.metrics().report();
        assert!(report.guessed_tokens > 0 && report.drafted_tokens >= report.guessed_tokens, "{report:?}");
        assert!((report.accepted_guesses > 20) == (target == draft), "{report:?}");
    }
}

/// Where the draft model's context or memory is too short, there are no guesses, and nothing else is different.
#[test]
fn a_draft_model_without_room_drafts_nothing() {
    let Some(without) = simd(0) else { return };
    let plain = load(&tiny("llama"), &without);
    let (expected, _) = one(&plain, &plain_prompt(), 120, &samplers()[1]);
    // Its context ends after 128 tokens.
    let Some(with) = drafted(&tiny("llama"), &tiny("qwen3_yarn")) else { return };
    let (found, [guessed, _]) = one(&with, &plain_prompt(), 120, &samplers()[1]);
    assert_eq!(found, expected);
    assert!(guessed > 0);

    let room = |budget: u64| {
        let memory = MemoryOptions { budget: Some(budget), ..MemoryOptions::default() };
        let options = LoadOptions { draft_model: Some(tiny("llama")), memory, ..simd(31)? };
        Some(load(&tiny("llama"), &LoadOptions { prefix_bytes: 0, ..options }))
    };
    let usage = {
        let mut sequence = plain.sequence().expect("a sequence");
        plain.prefill(&mut sequence, &found.sequence).expect("logits");
        sequence.memory_usage().memory_bytes()
    };
    let guesses = [usage, 4 * usage].map(|budget| {
        let Some(with) = room(budget) else { return 0 };
        let (found, [guessed, _]) = one(&with, &plain_prompt(), 120, &samplers()[1]);
        assert_eq!(found, expected, "{budget} bytes");
        guessed
    });
    assert!(guesses[0] < guesses[1], "{guesses:?}");
}

/// The tiny llama model with the texts of two tokens exchanged, and the first of these.
fn with_other_tokens(folder: &Path) -> (PathBuf, usize) {
    let mut bytes = std::fs::read(tiny("llama")).expect("a model");
    let gguf = Gguf::open(&tiny("llama")).expect("a model");
    let tokens: Array<'_> = gguf.metadata().require("tokenizer.ggml.tokens").expect("tokens");
    let texts = tokens.elements().map(|token| match token {
        Value::String(text) => text,
        _ => panic!("a token that is no text"),
    });
    let texts: Vec<&[u8]> = texts.collect();
    let (last, others) = texts.split_last().expect("tokens");
    let first = others.iter().rposition(|text| text.len() == last.len()).expect("one of the same length");
    let place = |text: &[u8]| {
        let stored = [&(text.len() as u64).to_le_bytes()[..], text].concat();
        bytes.windows(stored.len()).position(|part| part == stored).expect("the token is in the file") + 8
    };
    for (at, text) in [(place(texts[first]), *last), (place(last), texts[first])] {
        bytes[at..at + text.len()].copy_from_slice(text);
    }
    let path = folder.join("other.gguf");
    std::fs::write(&path, bytes).expect("a file");
    (path, first)
}

#[test]
fn a_draft_model_that_cannot_guess_is_refused() {
    let Some(options) = simd(31) else { return };
    let folder = folder();
    let (exchanged, first) = with_other_tokens(folder.path());
    let other_text = format!("for the token {first}, where");
    for (draft, expected) in [
        (exchanged, other_text.as_str()),
        (tiny("gemma_embedding"), "is an encoder, where one that generates text was expected"),
        (tiny("bert"), "is an encoder, where one that generates text was expected"),
        (folder.path().join("none.gguf"), "none.gguf"),
    ] {
        let options = LoadOptions { draft_model: Some(draft), ..options.clone() };
        let error = NeuroEngine::load(&tiny("llama"), &options).err().expect("it can't guess").to_string();
        assert!(error.contains(expected), "{error}");
    }
}
