//! The parts of models with recurrent states, by the names that GGUF gives their tensors.

use herald_api::{
    DeltaDecay, DeltaGate, DeltaHeads, DeltaNet, LayerParams, Mamba1, Mamba2, ShortConv, WeightRole,
};

use super::parts::{Builder, whole};
use super::{Keys, ModelError, WeightPlan};

/// Mamba's sizes.
pub(super) fn mamba1(keys: &Keys<'_>) -> Result<Mamba1, ModelError> {
    Ok(Mamba1 {
        inner: keys.size("ssm.inner_size")?,
        state: keys.size("ssm.state_size")?,
        taps: keys.size("ssm.conv_kernel")?,
        dt_rank: keys.size("ssm.time_step_rank")?,
        plain_norms: keys.flag("ssm.dt_b_c_rms")?,
    })
}

/// Mamba-2's sizes. Its files give the heads as the rank of dt.
pub(super) fn mamba2(keys: &Keys<'_>) -> Result<Mamba2, ModelError> {
    let params = Mamba2 {
        inner: keys.size("ssm.inner_size")?,
        state: keys.size("ssm.state_size")?,
        taps: keys.size("ssm.conv_kernel")?,
        n_heads: keys.size("ssm.time_step_rank")?,
        n_groups: keys.optional_size("ssm.group_count")?.unwrap_or(1),
    };
    let Mamba2 { inner, n_heads, n_groups, .. } = params;
    if !inner.is_multiple_of(n_heads) {
        let expected = format!("a divisor of the {inner} of {}", keys.full("ssm.inner_size"));
        return Err(keys.bad("ssm.time_step_rank", n_heads, expected));
    }
    if !n_heads.is_multiple_of(n_groups) {
        let expected = format!("a divisor of the {n_heads} heads of {}", keys.full("ssm.time_step_rank"));
        return Err(keys.bad("ssm.group_count", n_groups, expected));
    }
    Ok(params)
}

/// The sizes of a gated delta net. Its files give the value heads as the rank of dt, and the key heads as groups.
pub(super) fn delta_net(keys: &Keys<'_>, heads: DeltaHeads) -> Result<DeltaNet, ModelError> {
    let inner = keys.size("ssm.inner_size")?;
    let (n_value_heads, n_key_heads) = (keys.size("ssm.time_step_rank")?, keys.size("ssm.group_count")?);
    if !inner.is_multiple_of(n_value_heads) {
        let expected = format!("a divisor of the {inner} of {}", keys.full("ssm.inner_size"));
        return Err(keys.bad("ssm.time_step_rank", n_value_heads, expected));
    }
    if !n_value_heads.is_multiple_of(n_key_heads) {
        let expected =
            format!("a divisor of the {n_value_heads} heads of {}", keys.full("ssm.time_step_rank"));
        return Err(keys.bad("ssm.group_count", n_key_heads, expected));
    }
    Ok(DeltaNet {
        n_key_heads,
        n_value_heads,
        key_dim: keys.size("ssm.state_size")?,
        value_dim: inner / n_value_heads,
        taps: keys.size("ssm.conv_kernel")?,
        heads,
        decay: DeltaDecay::Head,
        gate: DeltaGate::Silu,
        decay_rank: None,
        gate_rank: None,
    })
}

impl Builder<'_, '_> {
    /// Adds a block's Kimi delta attention.
    pub(super) fn kimi_delta_attention(&mut self, block: usize, params: DeltaNet) {
        let weights = self.weights(
            block,
            &[
                (WeightRole::Norm, "attn_norm.weight"),
                (WeightRole::Query, "attn_q.weight"),
                (WeightRole::Key, "attn_k.weight"),
                (WeightRole::Value, "attn_v.weight"),
                (WeightRole::QueryConv, "ssm_conv1d_q.weight"),
                (WeightRole::KeyConv, "ssm_conv1d_k.weight"),
                (WeightRole::ValueConv, "ssm_conv1d_v.weight"),
                (WeightRole::Beta, "ssm_beta.weight"),
                (WeightRole::Decay, "ssm_f_a.weight"),
                (WeightRole::DecayUp, "ssm_f_b.weight"),
                (WeightRole::SsmDtBias, "ssm_dt.bias"),
                (WeightRole::SsmA, "ssm_a"),
                (WeightRole::OutputGate, "ssm_g_a.weight"),
                (WeightRole::OutputGateUp, "ssm_g_b.weight"),
                (WeightRole::SsmNorm, "ssm_norm.weight"),
                (WeightRole::OutProjection, "attn_output.weight"),
            ],
            &[],
        );
        self.push(block, LayerParams::DeltaNet(params), weights);
    }

