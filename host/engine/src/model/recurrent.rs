//! The parts of models with recurrent states, by the names that GGUF gives their tensors.

use herald_api::{LayerParams, Mamba1, Mamba2, ShortConv, WeightRole};

use super::parts::Builder;
use super::{Keys, ModelError};

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

impl Builder<'_, '_> {
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
