//! Old plugins under new hosts, and new under old: structs that end earlier, and structs that go on.

use std::ptr::{null, null_mut};

use herald_api::abi::{
    self, AbiStruct, HeraldCall, HeraldError, HeraldHardware, HeraldHead, HeraldLayerDesc, HeraldLayerInfo,
    HeraldLayerRequest, HeraldParallel, HeraldPlugin, HeraldProbe, HeraldTask, HeraldTensor,
    HeraldTierConfig, HeraldTierStats, HeraldTierTable, HeraldVocabulary,
};
use herald_api::{EncodeOptions, Hardware, MemoryTier, Parallel, Tokenizer};

use crate::support::*;
use crate::works::{Held, attend};

/// The offset of a field: where a struct that was made before it ends.
macro_rules! until {
    ($name:ident, $field:ident) => {
        std::mem::offset_of!($name, $field)
    };
}

fn tries_everything(plugin: &herald_api::import::Plugin) {
    assert_eq!(plugin.probe(&Hardware::detect(2, 0)).expect("a score").score, 102);
    let layer = plugin.create_layer(attention_spec(), Parallel::serial()).expect("the layer");
    let mut held = Held::new(plugin, 1);
    let output = attend(&layer, &mut [(&mut held, 2)], Parallel::serial()).expect("the call");
    assert_eq!(output[HIDDEN], 12.0);
    let tokenizer = plugin.create_tokenizer(&vocabulary("bytes")).expect("the tokenizer");
    let mut ids = Vec::new();
    tokenizer.encode("A", EncodeOptions::default(), &mut ids).expect("ids");
    assert_eq!(ids, [1, 65]);
}

#[test]
fn newer_plugins_have_longer_tables() {
    for more in [1, 8, 24, 1000] {
        let mut tables = Tables::new();
        tables.plugin.struct_size += more;
        tables.layers.struct_size += more;
        tables.tokenizers.struct_size += more;
        tables.tiers.struct_size += more;
        tries_everything(&tables.load().expect("a newer plugin"));
    }
}

#[test]
fn a_tier_table_may_end_before_stats_or_search() {
    let mut tables = Tables::new();
    tables.tiers.struct_size = until!(HeraldTierTable, search);
    let plugin = tables.load().expect("a plugin without search");
    tries_everything(&plugin);
    let tier = plugin.create_tier(&tier_config()).expect("the tier");
    let _page = tier.reserve().expect("a page");
    assert_eq!(tier.stats().pages, 1);
    says(by_id(&tier).search(&[1.0; 4], &[0], 1), "have no search function");

    let mut tables = Tables::new();
    tables.tiers.struct_size = until!(HeraldTierTable, stats);
    let tier = tables.load().expect("without stats").create_tier(&tier_config()).expect("the tier");
    assert_eq!(tier.stats(), herald_api::TierStats::default());
}

#[test]
fn a_plugin_table_may_end_behind_what_it_offers() {
    let mut tables = Tables::new();
    tables.plugin.struct_size = until!(HeraldPlugin, tiers);
    let plugin = tables.load().expect("a plugin from before tiers");
    assert!(plugin.tier_kinds().is_empty() && plugin.offers_tokenizers());
    says(plugin.create_tier(&tier_config()), "test offers no active memory tier");
    plugin.create_layer(attention_spec(), Parallel::serial()).expect("the layer");

    let mut tables = Tables::new();
    tables.plugin.struct_size = until!(HeraldPlugin, layers);
    let plugin = tables.load().expect("a plugin that offers nothing");
    assert!(plugin.layer_kinds().is_empty() && !plugin.offers_tokenizers());
    says(plugin.create_layer(attention_spec(), Parallel::serial()), "test offers no attention layers");
    says(plugin.create_tokenizer(&vocabulary("bytes")), "test offers no tokenizers");
}

#[test]
fn a_size_that_ends_within_a_pointer_leaves_it_out() {
    let mut tables = Tables::new();
    tables.plugin.struct_size = until!(HeraldPlugin, layers) + 3;
    let plugin = tables.load().expect("a plugin that offers nothing");
    assert!(plugin.layer_kinds().is_empty() && !plugin.offers_tokenizers());
}

/// Calls an exported function as a host would, and gives its sentence back.
fn asked(function: impl FnOnce(*mut HeraldError) -> u32) -> Result<(), String> {
    let mut error: HeraldError = AbiStruct::empty();
    match function(&mut error) {
        abi::HERALD_STATUS_OK => Ok(()),
        _ => {
            let bytes: Vec<u8> = error.message.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
            Err(String::from_utf8(bytes).expect("sentences are UTF-8"))
        }
    }
}

