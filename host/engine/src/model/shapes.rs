//! Whether tensors have the shapes that the metadata asks for: a file that contradicts itself is told so in terms of both
//! sides, before any plugin sees it. The shapes are herald-api's; here stands which keys they follow from.

use herald_api::{LayerDesc, LayerParams, WeightRole, WeightShape};

use super::{Keys, ModelError, WeightPlan};
use crate::gguf::TensorInfo;

/// Checks one weight of a layer.
pub(super) fn check(
    keys: &Keys<'_>,
    desc: &LayerDesc,
    weight: &WeightPlan,
    tensor: &TensorInfo,
) -> Result<(), ModelError> {
    // The plugin refuses weights that the layer doesn't know.
    let Some(mut shape) = desc.weight_shape(weight.role) else { return Ok(()) };
    let mut columns = tensor.dims().first().copied().unwrap_or(0);
    let mut rows: usize = tensor.dims().iter().skip(1).product();
    if weight.rows.is_some() && tensor.dims().len() == 1 {
        // Parts of a vector are seen as rows of one element.
        (rows, columns) = (columns, 1);
        (shape.rows, shape.columns) = (shape.columns, 1);
    }
    let fits = match &weight.rows {
        // The parts of a tensor follow each other, and the last one ends with it.
        Some(part) => {
            let last = matches!(
                weight.role,
                WeightRole::Value | WeightRole::ValueBias | WeightRole::ValueConv | WeightRole::Up
            );
            let is_whole = part.len() == shape.rows;
            shape.rows = part.end;
            is_whole && columns == shape.columns && (part.end == rows || (!last && part.end < rows))
        }
        None => shape.fits(rows, columns),
    };
    if fits {
        return Ok(());
    }
    let facts: Vec<String> = because(&desc.params, weight.role)
        .iter()
        .map(|key| match keys.shown(key) {
            Some(value) => format!("{} = {value}", keys.full(key)),
            None => format!("no {}", keys.full(key)),
        })
        .collect();
    Err(ModelError::Contradiction {
        tensor: weight.tensor.clone(),
        found: WeightShape::matrix(rows, columns).to_string(),
        expected: shape.to_string(),
        because: facts.join(", "),
    })
}

/// The keys that a weight's shape follows from.
fn because(params: &LayerParams, role: WeightRole) -> &'static [&'static str] {
    use WeightRole::{LayerNorm, LayerNormBias, Norm, PostNorm, ResidualNorm, ResidualNormBias};
    if matches!(role, Norm | PostNorm | LayerNorm | LayerNormBias | ResidualNorm | ResidualNormBias) {
        return &["embedding_length"];
    }
    match params {
        LayerParams::Attention(params) if params.latent.is_some() => latent(role),
        LayerParams::Attention(_) => attention(role),
        LayerParams::Mlp(_) => &["embedding_length", "feed_forward_length"],
        LayerParams::Moe(_) => moe(role),
        LayerParams::Mamba1(_) => mamba1(role),
        LayerParams::Mamba2(_) => mamba2(role),
        LayerParams::PerLayerEmbedding(_) => {
            &["embedding_length", "embedding_length_per_layer_input", "block_count"]
        }
        LayerParams::DeltaNet(_) => delta_net(role),
        LayerParams::ShortConv(_) => &["embedding_length", "shortconv.l_cache"],
        _ => &["embedding_length"],
    }
}

fn latent(role: WeightRole) -> &'static [&'static str] {
    match role {
        WeightRole::QueryDown | WeightRole::QueryDownNorm => &["embedding_length", "attention.q_lora_rank"],
        WeightRole::Query => {
            &["attention.head_count", "attention.key_length_mla", "attention.q_lora_rank", "embedding_length"]
        }
        WeightRole::Key | WeightRole::LatentNorm => {
            &["embedding_length", "attention.kv_lora_rank", "rope.dimension_count"]
        }
        WeightRole::KeyUp => &[
            "attention.head_count",
            "attention.kv_lora_rank",
            "attention.key_length_mla",
            "rope.dimension_count",
        ],
        WeightRole::ValueUp => {
            &["attention.head_count", "attention.kv_lora_rank", "attention.value_length_mla"]
        }
        _ => &["embedding_length", "attention.head_count", "attention.value_length_mla"],
    }
}

