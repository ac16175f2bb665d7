//! Mixtures of experts (arXiv 1701.06538).

use super::{Activation, KindParams, WeightRole, WeightShape, flag};
use crate::abi::{AbiStruct, abi_structs};
use crate::{Error, Result};

/// Experts by the softmax of their scores.
pub const HERALD_ROUTING_SOFTMAX: u32 = 1;
/// Experts by the sigmoid of each score.
pub const HERALD_ROUTING_SIGMOID: u32 = 2;
/// As HERALD_ROUTING_SIGMOID, and an expert's weight multiplies what it reads, not what it gives (Llama 4).
pub const HERALD_ROUTING_SIGMOID_OF_INPUT: u32 = 20;

/// Experts by the sigmoid of each score, chosen among those of the n_groups_used groups whose two best together are greatest
/// (DeepSeek-V3).
pub const HERALD_ROUTING_SIGMOID_GROUPS: u32 = 3;
/// Experts by the softmax of their scores, chosen among those of the n_groups_used groups whose best is greatest (DeepSeek-V2).
pub const HERALD_ROUTING_SOFTMAX_GROUPS: u32 = 4;

/// Parameters of HERALD_LAYER_MOE.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldMoe {
    /// sizeof(HeraldMoe) of the host.
    pub struct_size: usize,
    /// Experts.
    pub n_experts: u32,
    /// Experts that each token uses: those of the greatest scores, of equal ones the first.
    pub n_used: u32,
    /// Elements between an expert's projections.
    pub width: u32,
    /// The same of the expert that every token uses; 0: there is none.
    pub shared_width: u32,
    /// HERALD_ACTIVATION_*.
    pub activation: u32,
    /// As in HeraldMlp.
    pub gated: u32,
    /// HERALD_ROUTING_*: what makes the weights of the experts from the router's scores.
    pub routing: u32,
    /// 1: the weights of a token's experts are divided by their sum; 0: they are not.
    pub normalize: u32,
    /// Multiplies the weights of a token's experts; usually 1.
    pub weight_scale: f32,
    /// For HERALD_ROUTING_*_GROUPS: groups of experts that follow each other, a divisor of n_experts; otherwise 0.
    pub n_groups: u32,
    /// For HERALD_ROUTING_*_GROUPS: groups that a token's experts are chosen from; otherwise 0.
    pub n_groups_used: u32,
}

abi_structs! { HeraldMoe up to weight_scale }

/// What makes the weights of experts from a router's scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum Routing {
    /// The softmax of all scores.
    Softmax = HERALD_ROUTING_SOFTMAX,
    /// The sigmoid of each score.
    Sigmoid = HERALD_ROUTING_SIGMOID,
    /// The sigmoid of each score, of the groups whose two best together are greatest.
    SigmoidGroups = HERALD_ROUTING_SIGMOID_GROUPS,
    /// The softmax of all scores, of the groups whose best is greatest.
    SoftmaxGroups = HERALD_ROUTING_SOFTMAX_GROUPS,
    /// The sigmoid of each score, which multiplies what an expert reads.
    SigmoidOfInput = HERALD_ROUTING_SIGMOID_OF_INPUT,
}

impl Routing {
    fn from_code(code: u32) -> Result<Self> {
        Ok(match code {
            HERALD_ROUTING_SOFTMAX => Self::Softmax,
            HERALD_ROUTING_SIGMOID => Self::Sigmoid,
            HERALD_ROUTING_SIGMOID_GROUPS => Self::SigmoidGroups,
            HERALD_ROUTING_SOFTMAX_GROUPS => Self::SoftmaxGroups,
            HERALD_ROUTING_SIGMOID_OF_INPUT => Self::SigmoidOfInput,
            other => return Err(Error::unsupported(format!("routing {other} is not known to this plugin"))),
        })
    }
}

