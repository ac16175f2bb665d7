//! `MultiTierMemoryManager`: contexts that are added to, compressed, optimised and cleared, from one thread and from many.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use herald::{
    Capacity, GenerateOptions, LoadOptions, ManagerOptions, MemoryOptions, MultiTierMemoryManager,
    NeuroEngine,
};
use herald_testing::{cpu_options, load_tiny, tiny};

const PAGE: usize = 16;
const ACTIVE: usize = 8 * PAGE;
const COMPRESSED: usize = 16 * PAGE;

fn engine(prefix_bytes: usize) -> Arc<NeuroEngine> {
    // Older pages are compressed, and the oldest of these are in a file.
    let memory = MemoryOptions {
        active: Capacity::Tokens(ACTIVE),
        compressed: Capacity::Tokens(COMPRESSED),
        selected_pages: None,
        ..MemoryOptions::default()
    };
    let options = LoadOptions {
        page_tokens: PAGE,
        memory,
        prefix_bytes,
        context: Some(1 << 16),
        max_batch: 64,
        ..cpu_options()
    };
    Arc::new(NeuroEngine::load(&tiny("llama"), &options).expect("the model loads"))
}

fn manager(prefix_bytes: usize) -> MultiTierMemoryManager {
    let options = ManagerOptions { cold_tokens: 2 * PAGE };
    MultiTierMemoryManager::with_options(engine(prefix_bytes), options)
}

fn ids(len: usize, seed: u32) -> Vec<u32> {
    (0..len as u32)
        .map(|position| position.wrapping_mul(position).wrapping_add(seed * 7919) % 509 + 1)
        .collect()
}

fn layers(memory: &MultiTierMemoryManager) -> u64 {
    memory.engine().plan().layers.iter().filter(|layer| layer.desc.kind().name() == "attention").count()
        as u64
}

/// Two rows of logits that differ by no more than other orders of float32 sums make them.
#[track_caller]
fn near(a: &[f32], b: &[f32], most: f32) {
    let off = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(a.len() == b.len() && off <= most, "logits differ by {off}");
}

#[track_caller]
fn nothing_is_left(memory: &MultiTierMemoryManager) {
    let stats = memory.get_memory_leak_stats().expect("stats");
    assert_eq!((stats.held_pages, stats.orphaned_pages, stats.orphaned_bytes), (0, 0, 0), "{stats:?}");
    let usage = memory.get_memory_usage();
    let total = usage.total();
    assert_eq!((total.pages, total.tokens, total.bytes, usage.exact_bytes), (0, 0, 0, 0), "{usage:?}");
}

#[test]
fn what_is_added_is_there_whole_and_goes_down_on_demand() {
    let memory = manager(0);
    let layers = layers(&memory);
    let tokens = ids(20 * PAGE + 3, 1);
    assert_eq!(memory.add_to_active_memory("a", &tokens[..100]).expect("tokens"), 100);
    assert_eq!(memory.add_to_active_memory("a", &tokens[100..]).expect("tokens"), tokens.len() - 100);
    assert_eq!(memory.tokens("a").expect("tokens"), tokens);
    let usage = memory.get_context_usage("a").expect("usage");
    // Of 21 pages, the first, the last and those that the latest 128 tokens are in stay.
    assert_eq!((usage.active.pages, usage.compressed.pages), (10 * layers, 11 * layers), "{usage:?}");
    assert_eq!(usage.total().tokens, tokens.len() as u64 * layers);
    assert_eq!(usage.total().pages, memory.get_memory_usage().total().pages);

    let before = memory.with_sequence("a", |engine, sequence| engine.fork(sequence)).expect("a fork");
    let moved = memory.compress_memory("a", 0).expect("pages go down");
    // Eight pages are compressed, and for three there is no room in the compressed tier.
    assert_eq!(moved.pages, 11 * layers, "{moved:?}");
    let after = memory.get_context_usage("a").expect("usage");
    let pages = after.tiers().map(|(_, stats)| stats.pages / layers);
    assert_eq!(pages, [2, 16, 3], "{after:?}");
    assert_eq!(
        (after.total().tokens, after.exact_bytes),
        (usage.total().tokens, usage.exact_bytes),
        "nothing is lost"
    );
    assert!(after.ratio() > usage.ratio() && usage.ratio() > 1.0, "{} {}", after.ratio(), usage.ratio());
    assert_eq!(moved.bytes_freed, usage.total().memory_bytes - after.total().memory_bytes);

    // The fork still holds what was compressed as it was; the manager can't tell whose it is.
    let stats = memory.get_memory_leak_stats().expect("stats");
    assert_eq!((stats.other_sequences, stats.orphaned_pages), (1, 11 * layers), "{stats:?}");
    assert!(!stats.leaks());
    drop(before);
    let stats = memory.get_memory_leak_stats().expect("stats");
    assert_eq!((stats.other_sequences, stats.orphaned_pages), (0, 0), "{stats:?}");
    assert_eq!((stats.held_pages, stats.reachable_pages), (after.total().pages, after.total().pages));
    assert_eq!(stats.held_bytes, stats.reachable_bytes);

    assert_eq!(memory.clear_active_memory("a").expect("cleared"), tokens.len());
    assert_eq!(memory.contexts(), ["a"]);
    nothing_is_left(&memory);
}

