//! Jamba (arXiv 2403.19887): Mamba and, every few blocks, attention without RoPE, each with an MLP or a mixture of experts.

use herald_api::{Activation, RopeKind};

use crate::model::parts::{Builder, Experts, attention_of_some};
use crate::model::{Keys, ModelError, ModelPlan, recurrent};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let mamba = recurrent::mamba1(keys)?;
    let attention = attention_of_some(keys, model.blocks, RopeKind::None)?;
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        match attention {
            Some(attention) => model.attention(block, attention),
            None => model.mamba1(block, mamba.clone()),
        }
        model.feed_forward(block, width, Activation::Silu, Experts::SHARES)?;
    }
    model.finish(None)
}
