//! The parts that most transformers share, by the names that GGUF gives their tensors.

use herald_api::{
    Activation, Attention, Embedding, Head, LayerDesc, LayerParams, Mlp, Moe, RopeKind, RopeScaling, Routing,
    WeightRole,
};

use super::{Keys, LayerPlan, ModelError, ModelPlan, WeightPlan};

/// The norm after attention, or in some architectures the one before the MLP.
pub(super) const POST_ATTENTION_NORM: &str = "post_attention_norm.weight";

/// A transformer under construction: what all its layers share, and the layers so far.
pub(super) struct Builder<'k, 'g> {
    pub(super) keys: &'k Keys<'g>,
    pub(super) hidden: usize,
    pub(super) blocks: usize,
    pub(super) norm_eps: f32,
    /// Multiplies each branch before it is added.
    pub(super) residual_scale: f32,
    /// Multiplies the logits.
    pub(super) logit_scale: f32,
    /// Whether attention's query projections have gates between the queries.
    pub(super) has_gated_attention: bool,
    /// The name of the norm before the head.
    pub(super) output_norm: &'static str,
    /// The name of the norm before an MLP or a mixture of experts.
    pub(super) ffn_norm: &'static str,
    vocabulary: usize,
    layers: Vec<LayerPlan>,
    ignored_tensors: Vec<String>,
}

impl<'k, 'g> Builder<'k, 'g> {
    /// Reads the sizes, and adds the embedding.
    pub(super) fn new(
        keys: &'k Keys<'g>,
        embedding_scale: impl Fn(usize) -> f32,
    ) -> Result<Self, ModelError> {
        let hidden = keys.size("embedding_length")?;
        let vocabulary = keys.rows("token_embd.weight")?;
        let (all_blocks, tensors) = (keys.size("block_count")?, keys.n_tensors());
        if all_blocks > tensors {
            let expected = format!("at most one for each of the file's {tensors} tensors");
            return Err(keys.bad("block_count", all_blocks, expected));
        }
        // The last blocks may be there to predict tokens after the next one (DeepSeek-V3's MTP).
        let extra = keys.count("nextn_predict_layers")?;
        let blocks = all_blocks.checked_sub(extra).filter(|blocks| *blocks > 0).ok_or_else(|| {
            let expected = format!("fewer than the {all_blocks} of {}", keys.full("block_count"));
            keys.bad("nextn_predict_layers", extra, expected)
        })?;
        if keys.optional_flag("attention.causal")? == Some(false) {
            let expected = "true: this architecture is run token after token".to_owned();
            return Err(keys.bad("attention.causal", false, expected));
        }
        let mut builder = Self {
            keys,
            hidden,
            blocks,
            norm_eps: match keys.optional_float("attention.layer_norm_rms_epsilon")? {
                Some(eps) => eps,
                // Nemotron-H's files call it by the other norm's name.
                None => match keys.optional_float("attention.layer_norm_epsilon")? {
                    Some(eps) => eps,
                    None => keys.float("attention.layer_norm_rms_epsilon")?,
                },
            },
            residual_scale: 1.0,
            logit_scale: 1.0,
            has_gated_attention: false,
            output_norm: "output_norm.weight",
            ffn_norm: "ffn_norm.weight",
            vocabulary,
            layers: Vec::new(),
            ignored_tensors: keys.tensors_of(blocks..all_blocks).map(str::to_owned).collect(),
        };
        let params = LayerParams::Embedding(Embedding { vocabulary, scale: embedding_scale(hidden) });
        builder.push(0, params, vec![whole(WeightRole::Embedding, "token_embd.weight".to_owned())]);
        Ok(builder)
    }

    /// Adds a layer.
    pub(super) fn push(&mut self, block: usize, params: LayerParams, weights: Vec<WeightPlan>) {
        let desc = LayerDesc {
            block,
            hidden: self.hidden,
            residual_scale: self.residual_scale,
            norm_eps: self.norm_eps,
            params,
        };
        self.layers.push(LayerPlan { desc, weights, shares_input: false, pages_of: None });
    }

