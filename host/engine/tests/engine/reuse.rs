//! Nothing is computed twice: prompts and answers, edited and branching histories, recurrent states, tiers, and another process.

use std::path::Path;
use std::sync::Arc;

use herald::schedule::{Request, Scheduler, SchedulerOptions};
use herald::{Capacity, GenerateOptions, Generated, LoadOptions, MemoryOptions, NeuroEngine, Sequence};
use herald_testing::{cpu_options, tiny};

const PAGE: usize = 16;

/// Models that keep pages alone, with sliding windows, with latents, and shared between layers.
const OF_PAGES: [&str; 5] = ["llama", "gemma3", "gemma4", "gemma4_e", "deepseek2_lite"];

/// Models that keep recurrent states: delta nets, Mamba-1 and Mamba-2 alone and beside attention, short convolutions.
const OF_STATES: [&str; 7] =
    ["qwen35", "granite_hybrid", "mamba", "mamba2", "falcon_h1", "lfm2", "kimi_linear"];

fn options() -> LoadOptions {
    LoadOptions { page_tokens: PAGE, max_batch: 4 * PAGE, context: Some(2048), ..cpu_options() }
}

fn load(model: &str, options: &LoadOptions) -> NeuroEngine {
    NeuroEngine::load(&tiny(model), options).unwrap_or_else(|error| panic!("{model}: {error}"))
}

fn ids(len: usize, seed: u32) -> Vec<u32> {
    (0..len as u32).map(|position| 3 + (position * 37 + seed * 101) % 250).collect()
}

/// A sequence after a prompt, its logits, and how many of its tokens were not computed.
fn run(engine: &NeuroEngine, ids: &[u32]) -> (Sequence, Vec<f32>, usize) {
    let mut sequence = engine.sequence().expect("a sequence");
    let (logits, shared) = engine.prefill_shared(&mut sequence, ids, &mut |_| true).expect("the prompt runs");
    (sequence, logits, shared)
}

fn answer(engine: &NeuroEngine, ids: &[u32], n: usize) -> (Sequence, Generated) {
    let mut sequence = engine.sequence().expect("a sequence");
    let options = GenerateOptions { max_tokens: Some(n), ignore_eos: true, ..GenerateOptions::default() };
    let generated = engine.generate(&mut sequence, ids, &options, &mut || true, &mut |_| true);
    (sequence, generated.expect("an answer"))
}

/// Two rows of logits that differ by no more than other orders of float32 sums make them.
#[track_caller]
fn near(model: &str, a: &[f32], b: &[f32]) {
    let off = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let most = b.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
    assert!(a.len() == b.len() && off <= 2e-4 * most.max(1.0), "{model}: logits differ by {off} of {most}");
}

#[test]
fn a_new_turn_computes_what_is_new() {
    for model in OF_PAGES.into_iter().chain(OF_STATES) {
        let (engine, plain) =
            (load(model, &options()), load(model, &LoadOptions { prefix_bytes: 0, ..options() }));
        let mut history = ids(75, 0);
        let (mut expected, mut live) = (0, None);
        for turn in 0..4 {
            let (sequence, logits, shared) = run(&engine, &history);
            assert_eq!(shared, expected, "{model}, turn {turn}");
            if let Some(live) = &mut live {
                // The sequence that wrote it all goes on by itself, through the same passes.
                let rest = &history[shared..];
                let (same, _) = engine.prefill_shared(live, rest, &mut |_| true).expect("a pass");
                assert!(same == logits, "{model}, turn {turn}: the sequence itself goes on otherwise");
            }
            near(model, &logits, &run(&plain, &history).1);
            drop(sequence);
            let (sequence, generated) = answer(&engine, &history, 9);
            assert_eq!(generated.tokens, answer(&plain, &history, 9).1.tokens, "{model}, turn {turn}");
            history.extend(&generated.tokens);
            // The last token was chosen, and not run.
            expected = history.len() - 1;
            live = Some(sequence);
            history.extend(ids(20 + turn, turn as u32 + 1));
        }
    }
}

