//! Grouped-query attention (arXiv 2305.13245) over keys and values kept in pages.

use super::{KindParams, LayerKind, WeightRole, WeightShape, flag};
use crate::abi::{AbiStruct, abi_structs};
use crate::{Error, Result};

/// No RoPE.
pub const HERALD_ROPE_NONE: u32 = 0;
/// RoPE that rotates neighbours: elements 2i and 2i+1 (llama's own order).
pub const HERALD_ROPE_NEIGHBOURS: u32 = 1;
/// RoPE that rotates halves: elements i and i + rope_dims/2 (GPT-NeoX's order).
pub const HERALD_ROPE_HALVES: u32 = 2;
/// RoPE's frequencies as they are.
pub const HERALD_ROPE_SCALING_NONE: u32 = 0;
/// Positions divided by rope_factor.
pub const HERALD_ROPE_SCALING_LINEAR: u32 = 1;
/// YaRN (arXiv 2309.00071): interpolated by wavelength.
pub const HERALD_ROPE_SCALING_YARN: u32 = 2;
/// YaRN whose ramp begins and ends between pairs of elements, where HERALD_ROPE_SCALING_YARN rounds both outwards to whole pairs.
pub const HERALD_ROPE_SCALING_YARN_SMOOTH: u32 = 3;

/// Parameters of HERALD_LAYER_ATTENTION, HERALD_LAYER_CHUNKED_ATTENTION and HERALD_LAYER_BIDIRECTIONAL_ATTENTION: grouped-query
/// attention over keys and values kept in pages.
///
/// Where latent_value_dim isn't 0, it is latent attention (arXiv 2405.04434) over one KV head, with n = key_dim - value_dim:
///
///   c, r = the first value_dim and the last n rows of Wk x,  c = norm(c)           Wk: HERALD_WEIGHT_KEY, [key_dim, hidden]
///   q_h, p_h = the first latent_key_dim and the last n rows of the head's Wq x     Wq: [n_heads * (latent_key_dim + n), hidden]
///   the head's query, a token's key and value in its page: [p_h, Kup_h q_h], [r, c], c; p_h and r are rotated
///   a_h = Vup_h (the sum of values by the softmax of scale * query . key)
// The C header's formulas: no links.
#[allow(rustdoc::broken_intra_doc_links)]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldAttention {
    /// sizeof(HeraldAttention) of the host.
    pub struct_size: usize,
    /// Query heads: a multiple of n_kv_heads.
    pub n_heads: u32,
    /// Key and value heads.
    pub n_kv_heads: u32,
    /// Elements of a query and of a key head.
    pub key_dim: u32,
    /// Elements of a value head.
    pub value_dim: u32,
    /// A token attends to itself and the window - 1 tokens before it; 0: to all before it. Chunked attention: the length of
    /// a chunk. Bidirectional attention: a token attends to the window / 2 tokens on either side; 0: to all.
    pub window: u32,
    /// HERALD_ROPE_*.
    pub rope: u32,
    /// How many elements of each query and key head, from the first on, are rotated: even, at most key_dim.
    pub rope_dims: u32,
    /// HERALD_ROPE_SCALING_*.
    pub rope_scaling: u32,
    /// The base of RoPE's frequencies (theta).
    pub rope_base: f32,
    /// How many times longer than trained the context may be (linear, YaRN); otherwise 1.
    pub rope_factor: f32,
    /// YaRN: the context that the model was trained for, in tokens.
    pub rope_original_context: u32,
    /// YaRN: how much extrapolation is mixed in where wavelengths are short, usually 1.
    pub yarn_ext_factor: f32,
    /// YaRN: multiplies the rotated vectors, on top of YaRN's own 1 + 0.1 ln(rope_factor); usually 1.
    pub yarn_attn_factor: f32,
    /// YaRN: rotations over the trained context above which frequencies stay, usually 32.
    pub yarn_beta_fast: f32,
    /// YaRN: rotations below which frequencies are interpolated, usually 1.
    pub yarn_beta_slow: f32,
    /// Scores are softcap * tanh(score / softcap) before the softmax; 0: as they are.
    pub softcap: f32,
    /// Multiplies query-key products.
    pub scale: f32,
    /// Latent attention: elements of each head's own query, before those that carry the position; otherwise 0.
    pub latent_key_dim: u32,
    /// Latent attention: elements of each head's value; otherwise 0.
    pub latent_value_dim: u32,
    /// Latent attention: elements between both query projections, where there are two: HERALD_WEIGHT_QUERY is then
    /// [n_heads * (latent_key_dim + n), query_rank]; otherwise 0.
    pub query_rank: u32,
    /// 1: the layer has no keys and values of its own (no HERALD_WEIGHT_KEY) and only reads its pages, which an earlier layer of the
    /// same heads has filled, this batch's slots too; 0: it has.
    pub shares_kv: u32,
}

