//! Falcon-H1 (arXiv 2507.22448): attention and Mamba-2 side by side on the same activations. Its many multipliers are in
//! the weights, where converters put them.

use herald_api::{Activation, RopeKind};

use crate::model::parts::{Builder, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan, recurrent};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let mamba = recurrent::mamba2(keys)?;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        model.attention(block, attention);
        model.mamba2(block, mamba.clone());
        model.share_input();
        model.gated_mlp(block, width, Activation::Silu);
    }
    model.finish(None)
}
