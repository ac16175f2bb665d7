//! The blas backend: matrix products of large batches through the system's BLAS, all else through the simd kernels, or on
//! architectures without those through scalar ones.
//!
//! Nothing is linked: the library is looked for when the backend is first probed (`library`). Without one the probe says so,
//! and the host leaves the backend out.

mod library;
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), path = "beside_scalar.rs")]
mod matmul;
mod trust;

use std::sync::OnceLock;

use herald_api::{Error, Hardware, Probe, Result};
use herald_layers::{HasKernels, Kernels, Layers, Tiers};
use herald_tokenizers::Tokenizers;

use library::Library;
use matmul::Beside;

/// Above scalar code, which scores 100, and below AVX2's own kernels, which multiply quantised weights as integers. Measuring (`host backends --calibrate`) finds where a batch goes faster through BLAS.
const SCORE: u32 = 250;

/// What computes.
struct Chosen {
    library: &'static Library,
    beside: &'static Beside,
    kernels: Kernels,
    variant: String,
}

/// The library, and the kernels for all else, chosen when the backend is first probed.
fn chosen() -> &'static Result<Chosen> {
    static CHOSEN: OnceLock<Result<Chosen>> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let library = library::found().as_ref().map_err(Error::clone)?;
        let beside = matmul::beside()?;
        let kernels = Kernels {
            name: "blas",
            is_batch_invariant: false,
            matmul: matmul::matmul,
            gemm: matmul::gemm,
            ..*beside.kernels
        };
        Ok(Chosen { library, beside, kernels, variant: format!("{}, {}", library.name(), beside.name) })
    })
}

/// The blas backend's kernels, for the shared layers.
pub struct Blas;

impl HasKernels for Blas {
    fn kernels() -> &'static Kernels {
        kernels().unwrap_or_else(|error| panic!("the blas backend was used where it doesn't run: {error}"))
    }
}

/// The table of kernels.
///
/// # Errors
/// Where no BLAS is found, or this CPU has no simd variant.
pub fn kernels() -> Result<&'static Kernels> {
    chosen().as_ref().map(|chosen| &chosen.kernels).map_err(Error::clone)
}

fn probe(_: &Hardware) -> Result<Probe> {
    let chosen = chosen().as_ref().map_err(Error::clone)?;
    Ok(Probe { score: SCORE, variant: chosen.variant.clone() })
}

herald_api::export_plugin! {
    name: "blas",
    version: env!("CARGO_PKG_VERSION"),
    description: "Batched products through the system's BLAS, the rest through SIMD kernels",
    probe: probe,
    layers: Layers<Blas>,
    tokenizers: Tokenizers,
    tiers: Tiers,
}
