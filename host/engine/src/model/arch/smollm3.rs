//! SmolLM3: Llama in which every fourth block goes without RoPE (arXiv 2501.18795).

use herald_api::{Activation, RopeKind};

use crate::model::parts::{Builder, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

/// One in this many blocks has no RoPE.
const PATTERN: usize = 4;

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let attention = usual_attention(keys, model.blocks, RopeKind::Neighbours)?;
    for (block, (mut attention, width)) in attention.into_iter().zip(widths).enumerate() {
        if (block + 1).is_multiple_of(PATTERN) {
            attention.rope = RopeKind::None;
        }
        model.attention(block, attention);
        model.gated_mlp(block, width, Activation::Silu);
    }
    model.finish(None)
}