abi_structs! { HeraldAttention up to scale }

/// Which elements of a head RoPE turns against each other (RoFormer, arXiv 2104.09864).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum RopeKind {
    /// No rotation.
    #[default]
    None = HERALD_ROPE_NONE,
    /// Neighbours: elements `2i` and `2i + 1`.
    Neighbours = HERALD_ROPE_NEIGHBOURS,
    /// Halves: elements `i` and `i + rope_dims / 2`.
    Halves = HERALD_ROPE_HALVES,
}

impl RopeKind {
    fn from_code(code: u32) -> Result<Self> {
        Ok(match code {
            HERALD_ROPE_NONE => Self::None,
            HERALD_ROPE_NEIGHBOURS => Self::Neighbours,
            HERALD_ROPE_HALVES => Self::Halves,
            other => {
                return Err(Error::unsupported(format!("RoPE kind {other} is not known to this plugin")));
            }
        })
    }
}

/// How RoPE's frequencies are changed for a context longer than the trained one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// As they are.
    #[default]
    None,
    /// Positions divided by the factor.
    Linear {
        /// How many times longer the context may be.
        factor: f32,
    },
    /// YaRN (arXiv 2309.00071): interpolated by wavelength.
    Yarn {
        /// How many times longer the context may be.
        factor: f32,
        /// The trained context, in tokens.
        original_context: u32,
        /// How much extrapolation is mixed in where wavelengths are short, usually 1.
        ext_factor: f32,
        /// Multiplies the rotated vectors on top of YaRN's own `1 + 0.1 ln(factor)`; usually 1.
        attn_factor: f32,
        /// Rotations over the trained context above which frequencies stay, usually 32.
        beta_fast: f32,
        /// Rotations below which frequencies are interpolated, usually 1.
        beta_slow: f32,
        /// Whether the ramp's ends are rounded outwards to whole pairs.
        whole_pairs: bool,
    },
}

impl RopeScaling {
    fn from_raw(raw: &HeraldAttention) -> Result<Self> {
        Ok(match raw.rope_scaling {
            HERALD_ROPE_SCALING_NONE => Self::None,
            HERALD_ROPE_SCALING_LINEAR => Self::Linear { factor: raw.rope_factor },
            HERALD_ROPE_SCALING_YARN | HERALD_ROPE_SCALING_YARN_SMOOTH => Self::Yarn {
                whole_pairs: raw.rope_scaling == HERALD_ROPE_SCALING_YARN,
                factor: raw.rope_factor,
                original_context: raw.rope_original_context,
                ext_factor: raw.yarn_ext_factor,
                attn_factor: raw.yarn_attn_factor,
                beta_fast: raw.yarn_beta_fast,
                beta_slow: raw.yarn_beta_slow,
            },
            other => {
                return Err(Error::unsupported(format!("RoPE scaling {other} is not known to this plugin")));
            }
        })
    }

    fn write(self, raw: &mut HeraldAttention) {
        raw.rope_factor = 1.0;
        match self {
            Self::None => raw.rope_scaling = HERALD_ROPE_SCALING_NONE,
            Self::Linear { factor } => {
                raw.rope_scaling = HERALD_ROPE_SCALING_LINEAR;
                raw.rope_factor = factor;
            }
            Self::Yarn {
                factor,
                original_context,
                ext_factor,
                attn_factor,
                beta_fast,
                beta_slow,
                whole_pairs,
            } => {
                raw.rope_scaling =
                    if whole_pairs { HERALD_ROPE_SCALING_YARN } else { HERALD_ROPE_SCALING_YARN_SMOOTH };
                raw.rope_factor = factor;
                raw.rope_original_context = original_context;
                raw.yarn_ext_factor = ext_factor;
                raw.yarn_attn_factor = attn_factor;
                raw.yarn_beta_fast = beta_fast;
                raw.yarn_beta_slow = beta_slow;
            }
        }
    }
}

/// Which tokens of its sequence a token attends to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mask {
    /// Itself and those before it, within the window.
    #[default]
    Causal,
    /// Itself and those before it in its chunk, a run of as many tokens as the window (Llama 4).
    Chunked,
    /// Those on either side, at most half of the window away. All tokens of a sequence come in one call.
    Bidirectional,
}

