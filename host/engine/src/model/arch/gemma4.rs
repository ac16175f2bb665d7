//! Gemma 4: Gemma 3 with normed values, blocks that attend to everything over larger heads (whose values may be their keys), and a
//! scale at the end of each block. The E models add what each block has for the token itself, and their last blocks read the keys
//! and values of an earlier one; the 26B-A4B has a mixture of experts beside each MLP.

use herald_api::{
    Activation, Attention, LayerParams, Moe, PerLayerEmbedding, RopeKind, RopeScaling, Routing, WeightRole,
};

use crate::model::attention::{usual_attention, windowed};
use crate::model::parts::{Builder, whole};
use crate::model::{Keys, ModelError, ModelPlan, WeightPlan};

/// Every sixth block attends to everything.
const PATTERN: usize = 6;

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |hidden| (hidden as f32).sqrt())?;
    let widths = keys.sizes("feed_forward_length", model.blocks)?;
    let windowed = windowed(keys, model.blocks, PATTERN)?;
    let attention = attention(keys, &windowed)?;
    let own_blocks = own_blocks(keys, model.blocks)?;
    let per_layer = keys.count("embedding_length_per_layer_input")?;
    let mut fillers = [None; 2];
    for (block, (mut attention, width)) in attention.into_iter().zip(widths).enumerate() {
        attention.shares_kv = block >= own_blocks;
        let filler = &mut fillers[usize::from(windowed[block])];
        model.attention(block, attention.clone());
        adapt(&mut model, block, &attention, *filler);
        if !attention.shares_kv {
            *filler = Some(model.n_layers() - 1);
        }
        if model.has_experts(block) {
            model.mlp_and_experts(block, width)?;
        } else {
            model.gated_mlp(block, width, Activation::GeluTanh);
        }
        if per_layer > 0 {
            model.per_layer_embedding(block, per_layer);
        }
        model.output_scale(block);
    }
    let softcap = keys.optional_float("final_logit_softcapping")?.filter(|cap| *cap != 0.0);
    model.finish(softcap)
}

/// The attention of each block, of which those within a window have other heads.
fn attention(keys: &Keys<'_>, windowed: &[bool]) -> Result<Vec<Attention>, ModelError> {
    let window = keys.size("attention.sliding_window")?;
    let base = keys.optional_float("rope.freq_base_swa")?.unwrap_or(10_000.0);
    let mut all = usual_attention(keys, windowed.len(), RopeKind::Halves)?;
    let of_window = |key: &str, usual: usize| Ok::<_, ModelError>(keys.optional_size(key)?.unwrap_or(usual));
    for (attention, windowed) in all.iter_mut().zip(windowed) {
        attention.scale = 1.0;
        let key_dim = of_window("attention.key_length_swa", attention.key_dim)?;
        let value_dim = of_window("attention.value_length_swa", attention.value_dim)?;
        let rope_dims = of_window("rope.dimension_count_swa", key_dim)?;
        if rope_dims > key_dim || !rope_dims.is_multiple_of(2) {
            let expected = format!("an even number of at most {key_dim} (the size of a key)");
            return Err(keys.bad("rope.dimension_count_swa", rope_dims, expected));
        }
        if *windowed {
            attention.window = Some(window);
            (attention.key_dim, attention.value_dim, attention.rope_dims) = (key_dim, value_dim, rope_dims);
            attention.rope_base = base;
            attention.rope_scaling = RopeScaling::None;
        }
    }
    Ok(all)
}

/// How many blocks have keys and values of their own: all but the last ones.
fn own_blocks(keys: &Keys<'_>, blocks: usize) -> Result<usize, ModelError> {
    let sharing = keys.count("attention.shared_kv_layers")?;
    blocks.checked_sub(sharing).filter(|own| *own > 0).ok_or_else(|| {
        keys.bad("attention.shared_kv_layers", sharing, format!("fewer than the {blocks} blocks"))
    })
}

