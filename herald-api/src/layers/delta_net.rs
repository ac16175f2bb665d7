//! Linear attention by the gated delta rule (arXiv 2412.06464), with a decay for each head (Qwen3-Next) or for each channel of
//! the keys (Kimi delta attention, arXiv 2510.26692).

use super::{KindParams, WeightRole, WeightShape};
use crate::abi::{AbiStruct, abi_structs};
use crate::{Error, Result};

/// Value head h uses the key head h / (n_value_heads / n_key_heads).
pub const HERALD_DELTA_HEADS_GROUPED: u32 = 1;
/// Value head h uses the key head h % n_key_heads.
pub const HERALD_DELTA_HEADS_TILED: u32 = 2;
/// One decay for each value head.
pub const HERALD_DELTA_DECAY_HEAD: u32 = 1;
/// One decay for each element of each value head's keys.
pub const HERALD_DELTA_DECAY_CHANNEL: u32 = 2;
/// The output is multiplied by silu(gate).
pub const HERALD_DELTA_GATE_SILU: u32 = 1;
/// The output is multiplied by sigmoid(gate).
pub const HERALD_DELTA_GATE_SIGMOID: u32 = 2;

/// Parameters of HERALD_LAYER_DELTA_NET. With x the normed input, and a state S of [key_dim, value_dim] for each value head:
///
///   q, k, v = silu(conv(Wq x, Wk x, Wv x)),  q = q / |q| / sqrt(key_dim),  k = k / |k|,  |y|^2 = sum(y^2) + 1e-6
///   beta = sigmoid(Wbeta x),  decay = exp(A softplus(Wdecay x + bias))
///   S[t] = decay S[t-1] + k beta (v - (decay S[t-1])^T k)^T,  y = S[t]^T q
///   output += residual_scale * Wout (norm(y) * f(Wgate x))
///
/// where the norm is of each value head, f is silu or sigmoid, and Wdecay and Wgate may be products of two matrices.
// The C header's formulas: no links.
#[allow(rustdoc::broken_intra_doc_links)]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldDeltaNet {
    /// sizeof(HeraldDeltaNet) of the host.
    pub struct_size: usize,
    /// Heads of queries and keys.
    pub n_key_heads: u32,
    /// Heads of values: a multiple of n_key_heads.
    pub n_value_heads: u32,
    /// Elements of a query and of a key head.
    pub key_dim: u32,
    /// Elements of a value head.
    pub value_dim: u32,
    /// Taps of the convolutions.
    pub taps: u32,
    /// HERALD_DELTA_HEADS_*: which key head a value head uses.
    pub heads: u32,
    /// HERALD_DELTA_DECAY_*.
    pub decay: u32,
    /// HERALD_DELTA_GATE_*.
    pub gate: u32,
    /// Rows of HERALD_WEIGHT_DECAY where HERALD_WEIGHT_DECAY_UP follows it; 0: it is one matrix.
    pub decay_rank: u32,
    /// Rows of HERALD_WEIGHT_OUTPUT_GATE where HERALD_WEIGHT_OUTPUT_GATE_UP follows it; 0: it is one matrix.
    pub gate_rank: u32,
}

abi_structs! { HeraldDeltaNet up to gate_rank }

/// Which key head a value head uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum DeltaHeads {
    /// Value head `h` uses the key head `h / (n_value_heads / n_key_heads)`.
    Grouped = HERALD_DELTA_HEADS_GROUPED,
    /// Value head `h` uses the key head `h % n_key_heads`.
    Tiled = HERALD_DELTA_HEADS_TILED,
}

/// What decays alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum DeltaDecay {
    /// Each value head.
    Head = HERALD_DELTA_DECAY_HEAD,
    /// Each element of each value head's keys.
    Channel = HERALD_DELTA_DECAY_CHANNEL,
}

/// What the output is multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum DeltaGate {
    /// `silu(gate)`.
    Silu = HERALD_DELTA_GATE_SILU,
    /// `sigmoid(gate)`.
    Sigmoid = HERALD_DELTA_GATE_SIGMOID,
}

/// Linear attention by the gated delta rule; [`HeraldDeltaNet`](crate::abi::HeraldDeltaNet) has its formulas.
#[derive(Clone, Debug, PartialEq)]
pub struct DeltaNet {
    /// Heads of queries and keys.
    pub n_key_heads: usize,
    /// Heads of values: a multiple of `n_key_heads`.
    pub n_value_heads: usize,
    /// Elements of a query and of a key head.
    pub key_dim: usize,
    /// Elements of a value head.
    pub value_dim: usize,
    /// Taps of the convolutions.
    pub taps: usize,
    /// Which key head a value head uses.
    pub heads: DeltaHeads,
    /// What decays alone.
    pub decay: DeltaDecay,
    /// What the output is multiplied by.
    pub gate: DeltaGate,
    /// Rows of the first of two matrices that give the decays; `None`: one matrix gives them.
    pub decay_rank: Option<usize>,
    /// Rows of the first of two matrices that give the gate; `None`: one matrix gives it.
    pub gate_rank: Option<usize>,
}