#[test]
fn an_edited_history_computes_what_follows() {
    for model in OF_PAGES.into_iter().chain(OF_STATES) {
        let (engine, plain) =
            (load(model, &options()), load(model, &LoadOptions { prefix_bytes: 0, ..options() }));
        let has_states = OF_STATES.contains(&model);
        let first = ids(203, 0);
        drop(run(&engine, &first));
        let edited = |seed| [&first[..150], &ids(60, seed)].concat();
        for (seed, shared) in
            [(1, if has_states { 128 } else { 150 }), (2, if has_states { 144 } else { 150 })]
        {
            let (_, logits, found) = run(&engine, &edited(seed));
            // States are kept where the first edit left the pages that were there, and a second one finds them.
            assert_eq!(found, shared, "{model}, edit {seed}");
            near(model, &logits, &run(&plain, &edited(seed)).1);
        }
        // Both branches in turn, and the first prompt: from the last page boundary.
        for prompt in [edited(1), first.clone(), edited(2), first.clone()] {
            let (_, logits, found) = run(&engine, &prompt);
            assert_eq!(found, (prompt.len() - 1) / PAGE * PAGE, "{model}");
            near(model, &logits, &run(&plain, &prompt).1);
        }
    }
}

/// Tiers of which each has pages of a prompt of 300 tokens.
fn in_tiers(selected_pages: Option<usize>) -> LoadOptions {
    let memory = MemoryOptions {
        active: Capacity::Tokens(2 * PAGE),
        compressed: Capacity::Tokens(3 * PAGE),
        selected_pages,
        ..MemoryOptions::default()
    };
    LoadOptions { memory, ..options() }
}

#[test]
fn pages_come_back_in_their_tiers() {
    for model in ["llama", "qwen35", "falcon_h1", "kimi_linear"] {
        for selected_pages in [Some(3), None] {
            let engine = load(model, &in_tiers(selected_pages));
            let (mut live, generated) = answer(&engine, &ids(300, 0), 9);
            let history = [ids(300, 0), generated.tokens, ids(21, 1)].concat();
            let (taken, logits, shared) = run(&engine, &history);
            assert_eq!(shared, 308, "{model}");
            let (same, _) =
                engine.prefill_shared(&mut live, &history[shared..], &mut |_| true).expect("a pass");
            assert!(same == logits, "{model}: the sequence itself goes on otherwise");
            let pages = |sequence: &Sequence| sequence.memory_usage().tiers().map(|(_, stats)| stats.pages);
            assert_eq!(pages(&taken), pages(&live), "{model}");
            assert!(pages(&taken).iter().all(|pages| *pages > 0), "{model}");
            drop((taken, live));
            engine.forget_prefixes();
            let left = engine.memory_usage();
            assert_eq!((left.total().pages, left.state_bytes, left.summary_bytes), (0, 0, 0), "{model}");
        }
    }
}

fn on_disk(folder: &Path) -> LoadOptions {
    LoadOptions { cache_dir: Some(folder.to_owned()), ..options() }
}

#[test]
fn it_survives_a_restart() {
    for model in OF_PAGES.into_iter().chain(OF_STATES) {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = load(model, &on_disk(folder.path()));
        let (mut live, generated) = answer(&engine, &ids(200, 0), 9);
        let history = [ids(200, 0), generated.tokens, ids(30, 1)].concat();
        live.set_cache_key(Some("not kept with the rest"));
        let (expected, _) = engine.prefill_shared(&mut live, &history[208..], &mut |_| true).expect("a pass");
        drop((live, engine));
        let engine = load(model, &on_disk(folder.path()));
        let (_, logits, shared) = run(&engine, &history);
        assert_eq!(shared, 208, "{model}");
        assert!(logits == expected, "{model}: it goes on otherwise after a restart");
        let report = engine.cache_report();
        assert!(report.archived_tokens == 208 && report.file_bytes > 0, "{model}: {report:?}");
        // Another model, or the same run otherwise, finds nothing of it and harms nothing.
        let other = load(model, &LoadOptions { page_tokens: 2 * PAGE, ..on_disk(folder.path()) });
        assert_eq!(run(&other, &history).2, 0, "{model}");
        drop((other, engine));
        assert!(run(&load(model, &on_disk(folder.path())), &history).2 >= 208, "{model}");
    }
}

