//! Hunyuan, dense and with mixtures of experts (arXiv 2411.02265): Llama with norms of query and key heads after RoPE, which turns
//! halves.

use herald_api::{Activation, RopeKind};

use crate::model::parts::{Builder, Experts, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    model.norms_after_rope = true;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    model.expert_blocks(attention, Activation::Silu, Experts::NORMALIZED)
}
