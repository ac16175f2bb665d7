//! Gemma 2 (arXiv 2408.00118): every other block attends within a window; scores and logits are capped, branches normed
//! before and after, embeddings scaled.

use herald_api::{Activation, RopeKind};

use crate::model::parts::{Builder, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

/// The blocks of the 27B, the only size whose attention is scaled differently.
const BLOCKS_OF_27B: usize = 46;

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |hidden| (hidden as f32).sqrt())?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let window = keys.size("attention.sliding_window")?;
    let softcap = |key| Ok::<_, ModelError>(keys.optional_float(key)?.filter(|cap| *cap != 0.0));
    let score_cap = softcap("attn_logit_softcapping")?;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    for (block, (mut attention, width)) in attention.into_iter().zip(widths).enumerate() {
        if model.blocks == BLOCKS_OF_27B {
            attention.scale = 1.0 / (model.hidden as f32 / attention.n_heads as f32).sqrt();
        }
        attention.softcap = score_cap;
        attention.window = block.is_multiple_of(2).then_some(window);
        model.attention(block, attention);
        model.gated_mlp(block, width, Activation::GeluTanh);
    }
    model.finish(softcap("final_logit_softcapping")?)
}