#[test]
fn compressed_and_archived_pages_survive_a_restart() {
    for model in ["llama", "falcon_h1"] {
        let folder = tempfile::tempdir().expect("a folder");
        let options = LoadOptions { cache_dir: Some(folder.path().to_owned()), ..in_tiers(Some(3)) };
        let engine = load(model, &options);
        let (mut live, generated) = answer(&engine, &ids(300, 0), 9);
        let history = [ids(300, 0), generated.tokens, ids(21, 1)].concat();
        live.set_cache_key(Some("not kept with the rest"));
        let (expected, _) = engine.prefill_shared(&mut live, &history[308..], &mut |_| true).expect("a pass");
        drop((live, engine));
        let (_, logits, shared) = run(&load(model, &options), &history);
        assert_eq!(shared, 308, "{model}");
        assert!(logits == expected, "{model}: it goes on otherwise after a restart");
    }
}

#[test]
fn damaged_files_are_misses() {
    for model in ["llama", "granite_hybrid"] {
        let folder = tempfile::tempdir().expect("a folder");
        let prompt = ids(200, 0);
        drop(answer(&load(model, &on_disk(folder.path())), &prompt, 9));
        let plain = load(model, &LoadOptions { prefix_bytes: 0, ..options() });
        let expected = run(&plain, &prompt).1;
        let files = |folder: &Path| -> Vec<_> {
            let all =
                std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("a file").path());
            let mut all: Vec<_> = all.collect();
            all.sort();
            all
        };
        for (round, path) in files(folder.path()).into_iter().enumerate() {
            let Ok(mut bytes) = std::fs::read(&path) else { continue };
            match round % 4 {
                0 => bytes.truncate(bytes.len() / 2),
                1 => bytes.fill(0),
                2 => {
                    let middle = bytes.len() - 5;
                    bytes[middle] ^= 1;
                }
                _ => bytes[20] ^= 1,
            }
            std::fs::write(&path, bytes).expect("a file");
            let engine = load(model, &on_disk(folder.path()));
            let (_, logits, shared) = run(&engine, &prompt);
            assert!(shared < prompt.len(), "{model}");
            near(model, &logits, &expected);
            engine.flush_cache();
        }
        // What was damaged has been computed and kept again.
        let engine = load(model, &on_disk(folder.path()));
        assert!(run(&engine, &prompt).2 >= 192, "{model}");
        assert_eq!(engine.cache_report().damaged_files, 0, "{model}");
        std::fs::write(folder.path().join("notes.txt"), "mine").expect("a file");
        drop(load(model, &on_disk(folder.path())));
        assert!(folder.path().join("notes.txt").exists(), "what isn't the cache's is left alone");
    }
}

#[test]
fn files_take_no_more_than_they_may() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = {
        let engine = load("falcon_h1", &on_disk(folder.path()));
        drop(answer(&engine, &ids(200, 0), 9));
        engine.flush_cache();
        engine.cache_report().file_bytes
    };
    let size = |folder: &Path| -> u64 {
        let entries = std::fs::read_dir(folder).expect("the folder");
        entries.map(|entry| entry.and_then(|entry| entry.metadata()).expect("a file").len()).sum()
    };
    assert_eq!(size(folder.path()), all);
    let options = LoadOptions { cache_dir_bytes: all / 2, ..on_disk(folder.path()) };
    let engine = load("falcon_h1", &options);
    assert!(size(folder.path()) <= all / 2);
    for seed in 1..4 {
        drop(answer(&engine, &ids(200, seed), 9));
        engine.flush_cache();
        assert!(size(folder.path()) <= all / 2);
    }
    let report = engine.cache_report();
    assert!(report.evicted_files > 0 && report.file_bytes == size(folder.path()), "{report:?}");
    assert!(run(&engine, &ids(200, 3)).2 > 0, "the latest is still there");
}

