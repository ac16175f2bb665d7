//! LFM2: gated short convolutions and attention.

use super::{Dim, Family, How, Model, Row, row};
use crate::checkpoint::config::Config;
use crate::checkpoint::error::{Result, refused};
use crate::checkpoint::meta::Item;

pub(super) const LFM2: Family = Family {
    classes: &["Lfm2ForCausalLM", "LFM2ForCausalLM"],
    defaults: r#"{"norm_eps": 1e-5, "rope_theta": 1000000.0, "max_position_embeddings": 128000, "num_key_value_heads": 8,
        "conv_L_cache": 3, "block_multiple_of": 256, "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": true,
        "tie_word_embeddings": true}"#,
    model: lfm2,
};

const TABLE: &[Row] = &[
    row("embed_tokens", "token_embd", &[Dim::Vocab, Dim::Hidden], How::Keep),
    row("embedding_norm", "token_embd_norm", &[Dim::Hidden], How::Keep),
    row("lm_head", "output", &[Dim::Vocab, Dim::Hidden], How::Keep),
    row("layers.#.operator_norm", "attn_norm", &[Dim::Hidden], How::Keep),
    row("layers.#.self_attn.q_proj", "attn_q", &[Dim::Q, Dim::Hidden], How::Keep),
    row("layers.#.self_attn.k_proj", "attn_k", &[Dim::Kv, Dim::Hidden], How::Keep),
    row("layers.#.self_attn.v_proj", "attn_v", &[Dim::Kv, Dim::Hidden], How::Keep),
    row("layers.#.self_attn.out_proj", "attn_output", &[Dim::Hidden, Dim::Q], How::Keep),
    row("layers.#.self_attn.q_layernorm", "attn_q_norm", &[Dim::Head], How::Keep),
    row("layers.#.self_attn.k_layernorm", "attn_k_norm", &[Dim::Head], How::Keep),
    row("layers.#.conv.in_proj", "shortconv.in_proj", &[Dim::Three, Dim::Hidden], How::Keep),
    row("layers.#.conv.conv", "shortconv.conv", &[Dim::Hidden, Dim::One, Dim::Kernel], How::Squeezed),
    row("layers.#.conv.out_proj", "shortconv.out_proj", &[Dim::Hidden, Dim::Hidden], How::Keep),
    row("layers.#.ffn_norm", "ffn_norm", &[Dim::Hidden], How::Keep),
    row("layers.#.feed_forward.w1", "ffn_gate", &[Dim::Ff, Dim::Hidden], How::Keep),
    row("layers.#.feed_forward.w2", "ffn_down", &[Dim::Hidden, Dim::Ff], How::Keep),
    row("layers.#.feed_forward.w3", "ffn_up", &[Dim::Ff, Dim::Hidden], How::Keep),
];

/// Kinds of blocks.
const ATTENDS: u8 = 1;
const CONVOLVES: u8 = 2;

fn lfm2(config: &mut Config) -> Result<Model> {
    config.disregard(&[
        "block_dim",
        "block_mlp_init_scale",
        "block_norm_eps",
        "block_out_init_scale",
        "block_use_swiglu",
        "block_use_xavier_init",
        "conv_bias",
        "conv_dim",
        "conv_dim_out",
        "conv_use_xavier_init",
        "num_heads",
        "use_pos_enc",
    ]);
    let mut model = Model::usual(config, "lfm2")?;
    let kinds = [("conv", CONVOLVES), ("short_conv", CONVOLVES), ("full_attention", ATTENDS)];
    model.kinds_of_blocks(config, &kinds)?;
    let attending = config.numbers("full_attn_idxs")?;
    if model.kinds.is_empty() {
        let Some(attending) = attending else {
            return refused(format!(
                "{}: there is no layer_types, which was expected",
                config.path().display()
            ));
        };
        let kind = |block: usize| if attending.contains(&(block as f64)) { ATTENDS } else { CONVOLVES };
        model.kinds = (0..model.blocks).map(kind).collect();
    }
    let kv_heads = model.sizes.get(Dim::KvHeads)? as i32;
    let by_block = model.kinds.iter().map(|kind| if *kind == ATTENDS { kv_heads } else { 0 }).collect();
    model.meta.of("attention.head_count_kv", Some(Item::I32s(by_block)));
    model.vocab_size();
    let kernel = config.size(&["conv_L_cache"])?;
    model.sizes.set(Dim::Kernel, kernel);
    model.meta.of("shortconv.l_cache", Some(kernel as u32));
    let width = width(config)?;
    model.sizes.set(Dim::Ff, width);
    model.meta.of("feed_forward_length", Some(width as u32));
    model.tables = vec![TABLE];
    Ok(model)
}

/// The MLP's width: the configured one, or two thirds of it, scaled and rounded up.
fn width(config: &Config) -> Result<usize> {
    let width = config.size(&["block_ff_dim", "intermediate_size"])?;
    config.disregard(&["intermediate_size"]);
    let multiple = config.size(&["block_multiple_of"])?;
    let multiplier = config.number(&["block_ffn_dim_multiplier"])?;
    if !config.flag("block_auto_adjust_ff_dim")?.unwrap_or(true) {
        return Ok(width);
    }
    let width = 2 * width / 3;
    let width = multiplier.map_or(width, |multiplier| (multiplier * width as f64) as usize);
    Ok(width.div_ceil(multiple).saturating_mul(multiple))
}