unsafe extern "C" fn run_inline(_: *mut std::ffi::c_void, items: u64, task: *const HeraldTask) {
    // SAFETY: the plugin's contract for its task.
    unsafe {
        if let Some(run) = (*task).run {
            run((*task).argument, 0, items, 0);
        }
    }
}

/// A head layer, made and called by a host whose structs are `size(least, whole)` bytes long.
fn under_a_host(size: fn(usize, usize) -> usize) {
    let tables = Tables::new();
    let head = HeraldHead { vocabulary: 3, scale: 1.0, softcap: 5.0, ..AbiStruct::empty() };
    let head = Image::new(&head, size(HeraldHead::REQUIRED, size_of::<HeraldHead>()));
    let desc = HeraldLayerDesc {
        kind: abi::HERALD_LAYER_HEAD,
        hidden: 2,
        head: head.pointer(),
        ..AbiStruct::empty()
    };
    // A description says nothing without the parameters of its kind, which stand last.
    let whole = size_of::<HeraldLayerDesc>();
    let desc = Image::new(&desc, size(whole, whole));
    let data = [1.0_f32, 2.0];
    let tensor = HeraldTensor {
        role: abi::HERALD_WEIGHT_NORM,
        dtype: abi::HERALD_DTYPE_F32,
        n_dims: 1,
        dims: [2, 1, 1, 1],
        data: data.as_ptr().cast(),
        data_bytes: 8,
        name: c"norm".as_ptr(),
        name_len: 4,
        ..AbiStruct::empty()
    };
    let tensor = Image::new(&tensor, size(HeraldTensor::REQUIRED, size_of::<HeraldTensor>()));
    let weights = [tensor.pointer::<HeraldTensor>()];
    let parallel = HeraldParallel { workers: 1, run: Some(run_inline), ..AbiStruct::empty() };
    let parallel = Image::new(&parallel, size(HeraldParallel::REQUIRED, size_of::<HeraldParallel>()));
    let request = HeraldLayerRequest {
        desc: desc.pointer(),
        weights: weights.as_ptr(),
        n_weights: 1,
        parallel: parallel.pointer(),
        max_tokens: 1,
        max_workers: 1,
        page_tokens: 1,
        ..AbiStruct::empty()
    };
    let request = Image::new(&request, size(HeraldLayerRequest::REQUIRED, size_of::<HeraldLayerRequest>()));
    let (create, info) = (tables.layers.create.expect("create"), tables.layers.info.expect("info"));
    let (forward, destroy) =
        (tables.layers.forward.expect("forward"), tables.layers.destroy.expect("destroy"));
    let mut layer = null_mut();
    // SAFETY: as the ABI asks, here and below: every struct has the bytes that it says.
    asked(|error| unsafe { create(request.pointer(), &mut layer, error) }).expect("the layer");

    let nothing: HeraldLayerInfo = AbiStruct::empty();
    let mut answer = Image::new(&nothing, size(HeraldLayerInfo::REQUIRED, size_of::<HeraldLayerInfo>()));
    let before = answer.words().to_vec();
    // SAFETY: as above.
    asked(|error| unsafe { info(layer, answer.pointer_mut(), error) }).expect("its needs");
    assert_eq!(answer.words()[0], before[0], "struct_size stays the host's");
    assert_eq!(answer.words()[1], 640, "scratch_bytes");
    assert_eq!(answer.words().get(4..), before.get(4..), "what this version doesn't know is not touched");

    let mut scratch = herald_api::AlignedBytes::zeroed(640).expect("scratch memory");
    let (input, mut output) = ([1.5_f32, 2.0], [0.0_f32; 3]);
    let call = HeraldCall {
        n_tokens: 1,
        input: input.as_ptr(),
        output: output.as_mut_ptr(),
        scratch: scratch.as_mut_ptr().cast(),
        scratch_bytes: 640,
        parallel: parallel.pointer(),
        ..AbiStruct::empty()
    };
    let call = Image::new(&call, size(HeraldCall::REQUIRED, size_of::<HeraldCall>()));
    // SAFETY: as above.
    asked(|error| unsafe { forward(layer, call.pointer(), error) }).expect("the call");
    // SAFETY: as above.
    unsafe { destroy(layer) };
    assert_eq!(output, [3.5; 3]);
}

#[test]
fn layers_run_under_older_and_newer_hosts() {
    under_a_host(|least, _| least);
    under_a_host(|_, whole| whole);
    under_a_host(|_, whole| whole + 40);
}

