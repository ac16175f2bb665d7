//! What the benches share: every backend's kernels, this machine's limits, and the summary that sets the one beside the
//! other.

mod matrix;
mod summary;

use herald_layers::Kernels;

pub use matrix::{Matrix, weights};
pub use summary::{Share, Summary};

/// The tables of kernels that run on this machine: the scalar ones, each SIMD variant's, and BLAS's where there is one.
#[must_use]
pub fn tables() -> Vec<&'static Kernels> {
    let mut tables = vec![&herald_cpu::KERNELS];
    #[cfg(target_arch = "x86_64")]
    {
        let hardware = herald_api::Hardware::features_only();
        let variants = herald_simd::VARIANTS.iter().rev();
        tables.extend(variants.filter(|variant| variant.runs_on(&hardware)).map(|variant| variant.kernels));
        match herald_blas::kernels() {
            Ok(kernels) => tables.push(kernels),
            Err(error) => eprintln!("blas is left out: {error}"),
        }
    }
    tables
}
