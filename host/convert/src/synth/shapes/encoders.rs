//! Models that make embeddings. Sizes are those of their `config.json` files.

use super::super::recipe::{Fact, Fill, Heads, Recipe};

/// What differs between models of BERT's kind.
pub(in super::super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) blocks: usize,
    pub(super) vocabulary: usize,
    pub(super) heads: usize,
    pub(super) width: usize,
    pub(super) context: usize,
}

/// all-MiniLM-L6-v2.
pub(super) const MINILM: Sizes =
    Sizes { hidden: 384, blocks: 6, vocabulary: 30_522, heads: 12, width: 1536, context: 512 };

#[cfg(test)]
pub(super) const TINY: Sizes =
    Sizes { hidden: 64, blocks: 2, vocabulary: 300, heads: 4, width: 96, context: 64 };

/// BERT with the mean of all tokens pooled.
pub(super) fn bert(sizes: &Sizes) -> Recipe {
    let &Sizes { hidden, blocks, vocabulary, heads, width, context } = sizes;
    let mut recipe = Recipe::new("bert", [hidden, blocks, vocabulary, context], true);
    recipe.word_pieces(vocabulary);
    recipe.number("feed_forward_length", width);
    recipe.number("attention.head_count", heads);
    recipe.real("attention.layer_norm_epsilon", 1e-12);
    recipe.fact("attention.causal", Fact::Flag(false));
    recipe.number("pooling_type", 1);
    recipe.tensor("position_embd.weight", &[hidden, context], Fill::Between(-0.1, 0.1));
    recipe.tensor("token_types.weight", &[hidden, 2], Fill::Between(-0.1, 0.1));
    recipe.tensor("token_embd_norm.weight", &[hidden], Fill::Between(0.9, 1.1));
    recipe.tensor("token_embd_norm.bias", &[hidden], Fill::Between(-0.1, 0.1));
    for block in 0..blocks {
        recipe.attention(block, hidden, Heads { n: heads, kv: heads, dim: hidden / heads });
        for name in ["attn_q", "attn_k", "attn_v", "attn_output", "attn_output_norm", "layer_output_norm"] {
            recipe.bias(block, &format!("{name}.bias"), &[hidden]);
        }
        recipe.norm(block, "attn_output_norm.weight", hidden);
        recipe.matrix(block, "ffn_up", &[hidden, width]);
        recipe.bias(block, "ffn_up.bias", &[width]);
        recipe.matrix(block, "ffn_down", &[width, hidden]);
        recipe.bias(block, "ffn_down.bias", &[hidden]);
        recipe.norm(block, "layer_output_norm.weight", hidden);
    }
    recipe
}
