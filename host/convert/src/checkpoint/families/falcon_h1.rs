//! Falcon-H1: attention and Mamba-2 side by side in each block. Its multipliers are multiplied into the weights.

use super::mamba::{Ssm, ssm};
use super::{Dim, Family, How, Model, Recipes, Row, SILU, exact, row};
use crate::checkpoint::config::Config;
use crate::checkpoint::error::Result;
use crate::checkpoint::place::Place;
use crate::checkpoint::recipe::{Change, Content, Part, Recipe};

pub(super) const FALCON_H1: Family = Family {
    classes: &["FalconH1ForCausalLM"],
    defaults: r#"{"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 8192, "num_key_value_heads": 8,
        "mamba_d_ssm": 1024, "mamba_n_heads": 128, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 256, "mamba_d_conv": 4,
        "mamba_expand": 2, "lm_head_multiplier": 1.0, "embedding_multiplier": 1.0, "mlp_multipliers": [1.0, 1.0],
        "key_multiplier": 1.0, "attention_out_multiplier": 1.0, "attention_in_multiplier": 1.0,
        "ssm_multipliers": [1.0, 1.0, 1.0, 1.0, 1.0], "ssm_in_multiplier": 1.0, "ssm_out_multiplier": 1.0,
        "tie_word_embeddings": false}"#,
    model: falcon_h1,
};

const TABLE: &[Row] = &[
    row(
        "embed_tokens",
        "token_embd",
        &[Dim::Vocab, Dim::Hidden],
        How::Special(|at| scaled(at, "token_embd", &["embedding_multiplier"])),
    ),
    row("final_layernorm", "output_norm", &[Dim::Hidden], How::Keep),
    row(
        "lm_head",
        "output",
        &[Dim::Vocab, Dim::Hidden],
        How::Special(|at| scaled(at, "output", &["lm_head_multiplier"])),
    ),
    row("layers.#.input_layernorm", "attn_norm", &[Dim::Hidden], How::Keep),
    row(
        "layers.#.self_attn.q_proj",
        "",
        &[Dim::Q, Dim::Hidden],
        How::Special(|at| scaled(at, "attn_q", &["attention_in_multiplier"])),
    ),
    row(
        "layers.#.self_attn.k_proj",
        "",
        &[Dim::Kv, Dim::Hidden],
        How::Special(|at| scaled(at, "attn_k", &["key_multiplier", "attention_in_multiplier"])),
    ),
    row(
        "layers.#.self_attn.v_proj",
        "",
        &[Dim::Kv, Dim::Hidden],
        How::Special(|at| scaled(at, "attn_v", &["attention_in_multiplier"])),
    ),
    row(
        "layers.#.self_attn.o_proj",
        "",
        &[Dim::Hidden, Dim::Q],
        How::Special(|at| scaled(at, "attn_output", &["attention_out_multiplier"])),
    ),
    row("layers.#.mamba.in_proj", "", &[Dim::Enters, Dim::Hidden], How::Special(enters)),
    row("layers.#.mamba.conv1d", "ssm_conv1d", &[Dim::Channels, Dim::One, Dim::Kernel], How::Squeezed),
    exact("layers.#.mamba.dt_bias", "ssm_dt.bias", &[Dim::SsmHeads], How::Keep),
    exact("layers.#.mamba.A_log", "ssm_a", &[Dim::SsmHeads], How::NegExpColumn),
    exact("layers.#.mamba.D", "ssm_d", &[Dim::SsmHeads], How::Column),
    row("layers.#.mamba.norm", "ssm_norm", &[Dim::Inner], How::Grouped(Dim::Groups)),
    row(
        "layers.#.mamba.out_proj",
        "",
        &[Dim::Hidden, Dim::Inner],
        How::Special(|at| scaled(at, "ssm_out", &["ssm_out_multiplier"])),
    ),
    // The name in the file has no ending, which is what llama.cpp asks for.
    exact("layers.#.pre_ff_layernorm.weight", "ffn_norm", &[Dim::Hidden], How::Keep),
    row(
        "layers.#.feed_forward.gate_proj",
        "",
        &[Dim::Ff, Dim::Hidden],
        How::Special(|at| of_mlp(at, "ffn_gate", 0)),
    ),
    row("layers.#.feed_forward.up_proj", "ffn_up", &[Dim::Ff, Dim::Hidden], How::Keep),
    row(
        "layers.#.feed_forward.down_proj",
        "",
        &[Dim::Hidden, Dim::Ff],
        How::Special(|at| of_mlp(at, "ffn_down", 1)),
    ),
];