impl DeltaNet {
    /// The key head that a value head uses.
    #[must_use]
    pub fn key_head(&self, value_head: usize) -> usize {
        match self.heads {
            DeltaHeads::Grouped => value_head / (self.n_value_heads / self.n_key_heads),
            DeltaHeads::Tiled => value_head % self.n_key_heads,
        }
    }

    /// Decays of a token.
    #[must_use]
    pub fn n_decays(&self) -> usize {
        match self.decay {
            DeltaDecay::Head => self.n_value_heads,
            DeltaDecay::Channel => self.n_value_heads.saturating_mul(self.key_dim),
        }
    }
}

fn unknown(what: &str, code: u32) -> Error {
    Error::unsupported(format!("a delta net's {what} {code} is not known to this plugin"))
}

impl KindParams for DeltaNet {
    type Raw = HeraldDeltaNet;

    fn to_raw(&self) -> HeraldDeltaNet {
        HeraldDeltaNet {
            n_key_heads: self.n_key_heads as u32,
            n_value_heads: self.n_value_heads as u32,
            key_dim: self.key_dim as u32,
            value_dim: self.value_dim as u32,
            taps: self.taps as u32,
            heads: self.heads as u32,
            decay: self.decay as u32,
            gate: self.gate as u32,
            decay_rank: self.decay_rank.unwrap_or(0) as u32,
            gate_rank: self.gate_rank.unwrap_or(0) as u32,
            ..AbiStruct::empty()
        }
    }

    fn from_raw(raw: &HeraldDeltaNet) -> Result<Self> {
        let rank = |rank: u32| (rank != 0).then_some(rank as usize);
        Ok(Self {
            n_key_heads: raw.n_key_heads as usize,
            n_value_heads: raw.n_value_heads as usize,
            key_dim: raw.key_dim as usize,
            value_dim: raw.value_dim as usize,
            taps: raw.taps as usize,
            heads: match raw.heads {
                HERALD_DELTA_HEADS_GROUPED => DeltaHeads::Grouped,
                HERALD_DELTA_HEADS_TILED => DeltaHeads::Tiled,
                other => return Err(unknown("order of heads", other)),
            },
            decay: match raw.decay {
                HERALD_DELTA_DECAY_HEAD => DeltaDecay::Head,
                HERALD_DELTA_DECAY_CHANNEL => DeltaDecay::Channel,
                other => return Err(unknown("decay", other)),
            },
            gate: match raw.gate {
                HERALD_DELTA_GATE_SILU => DeltaGate::Silu,
                HERALD_DELTA_GATE_SIGMOID => DeltaGate::Sigmoid,
                other => return Err(unknown("gate", other)),
            },
            decay_rank: rank(raw.decay_rank),
            gate_rank: rank(raw.gate_rank),
        })
    }

    fn weight(&self, hidden: usize, role: WeightRole) -> Option<WeightShape> {
        let Self { n_key_heads, n_value_heads, key_dim, value_dim, taps, decay_rank, gate_rank, .. } = *self;
        let keys = n_key_heads.saturating_mul(key_dim);
        let values = n_value_heads.saturating_mul(value_dim);
        let decays = self.n_decays();
        Some(match role {
            WeightRole::Norm => WeightShape::vector(hidden),
            WeightRole::Query | WeightRole::Key => WeightShape::matrix(keys, hidden),
            WeightRole::Value => WeightShape::matrix(values, hidden),
            WeightRole::QueryConv | WeightRole::KeyConv => WeightShape::table(keys, taps),
            WeightRole::ValueConv => WeightShape::table(values, taps),
            WeightRole::Beta => {
                WeightShape::matrix(n_value_heads, hidden).unless(&[WeightRole::BetaAndDecay])
            }
            WeightRole::Decay => {
                WeightShape::matrix(decay_rank.unwrap_or(decays), hidden).unless(&[WeightRole::BetaAndDecay])
            }
            WeightRole::DecayUp => WeightShape::matrix(decays, decay_rank?),
            WeightRole::BetaAndDecay if decays == n_value_heads && decay_rank.is_none() => {
                WeightShape::matrix(n_value_heads.saturating_mul(2), hidden).optional()
            }
            WeightRole::SsmDtBias => WeightShape::vector(decays),
            WeightRole::SsmA => WeightShape::vector(n_value_heads).or(n_value_heads, 1),
            WeightRole::SsmNorm => WeightShape::vector(value_dim),
            WeightRole::OutputGate => WeightShape::matrix(gate_rank.unwrap_or(values), hidden),
            WeightRole::OutputGateUp => WeightShape::matrix(values, gate_rank?),
            WeightRole::OutProjection => WeightShape::matrix(hidden, values),
            _ => return None,
        })
    }

    fn state_elements(&self, _hidden: usize) -> Option<usize> {
        let Self { n_key_heads, n_value_heads, key_dim, value_dim, taps, .. } = *self;
        let channels = 2 * n_key_heads * key_dim + n_value_heads * value_dim;
        Some(n_value_heads * key_dim * value_dim + taps.saturating_sub(1) * channels)
    }
}
