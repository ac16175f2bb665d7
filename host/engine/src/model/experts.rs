//! Mixtures of experts, by the names that GGUF gives their keys and tensors.

use herald_api::{Activation, LayerParams, Moe, Routing, WeightRole};

use super::parts::Builder;
use super::{ModelError, WeightPlan};

/// What an architecture's mixtures of experts are, where the file doesn't say.
#[derive(Clone, Copy)]
pub(super) struct Experts {
    /// Whether the weights of a token's experts add up to 1.
    pub(super) normalize: bool,
    /// What the router's results become.
    pub(super) routing: Routing,
    /// Whether experts have a gate.
    pub(super) gated: bool,
}

impl Experts {
    /// Gated experts, weighted by their shares among all experts.
    pub(super) const SHARES: Self = Self { normalize: false, routing: Routing::Softmax, gated: true };
    /// Gated experts, whose weights add up to 1.
    pub(super) const NORMALIZED: Self = Self { normalize: true, ..Self::SHARES };
    /// Gated experts, each of a probability of its own, whose weights add up to 1.
    pub(super) const SIGMOID: Self = Self { routing: Routing::Sigmoid, ..Self::NORMALIZED };
}

impl Builder<'_, '_> {
    /// Whether a block has a mixture of experts.
    pub(super) fn has_experts(&self, block: usize) -> bool {
        self.keys.has_tensor(&Self::tensor(block, "ffn_gate_inp.weight"))
    }

    /// Adds a block's gated MLP or its mixture of experts, whichever the file has.
    pub(super) fn feed_forward(
        &mut self,
        block: usize,
        width: usize,
        activation: Activation,
        experts: Experts,
    ) -> Result<(), ModelError> {
        if self.has_experts(block) {
            return self.moe(block, activation, experts);
        }
        self.gated_mlp(block, width, activation);
        Ok(())
    }

    /// Adds a block's mixture of experts.
    pub(super) fn moe(
        &mut self,
        block: usize,
        activation: Activation,
        experts: Experts,
    ) -> Result<(), ModelError> {
        let keys = self.keys;
        let n_experts = keys.size("expert_count")?;
        let n_used = keys.size("expert_used_count")?;
        if n_used > n_experts {
            let expected = format!("at most the {n_experts} of {}", keys.full("expert_count"));
            return Err(keys.bad("expert_used_count", n_used, expected));
        }
        let width = match keys.optional_size("expert_feed_forward_length")? {
            Some(width) => width,
            None => keys.sizes("feed_forward_length", self.blocks)?[block],
        };
        let shared = keys.has_tensor(&Self::tensor(block, "ffn_up_shexp.weight"));
        let shared_width = if shared { Some(self.shared_width(width)?) } else { None };
        let mut routing = match keys.count("expert_gating_func")? {
            0 => experts.routing,
            1 => Routing::Softmax,
            2 if experts.routing == Routing::SigmoidOfInput => experts.routing,
            2 => Routing::Sigmoid,
            other => {
                let expected = "1 (softmax) or 2 (sigmoid)".to_owned();
                return Err(keys.bad("expert_gating_func", other, expected));
            }
        };
        let groups = self.expert_groups(n_experts, n_used)?;
        if groups.is_some() {
            routing =
                if routing == Routing::Sigmoid { Routing::SigmoidGroups } else { Routing::SoftmaxGroups };
        }
        let params = Moe {
            n_experts,
            n_used,
            width,
            shared_width,
            groups,
            activation,
            gated: experts.gated,
            routing,
            normalize: keys.optional_flag("expert_weights_norm")?.unwrap_or(experts.normalize),
            weight_scale: keys
                .optional_float("expert_weights_scale")?
                .filter(|scale| *scale != 0.0)
                .unwrap_or(1.0),
        };
        let weights = self.moe_weights(block, experts.gated, shared);
        self.push(block, LayerParams::Moe(params), weights);
        Ok(())
    }

