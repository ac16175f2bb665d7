//! What is sound works from end to end.

use herald_api::abi::{HERALD_PAGE_I16, HERALD_PAGE_OPAQUE};
use herald_api::import::{BatchBuffers, Forward, LayerHandle, Lent, PageHandle, PageUse, Plugin};
use herald_api::{
    AlignedBytes, DecodeOptions, EncodeOptions, Hardware, LayerKind, MemoryTier, Page, Parallel, Result,
    Status, TierConfig, TierKind, Tokenizer,
};

use crate::plugin::{SCRATCH_BYTES, STATE_BYTES};
use crate::support::*;
use crate::threads::Threads;

/// One sequence: `past` tokens before, some more now, its pages in spec.
pub(crate) struct Held {
    pub(crate) past: usize,
    pub(crate) state: AlignedBytes,
    pub(crate) pages: Vec<PageHandle>,
}

impl Held {
    pub(crate) fn new(plugin: &Plugin, n_pages: usize) -> Self {
        let tier = plugin.create_tier(&tier_config()).expect("the tier");
        Self {
            past: 0,
            state: AlignedBytes::zeroed(STATE_BYTES).expect("the state"),
            pages: (0..n_pages).map(|_| tier.reserve().expect("a page")).collect(),
        }
    }
}

/// Runs an attention layer over the next tokens of each sequence: `(sequence, tokens)`.
pub(crate) fn attend(
    layer: &LayerHandle,
    parts: &mut [(&mut Held, usize)],
    parallel: Parallel<'_>,
) -> Result<Vec<f32>> {
    let n_tokens = parts.iter().map(|(_, tokens)| tokens).sum();
    let mut output = vec![10.0; n_tokens * HIDDEN];
    let positions: Vec<u32> = (0..n_tokens as u32).collect();
    let mut buffers = BatchBuffers::default();
    let mut batch = buffers.begin();
    for (held, tokens) in parts.iter_mut() {
        let (past, end) = (held.past, held.past + *tokens);
        let pages = held.pages.iter_mut().enumerate().map(|(index, page)| (index * PAGE_TOKENS, page));
        let pages = pages.filter(|(start, _)| *start < end).map(|(start, page)| {
            let shared = start + PAGE_TOKENS <= past;
            (start, if shared { PageUse::Shared(&*page) } else { PageUse::Own(page) })
        });
        batch.push(*tokens, past, Some(&mut held.state), pages)?;
    }
    let mut scratch = AlignedBytes::zeroed(SCRATCH_BYTES)?;
    let request =
        Forward { n_tokens, tokens: &[], positions: &positions, input: None, output: &mut output, parallel };
    layer.forward(request, Some(&mut batch), &mut scratch)?;
    for (held, tokens) in parts {
        held.past += *tokens;
    }
    Ok(output)
}

#[test]
fn a_plugin_says_who_it_is() {
    let plugin = loaded();
    assert_eq!((plugin.name(), plugin.version()), ("test", "1.2.3"));
    assert_eq!(plugin.description(), "What the boundary is tested with");
    assert_eq!(plugin.layer_kinds(), [LayerKind::Embedding, LayerKind::Attention, LayerKind::Head]);
    assert_eq!(plugin.tier_kinds(), [TierKind::Active, TierKind::Archived]);
    assert!(plugin.offers_tokenizers());
    let probe = plugin.probe(&Hardware::detect(4, 0)).expect("a score");
    assert_eq!((probe.score, probe.variant.as_str()), (104, "plain"));
    let refusal = plugin.probe(&Hardware::detect(0, 0)).expect_err("no CPUs");
    assert_eq!(refusal.status(), Status::Unsupported);
    assert_eq!(refusal.message(), "a machine without CPUs can't run this plugin");
}

