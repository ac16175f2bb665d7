//! Feed-forward networks.

use super::{Activation, KindParams, WeightRole, WeightShape, flag};
use crate::Result;
use crate::abi::{AbiStruct, abi_structs};

/// Parameters of HERALD_LAYER_MLP.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldMlp {
    /// sizeof(HeraldMlp) of the host.
    pub struct_size: usize,
    /// Elements between the projections.
    pub width: u32,
    /// HERALD_ACTIVATION_*.
    pub activation: u32,
    /// 1: down(activation(gate(x)) * up(x)); 0: down(activation(up(x))).
    pub gated: u32,
}

abi_structs! { HeraldMlp up to gated }

/// A feed-forward network: `down(activation(gate(x)) * up(x))`, or without the gate `down(activation(up(x)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    /// Elements between the projections.
    pub width: usize,
    /// The function between them.
    pub activation: Activation,
    /// Whether there is a gate.
    pub gated: bool,
}

impl KindParams for Mlp {
    type Raw = HeraldMlp;

    fn to_raw(&self) -> HeraldMlp {
        HeraldMlp {
            width: self.width as u32,
            activation: self.activation as u32,
            gated: u32::from(self.gated),
            ..AbiStruct::empty()
        }
    }

    fn from_raw(raw: &HeraldMlp) -> Result<Self> {
        Ok(Self {
            width: raw.width as usize,
            activation: Activation::from_code(raw.activation)?,
            gated: flag(raw.gated, "an MLP's gated")?,
        })
    }

    fn weight(&self, hidden: usize, role: WeightRole) -> Option<WeightShape> {
        Some(match role {
            WeightRole::Norm => WeightShape::vector(hidden).unless(&WeightRole::IN_PLACE_OF_NORM),
            WeightRole::PostNorm
            | WeightRole::LayerNorm
            | WeightRole::LayerNormBias
            | WeightRole::InputScale
            | WeightRole::ResidualNorm
            | WeightRole::ResidualNormBias
            | WeightRole::DownBias => WeightShape::vector(hidden).optional(),
            WeightRole::GateBias if self.gated => WeightShape::vector(self.width).optional(),
            WeightRole::UpBias => WeightShape::vector(self.width).optional(),
            WeightRole::Xielu if self.activation == Activation::Xielu => WeightShape::vector(4),
            WeightRole::OutputScale => WeightShape::vector(1).optional(),
            WeightRole::Gate if self.gated => WeightShape::matrix(self.width, hidden),
            WeightRole::Up => WeightShape::matrix(self.width, hidden),
            WeightRole::Down => WeightShape::matrix(hidden, self.width),
            _ => return None,
        })
    }
}
