//! Qwen 3.5 and 3.6: gated delta nets in three blocks of four, gated attention in the fourth; dense, or with experts. Sizes are
//! those of the published `config.json` files.

use super::super::recipe::{Fact, Fill, Heads, Recipe};
use super::{EPS, output_norm};

/// Every fourth block attends.
const INTERVAL: usize = 4;

/// Taps of the convolutions.
const TAPS: usize = 4;

/// What differs between models of this kind.
pub(in super::super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) blocks: usize,
    pub(super) vocabulary: usize,
    /// The MLPs' width, where there are no experts.
    pub(super) width: usize,
    pub(super) heads: Heads,
    /// Heads of keys, heads of values, and the size of both.
    pub(super) delta: [usize; 3],
    pub(super) tied: bool,
    pub(super) experts: Option<Experts>,
}

/// A mixture of experts with one that all tokens use.
#[derive(Clone, Copy)]
pub(in super::super) struct Experts {
    n: usize,
    used: usize,
    width: usize,
}

/// Qwen 3.5 0.8B.
pub(super) const SMALL: Sizes = Sizes {
    hidden: 1024,
    blocks: 24,
    vocabulary: 248_320,
    width: 3584,
    heads: Heads { n: 8, kv: 2, dim: 256 },
    delta: [16, 16, 128],
    tied: true,
    experts: None,
};

/// Qwen 3.5 4B.
pub(super) const MEDIUM: Sizes = Sizes {
    hidden: 2560,
    blocks: 32,
    width: 9216,
    heads: Heads { n: 16, kv: 4, dim: 256 },
    delta: [16, 32, 128],
    ..SMALL
};

/// Qwen 3.6 35B-A3B, cut from 40 blocks to 4: one of each four.
pub(super) const SPARSE_CUT: Sizes = Sizes {
    hidden: 2048,
    blocks: 4,
    width: 0,
    heads: Heads { n: 16, kv: 2, dim: 256 },
    delta: [16, 32, 128],
    tied: false,
    experts: Some(Experts { n: 256, used: 8, width: 512 }),
    ..SMALL
};

#[cfg(test)]
pub(super) const TINY: Sizes = Sizes {
    hidden: 64,
    blocks: 4,
    vocabulary: 300,
    width: 96,
    heads: Heads { n: 4, kv: 2, dim: 32 },
    delta: [2, 4, 32],
    tied: true,
    experts: None,
};

#[cfg(test)]
pub(super) const TINY_EXPERTS: Experts = Experts { n: 8, used: 2, width: 32 };

pub(super) fn recipe(sizes: &Sizes) -> Recipe {
    let &Sizes { hidden, blocks, vocabulary, width, heads, delta, tied, experts } = sizes;
    let [key_heads, value_heads, dim] = delta;
    let architecture = if experts.is_some() { "qwen35moe" } else { "qwen35" };
    let mut recipe = Recipe::new(architecture, [hidden, blocks, vocabulary, 262_144], tied);
    recipe.heads(heads, None);
    // A quarter of each head turns.
    recipe.number("rope.dimension_count", heads.dim / 4);
    let pairs = heads.dim / 8;
    let sections = [pairs.div_ceil(3), (pairs + 1) / 3, pairs / 3, 0].map(|pairs| pairs as i32);
    recipe.fact("rope.dimension_sections", Fact::Numbers(sections.to_vec()));
    recipe.real("rope.freq_base", 1e7);
    recipe.real(EPS, 1e-6);
    recipe.number("full_attention_interval", INTERVAL);
    recipe.number("ssm.conv_kernel", TAPS);
    recipe.number("ssm.state_size", dim);
    recipe.number("ssm.group_count", key_heads);
    recipe.number("ssm.time_step_rank", value_heads);
    recipe.number("ssm.inner_size", value_heads * dim);
    match experts {
        None => recipe.number("feed_forward_length", width),
        Some(Experts { n, used, width }) => {
            recipe.number("expert_count", n);
            recipe.number("expert_used_count", used);
            recipe.number("expert_feed_forward_length", width);
            recipe.number("expert_shared_feed_forward_length", width);
        }
    }
    for block in 0..blocks {
        recipe.norm(block, "attn_norm.weight", hidden);
        if (block + 1).is_multiple_of(INTERVAL) {
            gated_attention(&mut recipe, block, hidden, heads);
        } else {
            delta_net(&mut recipe, block, hidden, delta);
        }
        recipe.norm(block, "post_attention_norm.weight", hidden);
        match experts {
            None => recipe.mlp(block, hidden, width),
            Some(Experts { n, width, .. }) => {
                recipe.experts(block, hidden, width, n);
                recipe.shared_expert(block, hidden, width);
                recipe.of_block(block, "ffn_gate_inp_shexp.weight", &[hidden, 1], Fill::Between(-0.05, 0.05));
            }
        }
    }
    output_norm(&mut recipe, "output_norm.weight", hidden);
    recipe
}

/// Attention with norms of queries and keys, and a gate for each query.
fn gated_attention(recipe: &mut Recipe, block: usize, hidden: usize, heads: Heads) {
    let Heads { n, kv, dim } = heads;
    recipe.matrix(block, "attn_q", &[hidden, 2 * n * dim]);
    recipe.matrix(block, "attn_k", &[hidden, kv * dim]);
    recipe.matrix(block, "attn_v", &[hidden, kv * dim]);
    recipe.matrix(block, "attn_output", &[n * dim, hidden]);
    recipe.norm(block, "attn_q_norm.weight", dim);
    recipe.norm(block, "attn_k_norm.weight", dim);
}

fn delta_net(recipe: &mut Recipe, block: usize, hidden: usize, delta: [usize; 3]) {
    let [key_heads, value_heads, dim] = delta;
    let channels = (2 * key_heads + value_heads) * dim;
    recipe.matrix(block, "attn_qkv", &[hidden, channels]);
    recipe.matrix(block, "attn_gate", &[hidden, value_heads * dim]);
    recipe.matrix(block, "ssm_alpha", &[hidden, value_heads]);
    recipe.matrix(block, "ssm_beta", &[hidden, value_heads]);
    recipe.of_block(block, "ssm_conv1d.weight", &[TAPS, channels], Fill::Between(-0.5, 0.5));
    recipe.of_block(block, "ssm_dt.bias", &[value_heads], Fill::TimeBias);
    recipe.of_block(block, "ssm_a", &[value_heads], Fill::Decay);
    recipe.norm(block, "ssm_norm.weight", dim);
    recipe.matrix(block, "ssm_out", &[value_heads * dim, hidden]);
}
