//! Ministral 3: Llama with YaRN and a temperature by position.

use herald_api::{Activation, Attention, RopeKind, RopeScaling, WeightRole};

use crate::model::parts::{Builder, Experts, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let temperature = temperature(keys)?;
    let all_dims = keys.optional_float("rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0);
    let attention = usual_attention(keys, model.blocks, RopeKind::Neighbours)?;
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        model.attention(block, with_multiplier(attention, all_dims));
        if let Some(numbers) = &temperature {
            model.constant(WeightRole::Temperature, numbers.clone());
        }
        model.feed_forward(block, width, Activation::Silu, Experts::NORMALIZED)?;
    }
    model.finish(None)
}

/// By how much the temperature rises, and over how many positions.
fn temperature(keys: &Keys<'_>) -> Result<Option<Vec<f32>>, ModelError> {
    let slope = keys.optional_float("attention.temperature_scale")?.filter(|slope| *slope != 0.0);
    let length = keys.optional_size("attention.temperature_length")?;
    let Some(slope) = slope else { return Ok(None) };
    let length = match length {
        Some(length) => length,
        None => keys.size("rope.scaling.original_context_length")?,
    };
    Ok(Some(vec![slope, length as f32, 0.0]))
}

/// YaRN's magnitude, `1 + 0.1 ln(factor)`, is divided by the same with this multiplier of the logarithm (`mscale_all_dim`).
fn with_multiplier(mut attention: Attention, multiplier: f32) -> Attention {
    if let RopeScaling::Yarn { factor, attn_factor, .. } = &mut attention.rope_scaling {
        *attn_factor /= 1.0 + 0.1 * multiplier * factor.max(1.0).ln();
    }
    attention
}
