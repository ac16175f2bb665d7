//! Selective state spaces (Mamba, arXiv 2312.00752).

use super::{KindParams, WeightRole, WeightShape, flag};
use crate::Result;
use crate::abi::{AbiStruct, abi_structs};

/// Parameters of HERALD_LAYER_MAMBA1. With x and z the input projection's halves and n the layer's norms of dt, B and C:
///
///   x = silu(conv(x)),  dt, B, C = n(Wx x),  dt = softplus(Wdt dt + bias)
///   h[t] = exp(dt A) h[t-1] + dt B x,  y = C h[t] + D x,  output += residual_scale * Wout (y * silu(z))
// The C header's formulas: no links.
#[allow(rustdoc::broken_intra_doc_links)]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldMamba1 {
    /// sizeof(HeraldMamba1) of the host.
    pub struct_size: usize,
    /// Channels.
    pub inner: u32,
    /// Elements of each channel's state.
    pub state: u32,
    /// Taps of the convolution.
    pub taps: u32,
    /// Elements of dt before its projection.
    pub dt_rank: u32,
    /// 1: dt, B and C are RMS-normed without weights (Falcon Mamba); 0: they are normed where their norms' weights are
    /// there.
    pub plain_norms: u32,
}

abi_structs! { HeraldMamba1 up to plain_norms }

/// A selective state space (Mamba, arXiv 2312.00752); [`HeraldMamba1`](crate::abi::HeraldMamba1) has its formulas.
#[derive(Clone, Debug, PartialEq)]
pub struct Mamba1 {
    /// Channels.
    pub inner: usize,
    /// Elements of each channel's state.
    pub state: usize,
    /// Taps of the convolution.
    pub taps: usize,
    /// Elements of dt before its projection.
    pub dt_rank: usize,
    /// Whether dt, B and C are RMS-normed without weights; with weights they are where those are there.
    pub plain_norms: bool,
}

impl KindParams for Mamba1 {
    type Raw = HeraldMamba1;
    fn to_raw(&self) -> HeraldMamba1 {
        HeraldMamba1 {
            inner: self.inner as u32,
            state: self.state as u32,
            taps: self.taps as u32,
            dt_rank: self.dt_rank as u32,
            plain_norms: u32::from(self.plain_norms),
            ..AbiStruct::empty()
        }
    }

    fn from_raw(raw: &HeraldMamba1) -> Result<Self> {
        Ok(Self {
            inner: raw.inner as usize,
            state: raw.state as usize,
            taps: raw.taps as usize,
            dt_rank: raw.dt_rank as usize,
            plain_norms: flag(raw.plain_norms, "Mamba's plain_norms")?,
        })
    }

    fn weight(&self, hidden: usize, role: WeightRole) -> Option<WeightShape> {
        let Self { inner, state, taps, dt_rank, .. } = *self;
        Some(match role {
            WeightRole::Norm => WeightShape::vector(hidden),
            WeightRole::InProjection => WeightShape::matrix(inner.saturating_mul(2), hidden),
            WeightRole::Conv => WeightShape::table(inner, taps),
            WeightRole::ConvBias => WeightShape::vector(inner).optional(),
            WeightRole::SsmX => WeightShape::matrix(dt_rank.saturating_add(state.saturating_mul(2)), inner),
            WeightRole::SsmDt => WeightShape::matrix(inner, dt_rank),
            WeightRole::SsmDtBias => WeightShape::vector(inner).optional(),
            WeightRole::SsmDtNorm => WeightShape::vector(dt_rank).optional(),
            WeightRole::SsmBNorm | WeightRole::SsmCNorm => WeightShape::vector(state).optional(),
            WeightRole::SsmA => WeightShape::table(inner, state),
            WeightRole::SsmD => WeightShape::vector(inner).or(inner, 1),
            WeightRole::OutProjection => WeightShape::matrix(hidden, inner),
            _ => return None,
        })
    }

    fn state_elements(&self, _hidden: usize) -> Option<usize> {
        Some(self.inner * (self.state + self.taps.saturating_sub(1)))
    }
}
