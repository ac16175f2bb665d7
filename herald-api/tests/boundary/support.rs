//! Tables as a plugin might hand them over, of any size, and orders for layers that the test plugin knows.

use std::cell::Cell;
use std::sync::Arc;

use herald_api::abi::{AbiStruct, HeraldLayerTable, HeraldPlugin, HeraldTierTable, HeraldTokenizerTable};
use herald_api::import::{LayerSpec, Plugin, SharedBytes, SharedWeight, TierById, TierHandle};
use herald_api::{
    Attention, DType, Embedding, Error, Head, LayerDesc, LayerParams, Result, RopeKind, RopeScaling,
    TierConfig, TierKind, Vocabulary, WeightRole,
};

use crate::plugin;

/// A struct as the other side might have it: exactly as many bytes as its `struct_size` says (of a size that nobody can
/// mean, the first words), so that a tool that watches memory sees a read past its end.
pub(crate) struct Image(Vec<u64>);

impl Image {
    pub(crate) fn new<T: AbiStruct>(value: &T, struct_size: usize) -> Self {
        let bytes = struct_size.min(4096);
        let mut words = vec![0xA5A5_A5A5_A5A5_A5A5_u64; bytes.div_ceil(8).max(1)];
        // SAFETY: `words` has at least `bytes` bytes, the value at least as many as are copied.
        unsafe {
            let from = std::ptr::from_ref(value).cast::<u8>();
            std::ptr::copy_nonoverlapping(from, words.as_mut_ptr().cast(), bytes.min(size_of::<T>()));
        }
        words[0] = struct_size as u64;
        Self(words)
    }

    pub(crate) fn pointer<T>(&self) -> *const T {
        self.0.as_ptr().cast()
    }

    pub(crate) fn pointer_mut<T>(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.0
    }
}

/// The test plugin's tables, to be changed before they are loaded.
pub(crate) struct Tables {
    pub(crate) plugin: HeraldPlugin,
    pub(crate) layers: HeraldLayerTable,
    pub(crate) tokenizers: HeraldTokenizerTable,
    pub(crate) tiers: HeraldTierTable,
}

impl Tables {
    pub(crate) fn new() -> Self {
        let plugin = *plugin::table();
        // SAFETY: the test plugin has all three tables, in statics.
        unsafe {
            Self { plugin, layers: *plugin.layers, tokenizers: *plugin.tokenizers, tiers: *plugin.tiers }
        }
    }

    /// Loads them, each of the size that its `struct_size` says.
    pub(crate) fn load(mut self) -> Result<Plugin> {
        let layers = Image::new(&self.layers, self.layers.struct_size);
        let tokenizers = Image::new(&self.tokenizers, self.tokenizers.struct_size);
        let tiers = Image::new(&self.tiers, self.tiers.struct_size);
        self.plugin.layers = layers.pointer();
        self.plugin.tokenizers = tokenizers.pointer();
        self.plugin.tiers = tiers.pointer();
        let plugin = Image::new(&self.plugin, self.plugin.struct_size);
        let pointer = plugin.pointer();
        load_table(pointer, vec![layers, tokenizers, tiers, plugin])
    }
}

thread_local! {
    static TABLE: Cell<*const HeraldPlugin> = const { Cell::new(std::ptr::null()) };
    static LOG: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
}

unsafe extern "C" fn table_of_this_thread() -> *const HeraldPlugin {
    TABLE.get()
}

fn keep_line(level: u32, line: &str) {
    LOG.with_borrow_mut(|lines| lines.push(format!("{level} {line}")));
}

/// What this thread's plugins have logged.
pub(crate) fn logged() -> Vec<String> {
    LOG.with_borrow(Vec::clone)
}

pub(crate) fn load_table(table: *const HeraldPlugin, kept: Vec<Image>) -> Result<Plugin> {
    TABLE.set(table);
    // SAFETY: the entry returns the table, whose bytes `kept` holds.
    unsafe { Plugin::load(table_of_this_thread, Box::new(kept), keep_line) }
}