    /// The layer that was added last.
    pub(super) fn last_layer(&mut self) -> Option<&mut LayerPlan> {
        self.layers.last_mut()
    }

    /// Layers so far.
    pub(super) fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// Tokens of the vocabulary.
    pub(super) fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Has the last layer read the input of the one before it.
    pub(super) fn share_input(&mut self) {
        if let Some(layer) = self.layers.last_mut() {
            layer.shares_input = true;
        }
    }

    /// Accepts tensors that the file may have and the model doesn't use.
    pub(super) fn ignore(&mut self, tensors: &[&str]) {
        self.ignored_tensors.extend(tensors.iter().map(|name| (*name).to_owned()));
    }

    /// The name of a block's tensor.
    pub(super) fn tensor(block: usize, part: &str) -> String {
        format!("blk.{block}.{part}")
    }

    /// A block's required tensors, and those of the optional ones that the file has.
    pub(super) fn weights(
        &self,
        block: usize,
        required: &[(WeightRole, &str)],
        optional: &[(WeightRole, &str)],
    ) -> Vec<WeightPlan> {
        let name = |part: &str| Self::tensor(block, part);
        let there = optional.iter().filter(|(_, part)| self.keys.has_tensor(&name(part)));
        required.iter().chain(there).map(|(role, part)| whole(*role, name(part))).collect()
    }

    /// Adds a block's attention.
    pub(super) fn attention(&mut self, block: usize, params: Attention) {
        let query = if self.has_gated_attention { WeightRole::QueryAndGate } else { WeightRole::Query };
        let projections: &[_] = if self.keys.has_tensor(&Self::tensor(block, "attn_qkv.weight")) {
            &[]
        } else {
            &[
                (query, "attn_q.weight"),
                (WeightRole::Key, "attn_k.weight"),
                (WeightRole::Value, "attn_v.weight"),
            ]
        };
        let mut weights = self.weights(block, projections, &[]);
        if projections.is_empty() {
            // Queries, keys and values in one tensor (Phi-3).
            let [q, k] = [params.n_heads, params.n_kv_heads].map(|heads| heads * params.key_dim);
            let v = params.n_kv_heads * params.value_dim;
            let tensor = Self::tensor(block, "attn_qkv.weight");
            let parts = [
                (WeightRole::Query, 0..q),
                (WeightRole::Key, q..q + k),
                (WeightRole::Value, q + k..q + k + v),
            ];
            let part = |(role, rows)| WeightPlan { rows: Some(rows), ..whole(role, tensor.clone()) };
            weights.extend(parts.map(part));
        }
        // Some files give the MLP's own norm the name that others give the norm after attention.
        if self.ffn_norm != POST_ATTENTION_NORM {
            weights.extend(self.weights(block, &[], &[(WeightRole::PostNorm, POST_ATTENTION_NORM)]));
        }
        weights.extend(self.weights(
            block,
            &[(WeightRole::AttentionOutput, "attn_output.weight")],
            &[
                (WeightRole::QueryBias, "attn_q.bias"),
                (WeightRole::KeyBias, "attn_k.bias"),
                (WeightRole::ValueBias, "attn_v.bias"),
                (WeightRole::AttentionOutputBias, "attn_output.bias"),
                (WeightRole::QueryNorm, "attn_q_norm.weight"),
                (WeightRole::KeyNorm, "attn_k_norm.weight"),
                (WeightRole::AttentionSinks, "attn_sinks.weight"),
            ],
        ));
        self.entry_norm(block, "attn_norm.weight", &mut weights);
        // Llama 3's scaling comes as divisors of the frequencies, one table for all blocks or one for each.
        let of_block = format!("blk.{block}.rope_freqs.weight");
        for name in [of_block.as_str(), "rope_freqs.weight"] {
            if self.keys.has_tensor(name) && params.rope != RopeKind::None {
                weights.push(whole(WeightRole::RopeFactors, name.to_owned()));
                break;
            }
        }
        self.push(block, LayerParams::Attention(params), weights);
    }

