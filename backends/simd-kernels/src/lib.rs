//! Explicit kernels for the vector instructions of x86 and AArch64, under the shared layers: for every backend that computes with
//! them, so it exports no plugin.
//!
//! - `simd`: what each instruction set's vectors can do, behind one trait of tokens that prove that the CPU has them;
//! - `packed`, `activations`, `matmul`: quantised weights, and matmuls with them;
//! - `floats`: matmuls with plain floats;
//! - `panels`: packed weights as float32, for other libraries' matmuls;
//! - `prefetch`: memory brought to a cache before it is read;
//! - `attend`: attention; `recurrent`: layers with recurrent states;
//! - `vectors`, `math`: everything else;
//! - `variants`: all of it compiled for each instruction set, one of which is chosen at load.

#![cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]

mod activations;
mod attend;
mod delta;
mod floats;
mod math;
mod matmul;
mod packed;
mod panels;
mod prefetch;
mod recurrent;
mod simd;
mod variants;
mod vectors;

use std::sync::OnceLock;

use herald_api::{Error, Hardware, Result};

pub use panels::Unpack;
pub use variants::{VARIANTS, Variant};

/// The environment variable that names a variant to use in place of the best.
const CHOICE: &str = "HERALD_SIMD";

/// What is said of a CPU that runs no variant.
#[cfg(target_arch = "x86_64")]
const NONE: &str = "this CPU has none of AVX2 with FMA and F16C, and AVX-512";
#[cfg(target_arch = "aarch64")]
const NONE: &str = "this CPU has no NEON";

/// The variant in use, chosen at the first call: the best that this CPU runs, or the one that `HERALD_SIMD` names.
///
/// # Errors
/// Where this CPU runs none, or not the one that is named.
pub fn chosen() -> Result<&'static Variant> {
    static CHOSEN: OnceLock<Result<&'static Variant>> = OnceLock::new();
    CHOSEN
        .get_or_init(|| choose(std::env::var(CHOICE).ok().filter(|name| !name.is_empty()).as_deref()))
        .clone()
}

/// The named variant, or the best, if this CPU runs it.
fn choose(name: Option<&str>) -> Result<&'static Variant> {
    let hardware = Hardware::features_only();
    let names = || VARIANTS.iter().map(|variant| variant.name).collect::<Vec<_>>().join(", ");
    match name {
        None => {
            VARIANTS.iter().find(|variant| variant.runs_on(&hardware)).ok_or_else(|| Error::unsupported(NONE))
        }
        Some(name) => {
            let variant = VARIANTS.iter().find(|variant| variant.name == name).ok_or_else(|| {
                Error::invalid(format!("{CHOICE} is {name:?}, where one of these was expected: {}", names()))
            })?;
            let missing = hardware.names_of_missing(variant.features).join(", ");
            if variant.runs_on(&hardware) {
                Ok(variant)
            } else if missing.is_empty() {
                Err(Error::invalid(format!(
                    "{CHOICE} is {name:?}, and this process may not use it on this system"
                )))
            } else {
                Err(Error::invalid(format!("{CHOICE} is {name:?}, and this CPU doesn't have {missing}")))
            }
        }
    }
}