    /// Adds a block's gated delta net, whose queries, keys and values are one tensor, and so are their convolutions.
    pub(super) fn delta_net(&mut self, block: usize, params: DeltaNet) {
        let keys = params.n_key_heads * params.key_dim;
        let values = params.n_value_heads * params.value_dim;
        let mut weights = self.weights(
            block,
            &[
                (WeightRole::Norm, "attn_norm.weight"),
                (WeightRole::OutputGate, "attn_gate.weight"),
                (WeightRole::SsmDtBias, "ssm_dt.bias"),
                (WeightRole::SsmA, "ssm_a"),
                (WeightRole::SsmNorm, "ssm_norm.weight"),
                (WeightRole::OutProjection, "ssm_out.weight"),
            ],
            &[(WeightRole::BetaAndDecay, "ssm_ba.weight")],
        );
        if !weights.iter().any(|weight| weight.role == WeightRole::BetaAndDecay) {
            let apart = [(WeightRole::Beta, "ssm_beta.weight"), (WeightRole::Decay, "ssm_alpha.weight")];
            weights.extend(self.weights(block, &apart, &[]));
        }
        let parts = [0..keys, keys..2 * keys, 2 * keys..2 * keys + values];
        for (part, roles) in [
            ("attn_qkv.weight", [WeightRole::Query, WeightRole::Key, WeightRole::Value]),
            ("ssm_conv1d.weight", [WeightRole::QueryConv, WeightRole::KeyConv, WeightRole::ValueConv]),
        ] {
            let tensor = Self::tensor(block, part);
            let plan = |(role, rows)| WeightPlan { rows: Some(rows), ..whole(role, tensor.clone()) };
            weights.extend(roles.into_iter().zip(parts.clone()).map(plan));
        }
        self.push(block, LayerParams::DeltaNet(params), weights);
    }

    /// Adds a block's Mamba layer.
    pub(super) fn mamba1(&mut self, block: usize, params: Mamba1) {
        let weights = self.weights(
            block,
            &[
                (WeightRole::Norm, "attn_norm.weight"),
                (WeightRole::InProjection, "ssm_in.weight"),
                (WeightRole::Conv, "ssm_conv1d.weight"),
                (WeightRole::SsmX, "ssm_x.weight"),
                (WeightRole::SsmDt, "ssm_dt.weight"),
                (WeightRole::SsmDtBias, "ssm_dt.bias"),
                (WeightRole::SsmA, "ssm_a"),
                (WeightRole::SsmD, "ssm_d"),
                (WeightRole::OutProjection, "ssm_out.weight"),
            ],
            &[
                (WeightRole::ConvBias, "ssm_conv1d.bias"),
                (WeightRole::SsmDtNorm, "ssm_dt_norm.weight"),
                (WeightRole::SsmBNorm, "ssm_b_norm.weight"),
                (WeightRole::SsmCNorm, "ssm_c_norm.weight"),
            ],
        );
        self.push(block, LayerParams::Mamba1(params), weights);
    }

    /// Adds a block's Mamba-2 layer.
    pub(super) fn mamba2(&mut self, block: usize, params: Mamba2) {
        let weights = self.weights(
            block,
            &[
                (WeightRole::Norm, "attn_norm.weight"),
                (WeightRole::InProjection, "ssm_in.weight"),
                (WeightRole::Conv, "ssm_conv1d.weight"),
                (WeightRole::SsmDtBias, "ssm_dt.bias"),
                (WeightRole::SsmA, "ssm_a"),
                (WeightRole::SsmD, "ssm_d"),
                (WeightRole::OutProjection, "ssm_out.weight"),
            ],
            &[(WeightRole::ConvBias, "ssm_conv1d.bias"), (WeightRole::SsmNorm, "ssm_norm.weight")],
        );
        self.push(block, LayerParams::Mamba2(params), weights);
    }

    /// Adds a block's short convolution.
    pub(super) fn short_conv(&mut self, block: usize, params: ShortConv) {
        let weights = self.weights(
            block,
            &[
                (WeightRole::Norm, "attn_norm.weight"),
                (WeightRole::InProjection, "shortconv.in_proj.weight"),
                (WeightRole::Conv, "shortconv.conv.weight"),
                (WeightRole::OutProjection, "shortconv.out_proj.weight"),
            ],
            &[(WeightRole::ConvBias, "shortconv.conv.bias")],
        );
        self.push(block, LayerParams::ShortConv(params), weights);
    }
}