/// Grouped-query attention over keys and values kept in pages.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Query heads: a multiple of `n_kv_heads`.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Elements of a query and of a key head.
    pub key_dim: usize,
    /// Elements of a value head.
    pub value_dim: usize,
    /// A token attends to itself and the `window - 1` tokens before it; `None`: to all before it. With another mask, what
    /// [`Mask`] says.
    pub window: Option<usize>,
    /// Which tokens a token attends to.
    pub mask: Mask,
    /// Which elements RoPE rotates.
    pub rope: RopeKind,
    /// How many elements of each head, from the first on, are rotated.
    pub rope_dims: usize,
    /// The base of RoPE's frequencies (theta).
    pub rope_base: f32,
    /// RoPE for longer contexts.
    pub rope_scaling: RopeScaling,
    /// Scores are `softcap * tanh(score / softcap)`.
    pub softcap: Option<f32>,
    /// Multiplies query-key products.
    pub scale: f32,
    /// What is particular to latent attention.
    pub latent: Option<LatentAttention>,
    /// Whether it only reads its pages, which an earlier layer has filled.
    pub shares_kv: bool,
}

/// What is particular to latent attention (arXiv 2405.04434): [`HeraldAttention`](crate::abi::HeraldAttention) has its formulas.
/// Its keys have `key_dim` elements, the latent's `value_dim` last; there is one KV head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatentAttention {
    /// Elements of each head's own query, before those that carry the position.
    pub key_dim: usize,
    /// Elements of each head's value.
    pub value_dim: usize,
    /// Elements between both query projections, where there are two.
    pub query_rank: Option<usize>,
}

impl KindParams for Attention {
    type Raw = HeraldAttention;

    fn to_raw(&self) -> HeraldAttention {
        let mut raw = HeraldAttention {
            n_heads: self.n_heads as u32,
            n_kv_heads: self.n_kv_heads as u32,
            key_dim: self.key_dim as u32,
            value_dim: self.value_dim as u32,
            window: self.window.unwrap_or(0) as u32,
            rope: self.rope as u32,
            rope_dims: self.rope_dims as u32,
            rope_base: self.rope_base,
            softcap: self.softcap.unwrap_or(0.0),
            scale: self.scale,
            latent_key_dim: self.latent.map_or(0, |latent| latent.key_dim as u32),
            latent_value_dim: self.latent.map_or(0, |latent| latent.value_dim as u32),
            shares_kv: u32::from(self.shares_kv),
            query_rank: self.latent.and_then(|latent| latent.query_rank).unwrap_or(0) as u32,
            ..AbiStruct::empty()
        };
        self.rope_scaling.write(&mut raw);
        raw
    }

    fn from_raw(raw: &HeraldAttention) -> Result<Self> {
        Ok(Self {
            n_heads: raw.n_heads as usize,
            n_kv_heads: raw.n_kv_heads as usize,
            key_dim: raw.key_dim as usize,
            value_dim: raw.value_dim as usize,
            window: (raw.window != 0).then_some(raw.window as usize),
            mask: Mask::Causal,
            rope: RopeKind::from_code(raw.rope)?,
            rope_dims: raw.rope_dims as usize,
            rope_base: raw.rope_base,
            rope_scaling: RopeScaling::from_raw(raw)?,
            softcap: (raw.softcap != 0.0).then_some(raw.softcap),
            scale: raw.scale,
            shares_kv: flag(raw.shares_kv, "attention's shares_kv")?,
            latent: (raw.latent_value_dim != 0).then_some(LatentAttention {
                key_dim: raw.latent_key_dim as usize,
                value_dim: raw.latent_value_dim as usize,
                query_rank: (raw.query_rank != 0).then_some(raw.query_rank as usize),
            }),
        })
    }

    fn other_kind(&self) -> Option<LayerKind> {
        match self.mask {
            Mask::Causal => None,
            Mask::Chunked => Some(LayerKind::ChunkedAttention),
            Mask::Bidirectional => Some(LayerKind::BidirectionalAttention),
        }
    }

    fn of_kind(self, kind: LayerKind) -> Result<Self> {
        let mask = match kind {
            LayerKind::ChunkedAttention => Mask::Chunked,
            LayerKind::BidirectionalAttention => Mask::Bidirectional,
            _ => Mask::Causal,
        };
        if mask == Mask::Chunked && self.window.is_none() {
            return Err(Error::invalid("chunked attention has chunks of 0 tokens, where some were expected"));
        }
        Ok(Self { mask, ..self })
    }

