//! What the benches run over: every backend's table of kernels.

use herald_layers::Kernels;

/// The backends' tables.
#[must_use]
pub fn tables() -> Vec<&'static Kernels> {
    vec![&herald_cpu::KERNELS]
}
