//! Every backend's kernels.

use herald_layers::Kernels;

/// The kernel tables that run on this machine: the scalar one, each SIMD variant's, and BLAS's if a BLAS is found.
pub(crate) fn tables() -> Vec<&'static Kernels> {
    let mut tables = vec![&herald_cpu::KERNELS];
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
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
