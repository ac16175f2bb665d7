//! Prompts that begin alike share pages: the same logits, no page twice, none left over.

use herald::{LoadOptions, NeuroEngine, Sequence};
use herald_testing::{cpu_options, tiny};

const PAGE: usize = 16;

fn engine(prefix_bytes: usize) -> NeuroEngine {
    let options = LoadOptions { page_tokens: PAGE, prefix_bytes, context: Some(512), ..cpu_options() };
    NeuroEngine::load(&tiny("llama"), &options).expect("the model loads")
}

fn prompt(len: usize, last: u32) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..len as u32).map(|position| position * 7 % 61 + 1).collect();
    ids[len - 1] = last;
    ids
}

fn run(engine: &NeuroEngine, ids: &[u32]) -> (Sequence, Vec<f32>, usize) {
    let mut sequence = engine.sequence().expect("a sequence");
    let (logits, shared) = engine.prefill_shared(&mut sequence, ids, &mut |_| true).expect("the prompt runs");
    (sequence, logits, shared)
}

/// A token's logits come from other sums when its pages came from another batch; beside float32 rounding, nothing moves.
#[track_caller]
fn near(a: &[f32], b: &[f32]) {
    let most = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(a.len() == b.len() && most <= 1e-5, "logits differ by {most}");
}

#[test]
fn a_prompt_that_begins_alike_has_the_same_logits_and_shares_pages() {
    let (engine, plain) = (engine(64 << 20), engine(0));
    let n_layers = {
        let (_sequence, ..) = run(&plain, &prompt(PAGE, 1));
        plain.memory_usage().active.pages
    };
    let (first, _, shared) = run(&engine, &prompt(5 * PAGE + 3, 9));
    assert_eq!(shared, 0);
    assert_eq!(engine.memory_usage().active.pages, 6 * n_layers);
    let (mut second, logits, shared) = run(&engine, &prompt(5 * PAGE + 3, 10));
    assert_eq!(shared, 5 * PAGE);
    assert_eq!(engine.memory_usage().active.pages, 7 * n_layers, "only the last page is the second's own");
    let (mut alone, expected, shared) = run(&plain, &prompt(5 * PAGE + 3, 10));
    assert_eq!(shared, 0);
    near(&logits, &expected);
    for token in [3, 5, 8, 13] {
        let decoded = engine.decode(&mut [(&mut second, token)]).expect("a token");
        near(&decoded, &plain.decode(&mut [(&mut alone, token)]).expect("a token"));
    }
    // Most of a page, too: all but the last token, which is another one.
    assert_eq!(run(&engine, &prompt(5 * PAGE, 1)).2, 5 * PAGE - 1);

    drop((first, second));
    let kept = engine.memory_usage();
    assert_eq!(kept.active.pages, 6 * n_layers, "whole pages of the prompts stay: five, and another fifth");
    assert!(kept.prefix_bytes > 0 && kept.prefix_bytes <= kept.active.bytes, "{kept:?}");
    engine.forget_prefixes();
    assert_eq!(engine.memory_usage().active.pages, 0, "no page is left over");
}

#[test]
fn a_shared_page_is_copied_before_it_is_written() {
    let (engine, plain) = (engine(64 << 20), engine(0));
    let ids = prompt(4 * PAGE, 2);
    let (mut first, logits, _) = run(&engine, &ids);
    // Back into the middle of a page that the cache holds too, and another way on from there.
    assert!(first.truncate(2 * PAGE + 5));
    let (mut alone, ..) = run(&plain, &ids[..2 * PAGE + 5]);
    for token in [40, 41, 42] {
        let decoded = engine.decode(&mut [(&mut first, token)]).expect("a token");
        near(&decoded, &plain.decode(&mut [(&mut alone, token)]).expect("a token"));
    }
    let (_again, same, shared) = run(&engine, &ids);
    assert_eq!(shared, 4 * PAGE - 1, "all but the last token, whose logits are wanted");
    near(&same, &logits);
}

#[test]
fn no_more_pages_are_kept_than_were_asked_for() {
    let engine = engine(64 << 20);
    let (sequence, ..) = run(&engine, &prompt(8 * PAGE, 1));
    let row = engine.memory_usage().prefix_bytes / 8;
    drop(sequence);
    let small = self::engine(3 * row as usize);
    for last in 1..6 {
        run(&small, &prompt(8 * PAGE, last));
        assert!(small.memory_usage().prefix_bytes <= 3 * row);
    }
    assert_eq!(run(&small, &prompt(8 * PAGE, 9)).2, 3 * PAGE);
}