    /// The weights of a block's experts.
    fn moe_weights(&self, block: usize, gated: bool, shared: bool) -> Vec<WeightPlan> {
        let mut weights = self.weights(
            block,
            &[
                (WeightRole::Norm, self.ffn_norm),
                (WeightRole::Router, "ffn_gate_inp.weight"),
                (WeightRole::ExpertsUp, "ffn_up_exps.weight"),
                (WeightRole::ExpertsDown, "ffn_down_exps.weight"),
            ],
            &[
                (WeightRole::RouterBias, "exp_probs_b.bias"),
                (WeightRole::RouterScoreBias, "ffn_gate_inp.bias"),
                (WeightRole::ExpertsGateBias, "ffn_gate_exps.bias"),
                (WeightRole::ExpertsUpBias, "ffn_up_exps.bias"),
                (WeightRole::ExpertsDownBias, "ffn_down_exps.bias"),
            ],
        );
        let gate = |role, part| if gated { vec![(role, part)] } else { Vec::new() };
        weights.extend(self.weights(block, &gate(WeightRole::ExpertsGate, "ffn_gate_exps.weight"), &[]));
        if shared {
            weights.extend(self.weights(block, &gate(WeightRole::SharedGate, "ffn_gate_shexp.weight"), &[]));
            weights.extend(self.weights(
                block,
                &[
                    (WeightRole::SharedUp, "ffn_up_shexp.weight"),
                    (WeightRole::SharedDown, "ffn_down_shexp.weight"),
                ],
                &[(WeightRole::SharedRouter, "ffn_gate_inp_shexp.weight")],
            ));
        }
        weights
    }

    /// The width of the expert that all tokens use: as the file says, or as wide as several experts.
    fn shared_width(&self, width: usize) -> Result<usize, ModelError> {
        let keys = self.keys;
        let shared = keys.optional_size("expert_shared_feed_forward_length")?;
        let count = keys.optional_size("expert_shared_count")?;
        match (shared, count) {
            (Some(shared), Some(count)) if !shared.is_multiple_of(count) => {
                let full = keys.full("expert_shared_feed_forward_length");
                let expected = format!("a divisor of {shared}, the {full} of all of them");
                Err(keys.bad("expert_shared_count", count, expected))
            }
            (Some(shared), _) => Ok(shared),
            (None, Some(count)) => Ok(count * width),
            // As wide as another; the tensors are compared with that.
            (None, None) => Ok(width),
        }
    }

    /// The groups that experts are chosen from, and how many of them a token looks at; `None` where it looks at all.
    fn expert_groups(&self, n_experts: usize, n_used: usize) -> Result<Option<[usize; 2]>, ModelError> {
        let (keys, group_count) = (self.keys, "expert_group_count");
        let (count, used) = (keys.count(group_count)?, keys.count("expert_group_used_count")?);
        if count <= 1 {
            if used > 1 {
                let expected = "1, where there is one group".to_owned();
                return Err(keys.bad("expert_group_used_count", used, expected));
            }
            return Ok(None);
        }
        // The merit of a group is that of its best two.
        if !n_experts.is_multiple_of(count) || n_experts / count < 2 {
            let expected = format!("a divisor of {n_experts} experts that leaves at least 2 for each");
            return Err(keys.bad(group_count, count, expected));
        }
        if used == 0 || used > count || used * (n_experts / count) < n_used {
            let expected = format!("1 to {count} groups, which have at least {n_used} experts");
            return Err(keys.bad("expert_group_used_count", used, expected));
        }
        Ok((used < count).then_some([count, used]))
    }

    /// Whether the blocks that have experts are those that the file says: from the first after the dense ones, every
    /// `step`-th.
    pub(super) fn check_experts(&self) -> Result<(), ModelError> {
        let keys = self.keys;
        let n_experts = keys.count("expert_count")?;
        let with: Vec<usize> = (0..self.blocks).filter(|block| self.has_experts(*block)).collect();
        if with.is_empty() {
            if n_experts > 0 {
                let expected = "0 for a model without tensors of experts".to_owned();
                return Err(keys.bad("expert_count", n_experts, expected));
            }
            keys.disregard(&["expert_used_count", "expert_shared_feed_forward_length"]);
            return Ok(());
        }
        if let Some(dense) = keys.optional_count("leading_dense_block_count")?
            && with.iter().any(|block| *block < dense)
        {
            let expected = format!("at most {}, the first block that has experts", with[0]);
            return Err(keys.bad("leading_dense_block_count", dense, expected));
        }
        if let Some(step) = keys.optional_size("interleave_moe_layer_step")?
            && with.windows(2).any(|pair| pair[1] - pair[0] != step)
        {
            let expected = format!("the distance of the blocks {with:?}, which have experts");
            return Err(keys.bad("interleave_moe_layer_step", step, expected));
        }
        Ok(())
    }
}