fn attention(role: WeightRole) -> &'static [&'static str] {
    match role {
        WeightRole::Query | WeightRole::QueryBias | WeightRole::QueryNorm | WeightRole::RotatedQueryNorm => {
            &["embedding_length", "attention.head_count", "attention.key_length"]
        }
        WeightRole::Key | WeightRole::KeyBias | WeightRole::KeyNorm | WeightRole::RotatedKeyNorm => {
            &["embedding_length", "attention.head_count_kv", "attention.key_length"]
        }
        WeightRole::Value | WeightRole::ValueBias => {
            &["embedding_length", "attention.head_count_kv", "attention.value_length"]
        }
        WeightRole::AttentionSinks => &["attention.head_count"],
        WeightRole::RopeFactors => &["rope.dimension_count"],
        _ => &["embedding_length", "attention.head_count", "attention.value_length"],
    }
}

fn moe(role: WeightRole) -> &'static [&'static str] {
    match role {
        WeightRole::SharedGate | WeightRole::SharedUp | WeightRole::SharedDown | WeightRole::SharedRouter => {
            &["embedding_length", "expert_shared_feed_forward_length"]
        }
        _ => &["embedding_length", "expert_count", "expert_feed_forward_length", "feed_forward_length"],
    }
}

fn mamba1(role: WeightRole) -> &'static [&'static str] {
    match role {
        WeightRole::Conv | WeightRole::ConvBias => &["ssm.inner_size", "ssm.conv_kernel"],
        WeightRole::SsmX => &["ssm.inner_size", "ssm.time_step_rank", "ssm.state_size"],
        WeightRole::SsmDt | WeightRole::SsmDtNorm | WeightRole::SsmDtBias => {
            &["ssm.inner_size", "ssm.time_step_rank"]
        }
        WeightRole::SsmA | WeightRole::SsmD | WeightRole::SsmBNorm | WeightRole::SsmCNorm => {
            &["ssm.inner_size", "ssm.state_size"]
        }
        _ => &["embedding_length", "ssm.inner_size"],
    }
}

fn delta_net(role: WeightRole) -> &'static [&'static str] {
    match role {
        WeightRole::Query | WeightRole::Key => &["embedding_length", "ssm.state_size", "ssm.group_count"],
        WeightRole::QueryConv | WeightRole::KeyConv => {
            &["ssm.state_size", "ssm.group_count", "ssm.conv_kernel"]
        }
        WeightRole::Value => &["embedding_length", "ssm.inner_size", "ssm.state_size", "ssm.group_count"],
        WeightRole::ValueConv => &["ssm.inner_size", "ssm.state_size", "ssm.group_count", "ssm.conv_kernel"],
        WeightRole::Beta | WeightRole::Decay | WeightRole::BetaAndDecay => {
            &["embedding_length", "ssm.time_step_rank"]
        }
        WeightRole::SsmDtBias | WeightRole::SsmA => &["ssm.time_step_rank"],
        WeightRole::SsmNorm => &["ssm.inner_size", "ssm.time_step_rank"],
        _ => &["embedding_length", "ssm.inner_size"],
    }
}

fn mamba2(role: WeightRole) -> &'static [&'static str] {
    match role {
        WeightRole::InProjection => {
            &["embedding_length", "ssm.inner_size", "ssm.state_size", "ssm.group_count", "ssm.time_step_rank"]
        }
        WeightRole::Conv | WeightRole::ConvBias => {
            &["ssm.inner_size", "ssm.state_size", "ssm.group_count", "ssm.conv_kernel"]
        }
        WeightRole::SsmDtBias | WeightRole::SsmA | WeightRole::SsmD => &["ssm.time_step_rank"],
        WeightRole::SsmNorm => &["ssm.inner_size", "ssm.group_count"],
        _ => &["embedding_length", "ssm.inner_size"],
    }
}