#[test]
fn ram_that_is_too_small_for_all_falls_back_on_files() {
    for model in ["llama", "falcon_h1", "lfm2"] {
        let folder = tempfile::tempdir().expect("a folder");
        let whole = {
            let engine = load(model, &options());
            drop(answer(&engine, &ids(200, 0), 9));
            engine.cache_report().bytes
        };
        let bytes = usize::try_from(whole + whole / 2).expect("few bytes");
        let engine = load(model, &LoadOptions { prefix_bytes: bytes, ..on_disk(folder.path()) });
        let mut histories: Vec<Vec<u32>> = (0..4).map(|seed| ids(200, seed)).collect();
        let mut expected = [0; 4];
        for turn in 0..3 {
            for (history, expected) in histories.iter_mut().zip(&mut expected) {
                let (_, generated) = answer(&engine, history, 5);
                assert_eq!(generated.shared_tokens, *expected, "{model}, turn {turn}");
                history.extend(&generated.tokens);
                *expected = history.len() - 1;
                history.extend(ids(11, turn));
                assert!(engine.cache_report().bytes <= bytes as u64, "{model}");
                engine.flush_cache();
            }
        }
        let report = engine.cache_report();
        assert!(report.archived_tokens > 0 && report.evicted > 0, "{model}: {report:?}");
    }
}

#[test]
fn keys_keep_clients_apart() {
    for model in ["llama", "qwen35"] {
        let engine = load(model, &options());
        let shared = |key: Option<&str>| {
            let mut sequence = engine.sequence().expect("a sequence");
            sequence.set_cache_key(key);
            engine.prefill_shared(&mut sequence, &ids(100, 0), &mut |_| true).expect("the prompt runs").1
        };
        assert_eq!([shared(None), shared(None)], [0, 96], "{model}");
        assert_eq!([shared(Some("a")), shared(Some("b")), shared(Some(""))], [0, 0, 0]);
        assert_eq!([shared(Some("a")), shared(Some("b")), shared(Some(""))], [96; 3]);
    }
}

#[test]
fn a_scheduler_keeps_prompts_and_answers() {
    for model in ["llama", "qwen35", "granite_hybrid"] {
        let (engine, plain) =
            (load(model, &options()), load(model, &LoadOptions { prefix_bytes: 0, ..options() }));
        let engine = Arc::new(engine);
        let scheduler =
            Scheduler::start(Arc::clone(&engine), SchedulerOptions::default()).expect("a scheduler");
        let mut histories: Vec<Vec<u32>> = (0..3).map(|seed| ids(100 + seed, seed as u32)).collect();
        let mut expected = [0; 3];
        for turn in 0..3 {
            let tickets: Vec<_> = histories
                .iter()
                .enumerate()
                .map(|(client, history)| {
                    let options = GenerateOptions {
                        max_tokens: Some(6),
                        ignore_eos: true,
                        cache_key: Some(format!("client {client}")),
                        ..GenerateOptions::default()
                    };
                    let request = Request { prompt: history.clone(), options, client: String::new() };
                    scheduler.submit(request).expect("a slot")
                })
                .collect();
            for ((ticket, history), expected) in tickets.into_iter().zip(&mut histories).zip(&mut expected) {
                let generated = ticket.wait().expect("an answer").generated;
                assert_eq!(generated.shared_tokens, *expected, "{model}, turn {turn}");
                assert_eq!(generated.tokens, answer(&plain, history, 6).1.tokens, "{model}, turn {turn}");
                history.extend(&generated.tokens);
                *expected = history.len() - 1;
                history.extend(ids(40, turn));
            }
        }
        drop(scheduler);
        engine.forget_prefixes();
        let left = engine.memory_usage();
        assert_eq!((left.total().pages, left.state_bytes, left.prefix_bytes), (0, 0, 0), "{model}");
    }
}
