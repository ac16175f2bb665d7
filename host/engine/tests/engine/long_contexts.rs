//! Sequences of as many tokens as a test has time for.

use herald::{Capacity, LoadOptions, MemoryOptions, NeuroEngine};
use herald_testing::{cpu_options, tiny};

/// What RAM holds of them stops growing, but for summaries.
#[test]
fn sixty_four_thousand_tokens_go_through_small_tiers() {
    const PAGE: usize = 64;
    const TOKENS: usize = 65_536;
    let memory = MemoryOptions {
        active: Capacity::Tokens(4 * PAGE),
        compressed: Capacity::Tokens(8 * PAGE),
        selected_pages: Some(4),
        ..MemoryOptions::default()
    };
    let options =
        LoadOptions { page_tokens: PAGE, memory, max_batch: 512, context: Some(1 << 20), ..cpu_options() };
    let engine = NeuroEngine::load(&tiny("llama"), &options).expect("the model loads");
    let ids: Vec<u32> = (0..TOKENS as u32).map(|position| position.wrapping_mul(position) % 59 + 1).collect();
    let mut sequence = engine.sequence().expect("a sequence");
    engine.prefill(&mut sequence, &ids[..TOKENS / 2]).expect("the first half runs");
    let half = engine.memory_usage();
    let logits = engine.prefill(&mut sequence, &ids[TOKENS / 2..]).expect("the second half runs");
    assert!(logits.iter().all(|logit| logit.is_finite()));
    let whole = engine.memory_usage();
    // The first page and the latest four stay.
    let n_layers = whole.active.pages / 5;
    let pages = [5, 8, TOKENS as u64 / PAGE as u64 - 13].map(|pages| pages * n_layers);
    assert_eq!(whole.tiers().map(|(_, stats)| stats.pages), pages, "{whole:?}");
    let grown = whole.memory_bytes().saturating_sub(half.memory_bytes());
    let archived = whole.archived.bytes - half.archived.bytes;
    assert!(grown < archived / 2, "{grown} bytes more in RAM, where {archived} went to the archive");
    engine.decode(&mut [(&mut sequence, 3)]).expect("a token after them");
    drop(sequence);
    assert!(engine.memory_usage().tiers().iter().all(|(_, stats)| stats.pages == 0));
}
