//! HERALD's plugin interface: the stable C ABI between the host and its backends, and nothing else.
//!
//! A plugin is a dynamic library that exports one function, `herald_plugin_v1`, which returns a static table of C
//! functions. [`abi`] holds those tables exactly as C sees them; `include/herald_plugin.h` is generated from it. Rust
//! on either side never touches them: a backend implements the safe traits [`EngineLayer`], [`Tokenizer`] and
//! [`MemoryTier`] and writes [`export_plugin!`], and the host holds the safe handles of [`import`]. All of the
//! boundary's `unsafe` code lives in [`export`], [`import`], what both marshal with, and the views of a call.

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!(
    "HERALD runs on 64-bit little-endian machines only: it maps files that are larger than a 32-bit address space, and \
     computes on their little-endian numbers where they lie"
);

pub mod abi;
mod aligned;
mod dtype;
mod error;
pub mod export;
mod fetch;
mod forward_call;
mod hardware;
pub mod import;
mod layer;
mod layers;
pub mod layout;
mod lora;
mod marshal;
mod observer;
mod packs;
mod page;
mod parallel;
mod sequence;
mod tier;
mod tokenizer;
mod validate;

pub use aligned::AlignedBytes;
pub use dtype::DType;
pub use error::{Error, Result, Status};
pub use fetch::Fetch;
pub use forward_call::Call;
pub use hardware::{Hardware, Probe};
pub use layer::{EngineLayer, LayerFactory, LayerRequest, Weight};
pub use layers::*;
pub use lora::Lora;
pub use observer::{Observer, Product};
pub use packs::{KeptPack, Pack, PackKeeper, PackStore};
pub use page::{I16Rows, Page, Q4_GROUP, Q4Rows, q4_page_bytes};
pub use parallel::Parallel;
pub use sequence::{Sequence, Sequences};
pub use tier::{Found, MemoryTier, RawPage, TierConfig, TierFactory, TierKind, TierStats};
pub use tokenizer::{
    DecodeOptions, EncodeOptions, STRIP_LEFT, STRIP_RIGHT, TokenType, Tokenizer, TokenizerFactory, Vocabulary,
};

/// The Rust in docs/PLUGINS.md compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../docs/PLUGINS.md")]
struct PluginsPage;

/// So does README.md's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