#[test]
fn a_context_is_read_as_a_sequence_is() {
    let memory = manager(64 << 20);
    let plain = engine(0);
    let mut alone = plain.sequence().expect("a sequence");
    let (first, more) = (ids(50, 2), ids(9, 3));
    let options = GenerateOptions { max_tokens: Some(6), ignore_eos: true, ..GenerateOptions::default() };
    let one = memory.generate("a", &first, &options).expect("a generation");
    let other =
        plain.generate(&mut alone, &first, &options, &mut || true, &mut |_| true).expect("a generation");
    assert_eq!(one.tokens, other.tokens);
    // The last token was chosen and not run: it comes before the next.
    let expected = [&first[..], &one.tokens].concat();
    assert_eq!(memory.tokens("a").expect("tokens"), expected);
    let logits = memory.prefill("a", &more).expect("logits");
    let rest = [&one.tokens[5..], &more].concat();
    near(&logits, &plain.prefill(&mut alone, &rest).expect("logits"), 1e-4);
    assert_eq!(memory.tokens("a").expect("tokens"), [&expected[..], &more].concat());
    assert_eq!(alone.tokens(), memory.tokens("a").expect("tokens"));
    // Text: a prompt where the context is empty, and nothing before it otherwise.
    let tokenizer = plain.tokenizer();
    memory.add_to_active_memory("t", "hello").expect("text");
    memory.add_to_active_memory("t", " world").expect("text");
    let text = [tokenizer.encode_prompt("hello", false), tokenizer.encode(" world", false)];
    let text: Vec<u32> = text.into_iter().flat_map(|ids| ids.expect("ids")).collect();
    assert_eq!(memory.tokens("t").expect("tokens"), text);
    assert_eq!(memory.add_to_active_memory("t", "").expect("nothing"), 0);
}

#[test]
fn optimising_drops_what_nobody_needs_and_only_that() {
    let memory = manager(64 << 20);
    let layers = layers(&memory);
    let tokens = ids(6 * PAGE + 2, 4);
    memory.add_to_active_memory("gone", &tokens).expect("tokens");
    assert!(memory.close("gone").expect("closed") && !memory.close("gone").expect("closed"));
    let kept = memory.get_memory_usage();
    assert_eq!(kept.active.pages, 6 * layers, "whole pages stay for prompts that begin alike");
    let stats = memory.get_memory_leak_stats().expect("stats");
    assert_eq!((stats.orphaned_pages, stats.reachable_pages), (0, 6 * layers), "{stats:?}");

    // The same tokens, once taken over and once computed apart (the beginning is one that nobody had): equal pages twice.
    memory.add_to_active_memory("shares", &tokens).expect("tokens");
    assert_eq!(memory.get_memory_usage().active.pages, 7 * layers, "one page is its own");
    memory.add_to_active_memory("apart", &tokens[..1]).expect("tokens");
    memory.add_to_active_memory("apart", &tokens[1..PAGE]).expect("tokens");
    memory.with_sequence("apart", |engine, sequence| engine.reserve(sequence, 3 * PAGE)).expect("room");
    assert_eq!(memory.get_memory_usage().active.pages, (7 + 4) * layers);
    let expected = memory
        .with_sequence("shares", |engine, sequence| engine.decode(&mut [(&mut engine.fork(sequence)?, 5)]));
    let did = memory.optimize_memory().expect("tidy");
    assert_eq!((did.spare_pages, did.busy_contexts), (3 * layers, 0), "{did:?}");
    assert_eq!(did.unreferenced_pages, 0, "all earlier pages are held: {did:?}");
    assert!(did.fragmentation_after < did.fragmentation_before, "{did:?}");
    let found = memory
        .with_sequence("shares", |engine, sequence| engine.decode(&mut [(&mut engine.fork(sequence)?, 5)]));
    assert_eq!(expected.expect("logits"), found.expect("logits"), "to the bit");
    memory.clear_all_active_memory().expect("cleared");
    let did = memory.optimize_memory().expect("tidy");
    assert_eq!(did.unreferenced_pages, 6 * layers, "{did:?}");
    assert_eq!((did.bytes_freed, did.unreferenced_bytes), (kept.total().bytes, did.bytes_freed));
    nothing_is_left(&memory);
}

