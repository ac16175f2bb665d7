//! Gemma (arXiv 2403.08295): Llama with scaled embeddings, an MLP of GELUs, and heads of a size of their own.

use herald_api::{Activation, RopeKind};

use crate::model::parts::{Builder, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let model = Builder::new(keys, |hidden| (hidden as f32).sqrt())?;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    model.dense_blocks(attention, Activation::GeluTanh)
}
