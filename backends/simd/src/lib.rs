//! The simd backend: explicit kernels for x86's vector instructions, under the shared layers.
//!
//! - [`lanes`]: what each instruction set's vectors can do, behind one trait;
//! - [`packed`], [`activations`], [`products`]: quantised weights, and products with them;
//! - [`floats`]: products with plain floats;
//! - [`recurrent`]: layers with recurrent states;
//! - [`attend`], [`vectors`], [`math`]: everything else;
//! - [`variants`]: all of it compiled for each instruction set, chosen once at load.

#![cfg(target_arch = "x86_64")]

mod activations;
mod attend;
mod floats;
mod lanes;
mod math;
mod packed;
mod products;
mod recurrent;
mod variants;
mod vectors;

use std::sync::OnceLock;

use herald_api::{Error, Hardware, Probe, Result, Tokenizer, TokenizerFactory, Vocabulary};
use herald_layers::{HasKernels, Kernels, Layers, RamTiers};

pub use variants::{VARIANTS, Variant};

/// The variable that names a variant to use in place of the best.
const CHOICE: &str = "HERALD_SIMD";

/// The variant in use, chosen when the backend is first asked about its machine.
fn chosen() -> &'static Result<&'static Variant> {
    static CHOSEN: OnceLock<Result<&'static Variant>> = OnceLock::new();
    CHOSEN.get_or_init(|| choose(std::env::var(CHOICE).ok().filter(|name| !name.is_empty()).as_deref()))
}

/// The variant of a name, or the best, as far as this CPU runs it.
fn choose(name: Option<&str>) -> Result<&'static Variant> {
    let hardware = Hardware::detect(1, 0);
    let names = || VARIANTS.iter().map(|variant| variant.name).collect::<Vec<_>>().join(", ");
    match name {
        None => VARIANTS
            .iter()
            .find(|variant| variant.runs_on(&hardware))
            .ok_or_else(|| Error::unsupported("this CPU has none of AVX2 with FMA and F16C, and AVX-512")),
        Some(name) => {
            let variant = VARIANTS.iter().find(|variant| variant.name == name).ok_or_else(|| {
                Error::unsupported(format!(
                    "{CHOICE} is {name:?}, where one of these was expected: {}",
                    names()
                ))
            })?;
            if variant.runs_on(&hardware) {
                Ok(variant)
            } else {
                Err(Error::unsupported(format!("{CHOICE} is {name:?}, which this CPU doesn't have")))
            }
        }
    }
}

/// The simd backend's kernels, for the shared layers.
pub struct Simd;

impl HasKernels for Simd {
    fn kernels() -> &'static Kernels {
        // The host asks first whether the backend runs here; whoever doesn't gets what runs everywhere that it builds for.
        match chosen() {
            Ok(variant) => variant.kernels,
            Err(error) => panic!("the simd backend was used where it doesn't run: {error}"),
        }
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
    let variant = chosen().as_ref().map_err(Error::clone)?;
    Ok(Probe { score: variant.score, variant: variant.name.to_owned() })
}

herald_api::export_plugin! {
    name: "simd",
    version: env!("CARGO_PKG_VERSION"),
    description: "Explicit SIMD kernels: AVX2, AVX-512, AVX-512 VNNI",
    probe: probe,
    layers: Layers<Simd>,
    tokenizers: Tokenizers,
    tiers: RamTiers,
}
