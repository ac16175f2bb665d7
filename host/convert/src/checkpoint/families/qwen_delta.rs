//! Qwen3-Next and Qwen 3.5: gated delta nets, and gated attention in every fourth block; dense or with experts.

use super::qwen::{EXPERTS, SHARED, every_block_has_experts};
use super::{Dim, Family, How, MLP, Model, OUTPUT, Recipes, Row, SILU, exact, row};
use crate::checkpoint::config::Config;
use crate::checkpoint::error::Result;
use crate::checkpoint::meta::Item;
use crate::checkpoint::place::Place;
use crate::checkpoint::recipe::{Change, Content, Part, Recipe, Rows};

pub(super) const QWEN35: Family = Family {
    classes: &["Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM"],
    defaults: DEFAULTS,
    model: |config| {
        let mut model = delta(config, "qwen35")?;
        sections(&mut model, config)?;
        model.tables = vec![TOP, ATTENTION, TILED, &MLP_ONLY];
        Ok(model)
    },
};

pub(super) const QWEN35_MOE: Family = Family {
    classes: &["Qwen3_5MoeForConditionalGeneration", "Qwen3_5MoeForCausalLM"],
    defaults: MOE_DEFAULTS,
    model: |config| {
        let mut model = delta_with_experts(config, "qwen35moe")?;
        sections(&mut model, config)?;
        model.tables = vec![TOP, ATTENTION, TILED, EXPERTS, SHARED];
        Ok(model)
    },
};

pub(super) const QWEN3_NEXT: Family = Family {
    classes: &["Qwen3NextForCausalLM"],
    defaults: NEXT_DEFAULTS,
    model: |config| {
        let mut model = delta_with_experts(config, "qwen3next")?;
        model.tables = vec![TOP, ATTENTION, GROUPED, EXPERTS, SHARED];
        Ok(model)
    },
};

const DEFAULTS: &str = r#"{"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 32768, "head_dim": 256,
    "num_attention_heads": 16, "num_key_value_heads": 4, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32, "partial_rotary_factor": 0.25,
    "full_attention_interval": 4, "tie_word_embeddings": false}"#;
const MOE_DEFAULTS: &str = r#"{"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 32768, "head_dim": 256,
    "num_attention_heads": 16, "num_key_value_heads": 2, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32, "partial_rotary_factor": 0.25,
    "full_attention_interval": 4, "num_experts": 256, "num_experts_per_tok": 8, "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512, "tie_word_embeddings": false}"#;
const NEXT_DEFAULTS: &str = r#"{"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 32768, "head_dim": 256,
    "num_attention_heads": 16, "num_key_value_heads": 2, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32, "partial_rotary_factor": 0.25,
    "full_attention_interval": 4, "num_experts": 512, "num_experts_per_tok": 10, "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512, "intermediate_size": 5632, "tie_word_embeddings": false}"#;

/// What RoPE's sections are where a configuration doesn't say.
const SECTIONS: [i32; 4] = [11, 11, 10, 0];

/// Kinds of blocks.
const ATTENDS: u8 = 1;
const RECURRENT: u8 = 2;

const TOP: &[Row] = &[
    row("embed_tokens", "token_embd", &[Dim::Vocab, Dim::Hidden], How::Keep),
    row("norm", "output_norm", &[Dim::Hidden], How::PlusOne),
    row("lm_head", "output", &[Dim::Vocab, Dim::Hidden], How::Keep),
];

const ATTENTION: &[Row] = &[
    row("layers.#.input_layernorm", "attn_norm", &[Dim::Hidden], How::PlusOne),
    row("layers.#.post_attention_layernorm", "post_attention_norm", &[Dim::Hidden], How::PlusOne),
    row("layers.#.self_attn.q_proj", "attn_q", &[Dim::GatedQ, Dim::Hidden], How::Keep),
    row("layers.#.self_attn.k_proj", "attn_k", &[Dim::Kv, Dim::Hidden], How::Keep),
    row("layers.#.self_attn.v_proj", "attn_v", &[Dim::Kv, Dim::Hidden], How::Keep),
    row("layers.#.self_attn.q_norm", "attn_q_norm", &[Dim::Head], How::PlusOne),
    row("layers.#.self_attn.k_norm", "attn_k_norm", &[Dim::Head], How::PlusOne),
    OUTPUT,
];

/// The MLP without the norm before it, which has another name here.
const MLP_ONLY: [Row; 3] = [MLP[1], MLP[2], MLP[3]];

