//! What HERALD's backends share: layers and memory tiers, written once over a backend's table of kernels.
//!
//! A backend fills a [`Kernels`] table and exports [`Layers`] over it; it may export [`Tiers`] as they are.

mod attention;
mod conv;
mod delta_net;
mod disjoint_slice;
mod embedding;
mod factory;
pub mod fallback;
mod feed_forward;
mod head;
pub mod kernels;
mod layer;
mod linear;
mod lora;
mod mamba1;
mod mamba2;
pub mod matmul;
mod mlp;
mod moe;
mod norm;
mod observed;
mod page_selection;
mod paging;
mod parallel;
mod per_layer_embedding;
mod recurrent_state;
mod rope;
mod scratch;
mod short_conv;
#[cfg(feature = "suite")]
pub mod suite;
mod tiers;
mod weights;

pub use factory::{HasKernels, Layers};
pub use kernels::Kernels;
pub use tiers::Tiers;
