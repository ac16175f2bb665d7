//! GPT-2, whose matrices are published with their inputs first.

use super::{Dim, Family, GELU_TANH, How, Model, Row, row};
use crate::checkpoint::config::Config;
use crate::checkpoint::error::Result;

pub(super) const GPT2: Family = Family {
    classes: &["GPT2LMHeadModel"],
    defaults: r#"{"n_positions": 1024, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": true}"#,
    model: gpt2,
};

const TABLE: &[Row] = &[
    row("wte", "token_embd", &[Dim::Vocab, Dim::Hidden], How::Keep),
    row("wpe", "position_embd", &[Dim::Positions, Dim::Hidden], How::Keep),
    row("ln_f", "output_norm", &[Dim::Hidden], How::Keep),
    row("lm_head", "output", &[Dim::Vocab, Dim::Hidden], How::Keep),
    row("h.#.ln_1", "attn_norm", &[Dim::Hidden], How::Keep),
    row("h.#.attn.c_attn", "attn_qkv", &[Dim::Hidden, Dim::Three], How::Transposed),
    row("h.#.attn.c_proj", "attn_output", &[Dim::Hidden, Dim::Hidden], How::Transposed),
    row("h.#.ln_2", "ffn_norm", &[Dim::Hidden], How::Keep),
    row("h.#.mlp.c_fc", "ffn_up", &[Dim::Hidden, Dim::Ff], How::Transposed),
    row("h.#.mlp.c_proj", "ffn_down", &[Dim::Ff, Dim::Hidden], How::Transposed),
];

fn gpt2(config: &mut Config) -> Result<Model> {
    config.expect("activation_function", GELU_TANH)?;
    config.expect_flag("scale_attn_weights", true)?;
    config.expect_flag("scale_attn_by_inverse_layer_idx", false)?;
    config.expect_flag("add_cross_attention", false)?;
    config.disregard(&[
        "reorder_and_upcast_attn",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
    ]);
    let mut model = Model::bare(config, "gpt2")?;
    let positions = config.size(&["n_positions", "n_ctx"])?;
    config.disregard(&["n_ctx"]);
    let hidden = model.sizes.get(Dim::Hidden)?;
    let ff = config.count(&["n_inner"])?.map_or(hidden.saturating_mul(4), |ff| ff as usize);
    model.sizes.set(Dim::Positions, positions);
    model.sizes.set(Dim::Ff, ff);
    model.meta.of("block_count", Some(model.blocks as u32));
    model.meta.of("context_length", Some(positions as u32));
    model.meta.of("embedding_length", Some(hidden as u32));
    model.meta.of("feed_forward_length", Some(ff as u32));
    model.meta.of("attention.head_count", Some(config.need(&["n_head"])?));
    model.meta.of("attention.layer_norm_epsilon", Some(config.need_number(&["layer_norm_epsilon"])?));
    model.tables = vec![TABLE];
    model.prefixes = &["transformer."];
    Ok(model)
}
