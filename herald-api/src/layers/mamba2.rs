//! State spaces with a scalar decay for each head (Mamba-2, arXiv 2405.21060).

use super::{KindParams, WeightRole, WeightShape};
use crate::Result;
use crate::abi::{AbiStruct, abi_structs};

/// Parameters of HERALD_LAYER_MAMBA2. With z, x, B, C and dt the input projection's parts, head by head:
///
///   x, B, C = silu(conv(x, B, C)),  dt = softplus(dt + bias)
///   h[t] = exp(dt A) h[t-1] + dt x B^T,  y = h[t] C + D x,  output += residual_scale * Wout norm(y * silu(z))
///
/// where the norm, by groups of channels, is left out with its weight.
// The C header's formulas: no links.
#[allow(rustdoc::broken_intra_doc_links)]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldMamba2 {
    /// sizeof(HeraldMamba2) of the host.
    pub struct_size: usize,
    /// Channels: a multiple of n_heads.
    pub inner: u32,
    /// Elements of each channel's state.
    pub state: u32,
    /// Taps of the convolution.
    pub taps: u32,
    /// Heads, each of inner / n_heads channels with one decay: a multiple of n_groups.
    pub n_heads: u32,
    /// Groups of heads that share B and C, and of channels that are normed together.
    pub n_groups: u32,
}

abi_structs! { HeraldMamba2 up to n_groups }

/// A state space with a scalar decay for each head (Mamba-2, arXiv 2405.21060); [`HeraldMamba2`](crate::abi::HeraldMamba2) has its formulas.
#[derive(Clone, Debug, PartialEq)]
pub struct Mamba2 {
    /// Channels: a multiple of `n_heads`.
    pub inner: usize,
    /// Elements of each channel's state.
    pub state: usize,
    /// Taps of the convolution.
    pub taps: usize,
    /// Heads: a multiple of `n_groups`.
    pub n_heads: usize,
    /// Groups of heads that share B and C, and of channels that are normed together.
    pub n_groups: usize,
}

impl KindParams for Mamba2 {
    type Raw = HeraldMamba2;
    fn to_raw(&self) -> HeraldMamba2 {
        HeraldMamba2 {
            inner: self.inner as u32,
            state: self.state as u32,
            taps: self.taps as u32,
            n_heads: self.n_heads as u32,
            n_groups: self.n_groups as u32,
            ..AbiStruct::empty()
        }
    }

    fn from_raw(raw: &HeraldMamba2) -> Result<Self> {
        Ok(Self {
            inner: raw.inner as usize,
            state: raw.state as usize,
            taps: raw.taps as usize,
            n_heads: raw.n_heads as usize,
            n_groups: raw.n_groups as usize,
        })
    }

    fn weight(&self, hidden: usize, role: WeightRole) -> Option<WeightShape> {
        let Self { inner, state, taps, n_heads, n_groups } = *self;
        // x, B and C, which go through the convolution.
        let channels = inner.saturating_add(n_groups.saturating_mul(state).saturating_mul(2));
        Some(match role {
            WeightRole::Norm => WeightShape::vector(hidden),
            WeightRole::InProjection => {
                WeightShape::matrix(inner.saturating_add(channels).saturating_add(n_heads), hidden)
            }
            WeightRole::Conv => WeightShape::table(channels, taps),
            WeightRole::ConvBias => WeightShape::vector(channels).optional(),
            WeightRole::SsmDtBias => WeightShape::vector(n_heads),
            WeightRole::SsmA | WeightRole::SsmD => WeightShape::vector(n_heads).or(n_heads, 1),
            WeightRole::SsmNorm => {
                WeightShape::table(n_groups, inner.checked_div(n_groups).unwrap_or(0)).optional()
            }
            WeightRole::OutProjection => WeightShape::matrix(hidden, inner),
            _ => return None,
        })
    }

    fn state_elements(&self, _hidden: usize) -> Option<usize> {
        let channels = self.inner + 2 * self.n_groups * self.state;
        Some(self.inner * self.state + self.taps.saturating_sub(1) * channels)
    }
}
