//! Gemma 3 (arXiv 2503.19786): five blocks that attend within a window for each one that attends to everything, each
//! kind with a RoPE base of its own; norms over query and key heads and after each branch; scaled embeddings.

use herald_api::{Activation, Mask, RopeKind, RopeScaling};

use crate::model::parts::{Builder, usual_attention, windowed};
use crate::model::{Keys, ModelError, ModelPlan};

/// Every sixth block attends to everything.
const PATTERN: usize = 6;

/// The blocks of the 27B, the only size whose attention is scaled differently.
const BLOCKS_OF_27B: usize = 62;

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let softcap = keys.optional_float("final_logit_softcapping")?.filter(|cap| *cap != 0.0);
    build(keys, Mask::Causal)?.finish(softcap)
}

/// EmbeddingGemma (arXiv 2509.20354): the same as an encoder, whose windows reach to both sides.
pub(super) fn embedding(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    build(keys, Mask::Bidirectional)?.finish_encoder(Some("output_norm.weight"))
}

fn build<'k, 'g>(keys: &'k Keys<'g>, mask: Mask) -> Result<Builder<'k, 'g>, ModelError> {
    let mut model = Builder::new(keys, |hidden| (hidden as f32).sqrt())?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let window = keys.size("attention.sliding_window")?;
    let window_base = keys.optional_float("rope.freq_base_swa")?.unwrap_or(10_000.0);
    let windowed = windowed(keys, model.blocks, PATTERN)?;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    for (block, (mut attention, width)) in attention.into_iter().zip(widths).enumerate() {
        if model.blocks == BLOCKS_OF_27B {
            attention.scale = 1.0 / (model.hidden as f32 / attention.n_heads as f32).sqrt();
        }
        attention.mask = mask;
        if windowed[block] {
            attention.window = Some(window);
            attention.rope_base = window_base;
            attention.rope_scaling = RopeScaling::None;
        }
        model.attention(block, attention);
        model.gated_mlp(block, width, Activation::GeluTanh);
    }
    Ok(model)
}
