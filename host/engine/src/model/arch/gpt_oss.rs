//! gpt-oss (arXiv 2508.10925): mixtures of experts with biases and clamped gates, attention sinks, windows in every other block,
//! and YaRN.

use herald_api::{Activation, RopeKind, RopeScaling};

use crate::model::attention::{usual_attention, windowed};
use crate::model::experts::Experts;
use crate::model::parts::{Builder, POST_ATTENTION_NORM};
use crate::model::{Keys, ModelError, ModelPlan};

/// Every second block attends to everything.
const PATTERN: usize = 2;

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    model.ffn_norm = POST_ATTENTION_NORM;
    keys.disregard(&["feed_forward_length"]);
    let window = keys.size("attention.sliding_window")?;
    let windowed = windowed(keys, model.blocks, PATTERN)?;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    for (block, (mut attention, windowed)) in attention.into_iter().zip(windowed).enumerate() {
        attention.window = windowed.then_some(window);
        if is_published(attention.rope_scaling)
            && let RopeScaling::Yarn { whole_pairs, .. } = &mut attention.rope_scaling
        {
            *whole_pairs = keys.optional_flag("rope.scaling.yarn_truncate")?.unwrap_or(false);
        }
        model.attention(block, attention);
        model.moe(block, Activation::ClampedSwiglu, Experts::NORMALIZED)?;
    }
    model.finish(None)
}

/// Whether RoPE is scaled as in the published models, of 20 and of 120 billion parameters. Their configuration says `truncate:
/// false`, which converters have no key for.
fn is_published(scaling: RopeScaling) -> bool {
    matches!(scaling, RopeScaling::Yarn { factor: 32.0, original_context: 4096, .. })
}
