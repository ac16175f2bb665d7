//! Llama (arXiv 2302.13971), and what is built like it: Llama 2 and 3, SmolLM2, Mistral, ERNIE 4.5; Mixtral (arXiv 2401.04088),
//! Llama with mixtures of experts; Arcee, Llama with an MLP of squared ReLUs.

use herald_api::{Activation, RopeKind};

use crate::model::parts::{Builder, Experts, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let model = Builder::new(keys, |_| 1.0)?;
    // Converters reorder Llama's queries and keys so that neighbours turn against each other.
    let attention = usual_attention(keys, model.blocks, RopeKind::Neighbours)?;
    model.expert_blocks(attention, Activation::Silu, Experts::NORMALIZED)
}

/// Arcee.
pub(super) fn arcee(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let attention = usual_attention(keys, model.blocks, RopeKind::Neighbours)?;
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        model.attention(block, attention);
        model.plain_mlp(block, width, Activation::SquaredRelu);
    }
    model.finish(None)
}
