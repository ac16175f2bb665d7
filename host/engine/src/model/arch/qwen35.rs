//! Qwen3-Next and Qwen 3.5: in most blocks linear attention by the gated delta rule (arXiv 2412.06464), in every fourth attention
//! whose heads are gated; dense or with mixtures of experts.

use herald_api::{Activation, DeltaHeads, RopeKind};

use crate::model::attention::usual_attention;
use crate::model::experts::Experts;
use crate::model::mtp::States;
use crate::model::parts::{Builder, POST_ATTENTION_NORM};
use crate::model::{Keys, ModelError, ModelPlan, recurrent};

/// Every fourth block attends.
const PATTERN: usize = 4;

/// Qwen 3.5, whose converter reorders value heads. A text's three positions (time, height, width) are the same, so sections make
/// no difference to RoPE.
pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    keys.disregard(&["rope.dimension_sections"]);
    build(keys, DeltaHeads::Tiled)
}

/// Qwen3-Next.
pub(super) fn qwen3_next(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    build(keys, DeltaHeads::Grouped)
}

fn build(keys: &Keys<'_>, heads: DeltaHeads) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    model.ffn_norm = POST_ATTENTION_NORM;
    model.has_gated_attention = true;
    let delta_net = recurrent::delta_net(keys, heads)?;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    let recurrent = recurrent_blocks(keys, model.blocks)?;
    // Models with experts have no MLP, and some no width for one.
    let widths = if model.has_experts(0) {
        keys.disregard(&["feed_forward_length"]);
        vec![0; model.blocks]
    } else {
        keys.sizes("feed_forward_length", model.blocks)?
    };
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        if recurrent[block] {
            model.delta_net(block, delta_net.clone());
        } else {
            model.attention(block, attention);
        }
        model.feed_forward(block, width, Activation::Silu, Experts::NORMALIZED)?;
    }
    model.finish(None)
}

/// The block for multi-token prediction: it attends, whatever the model's own pattern.
pub(super) fn mtp(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::after_all(keys)?;
    let block = model.block_after();
    model.ffn_norm = POST_ATTENTION_NORM;
    model.has_gated_attention = true;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    let widths = if model.has_experts(block) {
        vec![0; model.blocks]
    } else {
        keys.sizes("feed_forward_length", model.blocks)?
    };
    model.attention(block, attention[block].clone());
    model.feed_forward(block, widths[block], Activation::Silu, Experts::NORMALIZED)?;
    model.finish_after(States::OfHead)
}

/// Which blocks are recurrent: as the file says block by block, or all but every `full_attention_interval`-th.
fn recurrent_blocks(keys: &Keys<'_>, blocks: usize) -> Result<Vec<bool>, ModelError> {
    const KEY: &str = "attention.recurrent_layers";
    let interval = keys.optional_size("full_attention_interval")?.unwrap_or(PATTERN);
    let Some(flags) = keys.optional_array(KEY)? else {
        return Ok((0..blocks).map(|block| !(block + 1).is_multiple_of(interval)).collect());
    };
    if flags.len() < blocks {
        let expected = format!("one for each of {blocks} blocks");
        return Err(keys.bad(KEY, format!("{} flags", flags.len()), expected));
    }
    Ok(flags.into_iter().take(blocks).map(|flag| flag != 0).collect())
}
