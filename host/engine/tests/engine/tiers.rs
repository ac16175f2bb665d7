//! Older pages in the compressed tier: counted, attended to, chosen among, forgotten, and gone with their sequence.

use std::path::PathBuf;

use herald::{Capacity, GenerateOptions, LoadOptions, MemoryOptions, NeuroEngine, Sequence};
use herald_testing::{cpu_options, tiny};

const PAGE: usize = 16;
const ACTIVE: usize = 3 * PAGE;

fn engine(active_tokens: usize, selected_pages: Option<usize>) -> NeuroEngine {
    let memory =
        MemoryOptions { active: Capacity::Tokens(active_tokens), selected_pages, ..MemoryOptions::default() };
    let options =
        LoadOptions { page_tokens: PAGE, memory, max_batch: 40, context: Some(1 << 20), ..cpu_options() };
    NeuroEngine::load(&tiny("llama"), &options).expect("the model loads")
}

fn run(engine: &NeuroEngine, len: usize) -> (Sequence, Vec<f32>) {
    let ids: Vec<u32> = (0..len as u32).map(|position| position.wrapping_mul(position) % 59 + 1).collect();
    let mut sequence = engine.sequence().expect("a sequence");
    let logits = engine.prefill(&mut sequence, &ids).expect("the prompt runs");
    (sequence, logits)
}

/// Between two rows of logits, the largest difference, in standard deviations of the first.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let mean = a.iter().sum::<f32>() / a.len() as f32;
    let deviation = (a.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / a.len() as f32).sqrt();
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / deviation
}

#[test]
fn older_pages_are_compressed_and_go_with_their_sequence() {
    let engine = engine(ACTIVE, None);
    let (sequence, _) = run(&engine, 20 * PAGE);
    let usage = engine.memory_usage();
    // The first page and the latest three stay.
    assert_eq!(usage.active.pages % 4, 0, "{usage:?}");
    assert_eq!(usage.compressed.pages, usage.active.pages / 4 * 16, "{usage:?}");
    assert!(sequence.bytes() > 0);
    drop(sequence);
    let usage = engine.memory_usage();
    assert_eq!((usage.active.pages, usage.compressed.pages), (0, 0), "{usage:?}");
}

#[test]
fn attending_to_all_pages_is_near_exact_and_choosing_enough_is_the_same() {
    let (_, exact) = run(&engine(usize::MAX >> 1, None), 20 * PAGE);
    let (mut all, logits) = run(&engine(ACTIVE, None), 20 * PAGE);
    assert!(distance(&exact, &logits) < 0.5, "4 bits moved logits by {}", distance(&exact, &logits));
    let many = engine(ACTIVE, Some(16));
    let (_, same) = run(&many, 20 * PAGE);
    assert_eq!(logits, same, "as many pages as there are");
    assert!(all.truncate(7 * PAGE + 3), "back into a compressed page");
}

#[test]
fn a_sequence_goes_on_from_the_middle_of_a_compressed_page() {
    let engine = engine(ACTIVE, None);
    let (mut back, _) = run(&engine, 20 * PAGE);
    let (mut straight, _) = run(&engine, 7 * PAGE + 3);
    assert!(back.truncate(7 * PAGE + 3));
    for token in [3, 7, 11] {
        let a = engine.decode(&mut [(&mut back, token)]).expect("a token");
        let b = engine.decode(&mut [(&mut straight, token)]).expect("a token");
        assert!(distance(&b, &a) < 0.5, "logits differ by {}", distance(&b, &a));
    }
    assert_eq!(back.tokens().len(), 7 * PAGE + 6);
}

