//! A table of kernels, entry by entry.

pub(super) mod activations;
pub(super) mod attend;
pub(super) mod delta;
pub(super) mod matmul;
pub(super) mod matrices;
pub(super) mod quantize_i16;
pub(super) mod recurrent;
pub(super) mod rows;
pub(super) mod vectors;

use proptest::prelude::*;

/// Cases of each property.
const CASES: u32 = 300;

/// Lengths of vectors: nothing, one, tails alone, and whole runs with any tail.
fn lens() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![1 => Just(0_usize), 1 => Just(1), 4 => 2_usize..40, 6 => 40_usize..300]
}
