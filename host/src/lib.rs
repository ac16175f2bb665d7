//! HERALD's engine: language models on ordinary CPUs, computed by plugins behind a stable C ABI.

pub mod bench;
pub mod capi;
pub mod chat;
pub mod choose;
mod constrain;
mod engine;
mod error;
pub mod gguf;
mod manager;
mod memory;
pub mod metrics;
pub mod model;
pub mod plugin;
pub mod quantize;
pub mod sampler;
pub mod schedule;
pub mod serve;
pub mod synth;
pub mod text;
mod text_memory;
pub mod threads;
mod tokenizer;

pub use constrain::Constraint;
pub use engine::{
    Extras, Finish, GenerateOptions, Generated, LoadOptions, NeuroEngine, Part, Piece, Restored, Sequence,
    calibrate,
};
pub use error::{Error, Result};
pub use manager::{Input, ManagerOptions, MemoryLeakStats, Moved, MultiTierMemoryManager, Optimized};
pub use memory::{Capacity, Choice, ChoiceWatcher, MemoryOptions, MemoryUsage};
pub use text_memory::{
    Damaged, DocumentInfo, Hit, PROMPT_TEMPLATE, Recalled, TextMemory, TextMemoryOptions, TextMemoryUsage,
    TextStore,
};
pub use tokenizer::AscTokenizer;