#[test]
fn probes_tokenizers_and_tiers_run_under_older_and_newer_hosts() {
    let tables = Tables::new();
    for more in [0, 16] {
        let hardware = HeraldHardware { cpus: 9, ..AbiStruct::empty() };
        let size = if more == 0 { HeraldHardware::REQUIRED } else { size_of::<HeraldHardware>() + more };
        let hardware = Image::new(&hardware, size);
        let mut answer = Image::new::<HeraldProbe>(&AbiStruct::empty(), size_of::<HeraldProbe>() + more);
        let probe = tables.plugin.probe.expect("probe");
        // SAFETY: as the ABI asks, here and below: every struct has the bytes that it says.
        asked(|error| unsafe { probe(hardware.pointer(), answer.pointer_mut(), error) }).expect("a score");
        assert_eq!(answer.words()[1] as u32, 109);

        let offsets = [0_u64, 1, 3];
        let vocabulary = HeraldVocabulary {
            model: c"bytes".as_ptr(),
            model_len: 5,
            n_tokens: 2,
            token_bytes: b"abb".as_ptr(),
            token_offsets: offsets.as_ptr(),
            unknown: abi::HERALD_NO_TOKEN,
            ..AbiStruct::empty()
        };
        let vocabulary = Image::new(&vocabulary, size_of::<HeraldVocabulary>() + more);
        let (create, destroy) =
            (tables.tokenizers.create.expect("create"), tables.tokenizers.destroy.expect("destroy"));
        let mut tokenizer = null_mut();
        // SAFETY: as above.
        asked(|error| unsafe { create(vocabulary.pointer(), &mut tokenizer, error) }).expect("the tokenizer");
        // SAFETY: as above.
        unsafe { destroy(tokenizer) };

        let config = HeraldTierConfig {
            kind: abi::HERALD_TIER_ACTIVE,
            n_kv_heads: 1,
            key_dim: 1,
            value_dim: 1,
            page_tokens: 4,
            ..AbiStruct::empty()
        };
        let size = if more == 0 { HeraldTierConfig::REQUIRED } else { size_of::<HeraldTierConfig>() + more };
        let config = Image::new(&config, size);
        let (create, destroy) =
            (tables.tiers.create.expect("create"), tables.tiers.destroy.expect("destroy"));
        let (put, stats) = (tables.tiers.put.expect("put"), tables.tiers.stats.expect("stats"));
        let mut tier = null_mut();
        // SAFETY: as above.
        asked(|error| unsafe { create(config.pointer(), &mut tier, error) }).expect("the tier");
        // SAFETY: as above.
        asked(|error| unsafe { put(tier, 1, null(), error) }).expect("a page");
        let size = if more == 0 { HeraldTierStats::REQUIRED } else { size_of::<HeraldTierStats>() + more };
        let mut answer = Image::new::<HeraldTierStats>(&AbiStruct::empty(), size);
        // SAFETY: as above.
        asked(|error| unsafe { stats(tier, answer.pointer_mut(), error) }).expect("numbers");
        assert_eq!(answer.words()[1..4], [1, 0, 48]);
        // SAFETY: as above.
        unsafe { destroy(tier) };
    }
}

#[test]
fn a_host_may_want_no_sentence_or_have_room_for_a_longer_one() {
    let tables = Tables::new();
    let create = tables.tokenizers.create.expect("create");
    let mut out = null_mut();
    // SAFETY: nulls are among what the ABI allows, or checks.
    assert_eq!(unsafe { create(null(), &mut out, null_mut()) }, abi::HERALD_STATUS_INVALID_ARGUMENT);
    let mut error = Image::new::<HeraldError>(&AbiStruct::empty(), size_of::<HeraldError>() + 64);
    // SAFETY: the error has the bytes that it says.
    assert_eq!(unsafe { create(null(), &mut out, error.pointer_mut()) }, abi::HERALD_STATUS_INVALID_ARGUMENT);
    assert_eq!(error.words()[1].to_le_bytes(), *b"HeraldVo");
    let mut short = Image::new::<HeraldError>(&AbiStruct::empty(), 40);
    // SAFETY: the error has the bytes that it says.
    assert_eq!(unsafe { create(null(), &mut out, short.pointer_mut()) }, abi::HERALD_STATUS_INVALID_ARGUMENT);
    assert_eq!(short.words()[1], 0, "too short for a message: left alone");
    // SAFETY: out of null is what the ABI checks.
    let refused = asked(|error| unsafe { create(null(), null_mut(), error) });
    assert!(refused.is_err_and(|sentence| sentence.contains("out is null")));
}
