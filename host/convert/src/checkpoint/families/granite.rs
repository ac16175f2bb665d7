//! Granite 3 and 4: Llama with multipliers, dense or with experts; Granite 4 H, hybrids of Mamba-2 and attention.

use super::llama::llama;
use super::mamba::{Ssm, ssm};
use super::{COMMON, Dim, Family, How, MLP, Model, PERMUTED_ATTENTION, Row, SHARED_FF, exact, row};
use crate::checkpoint::config::Config;
use crate::checkpoint::error::{Result, refused};
use crate::checkpoint::meta::Item;

pub(super) const GRANITE: Family = Family {
    classes: &["GraniteForCausalLM"],
    defaults: DEFAULTS,
    model: |config| granite(config, "granite"),
};

pub(super) const GRANITE_MOE: Family = Family {
    classes: &["GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"],
    defaults: MOE_DEFAULTS,
    model: |config| {
        let mut model = granite(config, "granitemoe")?;
        shared_width(&mut model, config)?;
        model.tables = vec![COMMON, PERMUTED_ATTENTION, &[FFN_NORM], EXPERTS, SHARED];
        Ok(model)
    },
};

pub(super) const GRANITE_HYBRID: Family =
    Family { classes: &["GraniteMoeHybridForCausalLM"], defaults: HYBRID_DEFAULTS, model: hybrid };

const DEFAULTS: &str = r#"{"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 2048, "embedding_multiplier": 1.0,
    "logits_scaling": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 1.0}"#;
const MOE_DEFAULTS: &str = r#"{"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 2048, "embedding_multiplier": 1.0,
    "logits_scaling": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 1.0, "num_local_experts": 8, "num_experts_per_tok": 2}"#;
const HYBRID_DEFAULTS: &str = r#"{"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 2048, "embedding_multiplier": 1.0,
    "logits_scaling": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 1.0, "num_local_experts": 8, "num_experts_per_tok": 2,
    "shared_intermediate_size": 1024, "mamba_n_heads": 128, "mamba_n_groups": 1, "mamba_d_state": 256, "mamba_d_head": 64,
    "mamba_d_conv": 4, "mamba_expand": 2}"#;

const FFN_NORM: Row = MLP[0];

const EXPERTS: &[Row] = &[
    row("layers.#.block_sparse_moe.router.layer", "ffn_gate_inp", &[Dim::Experts, Dim::Hidden], How::Keep),
    exact(
        "layers.#.block_sparse_moe.input_linear.weight",
        "",
        &[Dim::Experts, Dim::TwoFf, Dim::Hidden],
        How::Split(&[("ffn_gate_exps.weight", Dim::Ff), ("ffn_up_exps.weight", Dim::Ff)]),
    ),
    row(
        "layers.#.block_sparse_moe.output_linear",
        "ffn_down_exps",
        &[Dim::Experts, Dim::Hidden, Dim::Ff],
        How::Keep,
    ),
];

/// The MLP beside the experts.
const SHARED: &[Row] = &[
    row(
        "layers.#.shared_mlp.input_linear",
        "",
        &[Dim::TwoSharedFf, Dim::Hidden],
        How::Split(&[("ffn_gate_shexp", Dim::SharedFf), ("ffn_up_shexp", Dim::SharedFf)]),
    ),
    row("layers.#.shared_mlp.output_linear", "ffn_down_shexp", &[Dim::Hidden, Dim::SharedFf], How::Keep),
];

/// The same where there are no experts.
const ALONE: &[Row] = &[
    row(
        "layers.#.shared_mlp.input_linear",
        "",
        &[Dim::TwoSharedFf, Dim::Hidden],
        How::Split(&[("ffn_gate", Dim::SharedFf), ("ffn_up", Dim::SharedFf)]),
    ),
    row("layers.#.shared_mlp.output_linear", "ffn_down", &[Dim::Hidden, Dim::SharedFf], How::Keep),
];

const MAMBA: &[Row] = &[
    row("layers.#.mamba.in_proj", "ssm_in", &[Dim::Enters, Dim::Hidden], How::Keep),
    row("layers.#.mamba.conv1d", "ssm_conv1d", &[Dim::Channels, Dim::One, Dim::Kernel], How::Squeezed),
    exact("layers.#.mamba.dt_bias", "ssm_dt.bias", &[Dim::SsmHeads], How::Keep),
    exact("layers.#.mamba.A_log", "ssm_a", &[Dim::SsmHeads], How::NegExpColumn),
    exact("layers.#.mamba.D", "ssm_d", &[Dim::SsmHeads], How::Column),
    row("layers.#.mamba.norm", "ssm_norm", &[Dim::Inner], How::Grouped(Dim::Groups)),
    row("layers.#.mamba.out_proj", "ssm_out", &[Dim::Hidden, Dim::Inner], How::Keep),
];

