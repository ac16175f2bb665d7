//! HERALD's engine: language models on ordinary CPUs, computed by plugins behind a stable C ABI.

pub mod chat;
pub mod gguf;
pub mod sampler;
pub mod text;
pub mod threads;
