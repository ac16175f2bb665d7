//! Per-layer embeddings (Gemma 3n and 4): what each block adds for the token itself.

use super::{Activation, KindParams, WeightRole, WeightShape};
use crate::Result;
use crate::abi::{AbiStruct, abi_structs};

/// Parameters of HERALD_LAYER_PER_LAYER_EMBEDDING. With x a token's activations, E the embedding and T a table of which each block
/// has its own columns:
///
///   e = embedding_scale * E[token],  t = table_scale * T[token][first .. first + width]
///   p = (norm(projection_scale * Wprojection e) + t) / sqrt(2)
///   output += residual_scale * postnorm(Wdown (activation(Wgate x) * p)),  output *= outputscale
///
/// where the output scale is left out with its weight.
// The C header's formulas: no links.
#[allow(rustdoc::broken_intra_doc_links)]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldPerLayerEmbedding {
    /// sizeof(HeraldPerLayerEmbedding) of the host.
    pub struct_size: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: u32,
    /// Elements that the block has of each token.
    pub width: u32,
    /// Elements of a row of the table: those of all blocks.
    pub table_width: u32,
    /// The first of the block's elements in a row of the table.
    pub first: u32,
    /// HERALD_ACTIVATION_*.
    pub activation: u32,
    /// Multiplies the embedding.
    pub embedding_scale: f32,
    /// Multiplies the table's elements.
    pub table_scale: f32,
    /// Multiplies the projected embedding, before its norm.
    pub projection_scale: f32,
}

abi_structs! { HeraldPerLayerEmbedding up to projection_scale }

/// Per-layer embeddings; [`HeraldPerLayerEmbedding`](crate::abi::HeraldPerLayerEmbedding) has their formulas.
#[derive(Clone, Debug, PartialEq)]
pub struct PerLayerEmbedding {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Elements that the block has of each token.
    pub width: usize,
    /// Elements of a row of the table: those of all blocks.
    pub table_width: usize,
    /// The first of the block's elements in a row of the table.
    pub first: usize,
    /// The function of the gate.
    pub activation: Activation,
    /// Multiplies the embedding.
    pub embedding_scale: f32,
    /// Multiplies the table's elements.
    pub table_scale: f32,
    /// Multiplies the projected embedding, before its norm.
    pub projection_scale: f32,
}

impl KindParams for PerLayerEmbedding {
    type Raw = HeraldPerLayerEmbedding;

    fn to_raw(&self) -> HeraldPerLayerEmbedding {
        HeraldPerLayerEmbedding {
            vocabulary: self.vocabulary as u32,
            width: self.width as u32,
            table_width: self.table_width as u32,
            first: self.first as u32,
            activation: self.activation as u32,
            embedding_scale: self.embedding_scale,
            table_scale: self.table_scale,
            projection_scale: self.projection_scale,
            ..AbiStruct::empty()
        }
    }

    fn from_raw(raw: &HeraldPerLayerEmbedding) -> Result<Self> {
        Ok(Self {
            vocabulary: raw.vocabulary as usize,
            width: raw.width as usize,
            table_width: raw.table_width as usize,
            first: raw.first as usize,
            activation: Activation::from_code(raw.activation)?,
            embedding_scale: raw.embedding_scale,
            table_scale: raw.table_scale,
            projection_scale: raw.projection_scale,
        })
    }

    fn weight(&self, hidden: usize, role: WeightRole) -> Option<WeightShape> {
        Some(match role {
            WeightRole::Embedding => WeightShape::matrix(self.vocabulary, hidden),
            WeightRole::PerLayerTable => WeightShape::matrix(self.vocabulary, self.table_width),
            WeightRole::PerLayerProjection => WeightShape::matrix(self.width, hidden),
            WeightRole::PerLayerNorm => WeightShape::vector(self.width),
            WeightRole::Gate => WeightShape::matrix(self.width, hidden),
            WeightRole::Down => WeightShape::matrix(hidden, self.width),
            WeightRole::PostNorm => WeightShape::vector(hidden),
            WeightRole::OutputScale => WeightShape::vector(1).optional(),
            _ => return None,
        })
    }
}
