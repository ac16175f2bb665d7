//! Hybrids, state-space models, and Llama.

use super::super::recipe::{Fact, Fill, Heads, Recipe, Ssm};
use super::{EPS, output_norm};

/// Granite 4.0 H 350M.
pub(super) fn granite_hybrid() -> Recipe {
    const HIDDEN: usize = 768;
    const ATTENTION: [usize; 4] = [10, 13, 17, 27];
    let heads = Heads { n: 12, kv: 4, dim: 64 };
    let ssm = Ssm { inner: 1536, state: 128, heads: 48 };
    let mut recipe = Recipe::new("granitehybrid", [HIDDEN, 32, 100_352, 32_768], true);
    recipe.number("feed_forward_length", 2048);
    recipe.number("expert_shared_feed_forward_length", 2048);
    recipe.number("expert_count", 0);
    recipe.number("expert_used_count", 0);
    recipe.heads(heads, Some(&ATTENTION));
    recipe.number("rope.dimension_count", 64);
    recipe.real("rope.freq_base", 10_000.0);
    recipe.fact("rope.scaling.finetuned", Fact::Flag(false));
    recipe.real(EPS, 1e-5);
    recipe.real("attention.scale", 0.015_625);
    recipe.real("embedding_scale", 12.0);
    recipe.real("residual_scale", 0.246);
    recipe.real("logit_scale", 3.0);
    recipe.ssm(ssm, Some(1));
    for block in 0..32 {
        recipe.norm(block, "attn_norm.weight", HIDDEN);
        if ATTENTION.contains(&block) {
            recipe.attention(block, HIDDEN, heads);
        } else {
            recipe.mamba2(block, HIDDEN, ssm, true);
        }
        recipe.norm(block, "ffn_norm.weight", HIDDEN);
        recipe.mlp(block, HIDDEN, 2048);
    }
    output_norm(&mut recipe, "output_norm.weight", HIDDEN);
    recipe
}

/// Falcon-H1 0.5B.
pub(super) fn falcon_h1() -> Recipe {
    const HIDDEN: usize = 1024;
    let heads = Heads { n: 8, kv: 2, dim: 64 };
    let ssm = Ssm { inner: 1536, state: 128, heads: 24 };
    let mut recipe = Recipe::new("falcon-h1", [HIDDEN, 36, 32_784, 16_384], false);
    recipe.number("feed_forward_length", 2048);
    recipe.heads(heads, None);
    recipe.real("rope.freq_base", 1e11);
    recipe.real(EPS, 1e-5);
    recipe.ssm(ssm, Some(1));
    for block in 0..36 {
        recipe.norm(block, "attn_norm.weight", HIDDEN);
        recipe.attention(block, HIDDEN, heads);
        recipe.mamba2(block, HIDDEN, ssm, false);
        recipe.norm(block, "ffn_norm", HIDDEN);
        recipe.mlp(block, HIDDEN, 2048);
    }
    output_norm(&mut recipe, "output_norm.weight", HIDDEN);
    recipe
}

/// The metadata of pure Mamba models.
fn only_mamba(architecture: &'static str, hidden: usize, blocks: usize, vocabulary: usize) -> Recipe {
    let mut recipe = Recipe::new(architecture, [hidden, blocks, vocabulary, 1 << 20], true);
    recipe.number("feed_forward_length", 0);
    recipe.number("attention.head_count", 0);
    recipe.real(EPS, 1e-5);
    recipe
}

/// Mamba-2 130M.
pub(super) fn mamba2() -> Recipe {
    const HIDDEN: usize = 768;
    let ssm = Ssm { inner: 1536, state: 128, heads: 24 };
    let mut recipe = only_mamba("mamba2", HIDDEN, 24, 50_288);
    recipe.ssm(ssm, Some(1));
    for block in 0..24 {
        recipe.norm(block, "attn_norm.weight", HIDDEN);
        recipe.mamba2(block, HIDDEN, ssm, true);
    }
    output_norm(&mut recipe, "output_norm.weight", HIDDEN);
    recipe
}

/// Mamba 130M.
pub(super) fn mamba() -> Recipe {
    const HIDDEN: usize = 768;
    let ssm = Ssm { inner: 1536, state: 16, heads: 48 };
    let mut recipe = only_mamba("mamba", HIDDEN, 24, 50_280);
    recipe.ssm(ssm, None);
    for block in 0..24 {
        recipe.norm(block, "attn_norm.weight", HIDDEN);
        recipe.mamba1(block, HIDDEN, ssm, false);
    }
    output_norm(&mut recipe, "output_norm.weight", HIDDEN);
    recipe
}