#[test]
fn attention_sees_its_pages_and_states() {
    let plugin = loaded();
    let layer = plugin.create_layer(attention_spec(), Parallel::serial()).expect("the layer");
    assert_eq!((layer.scratch_bytes(), layer.state_bytes(), layer.weight_bytes()), (640, 128, 16));
    assert_eq!((layer.plugin(), layer.output_width()), ("test", HIDDEN));
    let (mut a, mut b) = (Held::new(&plugin, 3), Held::new(&plugin, 2));
    let first = attend(&layer, &mut [(&mut a, 6)], Parallel::serial()).expect("a's prompt");
    for token in 0..6 {
        let seen = 11.0 + token as f32;
        assert_eq!(first[token * HIDDEN..][..HIDDEN], [seen, seen, 10.0, 10.0], "token {token}");
    }
    // Both at once, on threads: a goes on over its shared and its own pages, b begins.
    let threads = Threads(3);
    let lent = Lent::new(&threads);
    let both = attend(&layer, &mut [(&mut a, 4), (&mut b, 3)], lent.parallel()).expect("the batch");
    let counts: Vec<f32> = both.chunks(HIDDEN).map(|row| row[0] - 10.0).collect();
    assert_eq!(counts, [7.0, 8.0, 9.0, 10.0, 1.0, 2.0, 3.0]);
    assert!(both.chunks(HIDDEN).all(|row| row[0] == row[1]));
    a.pages[0].commit(4).expect("the page's tokens");
}

#[test]
fn the_embedding_and_the_head_have_their_own_shapes() {
    let plugin = loaded();
    let mut scratch = AlignedBytes::zeroed(SCRATCH_BYTES).expect("scratch memory");
    let embedding = plugin.create_layer(embedding_spec(), Parallel::serial()).expect("the embedding");
    let mut activations = vec![0.0; 2 * HIDDEN];
    let request = Forward {
        n_tokens: 2,
        tokens: &[4, 9],
        positions: &[],
        input: None,
        output: &mut activations,
        parallel: Parallel::serial(),
    };
    embedding.forward(request, None, &mut scratch).expect("the embedding's call");
    assert_eq!(activations, [2.0, 2.0, 2.0, 2.0, 4.5, 4.5, 4.5, 4.5]);
    let head = plugin.create_layer(head_spec(), Parallel::serial()).expect("the head");
    let mut logits = vec![0.0; 2 * 10];
    let request = Forward {
        n_tokens: 2,
        tokens: &[],
        positions: &[],
        input: Some(&activations),
        output: &mut logits,
        parallel: Parallel::serial(),
    };
    head.forward(request, None, &mut scratch).expect("the head's call");
    assert_eq!((head.output_width(), logits[9], logits[10]), (10, 8.0, 18.0));
}

#[test]
fn what_a_plugin_does_not_offer_is_unsupported() {
    let plugin = loaded();
    let mut odd = attention_spec();
    odd.desc.hidden = 3;
    let refusal = plugin.create_layer(odd, Parallel::serial()).err().expect("not offered");
    assert_eq!(
        (refusal.status(), refusal.message()),
        (Status::Unsupported, "a hidden size of 3 is not offered")
    );
    let mlp = herald_api::Mlp { width: 8, activation: herald_api::Activation::Silu, gated: true };
    let mlp = plugin.supports_layer(&spec(herald_api::LayerParams::Mlp(mlp)), Parallel::serial());
    assert_eq!(mlp.expect_err("not offered").message(), "test offers no mlp layers");
    let model = plugin.create_tokenizer(&vocabulary("other")).err().expect("not offered");
    assert_eq!(
        (model.status(), model.message()),
        (Status::Unsupported, "tokenizer model \"other\" is not offered")
    );
    let tier = TierConfig { kind: TierKind::Compressed, ..tier_config() };
    says(plugin.create_tier(&tier), "test offers no compressed memory tier");
}

#[test]
fn a_tokenizer_gets_its_text_and_its_flags() {
    let tokenizer = loaded().create_tokenizer(&vocabulary("bytes")).expect("the tokenizer");
    let mut ids = vec![77];
    tokenizer.encode("hé", EncodeOptions::default(), &mut ids).expect("ids");
    assert_eq!(ids, [77, 1, 104, 0xC3, 0xA9], "what was there stays");
    let options = EncodeOptions { special: true, continues: true };
    ids.clear();
    tokenizer.encode("", options, &mut ids).expect("ids");
    assert_eq!(ids, [0]);
    let mut bytes = b"> ".to_vec();
    tokenizer.decode(&[0xC3, 0xA9], DecodeOptions::default(), &mut bytes).expect("bytes");
    assert_eq!(bytes, "> é".as_bytes());
    says(tokenizer.decode(&[3, 256], DecodeOptions::default(), &mut bytes), "token id 256");
    assert_eq!(bytes, "> é".as_bytes());
    assert_eq!(tokenizer.plugin(), "test");
}

