//! DeepSeek-V2 (arXiv 2405.04434), V3 (arXiv 2412.19437) and what is built like them, such as GLM-4.7-Flash: latent attention, and
//! mixtures of experts after the first blocks.

use herald_api::{Activation, RopeKind};

use crate::model::experts::Experts;
use crate::model::latent::{check, latent_attention};
use crate::model::mtp::States;
use crate::model::parts::Builder;
use crate::model::{Keys, ModelError, ModelPlan};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    check(keys, "attention.head_count_kv", 1, "the latent")?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let attention = latent_attention(keys, RopeKind::Neighbours)?;
    check(keys, "attention.value_length", attention.value_dim, "the latent")?;
    for (block, width) in widths.into_iter().enumerate() {
        model.latent_attention(block, attention.clone());
        model.feed_forward(block, width, Activation::Silu, Experts::SHARES)?;
    }
    model.finish(None)
}

/// The block for multi-token prediction.
pub(super) fn mtp(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::after_all(keys)?;
    let block = model.block_after();
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    model.latent_attention(block, latent_attention(keys, RopeKind::Neighbours)?);
    model.feed_forward(block, widths[block], Activation::Silu, Experts::SHARES)?;
    model.finish_after(States::OfBlocks)
}
