//! Plugins whose tables are sound and whose answers are nonsense.

use std::ffi::c_char;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};

use herald_api::abi::*;
use herald_api::import::TierHandle;
use herald_api::{DecodeOptions, EncodeOptions, Hardware, MemoryTier, Parallel, Result, Status, Tokenizer};

use crate::support::*;

unsafe extern "C" fn scores_zero(
    _: *const HeraldHardware,
    out: *mut HeraldProbe,
    _: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's struct.
    unsafe { (*out).score = 0 };
    0
}

unsafe extern "C" fn scores_in_one_breath(
    _: *const HeraldHardware,
    out: *mut HeraldProbe,
    _: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's struct.
    unsafe { ((*out).score, (*out).variant) = (1, [-1; 64]) };
    0
}

#[test]
fn a_probe() {
    let mut tables = Tables::new();
    tables.plugin.probe = Some(scores_zero);
    let plugin = tables.load().expect("a plugin");
    says(
        plugin.probe(&Hardware::features_only()),
        "its probe gave the score 0, where at least 1 was expected",
    );
    let mut tables = Tables::new();
    tables.plugin.probe = Some(scores_in_one_breath);
    let probe = tables.load().expect("a plugin").probe(&Hardware::features_only()).expect("a score");
    assert_eq!(probe.variant, "\u{FFFD}".repeat(64), "neither NUL nor UTF-8");
}

unsafe extern "C" fn makes_no_layer(
    _: *const HeraldLayerRequest,
    _: *mut *mut HeraldLayer,
    _: *mut HeraldError,
) -> u32 {
    0
}

unsafe extern "C" fn asks_for(out: *mut HeraldLayerInfo, scratch_bytes: u64, state_bytes: u64) -> u32 {
    // SAFETY: the host's struct.
    unsafe { ((*out).scratch_bytes, (*out).state_bytes) = (scratch_bytes, state_bytes) };
    0
}

unsafe extern "C" fn asks_for_scratch(
    _: *const HeraldLayer,
    out: *mut HeraldLayerInfo,
    _: *mut HeraldError,
) -> u32 {
    // SAFETY: as the host's contract says.
    unsafe { asks_for(out, 1 << 60, 0) }
}

unsafe extern "C" fn asks_for_state(
    _: *const HeraldLayer,
    out: *mut HeraldLayerInfo,
    _: *mut HeraldError,
) -> u32 {
    // SAFETY: as the host's contract says.
    unsafe { asks_for(out, 0, u64::MAX) }
}

unsafe extern "C" fn asks_for_odd_summaries(
    _: *const HeraldLayer,
    out: *mut HeraldLayerInfo,
    _: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's struct.
    unsafe { ((*out).score_width, (*out).summary_bytes) = (1, 12) };
    0
}

unsafe extern "C" fn asks_for_scores(
    _: *const HeraldLayer,
    out: *mut HeraldLayerInfo,
    _: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's struct.
    unsafe { ((*out).score_width, (*out).summary_bytes) = (u32::MAX, 8) };
    0
}

unsafe extern "C" fn no_status(_: *const HeraldLayer, _: *mut HeraldLayerInfo, _: *mut HeraldError) -> u32 {
    u32::MAX
}

#[test]
fn a_layer() {
    let create = |change: fn(&mut HeraldLayerTable)| {
        let mut tables = Tables::new();
        change(&mut tables.layers);
        tables.load().expect("a plugin").create_layer(attention_spec(), Parallel::serial())
    };
    says(create(|table| table.create = Some(makes_no_layer)), "its layer_create succeeded without a layer");
    says(
        create(|table| table.info = Some(asks_for_scratch)),
        "its attention layer asks for 1152921504606846976 bytes of scratch memory, where at most 17179869184 were",
    );
    says(create(|table| table.info = Some(asks_for_state)), "bytes of recurrent state");
    says(create(|table| table.info = Some(asks_for_odd_summaries)), "summaries of 12 bytes");
    says(create(|table| table.info = Some(asks_for_scores)), "and 4294967295 scores a page");
    says(
        create(|table| table.info = Some(no_status)),
        "it returned 4294967295, which is no status of this ABI, and said nothing",
    );
}

unsafe extern "C" fn makes_no_tokenizer(
    _: *const HeraldVocabulary,
    _: *mut *mut HeraldTokenizer,
    _: *mut HeraldError,
) -> u32 {
    0
}

static CALLS: AtomicUsize = AtomicUsize::new(0);

/// What it does depends on the text: see the test.
unsafe extern "C" fn encodes_nonsense(
    _: *const HeraldTokenizer,
    text: *const c_char,
    text_len: usize,
    _: u32,
    ids: *mut u32,
    capacity: usize,
    n_ids: *mut usize,
    _: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract: text, ids and n_ids are as the header says.
    unsafe {
        match std::slice::from_raw_parts(text.cast::<u8>(), text_len) {
            b"too many" => n_ids.write(capacity + 1),
            b"far too many" => n_ids.write(usize::MAX),
            b"not in the vocabulary" => {
                ids.write(256);
                n_ids.write(1);
            }
            b"ever more" => {
                CALLS.fetch_add(1, Ordering::Relaxed);
                n_ids.write(capacity + 1);
                return HERALD_STATUS_BUFFER_TOO_SMALL;
            }
            b"all memory" => {
                n_ids.write(1 << 39);
                return HERALD_STATUS_BUFFER_TOO_SMALL;
            }
            b"no more" => {
                n_ids.write(capacity);
                return HERALD_STATUS_BUFFER_TOO_SMALL;
            }
            // An honest one: it needs more than the host guessed.
            _ if capacity < 40 => {
                n_ids.write(40);
                return HERALD_STATUS_BUFFER_TOO_SMALL;
            }
            _ => {
                std::slice::from_raw_parts_mut(ids, 40).fill(9);
                n_ids.write(40);
            }
        }
    }
    HERALD_STATUS_OK
}