/// LFM2 350M.
pub(super) fn lfm2() -> Recipe {
    const HIDDEN: usize = 1024;
    const ATTENTION: [usize; 6] = [2, 5, 8, 10, 12, 14];
    let heads = Heads { n: 16, kv: 8, dim: 64 };
    let mut recipe = Recipe::new("lfm2", [HIDDEN, 16, 65_536, 128_000], true);
    recipe.number("feed_forward_length", 4608);
    recipe.heads(heads, Some(&ATTENTION));
    recipe.real("rope.freq_base", 1e6);
    recipe.real(EPS, 1e-5);
    recipe.number("shortconv.l_cache", 3);
    for block in 0..16 {
        recipe.norm(block, "attn_norm.weight", HIDDEN);
        if ATTENTION.contains(&block) {
            recipe.attention(block, HIDDEN, heads);
            recipe.norm(block, "attn_q_norm.weight", heads.dim);
            recipe.norm(block, "attn_k_norm.weight", heads.dim);
        } else {
            recipe.short_conv(block, HIDDEN, 3);
        }
        recipe.norm(block, "ffn_norm.weight", HIDDEN);
        recipe.mlp(block, HIDDEN, 4608);
    }
    output_norm(&mut recipe, "token_embd_norm.weight", HIDDEN);
    recipe
}

/// A small Jamba: its pattern of Mamba, attention and experts in two groups of eight blocks.
pub(super) fn jamba() -> Recipe {
    const HIDDEN: usize = 1024;
    const ATTENTION: [usize; 2] = [4, 12];
    let heads = Heads { n: 16, kv: 4, dim: 64 };
    let ssm = Ssm { inner: 2048, state: 16, heads: 64 };
    let mut recipe = Recipe::new("jamba", [HIDDEN, 16, 65_536, 262_144], false);
    recipe.number("feed_forward_length", 2816);
    recipe.number("expert_count", 4);
    recipe.number("expert_used_count", 2);
    recipe.heads(heads, Some(&ATTENTION));
    recipe.real(EPS, 1e-6);
    recipe.ssm(ssm, None);
    for block in 0..16 {
        recipe.norm(block, "attn_norm.weight", HIDDEN);
        if ATTENTION.contains(&block) {
            recipe.attention(block, HIDDEN, heads);
        } else {
            recipe.mamba1(block, HIDDEN, ssm, true);
        }
        recipe.norm(block, "ffn_norm.weight", HIDDEN);
        if block % 2 == 1 {
            recipe.experts(block, HIDDEN, 2816, 4);
        } else {
            recipe.mlp(block, HIDDEN, 2816);
        }
    }
    output_norm(&mut recipe, "output_norm.weight", HIDDEN);
    recipe
}

/// Llama 3.2 1B.
pub(super) fn llama() -> Recipe {
    const HIDDEN: usize = 2048;
    let heads = Heads { n: 32, kv: 8, dim: 64 };
    let mut recipe = Recipe::new("llama", [HIDDEN, 16, 128_256, 131_072], true);
    recipe.number("feed_forward_length", 8192);
    recipe.heads(heads, None);
    recipe.number("rope.dimension_count", 64);
    recipe.real("rope.freq_base", 500_000.0);
    recipe.real(EPS, 1e-5);
    for block in 0..16 {
        recipe.norm(block, "attn_norm.weight", HIDDEN);
        recipe.attention(block, HIDDEN, heads);
        recipe.norm(block, "ffn_norm.weight", HIDDEN);
        recipe.mlp(block, HIDDEN, 8192);
    }
    output_norm(&mut recipe, "output_norm.weight", HIDDEN);
    recipe
}

/// No real model's: attention, Mamba-2 and an MLP in each of two blocks, all as small as the usual types' blocks allow.
pub(super) fn smallest() -> Recipe {
    const HIDDEN: usize = 256;
    let heads = Heads { n: 4, kv: 2, dim: 64 };
    let ssm = Ssm { inner: 256, state: 32, heads: 4 };
    let mut recipe = Recipe::new("falcon-h1", [HIDDEN, 2, 320, 512], false);
    recipe.number("feed_forward_length", 512);
    recipe.heads(heads, None);
    recipe.real("rope.freq_base", 10_000.0);
    recipe.real(EPS, 1e-5);
    recipe.ssm(ssm, Some(1));
    for block in 0..2 {
        recipe.norm(block, "attn_norm.weight", HIDDEN);
        recipe.attention(block, HIDDEN, heads);
        recipe.mamba2(block, HIDDEN, ssm, false);
        recipe.norm(block, "ffn_norm", HIDDEN);
    }
    recipe.mlp(0, HIDDEN, 512);
    // A plugin may know no quantised types.
    for (name, dims) in [("gate", [HIDDEN, 512]), ("up", [HIDDEN, 512]), ("down", [512, HIDDEN])] {
        recipe.of_block(1, &format!("ffn_{name}.weight"), &dims, Fill::Weights);
    }
    output_norm(&mut recipe, "output_norm.weight", HIDDEN);
    recipe
}