/// Delta nets as Qwen3-Next has them: by groups of a key head.
const GROUPED: &[Row] = &[
    row("layers.#.linear_attn.in_proj_qkvz", "", &[Dim::DeltaQkvz, Dim::Hidden], How::Special(ungrouped)),
    row("layers.#.linear_attn.in_proj_ba", "ssm_ba", &[Dim::TwoValueHeads, Dim::Hidden], How::Keep),
    exact("layers.#.linear_attn.A_log", "ssm_a", &[Dim::ValueHeads], How::NegExp),
    exact("layers.#.linear_attn.dt_bias", "ssm_dt.bias", &[Dim::ValueHeads], How::Keep),
    row("layers.#.linear_attn.conv1d", "ssm_conv1d", &[Dim::DeltaQkv, Dim::One, Dim::Kernel], How::Squeezed),
    row("layers.#.linear_attn.norm", "ssm_norm", &[Dim::Value], How::Keep),
    row("layers.#.linear_attn.out_proj", "ssm_out", &[Dim::Hidden, Dim::Values], How::Keep),
];

/// Delta nets of Qwen 3.5, whose value heads are reordered so that a key head's come in turns.
const TILED: &[Row] = &[
    row(
        "layers.#.linear_attn.in_proj_qkv",
        "",
        &[Dim::DeltaQkv, Dim::Hidden],
        How::Special(|at| tiled(at, "attn_qkv", true)),
    ),
    row(
        "layers.#.linear_attn.in_proj_z",
        "",
        &[Dim::Values, Dim::Hidden],
        How::Special(|at| tiled(at, "attn_gate", false)),
    ),
    row(
        "layers.#.linear_attn.in_proj_a",
        "",
        &[Dim::ValueHeads, Dim::Hidden],
        How::Special(|at| tiled_heads(at, "ssm_alpha")),
    ),
    row(
        "layers.#.linear_attn.in_proj_b",
        "",
        &[Dim::ValueHeads, Dim::Hidden],
        How::Special(|at| tiled_heads(at, "ssm_beta")),
    ),
    exact("layers.#.linear_attn.A_log", "", &[Dim::ValueHeads], How::Special(decays)),
    exact(
        "layers.#.linear_attn.dt_bias",
        "",
        &[Dim::ValueHeads],
        How::Special(|at| tiled_heads(at, "ssm_dt.bias")),
    ),
    row(
        "layers.#.linear_attn.conv1d",
        "",
        &[Dim::DeltaQkv, Dim::One, Dim::Kernel],
        How::Special(|at| tiled(at, "ssm_conv1d", true)),
    ),
    row("layers.#.linear_attn.norm", "ssm_norm", &[Dim::Value], How::Keep),
    row("layers.#.linear_attn.out_proj", "", &[Dim::Hidden, Dim::Values], How::Special(tiled_columns)),
];

fn delta_with_experts(config: &mut Config, architecture: &'static str) -> Result<Model> {
    every_block_has_experts(config)?;
    config.expect_flag("norm_topk_prob", true)?;
    let mut model = delta(config, architecture)?;
    model.expert_width(config, "moe_intermediate_size", false)?;
    model.expert_width(config, "shared_expert_intermediate_size", true)?;
    Ok(model)
}

fn delta(config: &mut Config, architecture: &'static str) -> Result<Model> {
    config.expect("hidden_act", SILU)?;
    config.expect_flag("attn_output_gate", true)?;
    config.expect_flag("use_sliding_window", false)?;
    config.disregard(&["sliding_window", "max_window_layers", "mlp_only_layers"]);
    config.disregard(&[
        "attention_bias",
        "mamba_ssm_dtype",
        "mtp_num_hidden_layers",
        "mtp_use_dedicated_embeddings",
        "num_nextn_predict_layers",
    ]);
    let mut model = Model::usual(config, architecture)?;
    let kernel = config.size(&["linear_conv_kernel_dim"])?;
    let (key, value) = (config.size(&["linear_key_head_dim"])?, config.size(&["linear_value_head_dim"])?);
    let (keys, values) = (config.size(&["linear_num_key_heads"])?, config.size(&["linear_num_value_heads"])?);
    if !values.is_multiple_of(keys) {
        return Err(config.bad(
            "linear_num_value_heads",
            &values.into(),
            "a multiple of linear_num_key_heads",
        ));
    }
    let (all_keys, all_values) = (keys.saturating_mul(key), values.saturating_mul(value));
    let qkv = all_keys.saturating_mul(2).saturating_add(all_values);
    for (dim, size) in [
        (Dim::Kernel, kernel),
        (Dim::Key, key),
        (Dim::Value, value),
        (Dim::KeyHeads, keys),
        (Dim::ValueHeads, values),
        (Dim::Values, all_values),
        (Dim::DeltaQkv, qkv),
        (Dim::DeltaQkvz, qkv.saturating_add(all_values)),
    ] {
        model.sizes.set(dim, size);
    }
    let meta = &mut model.meta;
    meta.of("ssm.conv_kernel", Some(kernel as u32));
    meta.of("ssm.state_size", Some(key as u32));
    meta.of("ssm.group_count", Some(keys as u32));
    meta.of("ssm.time_step_rank", Some(values as u32));
    meta.of("ssm.inner_size", Some(all_values as u32));
    let interval = config.size(&["full_attention_interval"])?;
    model.kinds_of_blocks(config, &[("linear_attention", RECURRENT), ("full_attention", ATTENDS)])?;
    if model.kinds.is_empty() {
        let kind = |block: usize| if (block + 1).is_multiple_of(interval) { ATTENDS } else { RECURRENT };
        model.kinds = (0..model.blocks).map(kind).collect();
    }
    let recurrent = model.kinds.iter().map(|kind| *kind == RECURRENT).collect();
    model.meta.of("attention.recurrent_layers", Some(Item::Bools(recurrent)));
    model.meta.of("full_attention_interval", Some(interval as u32));
    let turned =
        config.rope()?.number("partial_rotary_factor")?.unwrap_or(0.25) * model.sizes.get(Dim::Head)? as f64;
    model.meta.of("rope.dimension_count", Some(turned as u32));
    // Layers that predict further tokens, which no text needs.
    model.left_out = &["mtp.", "model.mtp."];
    Ok(model)
}

