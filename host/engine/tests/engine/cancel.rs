//! Work that is stopped: how soon, and what is left of it.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use herald::schedule::{Request, Scheduler, SchedulerOptions};
use herald::{
    BatchEntry, Constraint, Error, Finish, GenerateOptions, LoadOptions, MultiTierMemoryManager, NeuroEngine,
    Stop,
};
use herald_testing::{cpu_options, load_tiny, tiny};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::state::{go_on, prompt};

/// Models of every kind of state, as in the tests of states.
const MODELS: [&str; 8] =
    ["jamba", "falcon_h1", "lfm2", "qwen35", "kimi_linear", "gemma4_e", "deepseek2_lite", "llama"];

/// Those of them without recurrent states.
const PAGES_ALONE: [&str; 3] = ["gemma4_e", "deepseek2_lite", "llama"];

/// Tokens of a pass.
const PIECE: usize = 40;

thread_local! {
    static AT_LAYER: RefCell<Option<(usize, Stop)>> = const { RefCell::new(None) };
}

/// Counts the layers that passes begin, and sets a [`Stop`] as one of them does.
#[derive(Clone, Default)]
struct Layers(Arc<AtomicUsize>);

impl Subscriber for Layers {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "herald::pass"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {
        let begun = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        AT_LAYER.with_borrow(|at| {
            if let Some((layer, stop)) = at.as_ref()
                && *layer == begun
            {
                stop.set();
            }
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Runs `work` and sets `stop` as the `layer`-th layer (from 1) begins. Returns how many layers began in all.
fn stopped_at<R>(layer: usize, stop: &Stop, work: impl FnOnce() -> R) -> (R, usize) {
    let layers = Layers::default();
    AT_LAYER.set(Some((layer, stop.clone())));
    let done = tracing::subscriber::with_default(layers.clone(), work);
    AT_LAYER.set(None);
    (done, layers.0.load(Ordering::Relaxed))
}

fn load(name: &str) -> NeuroEngine {
    NeuroEngine::load(
        &tiny(name),
        &LoadOptions { max_batch: PIECE, threads: NonZeroUsize::new(1), ..cpu_options() },
    )
    .expect("a model")
}

#[test]
fn a_prompt_ends_after_the_running_layer_and_goes_on_from_before_the_piece() {
    for name in MODELS {
        let engine = load(name);
        let mut whole = engine.sequence().expect("a sequence");
        let (done, n_layers) = stopped_at(0, &Stop::default(), || engine.prefill(&mut whole, &prompt()));
        let expected = (done.expect("a pass"), go_on(&engine, &mut whole));
        // A piece without logits doesn't run the layers that only those need.
        let mut sequence = engine.sequence().expect("a sequence");
        let (_, of_last) =
            stopped_at(0, &Stop::default(), || engine.prefill(&mut sequence, &prompt()[PIECE..]));
        let of_first = n_layers - of_last;
        // In the first piece and in the second, at each layer.
        for layer in 1..=n_layers {
            let stop = Stop::default();
            let mut sequence = engine.sequence().expect("a sequence");
            sequence.set_stop(Some(stop.clone()));
            let (done, begun) = stopped_at(layer, &stop, || engine.prefill(&mut sequence, &prompt()));
            // The piece whose last layer runs as the stop is set is done.
            let last_of_piece = layer == of_first || layer == n_layers;
            let done_tokens = if layer < of_first {
                0
            } else if layer < n_layers {
                PIECE
            } else {
                prompt().len()
            };
            assert_eq!(begun, layer, "{name}: layers after the stop at {layer}");
            assert_eq!(sequence.tokens(), &prompt()[..done_tokens], "{name}, layer {layer}");
            if layer == n_layers {
                assert!(done.expect("the last layer was running") == expected.0);
                stop.reset();
            } else {
                assert!(matches!(done, Err(Error::Cancelled)), "{name}, layer {layer}, {last_of_piece}");
                // It stays set until someone resets it.
                assert!(matches!(engine.prefill(&mut sequence, &[1]), Err(Error::Cancelled)));
                assert!(stop.reset());
                let logits = engine.prefill(&mut sequence, &prompt()[done_tokens..]).expect("a pass");
                assert!(logits == expected.0, "{name}, layer {layer}: it goes on otherwise");
            }
            assert!(
                go_on(&engine, &mut sequence) == expected.1,
                "{name}, layer {layer}: it goes on otherwise"
            );
        }
    }
}

#[test]
fn a_step_is_left_when_nobody_waits_for_it() {
    for name in MODELS {
        let engine = load(name);
        let expected = {
            let mut fresh = engine.sequence().expect("a sequence");
            go_on(&engine, &mut fresh)
        };
        let stops = [Stop::default(), Stop::default()];
        let mut sequences = [0, 1].map(|index| {
            let mut sequence = engine.sequence().expect("a sequence");
            engine.prefill(&mut sequence, &[5, 6]).expect("a pass");
            sequence.set_stop(Some(stops[index].clone()));
            sequence
        });
        let mut step = |set: usize, other: bool| {
            if other {
                stops[1].set();
            }
            let ids = prompt();
            let mut entries: Vec<BatchEntry<'_>> = sequences
                .iter_mut()
                .map(|sequence| BatchEntry { sequence, ids: &ids[..PIECE / 2], logits: 1 })
                .collect();
            stopped_at(set, &stops[0], || engine.step(&mut entries, &mut |_| {}))
        };
        let (done, _) = step(2, false);
        done.expect("one of the two goes on");
        stops[0].reset();
        let (left, begun) = step(2, true);
        assert!(matches!(left, Err(Error::Cancelled)) && begun == 2, "{name}: {begun} layers");
        for (sequence, stop) in sequences.iter_mut().zip(&stops) {
            stop.reset();
            assert_eq!(sequence.tokens().len(), 2 + PIECE / 2);
            // Pages go on from before the step; recurrent states are half updated, and that is said.
            match engine.prefill(sequence, &[1]) {
                Ok(_) => assert!(PAGES_ALONE.contains(&name), "{name} goes on"),
                Err(error) => {
                    assert!(!PAGES_ALONE.contains(&name), "{name}: {error}");
                    assert!(error.to_string().contains("half updated"), "{name}: {error}");
                    assert!(engine.fork(sequence).is_err() && !sequence.truncate(100));
                }
            }
            assert!(sequence.truncate(0));
            assert!(go_on(&engine, sequence) == expected, "{name}: it does not begin anew");
        }
    }
}

#[test]
fn a_generation_ends_with_what_it_has() {
    for name in MODELS {
        let engine = load(name);
        let stop = Stop::default();
        let mut sequence = engine.sequence().expect("a sequence");
        sequence.set_stop(Some(stop.clone()));
        let options = GenerateOptions { ignore_eos: true, ..GenerateOptions::default() };
        let mut come = 0;
        let generated = engine
            .generate(&mut sequence, &[5, 6, 7], &options, &mut || true, &mut |_| {
                come += 1;
                if come == 4 {
                    stop.set();
                }
                true
            })
            .expect("an answer");
        assert_eq!(
            (generated.finish, generated.tokens.len(), sequence.tokens().len()),
            (Finish::Cancelled, 4, 6)
        );
        stop.reset();
        let late = GenerateOptions { deadline: Some(Instant::now()), ..options.clone() };
        let done = engine.generate(&mut sequence, &[9], &late, &mut || true, &mut |_| true);
        assert!(matches!(done, Err(Error::Cancelled)));
        assert_eq!(sequence.tokens().len(), 6, "nothing has run");
        let soon = GenerateOptions { deadline: Some(Instant::now() + Duration::from_millis(50)), ..options };
        let done = engine.generate(&mut sequence, &[9], &soon, &mut || true, &mut |_| {
            std::thread::sleep(Duration::from_millis(20));
            true
        });
        match done {
            Ok(done) => assert_eq!(done.finish, Finish::Cancelled),
            // A busy machine takes longer for the prompt alone.
            Err(error) => assert!(matches!(error, Error::Cancelled), "{error}"),
        }
    }
}

#[test]
fn a_context_is_cancelled_from_elsewhere() {
    let memory = MultiTierMemoryManager::new(Arc::new(load("llama")));
    assert!(memory.cancel("none").is_err());
    memory.add_to_active_memory("story", &vec![5_u32; 10]).expect("tokens");
    memory.cancel("story").expect("a context");
    let refused = memory.add_to_active_memory("story", &vec![6_u32; 10]);
    assert!(matches!(refused, Err(Error::Cancelled)), "{refused:?}");
    // Whoever was told has used it up.
    memory.add_to_active_memory("story", &vec![6_u32; 10]).expect("tokens");
    let options = GenerateOptions { ignore_eos: true, ..GenerateOptions::default() };
    let input = vec![7_u32];
    let mut each = |_: &herald::TokenOutput<'_>| {
        memory.cancel("story").expect("a context");
        true
    };
    let done = memory.generate_while("story", &input, &options, &mut || true, &mut each);
    let done = done.expect("an answer");
    assert_eq!((done.finish, done.tokens.len()), (Finish::Cancelled, 1));
    memory.generate("story", &input, &GenerateOptions { max_tokens: Some(2), ..options }).expect("an answer");
}

#[test]
fn requests_end_at_their_deadline_wherever_they_are() {
    let engine = Arc::new(load("llama"));
    let options = SchedulerOptions { max_running: 1, ..SchedulerOptions::default() };
    let scheduler = Scheduler::start(Arc::clone(&engine), options).expect("a scheduler");
    let request = |deadline| Request {
        prompt: vec![5; 20],
        options: GenerateOptions { ignore_eos: true, deadline, ..GenerateOptions::default() },
        client: String::new(),
    };
    let soon = Some(Instant::now() + Duration::from_millis(30));
    let tickets: Vec<_> =
        (0..4).map(|_| scheduler.submit(request(soon)).expect("room in the queue")).collect();
    for ticket in tickets {
        let finish = ticket.wait().expect("an answer").generated.finish;
        assert!(matches!(finish, Finish::Cancelled | Finish::ContextFull), "{finish:?}");
    }
}

/// Forms that could be compiled for ever, and those that only look like it.
#[test]
fn every_form_compiles_in_bounds() {
    let engine = load_tiny("llama");
    let long = "a".repeat(20_000);
    let forms = [
        (r#"{"multipleOf": 99999989}"#.to_owned(), false),
        (r#"{"type": "integer", "multipleOf": 4294967291}"#.to_owned(), false),
        (r#"{"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}"#.to_owned(), false),
        (r#"{"type": "array", "items": {"multipleOf": 1e-300}}"#.to_owned(), false),
        (r#"{"type": "integer", "multipleOf": 7}"#.to_owned(), true),
        (r#"{"type": "number", "multipleOf": 0.01, "minimum": 0, "maximum": 1000}"#.to_owned(), true),
        (r#"{"type": "string", "maxLength": 100000000}"#.to_owned(), true),
        (r#"{"type": "array", "items": {}, "minItems": 3, "maxItems": 1000000}"#.to_owned(), true),
        (r#"{"type": "string", "pattern": "^((a{100}){100}){100}$", "minLength": 500}"#.to_owned(), false),
        (format!(r#"{{"type": "string", "pattern": "({long})*b"}}"#), true),
        (
            format!(
                "{{\"allOf\": [{}]}}",
                vec![r#"{"anyOf": [{"minimum": 1}, {"maxLength": 2}]}"#; 16].join(",")
            ),
            false,
        ),
    ];
    for (schema, usable) in forms {
        let shown: String = schema.chars().take(100).collect();
        let options = GenerateOptions {
            max_tokens: Some(3),
            constraint: Some(Constraint::json_schema(&schema).expect("JSON")),
            ..GenerateOptions::default()
        };
        let mut sequence = engine.sequence().expect("a sequence");
        let start = Instant::now();
        let generate =
            |sequence: &mut _| engine.generate(sequence, &[5], &options, &mut || true, &mut |_| true);
        let mut done = generate(&mut sequence);
        // Other tests of this process give up on forms too.
        while matches!(&done, Err(Error::Constraint(sentence)) if sentence.contains("can't be compiled now"))
            && start.elapsed() < Duration::from_secs(120)
        {
            std::thread::sleep(Duration::from_millis(100));
            done = generate(&mut sequence);
        }
        println!("{shown}: {:?}, {:?}", start.elapsed(), done.as_ref().map(|done| &done.text));
        match done {
            Ok(_) => {}
            Err(Error::Constraint(sentence)) => {
                assert!(!usable && !sentence.contains('\n'), "{shown}: {sentence}");
            }
            Err(error) => panic!("{shown}: {error}"),
        }
    }
}