/// A mixture of feed-forward networks, of which each token uses a few.
#[derive(Clone, Debug, PartialEq)]
pub struct Moe {
    /// Experts.
    pub n_experts: usize,
    /// Experts that each token uses: those of the greatest scores, of equal ones the first.
    pub n_used: usize,
    /// Elements between an expert's projections.
    pub width: usize,
    /// The same of the expert that every token uses.
    pub shared_width: Option<usize>,
    /// The function between the projections.
    pub activation: Activation,
    /// Whether there are gates.
    pub gated: bool,
    /// What makes weights from the router's scores.
    pub routing: Routing,
    /// Whether the weights of a token's experts are divided by their sum.
    pub normalize: bool,
    /// Multiplies the weights of a token's experts.
    pub weight_scale: f32,
    /// With routing by groups: how many groups there are, and from how many a token's experts are chosen.
    pub groups: Option<[usize; 2]>,
}

impl KindParams for Moe {
    type Raw = HeraldMoe;

    fn to_raw(&self) -> HeraldMoe {
        HeraldMoe {
            n_experts: self.n_experts as u32,
            n_used: self.n_used as u32,
            width: self.width as u32,
            shared_width: self.shared_width.unwrap_or(0) as u32,
            activation: self.activation as u32,
            gated: u32::from(self.gated),
            routing: self.routing as u32,
            normalize: u32::from(self.normalize),
            weight_scale: self.weight_scale,
            n_groups: self.groups.map_or(0, |[groups, _]| groups as u32),
            n_groups_used: self.groups.map_or(0, |[_, used]| used as u32),
            ..AbiStruct::empty()
        }
    }

    fn from_raw(raw: &HeraldMoe) -> Result<Self> {
        Ok(Self {
            n_experts: raw.n_experts as usize,
            n_used: raw.n_used as usize,
            width: raw.width as usize,
            shared_width: (raw.shared_width != 0).then_some(raw.shared_width as usize),
            activation: Activation::from_code(raw.activation)?,
            gated: flag(raw.gated, "a mixture of experts' gated")?,
            routing: Routing::from_code(raw.routing)?,
            normalize: flag(raw.normalize, "a mixture of experts' normalize")?,
            weight_scale: raw.weight_scale,
            groups: (raw.n_groups != 0).then_some([raw.n_groups as usize, raw.n_groups_used as usize]),
        })
    }

    fn weight(&self, hidden: usize, role: WeightRole) -> Option<WeightShape> {
        let Self { n_experts, width, gated, .. } = *self;
        // Of all experts, one after another.
        let stacked =
            |rows: usize, columns: usize| WeightShape::matrix(n_experts.saturating_mul(rows), columns);
        Some(match role {
            WeightRole::Norm => WeightShape::vector(hidden),
            WeightRole::Router => WeightShape::matrix(n_experts, hidden),
            WeightRole::RouterBias => WeightShape::vector(n_experts).optional(),
            WeightRole::RouterScoreBias => WeightShape::vector(n_experts).optional(),
            WeightRole::ExpertsGateBias if gated => WeightShape::table(n_experts, width).optional(),
            WeightRole::ExpertsUpBias => WeightShape::table(n_experts, width).optional(),
            WeightRole::ExpertsDownBias => WeightShape::table(n_experts, hidden).optional(),
            WeightRole::PostNorm | WeightRole::ExpertsPostNorm | WeightRole::RouterNorm => {
                WeightShape::vector(hidden).optional()
            }
            WeightRole::SharedNorm | WeightRole::SharedPostNorm => {
                self.shared_width.map(|_| WeightShape::vector(hidden).optional())?
            }
            WeightRole::OutputScale => WeightShape::vector(1).optional(),
            WeightRole::ExpertScales => WeightShape::vector(n_experts).optional(),
            WeightRole::ExpertsGateAndUp if gated => stacked(width.saturating_mul(2), hidden).optional(),
            WeightRole::ExpertsGate if gated => {
                stacked(width, hidden).unless(&[WeightRole::ExpertsGateAndUp])
            }
            WeightRole::ExpertsUp => stacked(width, hidden).unless(&[WeightRole::ExpertsGateAndUp]),
            WeightRole::ExpertsDown => stacked(hidden, width),
            WeightRole::SharedGate if gated => WeightShape::matrix(self.shared_width?, hidden),
            WeightRole::SharedUp => WeightShape::matrix(self.shared_width?, hidden),
            WeightRole::SharedDown => WeightShape::matrix(hidden, self.shared_width?),
            WeightRole::SharedRouter => self.shared_width.map(|_| WeightShape::vector(hidden).optional())?,
            _ => return None,
        })
    }
}
