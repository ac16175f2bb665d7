//! Qwen2 and Qwen2.5 (arXiv 2407.10671): Llama with biases on queries, keys and values, and RoPE over halves. Qwen3's files
//! (arXiv 2505.09388) have norms over each query and key head in place of biases; so have those of Qwen3-VL (arXiv 2511.21631).
//! Seed-OSS gives the MLP's norm another name.

use herald_api::{Activation, RopeKind};

use crate::model::parts::{Builder, POST_ATTENTION_NORM, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    build(keys, Builder::new(keys, |_| 1.0)?)
}

/// The language model of Qwen3-VL. A text's three positions (time, height, width) are the same, so sections make no
/// difference to RoPE; images, which HERALD doesn't read, would add to the first blocks' results.
pub(super) fn qwen3_vl(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    keys.disregard(&["rope.dimension_sections", "n_deepstack_layers"]);
    plan(keys)
}

/// Seed-OSS.
pub(super) fn seed_oss(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    model.ffn_norm = POST_ATTENTION_NORM;
    build(keys, model)
}

fn build(keys: &Keys<'_>, model: Builder<'_, '_>) -> Result<ModelPlan, ModelError> {
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    model.dense_blocks(attention, Activation::Silu)
}
