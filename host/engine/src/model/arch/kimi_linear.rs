//! Kimi Linear (arXiv 2510.26692): in most blocks delta nets whose keys' channels each have a decay of their own, in the others
//! latent attention without RoPE; mixtures of experts after the first blocks.

use herald_api::{Activation, DeltaDecay, DeltaGate, DeltaHeads, DeltaNet, RopeKind};

use crate::model::experts::Experts;
use crate::model::latent::latent_attention;
use crate::model::parts::Builder;
use crate::model::{Keys, ModelError, ModelPlan};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    // What the converter computes of other keys; the latent's own size counts.
    keys.disregard(&["attention.value_length"]);
    let attention = latent_attention(keys, RopeKind::None)?;
    let (n_heads, dim) = (keys.size("attention.head_count")?, keys.size("kda.head_dim")?);
    let delta_net = DeltaNet {
        n_key_heads: n_heads,
        n_value_heads: n_heads,
        key_dim: dim,
        value_dim: dim,
        taps: keys.size("ssm.conv_kernel")?,
        heads: DeltaHeads::Grouped,
        decay: DeltaDecay::Channel,
        gate: DeltaGate::Sigmoid,
        decay_rank: Some(dim),
        gate_rank: Some(dim),
    };
    // Delta nets have no KV heads.
    let kv_heads = keys.sizes("attention.head_count_kv", model.blocks)?;
    for (block, (kv_heads, width)) in kv_heads.into_iter().zip(widths).enumerate() {
        if kv_heads == 0 {
            model.kimi_delta_attention(block, delta_net.clone());
        } else {
            model.latent_attention(block, attention.clone());
        }
        model.feed_forward(block, width, Activation::Silu, Experts::SIGMOID)?;
    }
    model.finish(None)
}
