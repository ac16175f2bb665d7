//! BERT as a model that embeds: MiniLM, BGE, E5 and others with pieces of words.

use super::{Dim, Family, How, Model, Row, row};
use crate::checkpoint::config::Config;
use crate::checkpoint::error::Result;
use crate::checkpoint::vocabulary::Style;

pub(super) const BERT: Family = Family {
    classes: &["BertModel", "BertForMaskedLM"],
    defaults: r#"{"layer_norm_eps": 1e-12, "max_position_embeddings": 512, "type_vocab_size": 2, "tie_word_embeddings": true}"#,
    model: bert,
};

const TABLE: &[Row] = &[
    row("embeddings.word_embeddings", "token_embd", &[Dim::Vocab, Dim::Hidden], How::Keep),
    row("embeddings.position_embeddings", "position_embd", &[Dim::Positions, Dim::Hidden], How::Keep),
    row("embeddings.token_type_embeddings", "token_types", &[Dim::TokenTypes, Dim::Hidden], How::Keep),
    row("embeddings.LayerNorm", "token_embd_norm", &[Dim::Hidden], How::Keep),
    row("encoder.layer.#.attention.self.query", "attn_q", &[Dim::Hidden, Dim::Hidden], How::Keep),
    row("encoder.layer.#.attention.self.key", "attn_k", &[Dim::Hidden, Dim::Hidden], How::Keep),
    row("encoder.layer.#.attention.self.value", "attn_v", &[Dim::Hidden, Dim::Hidden], How::Keep),
    row("encoder.layer.#.attention.output.dense", "attn_output", &[Dim::Hidden, Dim::Hidden], How::Keep),
    row("encoder.layer.#.attention.output.LayerNorm", "attn_output_norm", &[Dim::Hidden], How::Keep),
    row("encoder.layer.#.intermediate.dense", "ffn_up", &[Dim::Ff, Dim::Hidden], How::Keep),
    row("encoder.layer.#.output.dense", "ffn_down", &[Dim::Hidden, Dim::Ff], How::Keep),
    row("encoder.layer.#.output.LayerNorm", "layer_output_norm", &[Dim::Hidden], How::Keep),
];

fn bert(config: &mut Config) -> Result<Model> {
    config.expect("hidden_act", &["gelu"])?;
    config.expect("position_embedding_type", &["absolute"])?;
    config.expect_flag("is_decoder", false)?;
    config.expect_flag("add_cross_attention", false)?;
    let mut model = Model::usual(config, "bert")?;
    model.sizes.set(Dim::Positions, config.size(&["max_position_embeddings"])?);
    model.sizes.set(Dim::TokenTypes, config.size(&["type_vocab_size"])?);
    model.meta.of("attention.layer_norm_epsilon", config.number(&["layer_norm_eps"])?);
    model.meta.of("attention.causal", Some(false));
    model.tables = vec![TABLE];
    model.prefixes = &["bert."];
    // The heads of other tasks.
    model.left_out =
        &["pooler.", "bert.pooler.", "embeddings.position_ids", "bert.embeddings.position_ids", "cls."];
    model.style = Style::WordPieces;
    Ok(model)
}
