//! The output head.

use super::{KindParams, WeightRole, WeightShape};
use crate::Result;
use crate::abi::{AbiStruct, abi_structs};

/// Parameters of HERALD_LAYER_HEAD.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldHead {
    /// sizeof(HeraldHead) of the host.
    pub struct_size: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: u32,
    /// Multiplies the logits; usually 1.
    pub scale: f32,
    /// Logits are softcap * tanh(logit / softcap); 0: as they are.
    pub softcap: f32,
}

abi_structs! { HeraldHead up to scale }

/// The final norm and the product with the output matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Multiplies the logits.
    pub scale: f32,
    /// Logits are `softcap * tanh(logit / softcap)`.
    pub softcap: Option<f32>,
}

impl KindParams for Head {
    type Raw = HeraldHead;

    fn to_raw(&self) -> HeraldHead {
        HeraldHead {
            vocabulary: self.vocabulary as u32,
            scale: self.scale,
            softcap: self.softcap.unwrap_or(0.0),
            ..AbiStruct::empty()
        }
    }

    fn from_raw(raw: &HeraldHead) -> Result<Self> {
        Ok(Self {
            vocabulary: raw.vocabulary as usize,
            scale: raw.scale,
            softcap: (raw.softcap != 0.0).then_some(raw.softcap),
        })
    }

    fn weight(&self, hidden: usize, role: WeightRole) -> Option<WeightShape> {
        Some(match role {
            WeightRole::Norm => WeightShape::vector(hidden).unless(&WeightRole::IN_PLACE_OF_HEAD_NORM),
            WeightRole::LayerNorm | WeightRole::LayerNormBias | WeightRole::InputScale => {
                WeightShape::vector(hidden).optional()
            }
            WeightRole::Embedding if self.vocabulary == hidden => {
                WeightShape::matrix(self.vocabulary, hidden).optional()
            }
            WeightRole::Embedding => WeightShape::matrix(self.vocabulary, hidden),
            WeightRole::OutputBias => WeightShape::vector(self.vocabulary).optional(),
            _ => return None,
        })
    }
}
