//! The cpu backend: scalar kernels under the shared layers, portable to every CPU, and the fallback for everything.

mod kernels;
mod recurrent;
mod vectors;

use herald_api::{Hardware, Probe, Result};
use herald_layers::{HasKernels, Kernels, Layers, Tiers};
use herald_tokenizers::Tokenizers;

pub use kernels::KERNELS;

/// The score of scalar code: other backends rank themselves relative to it.
const SCORE: u32 = 100;

/// The cpu backend's kernels, for the shared layers.
pub struct Cpu;

impl HasKernels for Cpu {
    fn kernels() -> &'static Kernels {
        &KERNELS
    }
}

fn probe(_: &Hardware) -> Result<Probe> {
    Ok(Probe { score: SCORE, variant: "scalar".to_owned() })
}

herald_api::export_plugin! {
    name: "cpu",
    version: env!("CARGO_PKG_VERSION"),
    description: "The reference: plain scalar kernels, on every CPU",
    probe: probe,
    layers: Layers<Cpu>,
    tokenizers: Tokenizers,
    tiers: Tiers,
}