#[test]
fn equal_pages_become_one_and_are_parted_when_written() {
    let memory = manager(0);
    let layers = layers(&memory);
    let tokens = ids(5 * PAGE, 5);
    for name in ["a", "b", "c"] {
        memory.add_to_active_memory(name, &tokens).expect("tokens");
    }
    assert_eq!(memory.get_memory_usage().total().pages, 15 * layers);
    let did = memory.optimize_memory().expect("tidy");
    assert_eq!(
        (did.merged_pages, memory.get_memory_usage().total().pages),
        (10 * layers, 5 * layers),
        "{did:?}"
    );
    assert_eq!(did.merged_bytes, did.bytes_freed);
    // One goes back into a page that all hold, and another way on from there.
    assert!(memory.with_sequence("b", |_, sequence| Ok(sequence.truncate(3 * PAGE + 4))).expect("work"));
    memory.add_to_active_memory("b", &[7, 8, 9][..]).expect("tokens");
    let fresh = memory.prefill("c", &[3][..]).expect("logits");
    let again = memory.prefill("a", &[3][..]).expect("logits");
    assert_eq!(fresh, again);
    assert_eq!(memory.get_memory_leak_stats().expect("stats").orphaned_pages, 0);
    memory.clear_all_active_memory().expect("cleared");
    nothing_is_left(&memory);
}

#[test]
fn a_context_that_nobody_uses_gets_cold() {
    let memory = manager(0);
    let layers = layers(&memory);
    let tokens = ids(8 * PAGE, 6);
    memory.add_to_active_memory("used", &tokens).expect("tokens");
    memory.add_to_active_memory("cold", &tokens[1..]).expect("tokens");
    assert_eq!(memory.optimize_memory().expect("tidy").demoted.pages, 0, "both were just used");
    memory.prefill("used", &[1][..]).expect("logits");
    let did = memory.optimize_memory().expect("tidy");
    // Of 8 pages the first and those of the latest 32 tokens stay: one of them is not full.
    assert_eq!(did.demoted.pages, 4 * layers, "{did:?}");
    assert_eq!(memory.get_context_usage("cold").expect("usage").compressed.pages, 4 * layers);
    assert_eq!(memory.get_context_usage("used").expect("usage").compressed.pages, 0);
}

#[test]
fn leaks_are_seen() {
    let memory = manager(0);
    memory.add_to_active_memory("a", &ids(3 * PAGE, 7)).expect("tokens");
    memory.mark();
    let layers = layers(&memory);
    // A page that is forgotten without being given back, as faulty code does.
    let lost = memory.with_sequence("a", |engine, sequence| engine.fork(sequence)).expect("a fork");
    memory.close("a").expect("closed");
    std::mem::forget(lost);
    let stats = memory.get_memory_leak_stats().expect("stats");
    assert_eq!((stats.orphaned_pages, stats.reachable_pages, stats.since_mark.pages), (3 * layers, 0, 0));
    assert_eq!(stats.other_sequences, 1, "a sequence that is never closed is somebody's: {stats:?}");
}

