//! Apertus (arXiv 2509.14233): Llama with norms of query and key heads and an MLP of xIELUs (arXiv 2411.13010), whose numbers are learned
//! block by block.

use herald_api::{Activation, RopeKind, WeightRole};

use crate::model::parts::{Builder, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    let blocks = model.blocks;
    let widths = keys.sizes("feed_forward_length", blocks)?;
    let numbers = |name| keys.floats_of_blocks(name, blocks);
    let (positive, negative) = (numbers("xielu.alpha_p")?, numbers("xielu.alpha_n")?);
    let (slopes, most) = (numbers("xielu.beta")?, numbers("xielu.eps")?);
    let attention = usual_attention(keys, blocks, RopeKind::Halves)?;
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        model.attention(block, attention);
        model.plain_mlp(block, width, Activation::Xielu);
        // The file has the numbers as they are trained.
        let slope = slopes[block];
        let numbers = [softplus(positive[block]), slope + softplus(negative[block]), slope, most[block]];
        model.constant(WeightRole::Xielu, numbers.to_vec());
    }
    model.finish(None)
}

fn softplus(x: f32) -> f32 {
    f64::from(x).exp().ln_1p() as f32
}
