//! Constants of a later version: a plugin that doesn't know one says that it doesn't offer this, so that the host asks the
//! next; it never guesses.

use std::ptr::null_mut;

use herald_api::abi::{
    self, AbiStruct, HeraldError, HeraldLayerDesc, HeraldLayerRequest, HeraldMlp, HeraldParallel, HeraldTask,
    HeraldTensor, HeraldVocabulary,
};

use crate::support::*;

unsafe extern "C" fn run_nothing(_: *mut std::ffi::c_void, _: u64, _: *const HeraldTask) {}

#[track_caller]
fn unsupported(call: impl FnOnce(*mut HeraldError) -> u32, expected: &str) {
    let mut error: HeraldError = AbiStruct::empty();
    let status = call(&mut error);
    let message: Vec<u8> = error.message.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    let message = String::from_utf8_lossy(&message).into_owned();
    assert!(status == abi::HERALD_STATUS_UNSUPPORTED && message.contains(expected), "{status}: {message}");
}

#[track_caller]
fn layer(change: impl FnOnce(&mut HeraldLayerDesc, &mut HeraldMlp, &mut HeraldTensor), expected: &str) {
    let data = [0.0_f32; 4];
    let mut mlp = HeraldMlp { width: 4, activation: 1, gated: 1, ..AbiStruct::empty() };
    let mut desc = HeraldLayerDesc { kind: abi::HERALD_LAYER_MLP, hidden: 4, ..AbiStruct::empty() };
    let mut tensor = HeraldTensor {
        role: abi::HERALD_WEIGHT_NORM,
        n_dims: 1,
        dims: [4, 1, 1, 1],
        data: data.as_ptr().cast(),
        data_bytes: 16,
        name: c"blk.0.ffn_norm".as_ptr(),
        name_len: 14,
        ..AbiStruct::empty()
    };
    change(&mut desc, &mut mlp, &mut tensor);
    desc.mlp = &raw const mlp;
    let weights = [&raw const tensor];
    let parallel = HeraldParallel { workers: 1, run: Some(run_nothing), ..AbiStruct::empty() };
    let request = HeraldLayerRequest {
        desc: &raw const desc,
        weights: weights.as_ptr(),
        n_weights: 1,
        parallel: &raw const parallel,
        max_tokens: 1,
        max_workers: 1,
        page_tokens: 1,
        ..AbiStruct::empty()
    };
    let supports = Tables::new().layers.supports.expect("supports");
    // SAFETY: everything in the request lives for the call.
    unsupported(|error| unsafe { supports(&request, error) }, expected);
}

#[test]
fn of_layers() {
    layer(|desc, _, _| desc.kind = 99, "layer kind 99 is not known to this plugin");
    layer(|_, mlp, _| mlp.activation = 99, "activation 99 is not known to this plugin");
    layer(|_, mlp, _| mlp.gated = 2, "gated is 2, where 0 or 1 was expected");
    layer(|_, _, tensor| tensor.role = 1000, "weight blk.0.ffn_norm has role 1000");
    layer(|_, _, tensor| tensor.dtype = 4, "weight blk.0.ffn_norm has dtype 4");
}

#[test]
fn of_texts_and_vocabularies() {
    let tables = Tables::new();
    let (create, encode) =
        (tables.tokenizers.create.expect("create"), tables.tokenizers.encode.expect("encode"));
    let (decode, destroy) =
        (tables.tokenizers.decode.expect("decode"), tables.tokenizers.destroy.expect("destroy"));
    let mut vocabulary = HeraldVocabulary {
        model: c"bytes".as_ptr(),
        model_len: 5,
        unknown: abi::HERALD_NO_TOKEN,
        flags: 1 << 9,
        ..AbiStruct::empty()
    };
    let (mut tokenizer, mut n) = (null_mut(), 0);
    let unknown = "the flags 0x200 are not known to this plugin";
    // SAFETY: as the ABI asks, here and below.
    unsupported(|error| unsafe { create(&vocabulary, &mut tokenizer, error) }, unknown);
    vocabulary.flags = 0;
    // SAFETY: as above.
    assert_eq!(unsafe { create(&vocabulary, &mut tokenizer, null_mut()) }, abi::HERALD_STATUS_OK);
    let text = c"a".as_ptr();
    // SAFETY: as above.
    unsupported(|error| unsafe { encode(tokenizer, text, 1, 1 << 9, null_mut(), 0, &mut n, error) }, unknown);
    // SAFETY: as above.
    unsupported(
        |error| unsafe { decode(tokenizer, [0].as_ptr(), 1, 1 << 9, null_mut(), 0, &mut n, error) },
        unknown,
    );
    // SAFETY: as above.
    unsafe { destroy(tokenizer) };
}