/// Kinds of blocks.
const ATTENDS: u8 = 1;
const RECURRENT: u8 = 2;

fn granite(config: &mut Config, architecture: &'static str) -> Result<Model> {
    config.disregard(&["attention_bias", "mlp_bias"]);
    // Heads are the hidden size's parts, whatever the file says.
    config.remove("head_dim");
    let mut model = llama(config, architecture)?;
    for (key, setting) in [
        ("attention.scale", "attention_multiplier"),
        ("embedding_scale", "embedding_multiplier"),
        ("residual_scale", "residual_multiplier"),
        ("logit_scale", "logits_scaling"),
    ] {
        model.meta.of(key, config.number(&[setting])?.filter(|value| *value != 0.0));
    }
    Ok(model)
}

fn shared_width(model: &mut Model, config: &Config) -> Result<()> {
    let width = config.count(&["shared_intermediate_size"])?.filter(|width| *width > 0);
    model.meta.of(SHARED_FF, width);
    if let Some(width) = width {
        model.sizes.set(Dim::SharedFf, width as usize);
    }
    Ok(())
}

fn hybrid(config: &mut Config) -> Result<Model> {
    let kinds = |config: &mut Config| -> Result<Vec<u8>> {
        let mut probe = Model::bare(config, "granitehybrid")?;
        let names = [
            ("mamba", RECURRENT),
            ("linear_attention", RECURRENT),
            ("attention", ATTENDS),
            ("full_attention", ATTENDS),
        ];
        probe.kinds_of_blocks(config, &names)?;
        Ok(probe.kinds)
    };
    let kinds = kinds(config)?;
    if kinds.is_empty() {
        return refused(format!("{}: there is no layer_types, which was expected", config.path().display()));
    }
    let experts = config.count(&["num_local_experts"])?.unwrap_or(0) > 0;
    let used = config.count(&["num_experts_per_tok"])?.unwrap_or(0) > 0;
    // Granite 4 without H: all blocks attend.
    let is_hybrid = kinds.contains(&RECURRENT);
    let architecture = match (is_hybrid, used) {
        (true, _) => "granitehybrid",
        (false, true) => "granitemoe",
        (false, false) => "granite",
    };
    config.expect_flag("mamba_proj_bias", false)?;
    config.disregard(&[
        "mamba_conv_bias",
        "mamba_chunk_size",
        "time_step_limit",
        "time_step_min",
        "time_step_max",
        "time_step_floor",
        "normalization_function",
        "init_method",
    ]);
    config.expect("normalization_function", &["rmsnorm"])?;
    config.expect("position_embedding_type", if is_hybrid { &["nope"] } else { &["rope"] })?;
    let mut model = granite(config, architecture)?;
    shared_width(&mut model, config)?;
    let sizes = Ssm {
        hidden: model.sizes.get(Dim::Hidden)?,
        heads: config.size(&["mamba_n_heads"])?,
        inner: config.size(&["mamba_expand"])?.saturating_mul(model.sizes.get(Dim::Hidden)?),
        groups: config.size(&["mamba_n_groups"])?,
        state: config.size(&["mamba_d_state"])?,
        kernel: config.size(&["mamba_d_conv"])?,
    };
    if is_hybrid && sizes.heads.saturating_mul(config.size(&["mamba_d_head"])?) != sizes.inner {
        return Err(config.bad("mamba_d_head", &sizes.heads.into(), "heads that make up the inner size"));
    }
    config.disregard(&["mamba_d_head"]);
    // Without such blocks, engines refuse settings of them.
    if is_hybrid {
        ssm(&mut model, config, &sizes)?;
    }
    let kv_heads = model.sizes.get(Dim::KvHeads)? as i32;
    let by_block = kinds.iter().map(|kind| if *kind == ATTENDS { kv_heads } else { 0 }).collect();
    model.meta.of("attention.head_count_kv", Some(Item::I32s(by_block)));
    model.meta.of("rope.scaling.finetuned", Some(!is_hybrid));
    if is_hybrid {
        // Without positions, any length.
        model.meta.of("context_length", Some(1_u32 << 20));
    }
    model.kinds = kinds;
    model.tables = vec![COMMON, PERMUTED_ATTENTION, &[FFN_NORM], MAMBA];
    model.tables.extend(if experts { &[EXPERTS, SHARED][..] } else { &[ALONE][..] });
    Ok(model)
}