unsafe extern "C" fn decodes_nonsense(
    _: *const HeraldTokenizer,
    _: *const u32,
    _: usize,
    _: u32,
    _: *mut u8,
    capacity: usize,
    n_bytes: *mut usize,
    _: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's place for the length.
    unsafe { n_bytes.write(capacity * 3) };
    HERALD_STATUS_BUFFER_TOO_SMALL
}

#[test]
fn a_tokenizer() {
    let mut tables = Tables::new();
    tables.tokenizers.create = Some(makes_no_tokenizer);
    let plugin = tables.load().expect("a plugin");
    says(plugin.create_tokenizer(&vocabulary("bytes")), "its tokenizer_create succeeded without a tokenizer");
    let mut uneven = vocabulary("bytes");
    uneven.types = &[1, 2];
    says(loaded().create_tokenizer(&uneven), "256 tokens and 2 types");

    let mut tables = Tables::new();
    tables.tokenizers.encode = Some(encodes_nonsense);
    tables.tokenizers.decode = Some(decodes_nonsense);
    let plugin = tables.load().expect("a plugin");
    let tokenizer = plugin.create_tokenizer(&vocabulary("bytes")).expect("the tokenizer");
    let mut ids = vec![5, 6];
    let mut encode = |text| {
        let done = tokenizer.encode(text, EncodeOptions::default(), &mut ids);
        assert_eq!(ids[..2], [5, 6]);
        assert_eq!(ids.len(), if done.is_ok() { 42 } else { 2 }, "a failure leaves nothing behind");
        done
    };
    says(encode("too many"), "it says that it wrote 17 elements where 16 had room");
    says(encode("far too many"), "it says that it wrote 18446744073709551615 elements");
    says(encode("not in the vocabulary"), "gave the id 256, where ids below 256 were expected");
    says(encode("ever more"), "it asks for room for 19 elements after it was given 18");
    assert_eq!(CALLS.load(Ordering::Relaxed), 2);
    says(encode("all memory"), "it asks for room for 549755813888 elements after it was given 18");
    says(encode("no more"), "it asks for room for 15 elements after it was given 15");
    encode("honest").expect("a second call with the room that it asked for");
    says(
        tokenizer.decode(&[1], DecodeOptions::default(), &mut Vec::new()),
        "it asks for room for 48 elements",
    );
}

unsafe extern "C" fn makes_no_tier(
    _: *const HeraldTierConfig,
    _: *mut *mut HeraldTier,
    _: *mut HeraldError,
) -> u32 {
    0
}

unsafe extern "C" fn holds_too_many(
    _: *mut HeraldTier,
    _: u64,
    into: *mut HeraldPage,
    _: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's struct.
    unsafe { (*into).n_tokens = 5 };
    0
}

/// Pages of ids 0, 1, 2 and so on, each wrong in another way.
unsafe extern "C" fn shows_nonsense(
    _: *mut HeraldTier,
    id: u64,
    page: *mut HeraldPage,
    _: *mut HeraldError,
) -> u32 {
    let (key_bytes, value_bytes) = tier_config().page_bytes().unwrap_or_default();
    let place = NonNull::<u128>::dangling().as_ptr();
    // SAFETY: the host's struct.
    let page = unsafe { &mut *page };
    (page.key_bytes, page.value_bytes) = (key_bytes as u64, value_bytes as u64);
    (page.keys, page.values) = (64 as *mut _, 128 as *mut _);
    page.format = HERALD_PAGE_I16;
    match id {
        0 => page.keys = null_mut(),
        1 => page.values = place.cast(),
        2 => page.key_bytes = 1 << 60,
        3 => page.format = 77,
        _ => return HERALD_STATUS_UNSUPPORTED,
    }
    0
}

unsafe extern "C" fn finds_too_many(
    _: *mut HeraldTier,
    _: *const HeraldTierQuery,
    k: usize,
    _: *mut u64,
    _: *mut f32,
    n: *mut usize,
    _: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's place for the number.
    unsafe { n.write(k + 1) };
    0
}

#[test]
fn a_tier() {
    let create = |change: fn(&mut HeraldTierTable)| -> Result<TierHandle> {
        let mut tables = Tables::new();
        change(&mut tables.tiers);
        tables.load().expect("a plugin").create_tier(&tier_config())
    };
    says(create(|table| table.create = Some(makes_no_tier)), "its tier_create succeeded without a tier");
    let tier = create(|table| table.get = Some(holds_too_many)).expect("the tier");
    let (keys, values) = tier_config().page_bytes().expect("small");
    says(
        by_id(&tier).get(8, &mut vec![0; keys], &mut vec![0; values]),
        "says that page 8 holds 5 tokens, where at most 4 have room",
    );
    let tier = create(|table| table.view = Some(shows_nonsense)).expect("the tier");
    for wrong in ["bytes at 0x0 and", "and 0x10,", "1152921504606846976 and", "of format 77"] {
        says(tier.reserve(), wrong);
    }
    let last = tier.reserve().err().expect("no view");
    assert_eq!(last.status(), Status::Unsupported);
    assert_eq!(tier.stats().pages, 0, "pages that could not be seen are dropped");
    let tier = create(|table| table.search = Some(finds_too_many)).expect("the tier");
    says(
        by_id(&tier).search(&[0.0; 4], &[1, 2, 3], 2),
        "its search found 3 pages, where at most 2 were asked for",
    );
    says(by_id(&tier).search(&[0.0; 4], &[1], 9), "its search found 2 pages, where at most 1 were asked for");
}