#[test]
fn misuse_is_told_and_callbacks_do_not_wait_for_themselves() {
    let memory = manager(0);
    for error in [
        memory.compress_memory("x", 0).map(drop),
        memory.clear_active_memory("x").map(drop),
        memory.get_context_usage("x").map(drop),
        memory.tokens("x").map(drop),
    ] {
        let sentence = error.expect_err("no context").to_string();
        assert!(sentence.contains("no context \"x\""), "{sentence}");
    }
    memory.add_to_active_memory("a", &[9_999_999][..]).expect_err("no such token");
    let foreign = load_tiny("llama");
    let sequence = foreign.sequence().expect("a sequence");
    memory.adopt("a", sequence, Vec::new()).expect_err("another engine's");
    let (mut refused, options) =
        (0, GenerateOptions { max_tokens: Some(3), ignore_eos: true, ..GenerateOptions::default() });
    let each = &mut |_: &herald::TokenOutput<'_>| {
        for error in [
            memory.add_to_active_memory("b", "x").map(drop),
            memory.optimize_memory().map(drop),
            memory.get_memory_leak_stats().map(drop),
            memory.close("a").map(drop),
        ] {
            let sentence = error.expect_err("within a callback").to_string();
            refused += usize::from(sentence.contains("callback"));
        }
        // What doesn't wait is allowed.
        memory.get_memory_usage().total().pages > 0 && memory.get_context_usage("a").is_ok()
    };
    memory.generate_while("a", "hello", &options, &mut || true, each).expect("a generation");
    assert_eq!(refused, 12);
}

#[test]
fn recurrent_states_are_counted() {
    let options = LoadOptions { prefix_bytes: 0, ..cpu_options() };
    let engine = NeuroEngine::load(&tiny("jamba"), &options).expect("the model");
    let memory = MultiTierMemoryManager::new(Arc::new(engine));
    let bytes = memory.engine().sequence().expect("a sequence").memory_usage().state_bytes;
    assert!(bytes > 0);
    for (count, name) in ["a", "b"].into_iter().enumerate() {
        memory.add_to_active_memory(name, &ids(70, 8)).expect("tokens");
        assert_eq!(memory.get_memory_usage().state_bytes, bytes * (count as u64 + 1));
    }
    memory.compress_memory("a", 0).expect("pages, where there are any");
    assert_eq!(memory.clear_active_memory("a").expect("cleared"), 70);
    let again = memory.prefill("a", &ids(20, 9)).expect("logits");
    memory.close("b").expect("closed");
    memory.optimize_memory().expect("tidy");
    assert_eq!(again, memory.prefill("c", &ids(20, 9)).expect("logits"), "a cleared state is as new");
    assert_eq!(memory.get_memory_usage().state_bytes, 2 * bytes);
}

/// Eight threads add, read, compress, optimise, clear and close at random: at the end every context holds exactly the tokens
/// that the log says, each in a page, none is left over, and counters add up. `HERALD_STRESS_SECONDS` says how long.
#[test]
fn eight_threads_lose_no_page_and_leave_none() {
    let seconds = std::env::var("HERALD_STRESS_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(3));
    let memory = manager(1 << 20);
    memory.mark();
    let stress = Stress {
        memory,
        logs: (0..5).map(|_| Mutex::default()).collect(),
        added: AtomicU64::new(0),
        forgotten: AtomicU64::new(0),
        calls: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let stress = &stress;
            scope.spawn(move || {
                let mut chance = Chance(thread + 1);
                while Instant::now() < end {
                    stress.call(&mut chance);
                }
            });
        }
    });
    println!("{} calls", stress.calls.load(Ordering::Relaxed));
    stress.check();
}

/// A manager that many threads work with, and what it should hold.
struct Stress {
    memory: MultiTierMemoryManager,
    /// Each context's tokens. The lock is held around each call, so that the log is in its order; calls that need no log go on
    /// beside it.
    logs: Vec<Mutex<Vec<u32>>>,
    added: AtomicU64,
    forgotten: AtomicU64,
    calls: AtomicU64,
}

