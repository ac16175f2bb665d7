//! Qwen 2 and 3, dense and with experts.

use super::{ATTENTION, COMMON, Dim, Family, HEAD_NORMS, How, MLP, Model, Row, SILU, exact, row};
use crate::checkpoint::config::Config;
use crate::checkpoint::error::Result;
use crate::checkpoint::vocabulary::Style;

pub(super) const QWEN2: Family = Family {
    classes: &["Qwen2ForCausalLM", "Qwen2Model"],
    defaults: r#"{"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 32768}"#,
    model: |config| dense(config, "qwen2", &[]),
};

pub(super) const QWEN3: Family = Family {
    classes: &["Qwen3ForCausalLM", "Qwen3Model"],
    defaults: r#"{"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 32768, "head_dim": 128}"#,
    model: |config| dense(config, "qwen3", HEAD_NORMS),
};

pub(super) const QWEN2_MOE: Family = Family {
    classes: &["Qwen2MoeForCausalLM"],
    defaults: r#"{"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 32768, "num_experts": 60,
        "num_experts_per_tok": 4, "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632}"#,
    model: |config| {
        config.expect_flag("norm_topk_prob", false)?;
        let mut model = experts(config, "qwen2moe")?;
        model.tables = vec![COMMON, ATTENTION, &[FFN_NORM], EXPERTS, SHARED];
        Ok(model)
    },
};

pub(super) const QWEN3_MOE: Family = Family {
    classes: &["Qwen3MoeForCausalLM"],
    defaults: r#"{"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 32768, "num_key_value_heads": 4,
        "num_local_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "norm_topk_prob": false}"#,
    model: |config| {
        config.expect_flag("norm_topk_prob", true)?;
        let mut model = experts(config, "qwen3moe")?;
        model.tables = vec![COMMON, ATTENTION, HEAD_NORMS, &[FFN_NORM], EXPERTS];
        Ok(model)
    },
};

const FFN_NORM: Row = row("layers.#.post_attention_layernorm", "ffn_norm", &[Dim::Hidden], How::Keep);

/// Experts, each by itself as most checkpoints have them, or all in one tensor.
pub(super) const EXPERTS: &[Row] = &[
    row("layers.#.mlp.gate", "ffn_gate_inp", &[Dim::Experts, Dim::Hidden], How::Keep),
    row("layers.#.mlp.experts.#.gate_proj", "ffn_gate_exps", &[Dim::ExpertFf, Dim::Hidden], How::Stacked),
    row("layers.#.mlp.experts.#.up_proj", "ffn_up_exps", &[Dim::ExpertFf, Dim::Hidden], How::Stacked),
    row("layers.#.mlp.experts.#.down_proj", "ffn_down_exps", &[Dim::Hidden, Dim::ExpertFf], How::Stacked),
    exact(
        "layers.#.mlp.experts.gate_up_proj",
        "",
        &[Dim::Experts, Dim::TwoExpertFf, Dim::Hidden],
        How::Split(&[("ffn_gate_exps.weight", Dim::ExpertFf), ("ffn_up_exps.weight", Dim::ExpertFf)]),
    ),
    exact(
        "layers.#.mlp.experts.down_proj",
        "ffn_down_exps.weight",
        &[Dim::Experts, Dim::Hidden, Dim::ExpertFf],
        How::Keep,
    ),
];

/// The expert that every token uses.
pub(super) const SHARED: &[Row] = &[
    row("layers.#.mlp.shared_expert_gate", "ffn_gate_inp_shexp", &[Dim::One, Dim::Hidden], How::Keep),
    row("layers.#.mlp.shared_expert.gate_proj", "ffn_gate_shexp", &[Dim::SharedFf, Dim::Hidden], How::Keep),
    row("layers.#.mlp.shared_expert.up_proj", "ffn_up_shexp", &[Dim::SharedFf, Dim::Hidden], How::Keep),
    row("layers.#.mlp.shared_expert.down_proj", "ffn_down_shexp", &[Dim::Hidden, Dim::SharedFf], How::Keep),
];

/// Settings that say nothing, or what the tensors say too.
fn known(config: &Config) -> Result<()> {
    config.expect("hidden_act", SILU)?;
    config.expect_flag("use_sliding_window", false)?;
    config.expect_flag("use_mrope", false)?;
    config.disregard(&["sliding_window", "max_window_layers", "attention_bias", "qkv_bias", "layer_types"]);
    Ok(())
}

fn dense(config: &Config, architecture: &'static str, norms: &'static [Row]) -> Result<Model> {
    known(config)?;
    let mut model = Model::usual(config, architecture)?;
    model.tables = vec![COMMON, ATTENTION, MLP, norms];
    model.style = Style::Pooled;
    if config.class()?.ends_with("Model") {
        // It embeds, and has no head.
        model.tables = vec![super::HEADLESS, ATTENTION, MLP, norms];
    }
    Ok(model)
}

fn experts(config: &Config, architecture: &'static str) -> Result<Model> {
    known(config)?;
    every_block_has_experts(config)?;
    let mut model = Model::usual(config, architecture)?;
    model.expert_width(config, "moe_intermediate_size", false)?;
    model.expert_width(config, "shared_expert_intermediate_size", true)?;
    Ok(model)
}

pub(super) fn every_block_has_experts(config: &Config) -> Result<()> {
    if let Some(dense) = config.numbers("mlp_only_layers")?.filter(|dense| !dense.is_empty()) {
        return Err(config.bad("mlp_only_layers", &dense.into(), "experts in every block"));
    }
    match config.count(&["decoder_sparse_step"])? {
        Some(step) if step != 1 => Err(config.bad("decoder_sparse_step", &step.into(), "1")),
        _ => Ok(()),
    }
}
