//! Qwen2 and Qwen2.5 (arXiv 2407.10671): Llama with biases on queries, keys and values, and RoPE over halves.

use herald_api::{Activation, RopeKind};

use crate::model::parts::{Builder, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        model.attention(block, attention);
        model.gated_mlp(block, width, Activation::Silu);
    }
    model.finish(None)
}