    /// The norm of a branch's input, which a branch with a norm of its output may lack.
    fn entry_norm(&self, block: usize, part: &str, weights: &mut Vec<WeightPlan>) {
        let name = Self::tensor(block, part);
        let normed_after = weights.iter().any(|weight| weight.role == WeightRole::PostNorm);
        if !normed_after || self.keys.has_tensor(&name) {
            weights.insert(0, whole(WeightRole::Norm, name));
        }
    }

    /// Adds a block's gated MLP.
    pub(super) fn gated_mlp(&mut self, block: usize, width: usize, activation: Activation) {
        let mut weights = if self.keys.has_tensor(&Self::tensor(block, "ffn_gate.weight")) {
            self.weights(
                block,
                &[(WeightRole::Gate, "ffn_gate.weight"), (WeightRole::Up, "ffn_up.weight")],
                &[],
            )
        } else {
            // Gate and up in one tensor (Phi-3).
            let tensor = Self::tensor(block, "ffn_up.weight");
            let parts = [(WeightRole::Gate, 0..width), (WeightRole::Up, width..2 * width)];
            parts.map(|(role, rows)| WeightPlan { rows: Some(rows), ..whole(role, tensor.clone()) }).to_vec()
        };
        weights.extend(self.weights(
            block,
            &[(WeightRole::Down, "ffn_down.weight")],
            &[(WeightRole::PostNorm, "post_ffw_norm.weight")],
        ));
        // Falcon-H1's files leave the norm's suffix out.
        let bare = self.keys.has_tensor(&Self::tensor(block, "ffn_norm"));
        self.entry_norm(block, if bare { "ffn_norm" } else { self.ffn_norm }, &mut weights);
        self.push(block, LayerParams::Mlp(Mlp { width, activation, gated: true }), weights);
    }

    /// Adds a block's MLP without a gate.
    pub(super) fn plain_mlp(&mut self, block: usize, width: usize, activation: Activation) {
        let required = [
            (WeightRole::Norm, self.ffn_norm),
            (WeightRole::Up, "ffn_up.weight"),
            (WeightRole::Down, "ffn_down.weight"),
        ];
        let weights = self.weights(block, &required, &[]);
        self.push(block, LayerParams::Mlp(Mlp { width, activation, gated: false }), weights);
    }

    /// Whether a block has a mixture of experts.
    pub(super) fn has_experts(&self, block: usize) -> bool {
        self.keys.has_tensor(&Self::tensor(block, "ffn_gate_inp.weight"))
    }

    /// Has all attention so far use a table of divisors of RoPE's frequencies, where the file has it.
    pub(super) fn rope_factors(&mut self, name: &str) {
        if self.keys.has_tensor(name) {
            let attention = |layer: &&mut LayerPlan| matches!(layer.desc.params, LayerParams::Attention(_));
            for layer in self.layers.iter_mut().filter(attention) {
                layer.weights.push(whole(WeightRole::RopeFactors, name.to_owned()));
            }
        }
    }

