//! GLM-4.7-Flash, which has DeepSeek-V2's multi-head latent attention, and experts that are chosen by sigmoids. Sizes are those of
//! its `config.json`.

use super::super::recipe::{Fact, Fill, Recipe};
use super::{EPS, output_norm};

/// What differs between models of this kind.
pub(in super::super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) blocks: usize,
    pub(super) vocabulary: usize,
    pub(super) heads: usize,
    /// The ranks of queries and of keys and values.
    pub(super) ranks: [usize; 2],
    /// A head's dimensions that don't turn, those that do, and a value's.
    pub(super) dims: [usize; 3],
    /// The width of the first block's MLP.
    pub(super) width: usize,
    pub(super) expert_width: usize,
    pub(super) experts: usize,
    pub(super) used: usize,
}

/// GLM-4.7-Flash, cut from 47 blocks to 5: the dense one, and four with experts.
pub(super) const FLASH_CUT: Sizes = Sizes {
    hidden: 2048,
    blocks: 5,
    vocabulary: 154_880,
    heads: 20,
    ranks: [768, 512],
    dims: [192, 64, 256],
    width: 10_240,
    expert_width: 1536,
    experts: 64,
    used: 4,
};

#[cfg(test)]
pub(super) const TINY: Sizes = Sizes {
    hidden: 64,
    blocks: 3,
    vocabulary: 300,
    heads: 2,
    ranks: [48, 32],
    dims: [16, 8, 16],
    width: 96,
    expert_width: 32,
    experts: 4,
    used: 2,
};

pub(super) fn recipe(sizes: &Sizes) -> Recipe {
    let &Sizes { hidden, blocks, vocabulary, heads, ranks, dims, width, expert_width, experts, used } = sizes;
    let ([_, kv_rank], [nope, rope, value]) = (ranks, dims);
    let mut recipe = Recipe::new("deepseek2", [hidden, blocks, vocabulary, 202_752], false);
    recipe.number("feed_forward_length", width);
    recipe.number("leading_dense_block_count", 1);
    recipe.number("attention.head_count", heads);
    // What is cached is one latent vector for all heads.
    recipe.number("attention.head_count_kv", 1);
    recipe.number("attention.key_length", kv_rank + rope);
    recipe.number("attention.value_length", kv_rank);
    recipe.number("attention.key_length_mla", nope + rope);
    recipe.number("attention.value_length_mla", value);
    recipe.number("attention.q_lora_rank", ranks[0]);
    recipe.number("attention.kv_lora_rank", kv_rank);
    recipe.number("rope.dimension_count", rope);
    recipe.real("rope.freq_base", 1e6);
    recipe.real(EPS, 1e-5);
    recipe.number("expert_count", experts);
    recipe.number("expert_used_count", used);
    recipe.number("expert_group_count", 1);
    recipe.number("expert_group_used_count", 1);
    // Sigmoids.
    recipe.number("expert_gating_func", 2);
    recipe.number("expert_feed_forward_length", expert_width);
    recipe.number("expert_shared_count", 1);
    recipe.real("expert_weights_scale", 1.8);
    recipe.fact("expert_weights_norm", Fact::Flag(true));
    for block in 0..blocks {
        recipe.norm(block, "attn_norm.weight", hidden);
        latent_attention(&mut recipe, block, sizes);
        recipe.norm(block, "ffn_norm.weight", hidden);
        if block == 0 {
            recipe.mlp(block, hidden, width);
        } else {
            recipe.experts(block, hidden, expert_width, experts);
            recipe.bias(block, "exp_probs_b.bias", &[experts]);
            recipe.shared_expert(block, hidden, expert_width);
        }
    }
    output_norm(&mut recipe, "output_norm.weight", hidden);
    recipe
}

fn latent_attention(recipe: &mut Recipe, block: usize, sizes: &Sizes) {
    let &Sizes { hidden, heads, ranks: [q_rank, kv_rank], dims: [nope, rope, value], .. } = sizes;
    recipe.matrix(block, "attn_q_a", &[hidden, q_rank]);
    recipe.norm(block, "attn_q_a_norm.weight", q_rank);
    recipe.matrix(block, "attn_q_b", &[q_rank, heads * (nope + rope)]);
    recipe.matrix(block, "attn_kv_a_mqa", &[hidden, kv_rank + rope]);
    recipe.norm(block, "attn_kv_a_norm.weight", kv_rank);
    recipe.of_block(block, "attn_k_b.weight", &[nope, kv_rank, heads], Fill::Matrix);
    recipe.of_block(block, "attn_v_b.weight", &[kv_rank, value, heads], Fill::Matrix);
    recipe.matrix(block, "attn_output", &[heads * value, hidden]);
}
