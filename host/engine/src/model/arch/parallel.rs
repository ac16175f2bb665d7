//! Transformers whose blocks compute attention and MLP side by side, both from the block's input: Phi-2, GPT-NeoX and Pythia
//! (arXiv 2204.06745), Falcon (arXiv 2311.16867), StableLM (arXiv 2402.17834, the larger ones), and Command R7B (`cohere2`). All have layer
//! norms.

use herald_api::{Activation, Attention, RopeKind};

use crate::model::parts::{Builder, usual_attention, windowed};
use crate::model::{Keys, ModelError, ModelPlan};

/// Every fourth block of Cohere's attends to everything.
const COHERE_PATTERN: usize = 4;

/// The norm that attention and MLP share, where they do.
const SHARED_NORM: &str = "attn_norm.weight";

pub(super) fn phi2(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    model.ffn_norm = SHARED_NORM;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    build(model, attention, Mlp::Plain(Activation::GeluTanh), true)
}

pub(super) fn gpt_neox(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let model = Builder::new(keys, |_| 1.0)?;
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    let parallel = keys.optional_flag("use_parallel_residual")?.unwrap_or(true);
    build(model, attention, Mlp::Plain(Activation::Gelu), parallel)
}

/// Falcon. The larger ones have a norm each for attention and MLP.
pub(super) fn falcon(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    model.ffn_norm = SHARED_NORM;
    if keys.has_tensor("blk.0.attn_norm_2.weight") {
        model.attention_norm = "attn_norm_2.weight";
    }
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    build(model, attention, Mlp::Plain(Activation::Gelu), true)
}

/// StableLM. Those with parallel blocks have one norm for both branches.
pub(super) fn stablelm(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    let parallel = keys.flag("use_parallel_residual")?;
    if parallel {
        model.ffn_norm = SHARED_NORM;
    }
    let attention = usual_attention(keys, model.blocks, RopeKind::Halves)?;
    build(model, attention, Mlp::Gated(Activation::Silu), parallel)
}

/// Cohere's: three blocks that attend within a window, with RoPE, for each one that attends to everything, without.
pub(super) fn cohere2(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    model.ffn_norm = SHARED_NORM;
    model.logit_scale = keys.float("logit_scale")?;
    let window = keys.size("attention.sliding_window")?;
    let mut attention = usual_attention(keys, model.blocks, RopeKind::Neighbours)?;
    for (attention, windowed) in attention.iter_mut().zip(windowed(keys, model.blocks, COHERE_PATTERN)?) {
        if windowed {
            attention.window = Some(window);
        } else {
            attention.rope = RopeKind::None;
        }
    }
    build(model, attention, Mlp::Gated(Activation::Silu), true)
}

/// The MLPs of a model.
enum Mlp {
    Plain(Activation),
    Gated(Activation),
}

fn build(
    mut model: Builder<'_, '_>,
    attention: Vec<Attention>,
    mlp: Mlp,
    parallel: bool,
) -> Result<ModelPlan, ModelError> {
    model.use_layer_norms()?;
    let widths = model.keys.sizes("feed_forward_length", model.blocks)?;
    for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
        model.attention(block, attention);
        match mlp {
            Mlp::Plain(activation) => model.plain_mlp(block, width, activation),
            Mlp::Gated(activation) => model.gated_mlp(block, width, activation),
        }
        if parallel {
            model.share_input();
        }
    }
    model.finish(None)
}
