//! HERALD's engine: language models on ordinary CPUs, computed by plugins behind a stable C ABI.

pub mod backend_choice;
pub mod chat;
mod constrain;
mod contexts;
mod engine;
mod error;
pub mod gguf;
mod kv_cache;
pub mod metrics;
pub mod model;
pub mod plugin;
pub mod sampler;
pub mod schedule;
pub mod stream_text;
pub mod threads;
mod tokenizer;

pub use constrain::Constraint;
pub use contexts::{Input, ManagerOptions, MemoryLeakStats, Moved, MultiTierMemoryManager, Optimized};
pub use engine::{
    Extras, Finish, GenerateOptions, Generated, LoadOptions, NeuroEngine, Part, Piece, Restored, Sequence,
    calibrate,
};
pub use error::{Error, Result};
pub use kv_cache::{Capacity, Choice, ChoiceWatcher, MemoryOptions, MemoryUsage};
pub use tokenizer::AscTokenizer;
