//! Nemotron-H (arXiv 2504.03624): each block is one branch, Mamba-2, attention without RoPE, or an MLP of squared ReLUs.

use herald_api::{Activation, LayerParams, Mlp, RopeKind, WeightRole};

use crate::model::parts::{Builder, attention_of_some};
use crate::model::{Keys, ModelError, ModelPlan, recurrent};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let mamba = recurrent::mamba2(keys)?;
    let attention = attention_of_some(keys, model.blocks, RopeKind::None)?;
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        match (attention, width) {
            (Some(attention), _) => model.attention(block, attention),
            (None, 0) => model.mamba2(block, mamba.clone()),
            (None, width) => {
                let weights = model.weights(
                    block,
                    &[
                        (WeightRole::Norm, "attn_norm.weight"),
                        (WeightRole::Up, "ffn_up.weight"),
                        (WeightRole::Down, "ffn_down.weight"),
                    ],
                    &[],
                );
                let mlp = Mlp { width, activation: Activation::SquaredRelu, gated: false };
                model.push(block, LayerParams::Mlp(mlp), weights);
            }
        }
    }
    model.finish(None)
}
