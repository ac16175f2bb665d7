//! HERALD's engine: language models on ordinary CPUs, computed by plugins behind a stable C ABI.

pub mod agreement;
pub mod backend_choice;
mod constrain;
mod contexts;
mod engine;
mod error;
pub mod files;
pub mod folders;
pub mod gguf;
mod kv_cache;
mod lora;
pub mod metrics;
pub mod model;
mod options;
pub mod packs;
pub mod plugin;
pub mod sampler;
mod saved_file;
pub mod schedule;
mod speculation;
mod stop;
pub mod stream_text;
mod system;
pub mod threads;
mod tokenizer;

pub use constrain::Constraint;
pub use contexts::{Demoted, Input, ManagerOptions, MemoryLeakStats, MultiTierMemoryManager, Optimized};
pub use engine::{
    BatchEntry, EmbedOptions, Finish, GenerateOptions, Generated, LoadedState, NeuroEngine, SavedExtras,
    Sequence, ThinkingBudget, TokenOutput, Watched, WeightProduct, calibrate, calibrate_within,
};
pub use error::{Error, Result};
pub use herald_api::ActivationPrecision;
#[doc(inline)]
pub use herald_chat as chat;
pub use kv_cache::{CacheReport, Capacity, MemoryOptions, MemoryUsage, PageSelection, SelectionWatcher};
pub use lora::{Adapter, LoraFile, LoraScale};
pub use options::LoadOptions;
pub use saved_file::is_saved_sequence;
pub use stop::Stop;
pub use system::free_bytes;
pub use tokenizer::AscTokenizer;
