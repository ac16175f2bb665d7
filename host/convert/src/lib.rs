//! Writes GGUF files: [`quantize`] converts a model to another element type, [`synth`] writes one with a real model's shape
//! and random weights.

pub mod quantize;
pub mod synth;