    fn weight(&self, hidden: usize, role: WeightRole) -> Option<WeightShape> {
        let of_own = matches!(
            role,
            WeightRole::Key
                | WeightRole::KeyBias
                | WeightRole::KeyNorm
                | WeightRole::Value
                | WeightRole::ValueBias
                | WeightRole::ValueNorm
        );
        if self.shares_kv && of_own {
            return None;
        }
        if let Some(latent) = self.latent {
            return self.latent_weight(latent, hidden, role);
        }
        let queries = self.n_heads.saturating_mul(self.key_dim);
        let keys = self.n_kv_heads.saturating_mul(self.key_dim);
        let values = self.n_kv_heads.saturating_mul(self.value_dim);
        let attended = self.n_heads.saturating_mul(self.value_dim);
        Some(match role {
            WeightRole::Norm => WeightShape::vector(hidden).unless(&WeightRole::IN_PLACE_OF_NORM),
            WeightRole::PostNorm
            | WeightRole::LayerNorm
            | WeightRole::LayerNormBias
            | WeightRole::InputScale
            | WeightRole::ResidualNorm
            | WeightRole::ResidualNormBias => WeightShape::vector(hidden).optional(),
            WeightRole::RotatedQueryNorm | WeightRole::RotatedKeyNorm => {
                WeightShape::vector(self.key_dim).optional()
            }
            WeightRole::Temperature => WeightShape::vector(3).optional(),
            WeightRole::Query => WeightShape::matrix(queries, hidden).unless(&[WeightRole::QueryAndGate]),
            // The gate multiplies what a head attended to, element by element.
            WeightRole::QueryAndGate if self.key_dim == self.value_dim => {
                WeightShape::matrix(queries.saturating_mul(2), hidden).optional()
            }
            WeightRole::QueryBias => WeightShape::vector(queries).optional(),
            // Of each head by itself, or of all heads as one (OLMo 2).
            WeightRole::QueryNorm => WeightShape::vector(self.key_dim).or(1, queries).optional(),
            WeightRole::Key => WeightShape::matrix(keys, hidden),
            WeightRole::KeyBias => WeightShape::vector(keys).optional(),
            WeightRole::KeyNorm => WeightShape::vector(self.key_dim).or(1, keys).optional(),
            WeightRole::Value => WeightShape::matrix(values, hidden),
            WeightRole::ValueBias => WeightShape::vector(values).optional(),
            WeightRole::AttentionOutput => WeightShape::matrix(hidden, attended),
            WeightRole::AttentionOutputBias => WeightShape::vector(hidden).optional(),
            WeightRole::ValueNorm => WeightShape::vector(self.value_dim).optional(),
            WeightRole::AttentionSinks => WeightShape::vector(self.n_heads).optional(),
            WeightRole::RopeFactors if self.rope != RopeKind::None => {
                WeightShape::vector(self.rope_dims / 2).optional()
            }
            _ => return None,
        })
    }
}

impl Attention {
    /// The shape of this role's weight in latent attention.
    fn latent_weight(&self, latent: LatentAttention, hidden: usize, role: WeightRole) -> Option<WeightShape> {
        let Self { n_heads, key_dim, value_dim, .. } = *self;
        let queries = n_heads.saturating_mul((latent.key_dim + key_dim).saturating_sub(value_dim));
        let heads = |dim: usize| n_heads.saturating_mul(dim);
        Some(match role {
            WeightRole::Norm => WeightShape::vector(hidden).unless(&WeightRole::IN_PLACE_OF_NORM),
            WeightRole::PostNorm
            | WeightRole::LayerNorm
            | WeightRole::LayerNormBias
            | WeightRole::InputScale
            | WeightRole::ResidualNorm
            | WeightRole::ResidualNormBias => WeightShape::vector(hidden).optional(),
            WeightRole::QueryDown => WeightShape::matrix(latent.query_rank?, hidden),
            WeightRole::QueryDownNorm => WeightShape::vector(latent.query_rank?),
            WeightRole::Query => WeightShape::matrix(queries, latent.query_rank.unwrap_or(hidden)),
            WeightRole::Key => WeightShape::matrix(key_dim, hidden),
            WeightRole::LatentNorm => WeightShape::vector(value_dim),
            WeightRole::KeyUp => WeightShape::matrix(heads(value_dim), latent.key_dim),
            WeightRole::ValueUp => WeightShape::matrix(heads(latent.value_dim), value_dim),
            WeightRole::AttentionOutput => WeightShape::matrix(hidden, heads(latent.value_dim)),
            WeightRole::RopeFactors if self.rope != RopeKind::None => {
                WeightShape::vector(self.rope_dims / 2).optional()
            }
            _ => return None,
        })
    }
}
