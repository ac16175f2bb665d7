//! Granite 3 and 4: Llama with multipliers for embeddings, attention, residual branches and logits, dense or with mixtures
//! of experts; and the hybrids of Granite 4 (granite-4.0-h), most of whose blocks are Mamba-2.

use herald_api::{Activation, Attention, Mamba2, RopeKind};

use crate::model::parts::{Builder, Experts, attention_of_some, no_heads};
use crate::model::{Keys, ModelError, ModelPlan, recurrent};

/// Granite and its mixtures of experts.
pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    // Converters reorder queries and keys as they do Llama's.
    build(keys, RopeKind::Neighbours, None)
}

/// The hybrids, whose attention goes without RoPE unless the file says otherwise.
pub(super) fn hybrid(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let rope = if keys.flag("rope.scaling.finetuned")? { RopeKind::Neighbours } else { RopeKind::None };
    build(keys, rope, Some(recurrent::mamba2(keys)?))
}

fn build(keys: &Keys<'_>, rope: RopeKind, mamba: Option<Mamba2>) -> Result<ModelPlan, ModelError> {
    let embedding_scale = keys.optional_float("embedding_scale")?.unwrap_or(1.0);
    let mut model = Builder::new(keys, |_| embedding_scale)?;
    model.residual_scale = keys.optional_float("residual_scale")?.unwrap_or(1.0);
    model.logit_scale = match keys.optional_float("logit_scale")? {
        Some(0.0) => {
            return Err(keys.bad("logit_scale", 0, "a number that logits can be divided by".to_owned()));
        }
        Some(scale) => 1.0 / scale,
        None => 1.0,
    };
    let scale = keys.optional_float("attention.scale")?.filter(|scale| *scale != 0.0);
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let attention = attention_of_some(keys, model.blocks, rope)?;
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        match (attention, &mamba) {
            (Some(attention), _) => {
                let scale = scale.unwrap_or(attention.scale);
                model.attention(block, Attention { scale, ..attention });
            }
            (None, Some(mamba)) => model.mamba2(block, mamba.clone()),
            (None, None) => return Err(no_heads(keys, block)),
        }
        model.feed_forward(block, width, Activation::Silu, Experts::NORMALIZED)?;
    }
    model.finish(None)
}
