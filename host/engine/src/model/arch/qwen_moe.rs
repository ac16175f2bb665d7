//! Qwen1.5-MoE and Qwen2-MoE, and Qwen3-MoE (arXiv 2505.09388): Qwen with mixtures of experts.

use herald_api::{Activation, RopeKind};

use crate::model::parts::{Builder, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

/// Qwen2-MoE: an expert's weight is its share among all experts, and there is an expert that all tokens use.
pub(super) fn qwen2(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    build(keys, false)
}

/// Qwen3-MoE: the weights of a token's experts add up to 1.
pub(super) fn qwen3(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    build(keys, true)
}

fn build(keys: &Keys<'_>, normalize: bool) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        model.attention(block, attention);
        if model.has_experts(block) {
            model.moe(block, normalize)?;
        } else {
            model.gated_mlp(block, width, Activation::Silu);
        }
    }
    model.finish(None)
}
