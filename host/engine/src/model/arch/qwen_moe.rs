//! Qwen1.5-MoE and Qwen2-MoE, Qwen3-MoE (arXiv 2505.09388), and OLMoE (arXiv 2409.02060), which is Qwen2-MoE with norms over
//! all queries and all keys: transformers with mixtures of experts.

use herald_api::{Activation, RopeKind};

use crate::model::parts::{Builder, Experts, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

/// Qwen2-MoE: an expert's weight is its share among all experts, and there is an expert that all tokens use.
pub(super) fn qwen2(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    build(keys, RopeKind::Halves, Experts::SHARES)
}

/// Qwen3-MoE: the weights of a token's experts add up to 1.
pub(super) fn qwen3(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    build(keys, RopeKind::Halves, Experts::NORMALIZED)
}

/// MiniMax-M2: experts with probabilities of their own, RoPE over a part of each head, norms over all queries and all keys.
pub(super) fn minimax_m2(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    build(keys, RopeKind::Halves, Experts::SIGMOID)
}

/// ERNIE 4.5's mixtures: the first blocks are dense, and some experts are used by all tokens. Converters reorder queries and
/// keys as they do Llama's.
pub(super) fn ernie4_5(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    build(keys, RopeKind::Neighbours, Experts::NORMALIZED)
}

fn build(keys: &Keys<'_>, rope: RopeKind, experts: Experts) -> Result<ModelPlan, ModelError> {
    let model = Builder::new(keys, |_| 1.0)?;
    let attention = usual_attention(keys, model.blocks, rope)?;
    model.expert_blocks(attention, Activation::Silu, experts)
}
