//! What HERALD's backends share: layers and memory tiers, written once over a backend's table of kernels, and the
//! quantised block formats.
//!
//! A backend fills a [`Kernels`] table and exports [`Layers`] over it; [`Tiers`] it may export as they are.

mod arena;
mod attention;
mod conv;
mod ends;
mod factory;
pub mod fallback;
mod far;
pub mod kernels;
mod linear;
mod mamba1;
mod mamba2;
pub mod matmul;
mod mlp;
mod moe;
mod norm;
mod rope;
mod shared;
mod short_conv;
mod state;
#[cfg(feature = "suite")]
pub mod suite;
mod tiers;
mod weights;

pub use factory::{HasKernels, Layers};
pub use herald_formats as quant;
pub use kernels::Kernels;
pub use tiers::Tiers;
