//! The parts that most transformers share, by the names that GGUF gives their tensors.

use herald_api::{
    Activation, Attention, Embedding, Head, LayerDesc, LayerParams, Mlp, RopeKind, RopeScaling, WeightRole,
};

use super::{Keys, LayerPlan, ModelError, ModelPlan};

/// A transformer under construction: what all its layers share, and the layers so far.
pub(super) struct Builder<'k, 'g> {
    pub(super) keys: &'k Keys<'g>,
    pub(super) hidden: usize,
    pub(super) blocks: usize,
    pub(super) norm_eps: f32,
    vocabulary: usize,
    layers: Vec<LayerPlan>,
}

impl<'k, 'g> Builder<'k, 'g> {
    /// Reads the sizes, and adds the embedding.
    pub(super) fn new(
        keys: &'k Keys<'g>,
        embedding_scale: impl Fn(usize) -> f32,
    ) -> Result<Self, ModelError> {
        let hidden = keys.size("embedding_length")?;
        let vocabulary = keys.rows("token_embd.weight")?;
        let (blocks, tensors) = (keys.size("block_count")?, keys.n_tensors());
        if blocks > tensors {
            let expected = format!("at most one for each of the file's {tensors} tensors");
            return Err(keys.bad("block_count", blocks, expected));
        }
        let mut builder = Self {
            keys,
            hidden,
            blocks,
            norm_eps: keys.float("attention.layer_norm_rms_epsilon")?,
            vocabulary,
            layers: Vec::new(),
        };
        let params = LayerParams::Embedding(Embedding { vocabulary, scale: embedding_scale(hidden) });
        builder.push(0, params, vec![(WeightRole::Embedding, "token_embd.weight".to_owned())]);
        Ok(builder)
    }

    fn push(&mut self, index: usize, params: LayerParams, weights: Vec<(WeightRole, String)>) {
        let desc =
            LayerDesc { index, hidden: self.hidden, residual_scale: 1.0, norm_eps: self.norm_eps, params };
        self.layers.push(LayerPlan { desc, weights });
    }

    /// Those of a block's tensors that are there, and those that must be.
    fn weights(
        &self,
        block: usize,
        required: &[(WeightRole, &str)],
        optional: &[(WeightRole, &str)],
    ) -> Vec<(WeightRole, String)> {
        let name = |part: &str| format!("blk.{block}.{part}");
        let there = optional.iter().filter(|(_, part)| self.keys.has_tensor(&name(part)));
        required.iter().chain(there).map(|(role, part)| (*role, name(part))).collect()
    }

    /// Adds a block's attention.
    pub(super) fn attention(&mut self, block: usize, params: Attention) {
        let mut weights = self.weights(
            block,
            &[
                (WeightRole::Norm, "attn_norm.weight"),
                (WeightRole::Query, "attn_q.weight"),
                (WeightRole::Key, "attn_k.weight"),
                (WeightRole::Value, "attn_v.weight"),
                (WeightRole::AttentionOutput, "attn_output.weight"),
            ],
            &[
                (WeightRole::PostNorm, "post_attention_norm.weight"),
                (WeightRole::QueryBias, "attn_q.bias"),
                (WeightRole::KeyBias, "attn_k.bias"),
                (WeightRole::ValueBias, "attn_v.bias"),
                (WeightRole::AttentionOutputBias, "attn_output.bias"),
                (WeightRole::QueryNorm, "attn_q_norm.weight"),
                (WeightRole::KeyNorm, "attn_k_norm.weight"),
            ],
        );
        // Llama 3's scaling comes as divisors of the frequencies, one table for all blocks or one for each.
        let of_block = format!("blk.{block}.rope_freqs.weight");
        for name in [of_block.as_str(), "rope_freqs.weight"] {
            if self.keys.has_tensor(name) && params.rope != RopeKind::None {
                weights.push((WeightRole::RopeFactors, name.to_owned()));
                break;
            }
        }
        self.push(block, LayerParams::Attention(params), weights);
    }

    /// Adds a block's gated MLP.
    pub(super) fn gated_mlp(&mut self, block: usize, width: usize, activation: Activation) {
        let weights = self.weights(
            block,
            &[
                (WeightRole::Norm, "ffn_norm.weight"),
                (WeightRole::Gate, "ffn_gate.weight"),
                (WeightRole::Up, "ffn_up.weight"),
                (WeightRole::Down, "ffn_down.weight"),
            ],
            &[(WeightRole::PostNorm, "post_ffw_norm.weight")],
        );
        self.push(block, LayerParams::Mlp(Mlp { width, activation, gated: true }), weights);
    }

    /// Adds the head, with the embedding's matrix where the file has none of its own, and ends the model.
    pub(super) fn finish(mut self, softcap: Option<f32>) -> Result<ModelPlan, ModelError> {
        let output =
            if self.keys.has_tensor("output.weight") { "output.weight" } else { "token_embd.weight" };
        let params = LayerParams::Head(Head { vocabulary: self.vocabulary, scale: 1.0, softcap });
        let weights = vec![
            (WeightRole::Norm, "output_norm.weight".to_owned()),
            (WeightRole::Embedding, output.to_owned()),
        ];
        let last = self.blocks;
        self.push(last, params, weights);
        Ok(ModelPlan {
            architecture: self.keys.architecture().to_owned(),
            hidden: self.hidden,
            vocabulary: self.vocabulary,
            context: self.keys.size("context_length")?,
            blocks: self.blocks,
            layers: self.layers,
        })
    }
}

/// Attention as most transformers have it: heads and RoPE from the usual keys, over all earlier tokens, scaled by the root
/// of the key's size. One for each block.
pub(super) fn usual_attention(
    keys: &Keys<'_>,
    blocks: usize,
    rope: RopeKind,
) -> Result<Vec<Attention>, ModelError> {
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
            if n_heads == 0 || n_kv_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
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
            Ok(Attention {
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
                scale: 1.0 / (key_dim as f32).sqrt(),
            })
        })
        .collect()
}

/// RoPE's scaling for long contexts, as `rope.scaling.*` gives it. (Llama 3's comes as a tensor.)
fn rope_scaling(keys: &Keys<'_>) -> Result<RopeScaling, ModelError> {
    let factor = || match keys.optional_float("rope.scaling.factor")? {
        Some(factor) if factor > 0.0 => Ok(factor),
        Some(factor) => Err(keys.bad("rope.scaling.factor", factor, "a number above 0".to_owned())),
        None => Ok(1.0),
    };
    match keys.optional_text("rope.scaling.type")? {
        // Older files give a factor alone, under another name.
        None => Ok(match keys.optional_float("rope.scale_linear")? {
            Some(factor) if factor > 0.0 && factor != 1.0 => RopeScaling::Linear { factor },
            _ => RopeScaling::None,
        }),
        Some("none") => Ok(RopeScaling::None),
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
            })
        }
        Some(other) => {
            Err(keys.bad("rope.scaling.type", format!("{other:?}"), "none, linear or yarn".to_owned()))
        }
    }
}
