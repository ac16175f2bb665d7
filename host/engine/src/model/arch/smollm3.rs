//! SmolLM3: Llama in which every fourth block goes without RoPE (arXiv 2501.18795).

use herald_api::{Activation, RopeKind};

use crate::model::parts::{Builder, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

/// One in this many blocks has no RoPE.
const PATTERN: usize = 4;

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let model = Builder::new(keys, |_| 1.0)?;
    let mut attention = usual_attention(keys, model.blocks, RopeKind::Neighbours)?;
    for attention in attention.iter_mut().skip(PATTERN - 1).step_by(PATTERN) {
        attention.rope = RopeKind::None;
    }
    model.dense_blocks(attention, Activation::Silu)
}
