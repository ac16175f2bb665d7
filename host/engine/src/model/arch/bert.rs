//! Encoders, which make embeddings: BERT (arXiv 1810.04805) and what is built like it (RoBERTa, MiniLM, BGE, E5), whose norms come after the
//! sum of residual and branch; Nomic's (arXiv 2402.01613), BERT with RoPE and gates; ModernBERT (arXiv 2412.13663), with norms at
//! the entry, and two blocks that attend within a window on both sides for each that attends to everything.

use herald_api::{Activation, Mask, RopeKind};

use crate::model::parts::{Builder, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

/// Every third block of ModernBERT attends to everything, from the first on.
const PATTERN: usize = 3;

/// BERT: learned positions and token types, of which texts by themselves have the first.
pub(super) fn bert(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    model.use_layer_norms()?;
    model.embedding_parts()?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let attention = usual_attention(keys, model.blocks, RopeKind::None)?;
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        model.attention(block, attention);
        model.plain_mlp(block, width, Activation::Gelu);
    }
    model.finish_encoder(None)
}

pub(super) fn nomic(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    model.use_layer_norms()?;
    model.embedding_parts()?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        model.attention(block, attention);
        model.gated_mlp(block, width, Activation::Silu);
    }
    model.finish_encoder(None)
}

pub(super) fn modern(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    // Converters write the same number as that of RMS norms, and how a classifier would pool.
    keys.disregard(&["attention.layer_norm_rms_epsilon", "classifier.pooling_type"]);
    let activation = keys.optional_text("hidden_activation")?.unwrap_or("gelu");
    if activation != "gelu" {
        return Err(keys.bad("hidden_activation", activation, "gelu".to_owned()));
    }
    if keys.optional_flag("attention.causal")? == Some(true) {
        return Err(keys.bad("attention.causal", true, "false: windows reach to both sides".to_owned()));
    }
    model.use_layer_norms()?;
    model.embedding_parts()?;
    // The first block reads the normed embeddings.
    model.may_lack_norm = true;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let window = keys.size("attention.sliding_window")?;
    let pattern = keys.optional_size("attention.sliding_window_pattern")?.unwrap_or(PATTERN);
    let window_base = keys.optional_float("rope.freq_base_swa")?;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    for (block, (mut attention, width)) in attention.into_iter().zip(widths).enumerate() {
        attention.mask = Mask::Bidirectional;
        if !block.is_multiple_of(pattern) {
            attention.window = Some(window);
            attention.rope_base = window_base.unwrap_or(attention.rope_base);
        }
        model.attention(block, attention);
        model.gated_mlp(block, width, Activation::Gelu);
    }
    model.finish_encoder(Some("output_norm.weight"))
}
