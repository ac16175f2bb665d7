//! OLMo 2 and 3: norms after the branches alone.

use super::{COMMON, Dim, Family, How, MLP, Model, OUTPUT, PATTERN, Row, SILU, WINDOW, row};
use crate::checkpoint::config::Config;
use crate::checkpoint::error::Result;
use crate::checkpoint::meta::Item;

pub(super) const OLMO2: Family = Family {
    classes: &["Olmo2ForCausalLM"],
    defaults: r#"{"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 2048}"#,
    model: olmo2,
};

pub(super) const OLMO3: Family = Family {
    classes: &["Olmo3ForCausalLM"],
    defaults: r#"{"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 2048, "sliding_window": 4096}"#,
    model: |config| {
        let mut model = olmo2(config)?;
        model.meta.of(WINDOW, Some(config.need(&["sliding_window"])?));
        let pattern = match config.texts("layer_types")? {
            Some(kinds) => kinds.iter().map(|kind| *kind == "sliding_attention").collect(),
            None => (1..=model.blocks).map(|number| number % 4 != 0).collect(),
        };
        model.meta.of(PATTERN, Some(Item::Bools(pattern)));
        // The window's blocks turn by the same base, and never scaled.
        let rope = config.rope()?;
        model.meta.of("rope.freq_base_swa", rope.window_base.or(rope.number("rope_theta")?));
        Ok(model)
    },
};

const TABLE: &[Row] = &[
    row("layers.#.self_attn.q_proj", "attn_q", &[Dim::Q, Dim::Hidden], How::Keep),
    row("layers.#.self_attn.k_proj", "attn_k", &[Dim::Kv, Dim::Hidden], How::Keep),
    row("layers.#.self_attn.v_proj", "attn_v", &[Dim::Kv, Dim::Hidden], How::Keep),
    row("layers.#.self_attn.q_norm", "attn_q_norm", &[Dim::Q], How::Keep),
    row("layers.#.self_attn.k_norm", "attn_k_norm", &[Dim::Kv], How::Keep),
    OUTPUT,
    row("layers.#.post_attention_layernorm", "post_attention_norm", &[Dim::Hidden], How::Keep),
    row("layers.#.post_feedforward_layernorm", "post_ffw_norm", &[Dim::Hidden], How::Keep),
    MLP[1],
    MLP[2],
    MLP[3],
];

fn olmo2(config: &mut Config) -> Result<Model> {
    config.expect("hidden_act", SILU)?;
    config.disregard(&["attention_bias"]);
    let mut model = Model::usual(config, "olmo2")?;
    model.tables = vec![COMMON, TABLE];
    Ok(model)
}
