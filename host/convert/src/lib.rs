//! Writes GGUF files: [`checkpoint`] converts published checkpoints, [`quantize`] a model to another element type, [`parts`] splits and
//! merges files, [`synth`] writes one with a real model's shape and random weights. [`imatrix`] reads and writes what a quantiser may know of a model's activations.

pub mod bert;
pub mod checkpoint;
pub mod imatrix;
pub mod parts;
pub mod quantize;
pub mod synth;