    /// Adds blocks of attention and gated MLPs, and ends the model.
    pub(super) fn dense_blocks(
        mut self,
        attention: Vec<Attention>,
        activation: Activation,
    ) -> Result<ModelPlan, ModelError> {
        let widths = self.keys.sizes("feed_forward_length", self.blocks)?;
        for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
            self.attention(block, attention);
            self.gated_mlp(block, width, activation);
        }
        self.finish(None)
    }

    /// The same with mixtures of experts in the blocks that the file has them for.
    pub(super) fn expert_blocks(
        mut self,
        attention: Vec<Attention>,
        activation: Activation,
        experts: Experts,
    ) -> Result<ModelPlan, ModelError> {
        let widths = self.keys.sizes("feed_forward_length", self.blocks)?;
        for (block, (attention, width)) in attention.into_iter().zip(widths).enumerate() {
            self.attention(block, attention);
            self.feed_forward(block, width, activation, experts)?;
        }
        self.finish(None)
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
            (None, None) => keys.size("expert_shared_feed_forward_length"),
        }
    }

    /// The groups that experts are chosen from, and how many of them a token looks at; `None` where it looks at all.
    fn expert_groups(&self, n_experts: usize, n_used: usize) -> Result<Option<[usize; 2]>, ModelError> {
        let (keys, group_count) = (self.keys, "expert_group_count");
        let (count, used) = (keys.count(group_count)?, keys.count("expert_group_used_count")?);
        if count <= 1 {
            if used > 1 {
                return Err(keys.bad(
                    "expert_group_used_count",
                    used,
                    "1, where there is one group".to_owned(),
                ));
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
    fn check_experts(&self) -> Result<(), ModelError> {
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

    /// Adds the head, with the embedding's matrix where the file has none for the head, and ends the model.
    pub(super) fn finish(mut self, softcap: Option<f32>) -> Result<ModelPlan, ModelError> {
        self.check_experts()?;
        let output =
            if self.keys.has_tensor("output.weight") { "output.weight" } else { "token_embd.weight" };
        let head = Head { vocabulary: self.vocabulary, scale: self.logit_scale, softcap };
        let weights = vec![
            whole(WeightRole::Norm, self.output_norm.to_owned()),
            whole(WeightRole::Embedding, output.to_owned()),
        ];
        self.residual_scale = 1.0;
        let last = self.blocks;
        self.push(last, LayerParams::Head(head), weights);
        Ok(ModelPlan {
            architecture: self.keys.architecture().to_owned(),
            hidden: self.hidden,
            vocabulary: self.vocabulary,
            context: self.keys.size("context_length")?,
            blocks: self.blocks,
            layers: self.layers,
            ignored_tensors: self.ignored_tensors,
        })
    }
}

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

/// A weight that is a whole tensor.
pub(super) fn whole(role: WeightRole, tensor: String) -> WeightPlan {
    WeightPlan { role, tensor, rows: None, constant: None }
}

/// Attention as most transformers have it: heads and RoPE from the usual keys, over all earlier tokens, scaled by the root
/// of the key's size. One for each block.
pub(super) fn usual_attention(
    keys: &Keys<'_>,
    blocks: usize,
    rope: RopeKind,
) -> Result<Vec<Attention>, ModelError> {
    let attention = attention_of_some(keys, blocks, rope)?;
    attention
        .into_iter()
        .enumerate()
        .map(|(block, attention)| attention.ok_or_else(|| no_heads(keys, block)))
        .collect()
}

/// The error for a block without attention, where every block needs it.
pub(super) fn no_heads(keys: &Keys<'_>, block: usize) -> ModelError {
    let value = format!("0 for block {block}");
    keys.bad("attention.head_count_kv", value, "at least 1 for each block".to_owned())
}

/// As [`usual_attention`], for models of which some blocks have no attention: their KV heads are given as 0.
pub(super) fn attention_of_some(
    keys: &Keys<'_>,
    blocks: usize,
    rope: RopeKind,
) -> Result<Vec<Option<Attention>>, ModelError> {
    let hidden = keys.size("embedding_length")?;
    let heads = keys.sizes("attention.head_count", blocks)?;
    let kv_heads = match keys.optional_array("attention.head_count_kv")? {
        Some(_) => keys.sizes("attention.head_count_kv", blocks)?,
        None => match keys.optional_size("attention.head_count_kv")? {
            Some(n) => vec![n; blocks],
            None => heads.clone(),
        },
    };
    let key_length = keys.optional_size("attention.key_length")?;
    let value_length = keys.optional_size("attention.value_length")?;
    let rope_dims = keys.optional_size("rope.dimension_count")?;
    let rope_base = keys.optional_float("rope.freq_base")?.unwrap_or(10_000.0);
    let rope_scaling = rope_scaling(keys)?;
    heads
        .into_iter()
        .zip(kv_heads)
        .map(|(n_heads, n_kv_heads)| {
            if n_kv_heads == 0 {
                return Ok(None);
            }
            if n_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
                let expected = format!("a divisor of {n_heads} query heads");
                return Err(keys.bad("attention.head_count_kv", n_kv_heads, expected));
            }
            let key_dim = key_length.unwrap_or(hidden / n_heads);
            let value_dim = value_length.unwrap_or(hidden / n_heads);
            let rope_dims = rope_dims.unwrap_or(key_dim);
            if rope_dims > key_dim || !rope_dims.is_multiple_of(2) {
                let expected = format!("an even number of at most {key_dim} (the size of a key)");
                return Err(keys.bad("rope.dimension_count", rope_dims, expected));
            }
            Ok(Some(Attention {
                n_heads,
                n_kv_heads,
                key_dim,
                value_dim,
                window: None,
                rope,
                rope_dims,
                rope_base,
                rope_scaling,
                softcap: None,
                latent: None,
                shares_kv: false,
                scale: 1.0 / (key_dim as f32).sqrt(),
            }))
        })
        .collect()
}

/// RoPE's scaling for long contexts, as `rope.scaling.*` gives it. (Llama 3's comes as a tensor.)
pub(super) fn rope_scaling(keys: &Keys<'_>) -> Result<RopeScaling, ModelError> {
    let factor = || match keys.optional_float("rope.scaling.factor")? {
        Some(factor) if factor > 0.0 => Ok(factor),
        Some(factor) => Err(keys.bad("rope.scaling.factor", factor, "a number above 0".to_owned())),
        None => Ok(1.0),
    };
    const OF_YARN: [&str; 6] = [
        "rope.scaling.yarn_truncate",
        "rope.scaling.original_context_length",
        "rope.scaling.yarn_ext_factor",
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
        "rope.scaling.attn_factor",
    ];
    let kind = keys.optional_text("rope.scaling.type")?;
    if kind != Some("yarn") {
        keys.disregard(&OF_YARN);
    }
    match kind {
        // A factor alone is linear; older files have it under another name.
        None => {
            let factors = [factor()?, keys.optional_float("rope.scale_linear")?.unwrap_or(1.0)];
            let factor = factors.into_iter().find(|factor| *factor > 0.0 && *factor != 1.0);
            Ok(factor.map_or(RopeScaling::None, |factor| RopeScaling::Linear { factor }))
        }
        Some("none") => {
            keys.disregard(&["rope.scaling.factor"]);
            Ok(RopeScaling::None)
        }
        Some("linear") => Ok(RopeScaling::Linear { factor: factor()? }),
        Some("yarn") => {
            let context = keys.optional_size("rope.scaling.original_context_length")?;
            let number =
                |key: &str, usual: f32| Ok::<_, ModelError>(keys.optional_float(key)?.unwrap_or(usual));
            Ok(RopeScaling::Yarn {
                factor: factor()?,
                original_context: context.map_or_else(|| keys.size("context_length"), Ok)? as u32,
                ext_factor: number("rope.scaling.yarn_ext_factor", 1.0)?,
                attn_factor: number("rope.scaling.attn_factor", 1.0)?,
                beta_fast: number("rope.scaling.yarn_beta_fast", 32.0)?,
                beta_slow: number("rope.scaling.yarn_beta_slow", 1.0)?,
                whole_pairs: keys.optional_flag("rope.scaling.yarn_truncate")?.unwrap_or(true),
            })
        }
        Some(other) => {
            Err(keys.bad("rope.scaling.type", format!("{other:?}"), "none, linear or yarn".to_owned()))
        }
    }
}

/// Which blocks attend within a window: as the file says block by block, or all but every `pattern`-th.
pub(super) fn windowed(keys: &Keys<'_>, blocks: usize, pattern: usize) -> Result<Vec<bool>, ModelError> {
    const KEY: &str = "attention.sliding_window_pattern";
    if let Some(flags) = keys.optional_array(KEY)? {
        if flags.len() != blocks {
            let expected = format!("one for each of {blocks} blocks");
            return Err(keys.bad(KEY, format!("{} flags", flags.len()), expected));
        }
        return Ok(flags.into_iter().map(|flag| flag != 0).collect());
    }
    let pattern = keys.optional_size(KEY)?.unwrap_or(pattern);
    Ok((0..blocks).map(|block| !(block + 1).is_multiple_of(pattern)).collect())
}
