//! The cpu backend: scalar kernels under the shared layers, portable to every CPU, and the fallback for everything.

mod kernels;
mod recurrent;

use herald_api::{Hardware, Probe, Result, Tokenizer, TokenizerFactory, Vocabulary};
use herald_layers::{HasKernels, Kernels, Layers, Tiers};

pub use kernels::KERNELS;

/// The score of scalar code, beside which other backends rank themselves.
const SCORE: u32 = 100;

/// The cpu backend's kernels, for the shared layers.
pub struct Cpu;

impl HasKernels for Cpu {
    fn kernels() -> &'static Kernels {
        &KERNELS
    }
}

/// The model tokenizers, which every backend may offer.
pub struct Tokenizers;

impl TokenizerFactory for Tokenizers {
    fn create(vocabulary: &Vocabulary<'_>) -> Result<Box<dyn Tokenizer>> {
        herald_tokenizers::create(vocabulary)
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