/// Makes the layer that was just added what Gemma 4's is. `filler`: the layer whose pages it reads where it has none of its own.
fn adapt(model: &mut Builder<'_, '_>, block: usize, attention: &Attention, filler: Option<usize>) {
    let values = Builder::tensor(block, "attn_v.weight");
    let has_values = model.keys.has_tensor(&values);
    let Some(layer) = model.last_layer() else { return };
    if attention.window.is_some() {
        // The divisors of frequencies are for the larger heads.
        layer.weights.retain(|weight| weight.role != WeightRole::RopeFactors);
    }
    if attention.shares_kv {
        layer.pages_of = filler;
        // Files may hold them all the same.
        let of_own = [WeightRole::Key, WeightRole::Value, WeightRole::KeyNorm];
        let unused: Vec<String> = layer
            .weights
            .extract_if(.., |weight| of_own.contains(&weight.role))
            .map(|weight| weight.tensor)
            .collect();
        model.ignore(&unused.iter().map(String::as_str).collect::<Vec<_>>());
        return;
    }
    if !has_values {
        let keys = Builder::tensor(block, "attn_k.weight");
        let value = layer.weights.iter_mut().find(|weight| weight.role == WeightRole::Value);
        value.into_iter().for_each(|weight| weight.tensor.clone_from(&keys));
    }
    model.constant(WeightRole::ValueNorm, vec![1.0; attention.value_dim]);
}

impl Builder<'_, '_> {
    /// Adds a block's MLP with the mixture of experts beside it: the MLP is the expert that all tokens use.
    fn mlp_and_experts(&mut self, block: usize, width: usize) -> Result<(), ModelError> {
        let keys = self.keys;
        let params = Moe {
            n_experts: keys.size("expert_count")?,
            n_used: keys.size("expert_used_count")?,
            width: keys.size("expert_feed_forward_length")?,
            shared_width: Some(width),
            activation: Activation::GeluTanh,
            gated: true,
            routing: Routing::Softmax,
            normalize: true,
            weight_scale: 1.0,
            groups: None,
        };
        if params.n_used > params.n_experts {
            let expected = format!("at most the {} of {}", params.n_experts, keys.full("expert_count"));
            return Err(keys.bad("expert_used_count", params.n_used, expected));
        }
        let weights = self.weights(
            block,
            &[
                (WeightRole::Norm, "pre_ffw_norm_2.weight"),
                (WeightRole::Router, "ffn_gate_inp.weight"),
                (WeightRole::RouterNorm, "ffn_gate_inp.scale"),
                (WeightRole::ExpertScales, "ffn_down_exps.scale"),
                (WeightRole::ExpertsGateAndUp, "ffn_gate_up_exps.weight"),
                (WeightRole::ExpertsDown, "ffn_down_exps.weight"),
                (WeightRole::ExpertsPostNorm, "post_ffw_norm_2.weight"),
                (WeightRole::SharedNorm, "ffn_norm.weight"),
                (WeightRole::SharedGate, "ffn_gate.weight"),
                (WeightRole::SharedUp, "ffn_up.weight"),
                (WeightRole::SharedDown, "ffn_down.weight"),
                (WeightRole::SharedPostNorm, "post_ffw_norm_1.weight"),
                (WeightRole::PostNorm, "post_ffw_norm.weight"),
            ],
            &[],
        );
        self.push(block, LayerParams::Moe(params), weights);
        Ok(())
    }

    /// Adds what a block has for the token itself.
    fn per_layer_embedding(&mut self, block: usize, width: usize) {
        let root = |len: usize| (len as f32).sqrt();
        let params = PerLayerEmbedding {
            vocabulary: self.vocabulary(),
            width,
            table_width: self.blocks * width,
            first: block * width,
            activation: Activation::GeluTanh,
            embedding_scale: root(self.hidden),
            table_scale: root(width),
            projection_scale: 1.0 / root(self.hidden),
        };
        let mut weights = self.weights(
            block,
            &[
                (WeightRole::Gate, "inp_gate.weight"),
                (WeightRole::Down, "proj.weight"),
                (WeightRole::PostNorm, "post_norm.weight"),
            ],
            &[],
        );
        weights.extend([
            whole(WeightRole::Embedding, "token_embd.weight".to_owned()),
            whole(WeightRole::PerLayerTable, "per_layer_token_embd.weight".to_owned()),
            whole(WeightRole::PerLayerNorm, "per_layer_proj_norm.weight".to_owned()),
            WeightPlan {
                rows: Some(block * width..(block + 1) * width),
                ..whole(WeightRole::PerLayerProjection, "per_layer_model_proj.weight".to_owned())
            },
        ]);
        self.push(block, LayerParams::PerLayerEmbedding(params), weights);
    }

    /// Has the last layer of a block scale its output, where the file says so.
    fn output_scale(&mut self, block: usize) {
        let weights = self.weights(block, &[], &[(WeightRole::OutputScale, "layer_output_scale.weight")]);
        if let Some(layer) = self.last_layer() {
            layer.weights.extend(weights);
        }
    }
}
