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
}

abi_structs! { HeraldEmbedding up to scale }

/// Token embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Multiplies the embeddings.
    pub scale: f32,
}

impl KindParams for Embedding {
    type Raw = HeraldEmbedding;

    fn to_raw(&self) -> HeraldEmbedding {
        HeraldEmbedding { vocabulary: self.vocabulary as u32, scale: self.scale, ..AbiStruct::empty() }
    }

    fn from_raw(raw: &HeraldEmbedding) -> Result<Self> {
        Ok(Self { vocabulary: raw.vocabulary as usize, scale: raw.scale })
    }

    fn weight(&self, hidden: usize, role: WeightRole) -> Option<WeightShape> {
        (role == WeightRole::Embedding).then_some(WeightShape::matrix(self.vocabulary, hidden))
    }
}
