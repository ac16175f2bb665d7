//! A HERALD plugin in Rust, to copy and change. It offers one kind of engine layer (the gated MLP over float32
//! weights) and a tokenizer (greedy longest match), and leaves everything else to the next plugin.
//!
//! There is no `unsafe` in it: `herald_api::export_plugin!` turns the safe traits into the C table that the host loads.

mod mlp;
mod tokenizer;

use herald_api::{Hardware, Probe, Result};

/// Half of scalar code's score: used only if the user names this backend.
fn probe(_: &Hardware) -> Result<Probe> {
    Ok(Probe { score: 50, variant: "rust".to_owned() })
}

// The plugin's one exported symbol, whose fixed name counts as `unsafe_code`.
#[allow(unsafe_code)]
mod entry {
    herald_api::export_plugin! {
        name: "example-rust",
        version: env!("CARGO_PKG_VERSION"),
        description: "An example in Rust: a gated MLP and a longest-match tokenizer",
        probe: crate::probe,
        layers: crate::mlp::Layers,
        tokenizers: crate::tokenizer::Tokenizers,
    }
}
