//! The C face of the engine, for programs in C, C++ and all that speak C; `include/herald.h` is generated from here.
//!
//! It keeps the manners of the plugin ABI (see [`herald_api::abi`]): structs that begin with `struct_size` and are only
//! ever appended to, opaque handles, status codes, the caller's own buffer for one sentence about what failed. A field
//! that is zero has its default, so a struct that is zero but for its size is one that asks for nothing special, and a
//! caller built with an older, shorter struct asks for the defaults of what it doesn't know.
//!
//! Every function checks what it can of its arguments and lets no panic out. What no function can check is what the
//! header asks of the caller: that pointers point to what they say, for as long as the call runs, and that handles are
//! ones that were made here and not freed yet.
#![expect(
    clippy::missing_safety_doc,
    reason = "these comments become the header, which states the safety rules of all functions once, at its top"
)]

mod arguments;
mod chat;
mod contexts;
mod documents;
mod engine;
mod generate;
mod log;
mod run;
mod sequence;
mod status;
mod text;

pub use chat::*;
pub use contexts::*;
pub use documents::*;
pub use engine::*;
pub use generate::*;
pub use log::*;
pub use run::*;
pub use sequence::*;
pub use status::HERALD_STATUS_CONTEXT_FULL;
pub use text::*;

use herald_api::abi::AbiStruct;

macro_rules! structs {
    ($($name:ident up to $last:ident),* $(,)?) => {$(
        // SAFETY: the struct is repr(C) with struct_size first, and of numbers, raw pointers and optional functions.
        unsafe impl AbiStruct for $name {
            const NAME: &'static str = stringify!($name);
            const REQUIRED: usize = std::mem::offset_of!($name, $last) + field_size(|s: &$name| &raw const s.$last);
        }
    )*};
}

const fn field_size<S, F>(_: fn(&S) -> *const F) -> usize {
    size_of::<F>()
}

structs! {
    HeraldEngineOptions up to model_path,
    HeraldEngineInfo up to threads,
    HeraldGenerateOptions up to user_data,
    HeraldPiece up to logprob,
    HeraldGenerated up to finish,
    HeraldMessage up to content,
    HeraldMemoryUsage up to ratio,
    HeraldOptimized up to fragmentation_after,
    HeraldLeakStats up to grown_rss_bytes,
    HeraldHit up to word_rank,
}