#[test]
fn a_few_chosen_pages_carry_a_sequence_past_the_trained_length() {
    let engine = engine(ACTIVE, Some(4));
    let (mut sequence, logits) = run(&engine, engine.plan().context + 20 * PAGE);
    assert!(logits.iter().all(|logit| logit.is_finite()));
    for token in 1..20 {
        let logits = engine.decode(&mut [(&mut sequence, token)]).expect("a token");
        assert!(logits.iter().all(|logit| logit.is_finite()));
    }
    // Two sequences in one batch, one of which has selectable pages.
    let mut other = engine.sequence().expect("a sequence");
    engine.prefill(&mut other, &[1, 2, 3]).expect("a prompt");
    let mut alone = engine.sequence().expect("a sequence");
    engine.prefill(&mut alone, &[1, 2, 3]).expect("a prompt");
    let both = engine.decode(&mut [(&mut sequence, 5), (&mut other, 6)]).expect("tokens");
    let one = engine.decode(&mut [(&mut alone, 6)]).expect("a token");
    assert!(distance(&one, &both[one.len()..]) < 1e-3);
}

#[test]
fn pages_go_down_on_demand() {
    let engine = engine(usize::MAX >> 1, None);
    let (mut sequence, _) = run(&engine, 20 * PAGE + 3);
    assert_eq!(engine.memory_usage().compressed.pages, 0);
    let less = MemoryOptions { active: Capacity::Tokens(ACTIVE), ..MemoryOptions::default() };
    engine.demote(&mut sequence, &less).expect("pages go down");
    let usage = engine.memory_usage();
    assert_eq!(usage.compressed.pages % 16, 0, "{usage:?}");
    assert_eq!(usage.compressed.pages / 16, usage.active.pages / 5, "{usage:?}");
    let none = MemoryOptions { active: Capacity::Bytes(0), ..MemoryOptions::default() };
    engine.demote(&mut sequence, &none).expect("pages go down");
    assert_eq!(engine.memory_usage().compressed.pages, usage.compressed.pages / 16 * 19, "all but the ends");
    let logits = engine.decode(&mut [(&mut sequence, 5)]).expect("a token");
    assert!(logits.iter().all(|logit| logit.is_finite()));
}

#[test]
fn pages_come_up_on_demand() {
    let engine = archiving(None, None, false);
    let (mut sequence, _) = run(&engine, 20 * PAGE + 3);
    let mut fork = engine.fork(&sequence).expect("a copy");
    let expected = engine.decode(&mut [(&mut fork, 5)]).expect("a token");
    drop(fork);
    let more = MemoryOptions {
        active: Capacity::Tokens(8 * PAGE),
        compressed: Capacity::Tokens(4 * PAGE),
        ..MemoryOptions::default()
    };
    engine.set_capacities(&more);
    engine.promote(&mut sequence, &more).expect("pages come up");
    let usage = engine.memory_usage();
    let n_layers = usage.archived.pages / 7;
    assert_eq!(usage.tiers().map(|(_, stats)| stats.pages), [10 * n_layers, 4 * n_layers, 7 * n_layers]);
    let logits = engine.decode(&mut [(&mut sequence, 5)]).expect("a token");
    assert!(distance(&expected, &logits) < 1e-2, "logits differ by {}", distance(&expected, &logits));
}

/// Tiers so small that most pages of 20 go to the archive.
fn archiving(selected_pages: Option<usize>, archive: Option<PathBuf>, archive_lz4: bool) -> NeuroEngine {
    let memory = MemoryOptions {
        active: Capacity::Tokens(ACTIVE),
        compressed: Capacity::Tokens(2 * PAGE),
        selected_pages,
        archive,
        archive_lz4,
        budget: None,
    };
    let options =
        LoadOptions { page_tokens: PAGE, memory, max_batch: 40, context: Some(1 << 20), ..cpu_options() };
    NeuroEngine::load(&tiny("llama"), &options).expect("the model loads")
}

#[test]
fn an_archived_page_gives_the_logits_of_a_compressed_one() {
    let folder = tempfile::tempdir().expect("a folder");
    for selected_pages in [None, Some(4)] {
        let (_, expected) = run(&engine(ACTIVE, selected_pages), 20 * PAGE);
        for (file, lz4) in [(None, false), (Some("pages"), false), (None, true)] {
            let path = Some(file.map_or(folder.path().to_owned(), |file| folder.path().join(file)));
            let engine = archiving(selected_pages, path, lz4);
            let (sequence, logits) = run(&engine, 20 * PAGE);
            assert_eq!(logits, expected, "{selected_pages:?} {file:?} {lz4}");
            let usage = engine.memory_usage();
            assert_eq!(usage.archived.pages, usage.active.pages / 4 * 14, "{usage:?}");
            assert_eq!(usage.compressed.pages, usage.active.pages / 4 * 2, "{usage:?}");
            if selected_pages.is_some() {
                assert!(usage.compressed.hits > 0 && usage.compressed.misses > 0, "{usage:?}");
            }
            drop(sequence);
            let usage = engine.memory_usage();
            assert!(usage.tiers().iter().all(|(_, stats)| stats.pages == 0), "{usage:?}");
        }
    }
}

