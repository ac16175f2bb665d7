//! The parts that most transformers share, by the names that GGUF gives their tensors.

use std::collections::BTreeMap;

use herald_api::{
    Activation, ActivationPrecision, Attention, Embedding, Head, LayerDesc, LayerParams, Mask, Mlp, RopeKind,
    WeightRole,
};

pub(super) use super::attention::{attention_of_some, no_heads, usual_attention, windowed};
pub(super) use super::experts::Experts;
use super::{Keys, LayerPlan, ModelError, ModelPlan, Pooling, WeightPlan, rank};

/// The norm after attention, or in some architectures the one before the MLP.
pub(super) const POST_ATTENTION_NORM: &str = "post_attention_norm.weight";

/// Biases that MLPs may have.
const UP_BIAS: (WeightRole, &str) = (WeightRole::UpBias, "ffn_up.bias");
const DOWN_BIAS: (WeightRole, &str) = (WeightRole::DownBias, "ffn_down.bias");

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
    /// The name of the norm before attention.
    pub(super) attention_norm: &'static str,
    /// The name of the norm before an MLP or a mixture of experts.
    pub(super) ffn_norm: &'static str,
    /// Whether norms of query and key heads come after RoPE.
    pub(super) norms_after_rope: bool,
    /// Whether attention that has no norm at its entry reads its input as it is.
    pub(super) may_lack_norm: bool,
    /// Whether norms over whole rows are layer norms, not RMS norms.
    layer_norms: bool,
    /// Whether tokens attend to earlier ones alone.
    causal: bool,
    pooling: Option<Pooling>,
    vocabulary: usize,
    layers: Vec<LayerPlan>,
    ignored_tensors: Vec<String>,
    constants: BTreeMap<String, Vec<f32>>,
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
            attention_norm: "attn_norm.weight",
            norms_after_rope: false,
            may_lack_norm: false,
            layer_norms: false,
            causal: keys.optional_flag("attention.causal")?.unwrap_or(true),
            pooling: pooling(keys)?,
            vocabulary,
            layers: Vec::new(),
            ignored_tensors: keys.tensors_of(blocks..all_blocks).map(str::to_owned).collect(),
            constants: BTreeMap::new(),
        };
        let scale = embedding_scale(hidden);
        let params = LayerParams::Embedding(Embedding { vocabulary, scale, positions: None });
        builder.push(0, params, vec![whole(WeightRole::Embedding, "token_embd.weight".to_owned())]);
        Ok(builder)
    }

    /// Has norms be layer norms.
    pub(super) fn use_layer_norms(&mut self) -> Result<(), ModelError> {
        self.layer_norms = true;
        self.norm_eps = self.keys.float("attention.layer_norm_epsilon")?;
        Ok(())
    }

    /// Has the embedding add what the file has for positions and for the first token type, and norm the sum where the file has that.
    pub(super) fn embedding_parts(&mut self) -> Result<(), ModelError> {
        let keys = self.keys;
        let has = |name: &&str| keys.has_tensor(name);
        let mut weights = Vec::new();
        if let Some(name) = Some("position_embd.weight").filter(has) {
            weights.push(whole(WeightRole::PositionEmbedding, name.to_owned()));
        }
        if let Some(name) = Some("token_types.weight").filter(has) {
            let tensor = name.to_owned();
            weights.push(WeightPlan { role: WeightRole::TypeEmbedding, tensor, rows: Some(0..1) });
        }
        if Some("token_embd_norm.weight").filter(has).is_some() {
            weights.extend(self.norm(
                "token_embd_norm.weight",
                WeightRole::LayerNorm,
                WeightRole::LayerNormBias,
            ));
        }
        let norm_eps = self.norm_eps;
        if let Some(LayerPlan { desc, weights: all, .. }) = self.layers.first_mut() {
            desc.norm_eps = norm_eps;
            if let LayerParams::Embedding(embedding) = &mut desc.params
                && has(&"position_embd.weight")
            {
                embedding.positions = Some(keys.rows("position_embd.weight")?);
            }
            all.extend(weights);
        }
        Ok(())
    }

    /// A weight of the last layer that is no tensor.
    pub(super) fn constant(&mut self, role: WeightRole, values: Vec<f32>) {
        let Some(layer) = self.layers.last_mut() else { return };
        let name = format!("blk.{}.{role:?}", layer.desc.block);
        layer.weights.push(whole(role, name.clone()));
        self.constants.insert(name, values);
    }

    /// A norm's weight, and its bias where the file has one.
    fn norm(&self, name: &str, weight: WeightRole, bias: WeightRole) -> Vec<WeightPlan> {
        let bias_name = format!("{}.bias", name.strip_suffix(".weight").unwrap_or(name));
        let bias = self.keys.has_tensor(&bias_name).then(|| whole(bias, bias_name));
        std::iter::once(whole(weight, name.to_owned())).chain(bias).collect()
    }

    /// The norm over whole rows of this name.
    fn row_norm(&self, name: &str) -> Vec<WeightPlan> {
        if self.layer_norms {
            return self.norm(name, WeightRole::LayerNorm, WeightRole::LayerNormBias);
        }
        vec![whole(WeightRole::Norm, name.to_owned())]
    }

    /// Adds a layer.
    pub(super) fn push(&mut self, block: usize, params: LayerParams, weights: Vec<WeightPlan>) {
        let desc = LayerDesc {
            block,
            hidden: self.hidden,
            residual_scale: self.residual_scale,
            norm_eps: self.norm_eps,
            activations: ActivationPrecision::default(),
            params,
        };
        self.layers.push(LayerPlan { desc, weights, shares_input: false, pages_of: None });
    }

    /// The layer that was added last.
    pub(super) fn last_layer(&mut self) -> Option<&mut LayerPlan> {
        self.layers.last_mut()
    }

    /// The file's keys.
    pub(super) fn keys(&self) -> &'k Keys<'g> {
        self.keys
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
            weights.extend(self.fused_projections(block, &params));
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
                (WeightRole::AttentionSinks, "attn_sinks.weight"),
            ],
        ));
        weights.extend(self.head_norms(block));
        self.residual_norm(block, "attn_output_norm.weight", &mut weights);
        let lacks_norm =
            self.may_lack_norm && !self.keys.has_tensor(&Self::tensor(block, self.attention_norm));
        if !lacks_norm {
            self.entry_norm(block, self.attention_norm, &mut weights);
        }
        // Llama 3's scaling comes as divisors of the frequencies, one table for all blocks or one for each.
        let of_block = format!("blk.{block}.rope_freqs.weight");
        for name in [of_block.as_str(), "rope_freqs.weight"] {
            if self.keys.has_tensor(name) && params.rope != RopeKind::None {
                weights.push(whole(WeightRole::RopeFactors, name.to_owned()));
                break;
            }
        }
        self.push(block, LayerParams::Attention(params), weights);
        if lacks_norm {
            self.constant(WeightRole::InputScale, vec![1.0; self.hidden]);
        }
    }

    /// Queries, keys and values in one tensor (Phi-3), and so their biases.
    fn fused_projections(&self, block: usize, params: &Attention) -> Vec<WeightPlan> {
        let [q, k] = [params.n_heads, params.n_kv_heads].map(|heads| heads * params.key_dim);
        let v = params.n_kv_heads * params.value_dim;
        let parts = |tensor: &str, roles: [WeightRole; 3]| {
            let tensor = Self::tensor(block, tensor);
            let rows = [0..q, q..q + k, q + k..q + k + v];
            let part = move |(role, rows)| WeightPlan { role, tensor: tensor.clone(), rows: Some(rows) };
            roles.into_iter().zip(rows).map(part)
        };
        let matrices = parts("attn_qkv.weight", [WeightRole::Query, WeightRole::Key, WeightRole::Value]);
        let biases = [WeightRole::QueryBias, WeightRole::KeyBias, WeightRole::ValueBias];
        let has_biases = self.keys.has_tensor(&Self::tensor(block, "attn_qkv.bias"));
        let biases = has_biases.then(|| parts("attn_qkv.bias", biases)).into_iter().flatten();
        matrices.chain(biases).collect()
    }

    /// The norms of query and key heads.
    fn head_norms(&self, block: usize) -> Vec<WeightPlan> {
        let [query, key] = match self.norms_after_rope {
            true => [WeightRole::RotatedQueryNorm, WeightRole::RotatedKeyNorm],
            false => [WeightRole::QueryNorm, WeightRole::KeyNorm],
        };
        // In models with layer norms they would be layer norms too.
        let names = [(query, "attn_q_norm.weight"), (key, "attn_k_norm.weight")];
        if self.layer_norms { Vec::new() } else { self.weights(block, &[], &names) }
    }

    /// The norm of a branch's input, which a branch with a norm of its output may lack.
    fn entry_norm(&self, block: usize, part: &str, weights: &mut Vec<WeightPlan>) {
        let name = Self::tensor(block, part);
        let is_norm = |role| matches!(role, WeightRole::PostNorm | WeightRole::ResidualNorm);
        let normed_after = weights.iter().any(|weight| is_norm(weight.role));
        if !normed_after || self.keys.has_tensor(&name) {
            weights.splice(0..0, self.row_norm(&name));
        }
    }

    /// The norm of residual and branch together, where the file has it (BERT).
    fn residual_norm(&self, block: usize, part: &str, weights: &mut Vec<WeightPlan>) {
        let name = Self::tensor(block, part);
        if self.layer_norms && self.keys.has_tensor(&name) {
            weights.extend(self.norm(&name, WeightRole::ResidualNorm, WeightRole::ResidualNormBias));
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
        let fused = weights.iter().any(|weight| weight.rows.is_some());
        let biases: &[_] = if fused { &[] } else { &[(WeightRole::GateBias, "ffn_gate.bias"), UP_BIAS] };
        weights.extend(self.weights(block, &[], biases));
        weights.extend(self.weights(
            block,
            &[(WeightRole::Down, "ffn_down.weight")],
            &[(WeightRole::PostNorm, "post_ffw_norm.weight"), DOWN_BIAS],
        ));
        self.residual_norm(block, "layer_output_norm.weight", &mut weights);
        // Falcon-H1's files leave the norm's suffix out.
        let bare = self.keys.has_tensor(&Self::tensor(block, "ffn_norm"));
        self.entry_norm(block, if bare { "ffn_norm" } else { self.ffn_norm }, &mut weights);
        self.push(block, LayerParams::Mlp(Mlp { width, activation, gated: true }), weights);
    }

    /// Adds a block's MLP without a gate.
    pub(super) fn plain_mlp(&mut self, block: usize, width: usize, activation: Activation) {
        let required = [(WeightRole::Up, "ffn_up.weight"), (WeightRole::Down, "ffn_down.weight")];
        let mut weights = self.weights(block, &required, &[UP_BIAS, DOWN_BIAS]);
        self.residual_norm(block, "layer_output_norm.weight", &mut weights);
        self.entry_norm(block, self.ffn_norm, &mut weights);
        self.push(block, LayerParams::Mlp(Mlp { width, activation, gated: false }), weights);
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

    /// Adds the head, with the embedding's matrix where the file has none for the head, and ends the model.
    pub(super) fn finish(self, softcap: Option<f32>) -> Result<ModelPlan, ModelError> {
        let (norm, output) = (self.output_norm, self.output().to_owned());
        self.finish_with(softcap, norm, output)
    }

    /// The head's matrix, or the embedding's where the file has none for the head.
    pub(super) fn output(&self) -> &'static str {
        if self.keys.has_tensor("output.weight") { "output.weight" } else { "token_embd.weight" }
    }

    /// The same with a head of this norm and this matrix.
    pub(super) fn finish_with(
        mut self,
        softcap: Option<f32>,
        norm: &str,
        output: String,
    ) -> Result<ModelPlan, ModelError> {
        let head = Head { vocabulary: self.vocabulary, scale: self.logit_scale, softcap };
        let mut weights = self.row_norm(norm);
        weights.push(whole(WeightRole::Embedding, output));
        if self.keys.has_tensor("output.bias") {
            weights.push(whole(WeightRole::OutputBias, "output.bias".to_owned()));
        }
        let pooled_norm = self.pooling.map(|_| self.pooled_norm(norm));
        self.residual_scale = 1.0;
        self.push(self.blocks, LayerParams::Head(head), weights);
        self.end(pooled_norm)
    }

    /// Ends a model that gives embeddings and no logits, of which this is the last norm, where it has one.
    pub(super) fn finish_encoder(mut self, norm: Option<&str>) -> Result<ModelPlan, ModelError> {
        self.residual_scale = 1.0;
        let pooled_norm = norm.map(|name| self.pooled_norm(name));
        self.end(pooled_norm)
    }

    /// The last norm by itself.
    pub(super) fn pooled_norm(&self, name: &str) -> LayerPlan {
        let head = Head { vocabulary: self.hidden, scale: 1.0, softcap: None };
        let desc = LayerDesc {
            block: self.blocks,
            hidden: self.hidden,
            residual_scale: 1.0,
            norm_eps: self.norm_eps,
            activations: ActivationPrecision::default(),
            params: LayerParams::Head(head),
        };
        LayerPlan { desc, weights: self.row_norm(name), shares_input: false, pages_of: None }
    }

    /// The matrices after pooling that the file has (EmbeddingGemma).
    fn dense(&mut self) -> Result<Vec<LayerPlan>, ModelError> {
        let mut plans = Vec::new();
        let mut width = self.hidden;
        for number in [2, 3] {
            let name = format!("dense_{number}.weight");
            if !self.keys.has_tensor(&name) {
                continue;
            }
            let vocabulary = self.keys.rows(&name)?;
            for (key, expected) in [("in", width), ("out", vocabulary)] {
                let key = format!("dense_{number}_feat_{key}");
                if let Some(given) = self.keys.optional_size(&key)?.filter(|given| *given != expected) {
                    return Err(self.keys.bad(&key, given, format!("{expected}, as the tensors have it")));
                }
            }
            plans.push(self.matrix(name, width, vocabulary));
            width = vocabulary;
        }
        Ok(plans)
    }

    /// A matrix by itself, from `width` elements to as many as its `rows`: a head without a norm.
    pub(super) fn matrix(&mut self, tensor: String, width: usize, rows: usize) -> LayerPlan {
        let desc = LayerDesc {
            block: self.blocks,
            hidden: width,
            residual_scale: 1.0,
            norm_eps: self.norm_eps,
            activations: ActivationPrecision::default(),
            params: LayerParams::Head(Head { vocabulary: rows, scale: 1.0, softcap: None }),
        };
        let ones = self.ones(tensor.strip_suffix(".weight").unwrap_or(&tensor), width);
        let weights = vec![whole(WeightRole::InputScale, ones), whole(WeightRole::Embedding, tensor)];
        LayerPlan { desc, weights, shares_input: false, pages_of: None }
    }

    /// The name of what stands in place of a norm where a matrix has none.
    pub(super) fn ones(&mut self, name: &str, width: usize) -> String {
        let ones = format!("{name}.ones");
        self.constants.insert(ones.clone(), vec![1.0; width]);
        ones
    }

    fn end(mut self, pooled_norm: Option<LayerPlan>) -> Result<ModelPlan, ModelError> {
        self.check_experts()?;
        let dense = self.dense()?;
        let rank = if rank::is_asked_for(self.keys)? { self.rank_steps()? } else { Vec::new() };
        if !self.causal {
            self.see_both_sides()?;
        }
        Ok(ModelPlan {
            architecture: self.keys.architecture().to_owned(),
            hidden: self.hidden,
            vocabulary: self.vocabulary,
            context: self.keys.size("context_length")?,
            blocks: self.blocks,
            layers: self.layers,
            ignored_tensors: self.ignored_tensors,
            constants: self.constants,
            scales: BTreeMap::new(),
            pooling: self.pooling,
            pooled_norm,
            dense,
            rank,
            mtp: None,
            fusion: None,
        })
    }

    /// Has tokens attend to later ones too, as `attention.causal = false` asks.
    fn see_both_sides(&mut self) -> Result<(), ModelError> {
        for LayerPlan { desc, .. } in &mut self.layers {
            let one_sided = match &mut desc.params {
                LayerParams::Attention(Attention { mask: Mask::Bidirectional, .. }) => false,
                LayerParams::Attention(attention) => {
                    let has_window = attention.window.is_some();
                    attention.mask = Mask::Bidirectional;
                    has_window
                }
                params => params.is_recurrent(),
            };
            if one_sided {
                let expected = format!("true: the {} of block {} sees", desc.kind().name(), desc.block);
                return Err(self.keys.bad("attention.causal", false, expected + " earlier tokens alone"));
            }
        }
        Ok(())
    }
}

/// How the file says that embeddings are pooled.
fn pooling(keys: &Keys<'_>) -> Result<Option<Pooling>, ModelError> {
    Ok(match keys.optional_count("pooling_type")? {
        None | Some(0) if rank::is_asked_for(keys)? => Some(rank::pooling(keys)?),
        None | Some(0) => None,
        Some(1) => Some(Pooling::Mean),
        Some(2) => Some(Pooling::Cls),
        Some(3) => Some(Pooling::Last),
        Some(rank::POOLING_TYPE) => Some(rank::pooling(keys)?),
        Some(other) => {
            let expected = "0 (none), 1 (mean), 2 (the first token), 3 (the last) or 4 (a rank)".to_owned();
            return Err(keys.bad("pooling_type", other, expected));
        }
    })
}

/// A weight that is a whole tensor.
pub(super) fn whole(role: WeightRole, tensor: String) -> WeightPlan {
    WeightPlan { role, tensor, rows: None }
}
