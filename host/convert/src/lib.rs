//! Makes GGUF files: [`quantize`] writes a model in another element type, [`synth`] one of a real model's shape with
//! random weights.

pub mod quantize;
pub mod synth;
