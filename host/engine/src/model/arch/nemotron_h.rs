//! Nemotron-H (arXiv 2504.03624) and Nemotron 3: each block is one branch, Mamba-2, attention without RoPE, an MLP of squared
//! ReLUs, or a mixture of such experts.

use herald_api::{Activation, RopeKind};

use crate::model::parts::{Builder, Experts, attention_of_some};
use crate::model::{Keys, ModelError, ModelPlan, recurrent};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    model.ffn_norm = "attn_norm.weight";
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let mamba = recurrent::mamba2(keys)?;
    let attention = attention_of_some(keys, model.blocks, RopeKind::None)?;
    let experts = Experts { gated: false, ..Experts::SIGMOID };
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        match (attention, width) {
            (Some(attention), _) => model.attention(block, attention),
            _ if model.has_experts(block) => model.moe(block, Activation::SquaredRelu, experts)?,
            (None, 0) => model.mamba2(block, mamba.clone()),
            (None, width) => model.plain_mlp(block, width, Activation::SquaredRelu),
        }
    }
    model.finish(None)
}
