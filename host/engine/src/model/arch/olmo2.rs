//! OLMo 2 (arXiv 2501.00656) and OLMo 3: Llama whose branches norm what they give in place of what they take, with norms over
//! all queries and all keys, and RoPE over halves. OLMo 3, whose files say `olmo2` too, attends within a window in three
//! blocks of four, where RoPE is as it was trained; the scaling for long contexts is for the others.

use herald_api::{Activation, RopeKind, RopeScaling};

use crate::model::parts::{Builder, usual_attention, windowed};
use crate::model::{Keys, ModelError, ModelPlan};

/// Every fourth block attends to everything.
const PATTERN: usize = 4;

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let model = Builder::new(keys, |_| 1.0)?;
    let mut attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    if let Some(window) = keys.optional_size("attention.sliding_window")? {
        let base = keys.optional_float("rope.freq_base_swa")?;
        for (attention, windowed) in attention.iter_mut().zip(windowed(keys, model.blocks, PATTERN)?) {
            if windowed {
                attention.window = Some(window);
                attention.rope_base = base.unwrap_or(attention.rope_base);
                attention.rope_scaling = RopeScaling::None;
            }
        }
    }
    model.dense_blocks(attention, Activation::Silu)
}
