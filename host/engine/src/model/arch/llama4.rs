//! Llama 4: mixtures of experts in every other block or in all, each with a shared expert; three blocks that attend within chunks, with
//! RoPE and norms of the turned heads, for each one that attends to everything, without RoPE and with a temperature by position.

use herald_api::{Activation, Mask, RopeKind, Routing, WeightRole};

use crate::model::parts::{Builder, Experts, usual_attention};
use crate::model::{Keys, ModelError, ModelPlan};

/// Every fourth block attends to everything, without RoPE.
const PATTERN: usize = 4;

/// Tokens of a chunk, and of a step of the temperature.
const CHUNK: usize = 8192;

/// By how much the temperature rises.
const SLOPE: f32 = 0.1;

/// The experts of Maverick, which has no norms of heads.
const EXPERTS_OF_MAVERICK: usize = 128;

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let experts = Experts { routing: Routing::SigmoidOfInput, ..Experts::SHARES };
    let normed = keys.count("expert_count")? != EXPERTS_OF_MAVERICK;
    // Those for phones have RoPE everywhere, and say so with a window of 0.
    let chunked = keys.optional_count("attention.sliding_window")? != Some(0);
    let attention = usual_attention(keys, model.blocks, RopeKind::Neighbours)?;
    for (block, (mut attention, width)) in attention.into_iter().zip(widths).enumerate() {
        let sees_all = chunked && (block + 1).is_multiple_of(PATTERN);
        if sees_all {
            attention.rope = RopeKind::None;
        } else if chunked {
            (attention.mask, attention.window) = (Mask::Chunked, Some(CHUNK));
        }
        let ones = vec![1.0; attention.key_dim];
        model.attention(block, attention);
        if sees_all {
            model.constant(WeightRole::Temperature, vec![SLOPE, CHUNK as f32, 1.0]);
        } else if normed {
            model.constant(WeightRole::RotatedQueryNorm, ones.clone());
            model.constant(WeightRole::RotatedKeyNorm, ones);
        }
        model.feed_forward(block, width, Activation::Silu, experts)?;
    }
    model.finish(None)
}