impl Stress {
    /// A random call on a random context.
    fn call(&self, chance: &mut Chance) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let (memory, context) = (&self.memory, chance.below(self.logs.len()));
        let name = format!("context {context}");
        match chance.below(16) {
            0..6 => self.add(&name, context, chance),
            6 => self.generate(&name, context, chance),
            7..9 => absent(memory.compress_memory(&name, chance.below(4) * PAGE).map(drop)),
            9 => self.forget(&name, context, chance),
            10 => {
                let log = self.logs[context].lock().expect("a log");
                match memory.tokens(&name) {
                    Ok(tokens) => assert_eq!(tokens, *log),
                    Err(_) => assert!(log.is_empty()),
                }
            }
            11..13 => {
                let read = memory.with_sequence(&name, |engine, sequence| {
                    if sequence.tokens().is_empty() {
                        return Ok(());
                    }
                    let logits = engine.decode(&mut [(&mut engine.fork(sequence)?, 3)])?;
                    assert!(logits.iter().all(|logit| logit.is_finite()));
                    Ok(())
                });
                absent(read);
            }
            13 => drop(memory.optimize_memory().expect("tidy")),
            14 => {
                let usage = memory.get_memory_usage();
                assert!(usage.total().tokens <= usage.total().pages * PAGE as u64, "{usage:?}");
                absent(memory.get_context_usage(&name).map(drop));
            }
            _ => {
                let stats = memory.get_memory_leak_stats().expect("stats");
                assert_eq!((stats.other_sequences, stats.orphaned_pages), (0, 0), "{stats:?}");
            }
        }
    }

    fn add(&self, name: &str, context: usize, chance: &mut Chance) {
        let mut log = self.logs[context].lock().expect("a log");
        if log.len() > 600 {
            return;
        }
        // Half of them begin as others do, so that pages are shared.
        let seed = if log.is_empty() { chance.below(2) } else { chance.below(1000) };
        let tokens = ids(1 + chance.below(90), seed as u32);
        let n = self.memory.add_to_active_memory(name, &tokens).expect("tokens");
        assert_eq!(n, tokens.len());
        log.extend(&tokens);
        self.added.fetch_add(n as u64, Ordering::Relaxed);
    }

    fn generate(&self, name: &str, context: usize, chance: &mut Chance) {
        let mut log = self.logs[context].lock().expect("a log");
        let options = GenerateOptions {
            max_tokens: Some(1 + chance.below(4)),
            ignore_eos: true,
            ..GenerateOptions::default()
        };
        let done = self.memory.generate(name, &[5, 6, 7][..], &options).expect("text");
        log.extend([5, 6, 7]);
        log.extend(&done.tokens);
        self.added.fetch_add(3 + done.tokens.len() as u64, Ordering::Relaxed);
    }

    fn forget(&self, name: &str, context: usize, chance: &mut Chance) {
        let mut log = self.logs[context].lock().expect("a log");
        if chance.below(2) == 0 {
            absent(self.memory.clear_active_memory(name).map(drop));
        } else {
            self.memory.close(name).expect("closed");
        }
        self.forgotten.fetch_add(log.len() as u64, Ordering::Relaxed);
        log.clear();
    }

    /// Compares what the manager holds with the logs, and that nothing is left when it is cleared.
    fn check(self) {
        let Self { memory, logs, added, forgotten, .. } = self;
        let layers = layers(&memory);
        let (mut pages, mut present) = (0, 0);
        for (context, log) in logs.iter().enumerate() {
            let log = log.lock().expect("a log");
            present += log.len() as u64;
            let name = format!("context {context}");
            let Ok(tokens) = memory.tokens(&name) else {
                assert!(log.is_empty(), "{name} is gone");
                continue;
            };
            assert_eq!(tokens, *log, "{name}");
            // What a generation chose last is not run, and in no page.
            let run = memory.with_sequence(&name, |_, sequence| Ok(sequence.tokens().len()));
            let run = run.expect("the context");
            assert!(tokens.len() - run <= 1);
            let usage = memory.get_context_usage(&name).expect("usage");
            assert_eq!(usage.total().tokens, run as u64 * layers, "{name}: {usage:?}");
            assert_eq!(usage.total().pages, run.div_ceil(PAGE) as u64 * layers, "{name}: {usage:?}");
            pages += usage.total().pages;
        }
        let (added, forgotten) = (added.into_inner(), forgotten.into_inner());
        assert_eq!(added - forgotten, present, "{added} tokens were added, {forgotten} forgotten");
        memory.engine().forget_prefixes();
        let stats = memory.get_memory_leak_stats().expect("stats");
        assert_eq!((stats.orphaned_pages, stats.orphaned_bytes), (0, 0), "{stats:?}");
        assert_eq!((stats.held_pages, stats.held_bytes), (stats.reachable_pages, stats.reachable_bytes));
        assert!(stats.held_pages <= pages, "pages that are shared count once");
        assert_eq!(stats.since_mark.pages, stats.held_pages.cast_signed(), "there were none at the mark");
        memory.clear_all_active_memory().expect("cleared");
        nothing_is_left(&memory);
    }
}

/// A call may find its context closed.
fn absent(result: herald::Result<()>) {
    if let Err(error) = result {
        assert!(error.to_string().contains("no context"), "{error}");
    }
}

/// A linear congruential generator (Knuth's MMIX), enough to shuffle calls.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound as u64) as usize
    }
}