#[test]
fn a_sequence_goes_on_from_the_middle_of_an_archived_page() {
    let engine = archiving(None, None, false);
    let (mut back, _) = run(&engine, 20 * PAGE);
    let (mut straight, _) = run(&engine, 7 * PAGE + 3);
    let mut fork = engine.fork(&back).expect("a copy");
    assert!(back.truncate(7 * PAGE + 3));
    for token in [3, 7, 11] {
        let a = engine.decode(&mut [(&mut back, token)]).expect("a token");
        let b = engine.decode(&mut [(&mut straight, token)]).expect("a token");
        assert!(distance(&b, &a) < 0.5, "logits differ by {}", distance(&b, &a));
    }
    drop(back);
    assert!(engine.decode(&mut [(&mut fork, 3)]).is_ok(), "the copy has the pages still");
}

/// The budget holds while a sequence grows, whatever the capacities; and where nothing can move down any more, the call that
/// needs room fails, and others go on.
#[test]
fn a_budget_holds() {
    let page_bytes = {
        let engine = engine(usize::MAX >> 1, None);
        let (_sequence, _) = run(&engine, PAGE);
        engine.memory_usage().memory_bytes()
    };
    // The summaries of sixty selectable pages will take about six of them.
    let budget = 16 * page_bytes;
    let memory = MemoryOptions { selected_pages: Some(4), budget: Some(budget), ..MemoryOptions::default() };
    let options =
        LoadOptions { page_tokens: PAGE, memory, max_batch: 40, context: Some(1 << 20), ..cpu_options() };
    let engine = NeuroEngine::load(&tiny("llama"), &options).expect("the model loads");
    let mut sequence = engine.sequence().expect("a sequence");
    for piece in 0..60 {
        engine.prefill(&mut sequence, &[3 + piece % 50; 17]).expect("there is room");
        let usage = engine.memory_usage();
        assert!(usage.memory_bytes() <= budget, "{piece}: {} of {budget}: {usage:?}", usage.memory_bytes());
    }
    let usage = engine.memory_usage();
    assert!(usage.compressed.pages + usage.archived.pages > 0, "{usage:?}");
    // A sequence that needs room moves its own pages, so this one's are moved by hand. What is kept of earlier prompts gives
    // way by itself.
    let none = MemoryOptions {
        active: Capacity::Tokens(0),
        compressed: Capacity::Tokens(0),
        ..MemoryOptions::default()
    };
    engine.demote(&mut sequence, &none).expect("pages go down");
    let others: Vec<u32> = (0..3 * PAGE as u32).map(|position| 3 + position).collect();
    let options = GenerateOptions { max_tokens: Some(1), ..GenerateOptions::default() };
    let mut more = engine.sequence().expect("a sequence");
    engine.generate(&mut more, &others, &options, &mut || true, &mut |_| true).expect("a token");
    drop(more);
    assert!(engine.memory_usage().prefix_bytes > 0);
    let (mut held, mut failure) = (Vec::new(), None);
    for _ in 0..40 {
        let mut sequence = engine.sequence().expect("a sequence");
        match engine.prefill(&mut sequence, &[7; PAGE]) {
            Ok(_) => held.push(sequence),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
        assert!(engine.memory_usage().memory_bytes() <= budget);
    }
    assert_eq!(engine.memory_usage().prefix_bytes, 0);
    let sentence = failure.expect("no room any more").to_string();
    assert!(sentence.contains(&format!("budget is {budget}")) && !sentence.contains('\n'), "{sentence}");
    held.truncate(2);
    engine.prefill(&mut sequence, &[9; PAGE]).expect("there is room again");
}