pub(crate) fn loaded() -> Plugin {
    Tables::new().load().expect("the test plugin is sound")
}

/// The sentence of an error: one, that ends nowhere in the middle, on one line.
pub(crate) fn sentence<T>(result: Result<T>) -> String {
    let error: Error = result.err().expect("this should have been refused");
    let message = error.message().to_owned();
    assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
    assert!(message.len() < 600, "{message:?}");
    message
}

#[track_caller]
pub(crate) fn says<T>(result: Result<T>, expected: &str) {
    let message = sentence(result);
    assert!(message.contains(expected), "{message:?} doesn't say {expected:?}");
}

pub(crate) const HIDDEN: usize = 4;
pub(crate) const PAGE_TOKENS: usize = 4;
pub(crate) const KEY_DIM: usize = 2;
pub(crate) const VALUE_DIM: usize = 3;

/// The tier by its pages' ids.
pub(crate) fn by_id(tier: &TierHandle) -> TierById {
    // SAFETY: a test drops no page that a handle has, and works on one thread.
    unsafe { tier.by_id() }
}

pub(crate) fn attention() -> Attention {
    Attention {
        n_heads: 2,
        n_kv_heads: 2,
        key_dim: KEY_DIM,
        value_dim: VALUE_DIM,
        window: None,
        mask: herald_api::Mask::Causal,
        rope: RopeKind::None,
        rope_dims: 0,
        rope_base: 10_000.0,
        rope_scaling: RopeScaling::None,
        softcap: None,
        latent: None,
        shares_kv: false,
        scale: 1.0,
    }
}

pub(crate) fn spec(params: LayerParams) -> LayerSpec {
    let bytes = Arc::new(vec![1_u8; HIDDEN * 4]);
    let data = SharedBytes::new(bytes, 0..HIDDEN * 4).expect("the range is within the bytes");
    LayerSpec {
        desc: LayerDesc {
            block: 7,
            hidden: HIDDEN,
            residual_scale: 1.0,
            norm_eps: 1e-5,
            activations: herald_api::ActivationPrecision::default(),
            params,
        },
        weights: vec![SharedWeight {
            role: WeightRole::Norm,
            name: "blk.7.norm".to_owned(),
            dtype: DType::F32,
            dims: vec![HIDDEN as u64],
            data,
        }],
        max_tokens: 8,
        max_workers: 3,
        page_tokens: PAGE_TOKENS,
        max_lora_rank: 0,
        packs: None,
    }
}

pub(crate) fn attention_spec() -> LayerSpec {
    spec(LayerParams::Attention(attention()))
}

pub(crate) fn embedding_spec() -> LayerSpec {
    spec(LayerParams::Embedding(Embedding { vocabulary: 10, scale: 0.5, positions: None }))
}

pub(crate) fn head_spec() -> LayerSpec {
    spec(LayerParams::Head(Head { vocabulary: 10, scale: 1.0, softcap: None }))
}

pub(crate) fn tier_config() -> TierConfig {
    TierConfig {
        kind: TierKind::Active,
        n_kv_heads: 2,
        key_dim: KEY_DIM,
        value_dim: VALUE_DIM,
        page_tokens: PAGE_TOKENS,
        state_bytes: 0,
        capacity_bytes: None,
        path: None,
        lz4: false,
    }
}

/// Every byte as a token.
pub(crate) fn vocabulary(model: &str) -> Vocabulary<'_> {
    const BYTES: [u8; 256] = {
        let mut bytes = [0; 256];
        let mut index = 0;
        while index < 256 {
            bytes[index] = index as u8;
            index += 1;
        }
        bytes
    };
    Vocabulary { model, tokens: BYTES.chunks(1).collect(), ..Vocabulary::default() }
}
