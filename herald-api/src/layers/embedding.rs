//! Token embeddings.

use super::{KindParams, WeightRole, WeightShape};
use crate::Result;
use crate::abi::{AbiStruct, abi_structs};

/// Parameters of HERALD_LAYER_EMBEDDING.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldEmbedding {
    /// sizeof(HeraldEmbedding) of the host.
    pub struct_size: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: u32,
    /// Multiplies the embeddings; usually 1.
    pub scale: f32,
    /// Rows of HERALD_WEIGHT_POSITION_EMBEDDING; 0: there is none.
    pub positions: u32,
    /// Not used; 0.
    pub reserved: u32,
}

abi_structs! { HeraldEmbedding up to scale }

/// Token embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Multiplies the embeddings.
    pub scale: f32,
    /// Positions that have an embedding of their own; `None`: positions make no difference.
    pub positions: Option<usize>,
}

impl KindParams for Embedding {
    type Raw = HeraldEmbedding;

    fn to_raw(&self) -> HeraldEmbedding {
        HeraldEmbedding {
            vocabulary: self.vocabulary as u32,
            scale: self.scale,
            positions: self.positions.unwrap_or(0) as u32,
            ..AbiStruct::empty()
        }
    }

    fn from_raw(raw: &HeraldEmbedding) -> Result<Self> {
        Ok(Self {
            vocabulary: raw.vocabulary as usize,
            scale: raw.scale,
            positions: (raw.positions != 0).then_some(raw.positions as usize),
        })
    }

    fn weight(&self, hidden: usize, role: WeightRole) -> Option<WeightShape> {
        Some(match role {
            WeightRole::Embedding => WeightShape::matrix(self.vocabulary, hidden),
            WeightRole::PositionEmbedding => WeightShape::matrix(self.positions?, hidden),
            WeightRole::TypeEmbedding | WeightRole::LayerNorm | WeightRole::LayerNormBias => {
                WeightShape::vector(hidden).optional()
            }
            _ => return None,
        })
    }
}
