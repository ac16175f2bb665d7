//! GPT-2: learned positions in place of RoPE, layer norms, biases everywhere, an MLP of GELUs. StarCoder2 (arXiv 2402.19173): the
//! same with RoPE and fewer KV heads.

use herald_api::{Activation, RopeKind};

use crate::model::parts::{Builder, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    build(keys, RopeKind::None)
}

/// StarCoder2.
pub(super) fn starcoder2(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    build(keys, RopeKind::Halves)
}

fn build(keys: &Keys<'_>, rope: RopeKind) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    model.use_layer_norms()?;
    if rope == RopeKind::None {
        model.embedding_parts()?;
    }
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let attention = usual_attention(keys, model.blocks, rope)?;
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        model.attention(block, attention);
        model.plain_mlp(block, width, Activation::GeluTanh);
    }
    model.finish(None)
}
