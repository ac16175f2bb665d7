//! GLM-4 (arXiv 2406.12793; the 0414 models): Llama with biases on queries, keys and values, RoPE over a part of each head,
//! norms after each branch too, and gate and up in one tensor. GLM-4.5 and 4.6 (arXiv 2508.06471): mixtures of experts with
//! probabilities of their own, without the norms after branches.

use herald_api::{Activation, RopeKind};

use crate::model::mtp::States;
use crate::model::parts::{Builder, Experts, POST_ATTENTION_NORM, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let model = Builder::new(keys, |_| 1.0)?;
    let attention = usual_attention(keys, model.blocks, RopeKind::Neighbours)?;
    model.dense_blocks(attention, Activation::Silu)
}

/// GLM-4.5.
pub(super) fn moe(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    model.ffn_norm = POST_ATTENTION_NORM;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    model.expert_blocks(attention, Activation::Silu, Experts::SIGMOID)
}

/// GLM-4.5's block for multi-token prediction.
pub(super) fn mtp(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::after_all(keys)?;
    let block = model.block_after();
    model.ffn_norm = POST_ATTENTION_NORM;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    model.attention(block, attention[block].clone());
    model.feed_forward(block, widths[block], Activation::Silu, Experts::SIGMOID)?;
    model.finish_after(States::OfBlocks)
}