fn falcon_h1(config: &mut Config) -> Result<Model> {
    config.expect("hidden_act", SILU)?;
    config.disregard(&[
        "attention_bias",
        "mlp_bias",
        "projectors_bias",
        "mamba_conv_bias",
        "mamba_chunk_size",
        "mamba_expand",
    ]);
    config.disregard(&[
        "mamba_proj_bias",
        "mamba_use_mlp",
        "mlp_expansion_factor",
        "time_step_limit",
        "time_step_min",
        "time_step_max",
        "time_step_floor",
    ]);
    // Without the norm its place says nothing; with it, engines have it after the gate.
    if config.flag("mamba_rms_norm")?.unwrap_or(false) {
        config.expect_flag("mamba_norm_before_gate", false)?;
    }
    config.disregard(&["mamba_norm_before_gate"]);
    let (hidden, heads) = (config.size(&["hidden_size"])?, config.size(&["num_attention_heads"])?);
    config.fill("head_dim", hidden / heads);
    let mut model = Model::usual(config, "falcon-h1")?;
    model.vocab_size();
    let sizes = Ssm {
        hidden,
        heads: config.size(&["mamba_n_heads"])?,
        inner: config.size(&["mamba_d_ssm"])?,
        groups: config.size(&["mamba_n_groups"])?,
        state: config.size(&["mamba_d_state"])?,
        kernel: config.size(&["mamba_d_conv"])?,
    };
    let head = config.size(&["mamba_d_head"])?;
    if sizes.heads.saturating_mul(head) != sizes.inner {
        return Err(config.bad("mamba_d_head", &head.into(), &format!("{} / {}", sizes.inner, sizes.heads)));
    }
    ssm(&mut model, config, &sizes)?;
    for (key, length) in [("mlp_multipliers", 2), ("ssm_multipliers", 5)] {
        let numbers = config.numbers(key)?.unwrap_or_default();
        if numbers.len() != length {
            return Err(config.bad(key, &numbers.into(), &format!("{length} numbers")));
        }
    }
    model.tables = vec![TABLE];
    Ok(model)
}

fn changed(at: &Place<'_>, name: &'static str, change: Change) -> Result<Recipes> {
    let content = Content::Parts(vec![Part::whole(at.tensor)], change);
    Ok(vec![(name, Recipe { dims: at.tensor.dims.clone(), content })])
}

/// The weights by these settings.
fn scaled(at: &Place<'_>, name: &'static str, settings: &[&str]) -> Result<Recipes> {
    let factor = |setting: &&str| Ok(at.config.need_number(&[setting])? as f32);
    let all = settings.iter().map(factor).collect::<Result<Vec<f32>>>()?;
    changed(at, name, Change::Scale { all, rows: Vec::new() })
}

fn of_mlp(at: &Place<'_>, name: &'static str, index: usize) -> Result<Recipes> {
    let factors = at.config.numbers("mlp_multipliers")?.unwrap_or_default();
    let all = factors.get(index).map(|factor| *factor as f32).into_iter().collect();
    changed(at, name, Change::Scale { all, rows: Vec::new() })
}

/// What enters Mamba-2: gates, inputs, B, C and time steps have a factor each.
fn enters(at: &Place<'_>) -> Result<Recipes> {
    let factors = at.config.numbers("ssm_multipliers")?.unwrap_or_default();
    let (inner, channels) = (at.sizes.get(Dim::Inner)?, at.sizes.get(Dim::Channels)?);
    let state = (channels - inner) / 2;
    let mut start = 0;
    let widths = [inner, inner, state, state, at.sizes.get(Dim::SsmHeads)?];
    let ranges = widths.map(|width| {
        start += width;
        start - width..start
    });
    let rows = ranges.into_iter().zip(factors.into_iter().map(|factor| factor as f32)).collect();
    let all = vec![at.config.need_number(&["ssm_in_multiplier"])? as f32];
    changed(at, "ssm_in", Change::Scale { all, rows })
}
