//! The engine's C interface, for C, C++ and every language that can call C; `include/herald.h` is generated from it.
//!
//! It follows the plugin ABI (see [`herald_api::abi`]): structs begin with `struct_size` and only ever grow at the end,
//! handles are opaque, calls return status codes, and the caller's buffer gets one sentence about a failure. Zero is every
//! field's default, so a struct of zeros but for its size requests nothing special, and a caller built with an older,
//! shorter struct gets the defaults of the fields that it doesn't know.
//!
//! Every function checks its arguments as far as it can, and lets no panic out. No function can check what herald.h
//! requires of the caller: that pointers are valid for as long as the call runs, and that handles were created here and
//! not freed. [`Call`](arguments::Call) stands for that promise.
#![expect(
    clippy::missing_safety_doc,
    reason = "these comments become the header, which states the safety rules of all functions once, at its top"
)]

mod arguments;
#[macro_use]
mod status;
mod chat;
mod contexts;
mod documents;
mod embed;
mod engine;
mod generate;
mod log;
mod metrics;
mod run;
mod scheduler;
mod sequence;
mod text;

pub use chat::*;
pub use contexts::*;
pub use documents::*;
pub use embed::*;
pub use engine::*;
pub use generate::*;
pub use log::*;
pub use metrics::*;
pub use run::*;
pub use scheduler::*;
pub use sequence::*;
pub use status::{HERALD_STATUS_CONTEXT_FULL, HERALD_STATUS_DEADLINE, HERALD_STATUS_QUEUE_FULL};
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
    HeraldSchedulerOptions up to prompt_piece,
    HeraldPrompt up to client,
    HeraldEvent up to generated,
}
