//! Writes GGUF files: [`quantize`] converts a model to another element type, [`synth`] writes one with a real model's shape
//! and random weights. [`imatrix`] reads and writes what a quantiser may know of a model's activations.

pub mod bert;
pub mod imatrix;
pub mod quantize;
pub mod synth;