#[test]
fn a_tier_keeps_copies_and_lends_views() {
    let handle = loaded().create_tier(&tier_config()).expect("the tier");
    let tier = by_id(&handle);
    let (key_bytes, value_bytes) = tier_config().page_bytes().expect("small");
    assert_eq!((key_bytes, value_bytes), (2 * 4 * (4 + 2 * 2), 2 * 4 * (4 + 3 * 2)));
    let (mut keys, mut values) =
        (AlignedBytes::zeroed(key_bytes).expect("keys"), AlignedBytes::zeroed(value_bytes).expect("values"));
    keys.fill(3);
    values.fill(4);
    let page = Page::new(HERALD_PAGE_I16, 3, PAGE_TOKENS, &keys, &values).expect("a page");
    tier.put(1000, Some(&page)).expect("kept");
    let (mut keys_back, mut values_back) = (vec![0; key_bytes], vec![0; value_bytes]);
    assert_eq!(tier.get(1000, &mut keys_back, &mut values_back), Ok(3));
    assert_eq!((&*keys_back, &*values_back), (&*keys, &*values));
    assert_eq!(tier.get(5, &mut keys_back, &mut values_back).map_err(|e| e.status()), Err(Status::NotFound));
    tier.commit(1000, 4).expect("committed");
    says(tier.commit(1000, 5), "was to hold 5 tokens, where at most 4 have room");
    let reserved = handle.reserve().expect("an empty page");
    let stats = tier.stats();
    assert_eq!((stats.pages, stats.tokens, stats.bytes), (2, 4, 2 * (key_bytes + value_bytes) as u64));
    assert_eq!((stats.hits, stats.misses), (3, 1));
    drop(reserved);
    assert_eq!(tier.stats().pages, 1);
    let found = tier.search(&[2.0, 0.0, 0.0, 0.0], &[5, 1000, 7], 2).expect("found");
    assert_eq!(found.iter().map(|page| page.id).collect::<Vec<_>>(), [1000, 7]);
    tier.drop_page(1000).expect("dropped");
    says(tier.drop_page(1000), "there is no page 1000");
}

#[test]
fn a_tier_of_states_keeps_opaque_bytes() {
    let config = TierConfig {
        n_kv_heads: 0,
        key_dim: 0,
        value_dim: 0,
        page_tokens: 1,
        state_bytes: 24,
        ..tier_config()
    };
    let tier = by_id(&loaded().create_tier(&config).expect("the tier"));
    let state = AlignedBytes::zeroed(24).expect("a state");
    let page = Page::new(HERALD_PAGE_OPAQUE, 1, 1, &state, &[]).expect("a page");
    tier.put(0x1_0000_0000, Some(&page)).expect("kept");
    assert_eq!(tier.get(0x1_0000_0000, &mut [1; 24], &mut []), Ok(1));
    says(tier.search(&[], &[], 1), "0 query elements");
}

#[test]
fn chunks_are_each_done_once() {
    let threads = Threads(3);
    let lent = Lent::new(&threads);
    for parallel in [Parallel::serial(), lent.parallel()] {
        let mut data = [0_u32; 10];
        parallel.for_chunks(&mut data, 4, &|index, chunk, worker| {
            assert!(worker < 3 && chunk.len() == if index == 2 { 2 } else { 4 });
            chunk.iter_mut().for_each(|value| *value += 1 + index as u32);
        });
        assert_eq!(data, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]);
        parallel.for_chunks(&mut [0_u8; 0], 1, &|_, _, _| panic!("there is no chunk"));
    }
}

#[test]
fn log_lines_reach_the_host_as_one_line() {
    let plugin = loaded();
    plugin.probe(&Hardware::features_only()).expect("a score");
    // The exporting side keeps the first host that started it, in whichever test that was.
    herald_api::export::log(herald_api::export::Level::Warn, "two\nlines \u{1b}[2J");
    let lines = logged();
    assert!(lines.contains(&"3 test: probed".to_owned()), "{lines:?}");
    assert!(lines.contains(&"2 test: two lines  [2J".to_owned()), "{lines:?}");
}
