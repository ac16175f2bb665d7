//! Gated short convolutions (LFM2, arXiv 2511.23404).

use super::{KindParams, WeightRole, WeightShape};
use crate::Result;
use crate::abi::{AbiStruct, abi_structs};

/// Parameters of HERALD_LAYER_SHORT_CONV: output += residual_scale * Wout (C * conv(B * x)).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldShortConv {
    /// sizeof(HeraldShortConv) of the host.
    pub struct_size: usize,
    /// Taps of the convolution.
    pub taps: u32,
}

abi_structs! { HeraldShortConv up to taps }

/// A gated short convolution (LFM2): `Wout (C * conv(B * x))`.
#[derive(Clone, Debug, PartialEq)]
pub struct ShortConv {
    /// Taps of the convolution.
    pub taps: usize,
}

impl KindParams for ShortConv {
    type Raw = HeraldShortConv;
    fn to_raw(&self) -> HeraldShortConv {
        HeraldShortConv { taps: self.taps as u32, ..AbiStruct::empty() }
    }

    fn from_raw(raw: &HeraldShortConv) -> Result<Self> {
        Ok(Self { taps: raw.taps as usize })
    }

    fn weight(&self, hidden: usize, role: WeightRole) -> Option<WeightShape> {
        Some(match role {
            WeightRole::Norm => WeightShape::vector(hidden),
            WeightRole::InProjection => WeightShape::matrix(hidden.saturating_mul(3), hidden),
            WeightRole::Conv => WeightShape::table(hidden, self.taps),
            WeightRole::ConvBias => WeightShape::vector(hidden).optional(),
            WeightRole::OutProjection => WeightShape::matrix(hidden, hidden),
            _ => return None,
        })
    }

    fn state_elements(&self, hidden: usize) -> Option<usize> {
        Some(self.taps.saturating_sub(1) * hidden)
    }
}
