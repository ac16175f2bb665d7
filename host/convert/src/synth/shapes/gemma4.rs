//! Gemma 4's E models: windows in all but every fifth block, whose heads are larger; embeddings of the token for each block; and
//! last blocks that read an earlier one's keys and values, with wider MLPs. Sizes are those of Gemma 4 E2B's `config.json`.

use super::super::recipe::{Fact, Fill, Heads, Recipe};
use super::{EPS, output_norm};

/// What differs between models of this kind.
pub(in super::super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) blocks: usize,
    pub(super) vocabulary: usize,
    /// The MLPs' width; those of the last blocks have twice as much.
    pub(super) width: usize,
    /// The heads within a window; the others are twice as large.
    pub(super) heads: Heads,
    pub(super) window: usize,
    /// Every how many blocks one sees everything.
    pub(super) interval: usize,
    /// Blocks at the end without keys and values of their own.
    pub(super) sharing: usize,
    /// Elements that a block has for each token.
    pub(super) per_layer: usize,
}

/// Gemma 4 E2B.
pub(super) const E2B: Sizes = Sizes {
    hidden: 1536,
    blocks: 35,
    vocabulary: 262_144,
    width: 6144,
    heads: Heads { n: 8, kv: 1, dim: 256 },
    window: 512,
    interval: 5,
    sharing: 20,
    per_layer: 256,
};

#[cfg(test)]
pub(super) const TINY: Sizes = Sizes {
    hidden: 64,
    blocks: 6,
    vocabulary: 300,
    width: 96,
    heads: Heads { n: 4, kv: 1, dim: 16 },
    window: 8,
    interval: 3,
    sharing: 3,
    per_layer: 32,
};

pub(super) fn recipe(sizes: &Sizes) -> Recipe {
    let &Sizes { hidden, blocks, vocabulary, width, heads, window, interval, sharing, per_layer } = sizes;
    let large = Heads { dim: 2 * heads.dim, ..heads };
    let own = blocks - sharing;
    let windowed = |block: usize| !(block + 1).is_multiple_of(interval);
    let width_of = |block: usize| if block < own { width } else { 2 * width };
    let mut recipe = Recipe::new("gemma4", [hidden, blocks, vocabulary, 131_072], true);
    let widths = (0..blocks).map(|block| width_of(block) as i32);
    recipe.fact("feed_forward_length", Fact::Numbers(widths.collect()));
    recipe.heads(large, None);
    recipe.number("attention.key_length_swa", heads.dim);
    recipe.number("attention.value_length_swa", heads.dim);
    recipe.number("attention.sliding_window", window);
    recipe.fact("attention.sliding_window_pattern", Fact::Flags((0..blocks).map(windowed).collect()));
    recipe.number("attention.shared_kv_layers", sharing);
    recipe.number("embedding_length_per_layer_input", per_layer);
    recipe.number("rope.dimension_count", large.dim);
    recipe.number("rope.dimension_count_swa", heads.dim);
    recipe.real("rope.freq_base", 1e6);
    recipe.real("rope.freq_base_swa", 1e4);
    recipe.real("final_logit_softcapping", 30.0);
    recipe.real(EPS, 1e-6);
    recipe.tensor("rope_freqs.weight", &[large.dim / 2], Fill::FirstQuarter);
    recipe.tensor("per_layer_token_embd.weight", &[blocks * per_layer, vocabulary], Fill::Matrix);
    recipe.tensor("per_layer_model_proj.weight", &[hidden, blocks * per_layer], Fill::Weights);
    recipe.tensor("per_layer_proj_norm.weight", &[per_layer], Fill::Between(0.9, 1.1));
    for block in 0..blocks {
        let heads = if windowed(block) { heads } else { large };
        recipe.norm(block, "attn_norm.weight", hidden);
        let Heads { n, kv, dim } = heads;
        recipe.matrix(block, "attn_q", &[hidden, n * dim]);
        recipe.norm(block, "attn_q_norm.weight", dim);
        if block < own {
            recipe.matrix(block, "attn_k", &[hidden, kv * dim]);
            recipe.norm(block, "attn_k_norm.weight", dim);
            recipe.matrix(block, "attn_v", &[hidden, kv * dim]);
        }
        recipe.matrix(block, "attn_output", &[n * dim, hidden]);
        recipe.norm(block, "post_attention_norm.weight", hidden);
        recipe.norm(block, "ffn_norm.weight", hidden);
        recipe.mlp(block, hidden, width_of(block));
        recipe.norm(block, "post_ffw_norm.weight", hidden);
        recipe.matrix(block, "inp_gate", &[hidden, per_layer]);
        recipe.matrix(block, "proj", &[per_layer, hidden]);
        recipe.norm(block, "post_norm.weight", hidden);
        recipe.norm(block, "layer_output_scale.weight", 1);
    }
    output_norm(&mut recipe, "output_norm.weight", hidden);
    recipe
}
