//! EXAONE 4.0 (arXiv 2507.11407): branches norm what they give, queries and keys are normed head by head. The 32B attends
//! within a window in three blocks of four, and without RoPE in the others.

use herald_api::{Activation, RopeKind};

use crate::model::parts::{Builder, usual_attention, windowed};
use crate::model::{Keys, ModelError, ModelPlan};

/// Every fourth block attends to everything.
const PATTERN: usize = 4;

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let model = Builder::new(keys, |_| 1.0)?;
    let mut attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    if let Some(window) = keys.optional_size("attention.sliding_window")? {
        for (attention, windowed) in attention.iter_mut().zip(windowed(keys, model.blocks, PATTERN)?) {
            if windowed {
                attention.window = Some(window);
            } else {
                attention.rope = RopeKind::None;
            }
        }
    }
    model.dense_blocks(attention, Activation::Silu)
}
