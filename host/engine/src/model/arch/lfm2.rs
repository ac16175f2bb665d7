//! LFM2 (arXiv 2511.23404): gated short convolutions, and in some blocks attention with normed queries and keys;
//! LFM2-MoE, the same with mixtures of experts after the first blocks.

use herald_api::{Activation, RopeKind, ShortConv};

use crate::model::parts::{Builder, Experts, attention_of_some};
use crate::model::{Keys, ModelError, ModelPlan};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    // The norm before the head goes by the embedding's name.
    if keys.has_tensor("token_embd_norm.weight") {
        model.output_norm = "token_embd_norm.weight";
    }
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let conv = ShortConv { taps: keys.size("shortconv.l_cache")? };
    let attention = attention_of_some(keys, model.blocks, RopeKind::Halves)?;
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        match attention {
            Some(attention) => model.attention(block, attention),
            None => model.short_conv(block, conv.clone()),
        }
        model.feed_forward(block, width, Activation::Silu, Experts::SIGMOID)?;
    }
    model.finish(None)
}
