//! gpt-oss: attention with sinks, within a window in every other block, and experts in MXFP4, whatever type the other matrices
//! have, as they are published. Sizes are those of gpt-oss 20B's `config.json`.

use super::super::recipe::{Fact, Fill, Heads, Recipe};
use super::{EPS, output_norm};

/// What differs between models of this kind.
pub(in super::super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) blocks: usize,
    pub(super) vocabulary: usize,
    pub(super) heads: Heads,
    /// The experts' width.
    pub(super) width: usize,
    pub(super) experts: usize,
    pub(super) used: usize,
    pub(super) window: usize,
}

/// gpt-oss 20B, cut from 24 blocks to 4.
pub(super) const CUT: Sizes = Sizes {
    hidden: 2880,
    blocks: 4,
    vocabulary: 201_088,
    heads: Heads { n: 64, kv: 8, dim: 64 },
    width: 2880,
    experts: 32,
    used: 4,
    window: 128,
};

#[cfg(test)]
pub(super) const TINY: Sizes = Sizes {
    hidden: 64,
    blocks: 2,
    vocabulary: 300,
    heads: Heads { n: 4, kv: 2, dim: 16 },
    width: 32,
    experts: 4,
    used: 2,
    window: 8,
};

pub(super) fn recipe(sizes: &Sizes) -> Recipe {
    let &Sizes { hidden, blocks, vocabulary, heads, width, experts, used, window } = sizes;
    let mut recipe = Recipe::new("gpt-oss", [hidden, blocks, vocabulary, 131_072], false);
    recipe.number("feed_forward_length", width);
    recipe.number("expert_feed_forward_length", width);
    recipe.number("expert_count", experts);
    recipe.number("expert_used_count", used);
    recipe.heads(heads, None);
    recipe.number("attention.sliding_window", window);
    recipe.real("rope.freq_base", 150_000.0);
    recipe.fact("rope.scaling.type", Fact::Text("yarn".to_owned()));
    recipe.real("rope.scaling.factor", 32.0);
    recipe.number("rope.scaling.original_context_length", 4096);
    recipe.real("rope.scaling.yarn_beta_fast", 32.0);
    recipe.real("rope.scaling.yarn_beta_slow", 1.0);
    recipe.real(EPS, 1e-5);
    for block in 0..blocks {
        recipe.norm(block, "attn_norm.weight", hidden);
        recipe.attention(block, hidden, heads);
        recipe.bias(block, "attn_q.bias", &[heads.n * heads.dim]);
        recipe.bias(block, "attn_k.bias", &[heads.kv * heads.dim]);
        recipe.bias(block, "attn_v.bias", &[heads.kv * heads.dim]);
        recipe.bias(block, "attn_output.bias", &[hidden]);
        recipe.of_block(block, "attn_sinks.weight", &[heads.n], Fill::Between(-1.0, 1.0));
        recipe.norm(block, "post_attention_norm.weight", hidden);
        recipe.of_block(block, "ffn_gate_inp.weight", &[hidden, experts], Fill::Between(-0.05, 0.05));
        recipe.bias(block, "ffn_gate_inp.bias", &[experts]);
        for (part, rows, columns) in [("gate", width, hidden), ("up", width, hidden), ("down", hidden, width)]
        {
            let name = format!("ffn_{part}_exps");
            recipe.of_block(block, &format!("{name}.weight"), &[columns, rows, experts], Fill::Mxfp4);
            recipe.bias(block, &format!("{name}.bias"), &[rows, experts]);
        }
    }
    output_norm(&mut recipe, "output_norm.weight", hidden);
    recipe
}
