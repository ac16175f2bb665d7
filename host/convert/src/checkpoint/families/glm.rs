//! GLM-4 (0414).

use super::{ATTENTION, COMMON, Dim, Family, How, Model, Row, SILU, row};
use crate::checkpoint::config::Config;
use crate::checkpoint::error::Result;
use crate::checkpoint::vocabulary::Style;

pub(super) const GLM4: Family = Family {
    classes: &["Glm4ForCausalLM"],
    defaults: r#"{"rms_norm_eps": 0.00000015625, "rope_theta": 10000.0, "max_position_embeddings": 131072, "num_key_value_heads": 2,
        "head_dim": 128, "partial_rotary_factor": 0.5}"#,
    model: glm4,
};

const TABLE: &[Row] = &[
    row("layers.#.post_self_attn_layernorm", "post_attention_norm", &[Dim::Hidden], How::Keep),
    row("layers.#.post_attention_layernorm", "ffn_norm", &[Dim::Hidden], How::Keep),
    row("layers.#.post_mlp_layernorm", "post_ffw_norm", &[Dim::Hidden], How::Keep),
    row("layers.#.mlp.gate_up_proj", "ffn_up", &[Dim::TwoFf, Dim::Hidden], How::Keep),
    row("layers.#.mlp.down_proj", "ffn_down", &[Dim::Hidden, Dim::Ff], How::Keep),
];

fn glm4(config: &mut Config) -> Result<Model> {
    config.expect("hidden_act", SILU)?;
    config.disregard(&["attention_bias"]);
    let mut model = Model::usual(config, "glm4")?;
    let turned =
        config.rope()?.number("partial_rotary_factor")?.unwrap_or(0.5) * model.sizes.get(Dim::Head)? as f64;
    model.meta.of("rope.dimension_count", Some(turned as u32));
    model.tables = vec![COMMON, ATTENTION, TABLE];
    model.style = Style::Glm4;
    Ok(model)
}
