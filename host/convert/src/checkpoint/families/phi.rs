//! Phi-3, Phi-3.5 and Phi-4.

use super::{COMMON, Dim, Family, How, Model, OUTPUT, Row, SILU, WINDOW, row};
use crate::checkpoint::config::{Config, Rope};
use crate::checkpoint::error::{Result, refused};
use crate::checkpoint::meta::Meta;
use crate::checkpoint::vocabulary::Style;

pub(super) const PHI3: Family = Family {
    classes: &["Phi3ForCausalLM"],
    defaults: r#"{"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096, "partial_rotary_factor": 1.0}"#,
    model: phi3,
};

const TABLE: &[Row] = &[
    row("layers.#.input_layernorm", "attn_norm", &[Dim::Hidden], How::Keep),
    row("layers.#.self_attn.qkv_proj", "attn_qkv", &[Dim::Qkv, Dim::Hidden], How::Keep),
    OUTPUT,
    row("layers.#.post_attention_layernorm", "ffn_norm", &[Dim::Hidden], How::Keep),
    row("layers.#.mlp.gate_up_proj", "ffn_up", &[Dim::TwoFf, Dim::Hidden], How::Keep),
    row("layers.#.mlp.down_proj", "ffn_down", &[Dim::Hidden, Dim::Ff], How::Keep),
];

fn phi3(config: &mut Config) -> Result<Model> {
    config.expect("hidden_act", SILU)?;
    config.disregard(&[
        "attention_bias",
        "head_dim",
        "interpolate_factor",
        "full_attn_mod",
        "lm_head_bias",
        "mlp_bias",
    ]);
    let mut model = Model::usual(config, "phi3")?;
    let rope = config.rope()?;
    let head = model.sizes.get(Dim::Head)?;
    let turned = rope.number("partial_rotary_factor")?.unwrap_or(1.0) * model.sizes.get(Dim::Hidden)? as f64;
    let turned = turned as usize / model.sizes.get(Dim::Heads)?;
    if turned == 0 || turned > head {
        return Err(config.bad(
            "partial_rotary_factor",
            &turned.into(),
            &format!("a part of {head} dimensions"),
        ));
    }
    let Some(trained) = rope.count("original_max_position_embeddings")?.filter(|trained| *trained > 1) else {
        return refused(format!(
            "{}: original_max_position_embeddings isn't over 1, which was expected",
            config.path().display()
        ));
    };
    let former = std::mem::replace(&mut model.meta, Meta::new("phi3"));
    for key in
        ["context_length", "embedding_length", "feed_forward_length", "block_count", "attention.head_count"]
    {
        model.meta.take(&former, key);
    }
    model.meta.of("attention.head_count_kv", Some(model.sizes.get(Dim::KvHeads)? as u32));
    model.meta.take(&former, "attention.layer_norm_rms_epsilon");
    model.meta.take(&former, "rope.freq_base");
    model.meta.of("rope.scaling.original_context_length", Some(trained));
    model.meta.of("rope.dimension_count", Some(turned as u32));
    // No window, which is Phi-4's, is a 0.
    model.meta.of(WINDOW, Some(config.count(&["sliding_window"])?.unwrap_or(0)));
    long_rope(&mut model, config, &rope, trained, turned)?;
    model.tables = vec![COMMON, TABLE];
    model.style = Style::Phi3;
    Ok(model)
}

/// The factors of LongRoPE, for short and long contexts.
fn long_rope(model: &mut Model, config: &Config, rope: &Rope<'_>, trained: u32, turned: usize) -> Result<()> {
    let (Some(long), Some(short)) = (rope.numbers("long_factor")?, rope.numbers("short_factor")?) else {
        return Ok(());
    };
    for (key, factors) in [("long_factor", &long), ("short_factor", &short)] {
        if factors.len() != turned / 2 {
            let expected = format!("{} numbers", turned / 2);
            return Err(config.bad(key, &factors.len().into(), &expected));
        }
    }
    let scale = f64::from(config.need(&["max_position_embeddings"])?) / f64::from(trained);
    let attention = match rope.kind()? {
        _ if scale <= 1.0 => 1.0,
        "yarn" => 0.1 * scale.ln() + 1.0,
        _ => (1.0 + scale.ln() / f64::from(trained).ln()).sqrt(),
    };
    model.meta.of("rope.scaling.attn_factor", Some(attention));
    let numbers = |factors: Vec<f64>| factors.into_iter().map(|factor| factor as f32).collect();
    model.extra("rope_factors_long.weight", numbers(long));
    model.extra("rope_factors_short.weight", numbers(short));
    Ok(())
}
