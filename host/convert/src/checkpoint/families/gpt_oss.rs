//! gpt-oss: experts in MXFP4 as published, or in floats.

use super::{ATTENTION, COMMON, Dim, EXPERT_FF, Family, How, Model, Recipes, Row, SILU, WINDOW, exact, row};
use crate::checkpoint::config::Config;
use crate::checkpoint::error::Result;
use crate::checkpoint::place::Place;
use crate::checkpoint::recipe::{Change, Content, Part, Recipe, Rows};
use crate::checkpoint::shards::Stored;

pub(super) const GPT_OSS: Family = Family {
    classes: &["GptOssForCausalLM"],
    defaults: r#"{"rms_norm_eps": 1e-5, "max_position_embeddings": 131072, "num_key_value_heads": 8, "head_dim": 64,
        "sliding_window": 128, "num_local_experts": 128, "num_experts_per_tok": 4, "rope_parameters": {"rope_type": "yarn",
        "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 4096, "rope_theta": 150000.0}}"#,
    model: gpt_oss,
};

const TABLE: &[Row] = &[
    exact("layers.#.self_attn.sinks", "attn_sinks.weight", &[Dim::Heads], How::Keep),
    row("layers.#.post_attention_layernorm", "post_attention_norm", &[Dim::Hidden], How::Keep),
    row("layers.#.mlp.router", "ffn_gate_inp", &[Dim::Experts, Dim::Hidden], How::Keep),
    exact(
        "layers.#.mlp.experts.gate_up_proj",
        "",
        &[Dim::Experts, Dim::Hidden, Dim::TwoExpertFf],
        How::Special(gates_and_ups),
    ),
    exact(
        "layers.#.mlp.experts.gate_up_proj_bias",
        "",
        &[Dim::Experts, Dim::TwoExpertFf],
        How::Special(biases),
    ),
    exact(
        "layers.#.mlp.experts.down_proj",
        "",
        &[Dim::Experts, Dim::ExpertFf, Dim::Hidden],
        How::Special(downs),
    ),
    exact(
        "layers.#.mlp.experts.down_proj_bias",
        "ffn_down_exps.bias",
        &[Dim::Experts, Dim::Hidden],
        How::Keep,
    ),
    exact(
        "layers.#.mlp.experts.gate_up_proj_blocks",
        "",
        &[Dim::Experts, Dim::TwoExpertFf, Dim::HiddenBlocks, Dim::Sixteen],
        How::Special(|at| blocks(at, &["ffn_gate_exps.weight", "ffn_up_exps.weight"])),
    ),
    exact("layers.#.mlp.experts.gate_up_proj_scales", "", &[], How::Dropped),
    exact(
        "layers.#.mlp.experts.down_proj_blocks",
        "",
        &[Dim::Experts, Dim::Hidden, Dim::FfBlocks, Dim::Sixteen],
        How::Special(|at| blocks(at, &["ffn_down_exps.weight"])),
    ),
    exact("layers.#.mlp.experts.down_proj_scales", "", &[], How::Dropped),
];

fn gpt_oss(config: &mut Config) -> Result<Model> {
    config.expect("hidden_act", SILU)?;
    for (key, expected) in [("swiglu_limit", 7.0), ("swiglu_alpha", 1.702)] {
        if let Some(other) = config.number(&[key])?.filter(|value| *value != expected) {
            return Err(config.bad(key, &other.into(), &expected.to_string()));
        }
    }
    if let Some(quantized) = config.get("quantization_config") {
        let method = quantized.get("quant_method").and_then(|method| method.as_str());
        if method != Some("mxfp4") {
            return Err(config.bad("quantization_config", quantized, "the method mxfp4"));
        }
    }
    config.disregard(&["attention_bias", "experts_per_token", "initial_context_length", "rope_theta"]);
    if let Some(kinds) = config.texts("layer_types")? {
        let differs =
            kinds.iter().enumerate().any(|(block, kind)| (*kind == "sliding_attention") != (block % 2 == 0));
        if differs {
            return Err(config.bad(
                "layer_types",
                &kinds.into(),
                "a window in every other block, from the first on",
            ));
        }
    }
    let mut model = Model::usual(config, "gpt-oss")?;
    model.meta.of(WINDOW, Some(config.need(&["sliding_window"])?));
    let width = config.size(&["intermediate_size"])?;
    model.meta.of(EXPERT_FF, Some(width as u32));
    model.sizes.set(Dim::ExpertFf, width);
    model.tables = vec![COMMON, ATTENTION, TABLE];
    Ok(model)
}

/// Every other row, from `first` on.
fn every_other(rows: usize, first: u32) -> Rows {
    Rows::List((first..rows as u32).step_by(2).collect())
}

/// Matrices with inputs first, whose outputs are gates and ups by turns.
fn gates_and_ups(at: &Place<'_>) -> Result<Recipes> {
    let (experts, width) = (at.sizes.get(Dim::Experts)?, at.sizes.get(Dim::ExpertFf)?);
    let one = |name, first| {
        let part = Part::whole(at.tensor).transposed();
        let rows = every_other(part.all_rows(), first);
        let dims = vec![experts, width, part.width()];
        (name, Recipe { dims, content: Content::Parts(vec![part.rows(rows)], Change::None) })
    };
    Ok(vec![one("ffn_gate_exps.weight", 0), one("ffn_up_exps.weight", 1)])
}

fn biases(at: &Place<'_>) -> Result<Recipes> {
    let (experts, width) = (at.sizes.get(Dim::Experts)?, at.sizes.get(Dim::ExpertFf)?);
    let one = |name, first: u32| {
        let columns = (first..2 * width as u32).step_by(2).collect();
        let part = Part::whole(at.tensor).columns(columns);
        (name, Recipe { dims: vec![experts, width], content: Content::Parts(vec![part], Change::None) })
    };
    Ok(vec![one("ffn_gate_exps.bias", 0), one("ffn_up_exps.bias", 1)])
}

fn downs(at: &Place<'_>) -> Result<Recipes> {
    let dims = vec![at.sizes.get(Dim::Experts)?, at.sizes.get(Dim::Hidden)?, at.sizes.get(Dim::ExpertFf)?];
    let part = Part::whole(at.tensor).transposed();
    Ok(vec![("ffn_down_exps.weight", Recipe { dims, content: Content::Parts(vec![part], Change::None) })])
}

/// Codes and scales of MXFP4, whose rows are those of the named tensors by turns.
fn blocks(at: &Place<'_>, names: &[&'static str]) -> Result<Recipes> {
    let scales_name = at.name.replace("_blocks", "_scales");
    let Some(scales) = at.shards.tensors().get(&scales_name) else {
        return at.bad(format_args!("has no scales: there is no tensor {scales_name:?}, which was expected"));
    };
    let dims = at.tensor.dims.get(..3).unwrap_or_default();
    let [experts, rows, blocks] = *dims else { return at.bad("has no four dimensions") };
    if scales.dims != dims || scales.stored != Stored::Bytes || at.tensor.stored != Stored::Bytes {
        return at
            .bad(format_args!("and its scales of shape {:?} aren't bytes of fitting shapes", scales.dims));
    }
    let recipe = |first: usize, step: usize| Recipe {
        dims: vec![experts, rows / step, blocks * 32],
        content: Content::Mxfp4 { codes: at.tensor.clone(), scales: scales.clone(), first, step },
    };
    Ok(names.iter().enumerate().map(|(first, name)| (*name, recipe(first, names.len()))).collect())
}
