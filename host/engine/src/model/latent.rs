//! Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434), by the names that GGUF gives its keys and tensors.

use herald_api::{Attention, LatentAttention, LayerParams, Mask, RopeKind, RopeScaling, WeightRole};

use super::attention::rope_scaling;
use super::parts::Builder;
use super::{Keys, ModelError};

/// Latent attention of every block that has it.
pub(super) fn latent_attention(keys: &Keys<'_>, rope: RopeKind) -> Result<Attention, ModelError> {
    // As the file sees it, keys and values of one head are the latent with the position's part, and the latent.
    let rank = keys.size("attention.kv_lora_rank")?;
    let position = keys.size("rope.dimension_count")?;
    check(keys, "attention.key_length", rank + position, "the latent and what RoPE rotates")?;
    let all = keys.size("attention.key_length_mla")?;
    let key_dim = all.checked_sub(position).filter(|dim| *dim > 0).ok_or_else(|| {
        keys.bad("attention.key_length_mla", all, format!("more than the {position} that RoPE rotates"))
    })?;
    let mut scale = 1.0 / (all as f32).sqrt();
    let mut scaling = rope_scaling(keys)?;
    if let RopeScaling::Yarn { factor, attn_factor, .. } = &mut scaling {
        let by_length = factor.ln();
        // The files' one number is a tenth of the configuration's two (mscale, mscale_all_dim), which are equal: the vectors'
        // magnitude stays 1, and scores are multiplied instead.
        if let Some(multiplier) = keys.optional_float("rope.scaling.yarn_log_multiplier")? {
            *attn_factor /= 1.0 + 0.1 * by_length;
            scale *= (1.0 + multiplier * by_length).powi(2);
        }
    }
    Ok(Attention {
        n_heads: keys.size("attention.head_count")?,
        n_kv_heads: 1,
        key_dim: rank + position,
        value_dim: rank,
        window: None,
        rope,
        rope_dims: position,
        rope_base: keys.optional_float("rope.freq_base")?.unwrap_or(10_000.0),
        rope_scaling: scaling,
        softcap: None,
        scale,
        latent: Some(LatentAttention {
            key_dim,
            value_dim: keys.size("attention.value_length_mla")?,
            query_rank: keys.optional_size("attention.q_lora_rank")?,
        }),
        shares_kv: false,
        mask: Mask::Causal,
    })
}

/// A key that may be left out and must otherwise hold what follows from others.
pub(super) fn check(keys: &Keys<'_>, key: &str, expected: usize, why: &str) -> Result<(), ModelError> {
    match keys.optional_size(key)? {
        Some(found) if found != expected => Err(keys.bad(key, found, format!("{expected}, {why}"))),
        _ => Ok(()),
    }
}

impl Builder<'_, '_> {
    /// Adds a block's latent attention.
    pub(super) fn latent_attention(&mut self, block: usize, params: Attention) {
        let two_steps = params.latent.is_some_and(|latent| latent.query_rank.is_some());
        let queries: &[_] = if two_steps {
            &[
                (WeightRole::QueryDown, "attn_q_a.weight"),
                (WeightRole::QueryDownNorm, "attn_q_a_norm.weight"),
                (WeightRole::Query, "attn_q_b.weight"),
            ]
        } else {
            &[(WeightRole::Query, "attn_q.weight")]
        };
        let mut weights = self.weights(
            block,
            &[
                (WeightRole::Norm, "attn_norm.weight"),
                (WeightRole::Key, "attn_kv_a_mqa.weight"),
                (WeightRole::LatentNorm, "attn_kv_a_norm.weight"),
                (WeightRole::KeyUp, "attn_k_b.weight"),
                (WeightRole::ValueUp, "attn_v_b.weight"),
                (WeightRole::AttentionOutput, "attn_output.weight"),
            ],
            &[],
        );
        weights.extend(self.weights(block, queries, &[]));
        self.push(block, LayerParams::Attention(params), weights);
    }
}