fn sections(model: &mut Model, config: &Config) -> Result<()> {
    if config.rope()?.numbers("mrope_section")?.is_none() {
        model.meta.of("rope.dimension_sections", Some(Item::I32s(SECTIONS.to_vec())));
    }
    Ok(())
}

fn of_rows(at: &Place<'_>, name: &'static str, rows: Vec<u32>) -> (&'static str, Recipe) {
    let dims = vec![rows.len(), at.tensor.dims.last().copied().unwrap_or(1)];
    let part = Part::whole(at.tensor).rows(Rows::List(rows));
    (name, Recipe { dims, content: Content::Parts(vec![part], Change::None) })
}

/// The rows of each key head's queries, key, values and gates, as all queries, keys and values, and all gates.
fn ungrouped(at: &Place<'_>) -> Result<Recipes> {
    let (key, value) = (at.sizes.get(Dim::Key)?, at.sizes.get(Dim::Value)?);
    let (keys, values) = (at.sizes.get(Dim::KeyHeads)?, at.sizes.get(Dim::ValueHeads)?);
    let of_group = values / keys * value;
    let group = 2 * key + 2 * of_group;
    let rows = |start: usize, count: usize| {
        (0..keys)
            .flat_map(move |head| head * group + start..head * group + start + count)
            .map(|row| row as u32)
    };
    let qkv = rows(0, key).chain(rows(key, key)).chain(rows(2 * key, of_group)).collect();
    let gates = rows(2 * key + of_group, of_group).collect();
    Ok(vec![of_rows(at, "attn_qkv", qkv), of_rows(at, "attn_gate", gates)])
}

/// Value heads of `size` rows, so that a key head's come in turns.
fn order(at: &Place<'_>, size: usize) -> Result<impl Iterator<Item = u32>> {
    let (keys, values) = (at.sizes.get(Dim::KeyHeads)?, at.sizes.get(Dim::ValueHeads)?);
    let of_key = values / keys;
    let heads = (0..of_key).flat_map(move |turn| (0..keys).map(move |key| key * of_key + turn));
    Ok(heads.flat_map(move |head| head * size..(head + 1) * size).map(|row| row as u32))
}

/// Rows of values, behind those of queries and keys where these are there.
fn tiled(at: &Place<'_>, name: &'static str, behind_keys: bool) -> Result<Recipes> {
    let before = if behind_keys { at.sizes.get(Dim::DeltaQkv)? - at.sizes.get(Dim::Values)? } else { 0 };
    let values = order(at, at.sizes.get(Dim::Value)?)?.map(|row| row + before as u32);
    Ok(vec![of_rows(at, name, (0..before as u32).chain(values).collect())])
}

/// A row, or a number, for each value head.
fn tiled_heads(at: &Place<'_>, name: &'static str) -> Result<Recipes> {
    let (name, mut recipe) = of_rows(at, name, order(at, 1)?.collect());
    recipe.dims.clone_from(&at.tensor.dims);
    Ok(vec![(name, recipe)])
}

fn decays(at: &Place<'_>) -> Result<Recipes> {
    let mut recipes = tiled_heads(at, "ssm_a")?;
    for (_, recipe) in &mut recipes {
        if let Content::Parts(_, change) = &mut recipe.content {
            *change = Change::NegExp;
        }
    }
    Ok(recipes)
}

fn tiled_columns(at: &Place<'_>) -> Result<Recipes> {
    let columns = order(at, at.sizes.get(Dim::Value)?)?.collect();
    let part = Part::whole(at.tensor).columns(columns);
    Ok(vec![(
        "ssm_out",
        Recipe { dims: at.tensor.dims.clone(), content: Content::Parts(vec![part], Change::None) },
    )])
}
