//! Phi-3 (arXiv 2404.14219) and Phi-4: Llama with queries, keys and values in one tensor, and gate and up in another; RoPE
//! over halves, for long contexts with divisors of its frequencies (LongRoPE, arXiv 2402.13753).

use herald_api::{Activation, RopeKind, RopeScaling};

use crate::model::parts::{Builder, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let window = keys.count("attention.sliding_window")?;
    let magnitude = keys.optional_float("rope.scaling.attn_factor")?;
    let original = keys.optional_size("rope.scaling.original_context_length")?;
    let long = original.is_some_and(|original| keys.size("context_length").is_ok_and(|all| all > original));
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    for (block, (mut attention, width)) in attention.into_iter().zip(widths).enumerate() {
        attention.window = Some(window).filter(|window| *window > 0);
        if let Some(attn_factor) = magnitude {
            // The divisors are a tensor; what is left of the scaling is the vectors' magnitude.
            attention.rope_scaling = RopeScaling::Yarn {
                factor: 1.0,
                original_context: original.unwrap_or(1) as u32,
                ext_factor: 0.0,
                attn_factor,
                beta_fast: 32.0,
                beta_slow: 1.0,
                whole_pairs: true,
            };
        }
        model.attention(block, attention);
        model.gated_mlp(block, width, Activation::Silu);
    }
    // Of the divisors for short and for long contexts, those of the context that the model is made for.
    let divisors = ["rope_factors_short.weight", "rope_factors_long.weight"];
    model.rope_factors(divisors[usize::from(long)]);
    model.ignore(&divisors);
    model.finish(None)
}
