//! The simd backend: explicit kernels for the vector instructions of x86 and AArch64 (`herald-simd-kernels`), under the shared layers.

#![cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]

use herald_api::{Hardware, Probe, Result};
use herald_layers::{HasKernels, Kernels, Layers, Tiers};
use herald_simd_kernels::chosen;
use herald_tokenizers::Tokenizers;

pub use herald_simd_kernels::{VARIANTS, Variant};

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

#[cfg(target_arch = "x86_64")]
const DESCRIPTION: &str = "Explicit SIMD kernels: AVX2, AVX-512, AVX-512 VNNI, AMX";
#[cfg(target_arch = "aarch64")]
const DESCRIPTION: &str = "Explicit SIMD kernels: NEON, dot products, matrix products";

fn probe(_: &Hardware) -> Result<Probe> {
    let variant = chosen()?;
    Ok(Probe { score: variant.score, variant: variant.name.to_owned() })
}

herald_api::export_plugin! {
    name: "simd",
    version: env!("CARGO_PKG_VERSION"),
    description: DESCRIPTION,
    probe: probe,
    layers: Layers<Simd>,
    tokenizers: Tokenizers,
    tiers: Tiers,
}
