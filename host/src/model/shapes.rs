//! Whether tensors have the shapes that the metadata asks for: a file that contradicts itself is told so in terms of both
//! sides, before any plugin sees it.

use herald_api::{Attention, LayerDesc, LayerParams, Mamba1, Mamba2, Moe, WeightRole};

use super::{Keys, ModelError, WeightPlan};
use crate::gguf::TensorInfo;

/// A shape, rows of columns, and the keys that it follows from.
struct Shape(usize, usize, &'static [&'static str]);

/// Checks one weight of a layer.
pub(super) fn check(
    keys: &Keys<'_>,
    desc: &LayerDesc,
    weight: &WeightPlan,
    tensor: &TensorInfo,
) -> Result<(), ModelError> {
    let Some(Shape(rows, columns, because)) = expected(desc, weight.role) else { return Ok(()) };
    let columns_found = tensor.dims().first().copied().unwrap_or(0);
    let rows_found: usize = tensor.dims().iter().skip(1).product();
    let elements = columns_found.saturating_mul(rows_found);
    let fits = match &weight.rows {
        // The parts of a tensor follow each other, and the last one ends with it.
        Some(part) => {
            let last = matches!(weight.role, WeightRole::Value | WeightRole::Up);
            columns_found == columns && (part.end == rows_found || (!last && part.end < rows_found))
        }
        // A vector may come in rows, and a norm of all heads as one.
        None if rows == 1 || columns == 1 => {
            elements == rows * columns || whole_norm(desc, weight.role, elements)
        }
        None => {
            (rows_found, columns_found) == (rows, columns) || grouped(weight.role, elements, rows * columns)
        }
    };
    if fits {
        return Ok(());
    }
    let rows = weight.rows.as_ref().map_or(rows, |part| part.end);
    let shape = |rows: usize, columns: usize| match rows {
        1 => format!("{columns} elements"),
        rows => format!("{rows} rows of {columns}"),
    };
    let facts: Vec<String> = because
        .iter()
        .map(|key| match keys.shown(key) {
            Some(value) => format!("{} = {value}", keys.full(key)),
            None => format!("no {}", keys.full(key)),
        })
        .collect();
    Err(ModelError::Contradiction {
        tensor: weight.tensor.clone(),
        found: shape(rows_found, columns_found),
        expected: shape(rows, columns),
        because: facts.join(", "),
    })
}

/// Whether it is a norm over all heads as one (OLMo 2).
fn whole_norm(desc: &LayerDesc, role: WeightRole, elements: usize) -> bool {
    match (&desc.params, role) {
        (LayerParams::Attention(params), WeightRole::QueryNorm) => {
            elements == params.n_heads * params.key_dim
        }
        (LayerParams::Attention(params), WeightRole::KeyNorm) => {
            elements == params.n_kv_heads * params.key_dim
        }
        _ => false,
    }
}

/// Whether it is a norm by groups that a file keeps as one row.
fn grouped(role: WeightRole, elements: usize, expected: usize) -> bool {
    role == WeightRole::SsmNorm && elements == expected
}

fn expected(desc: &LayerDesc, role: WeightRole) -> Option<Shape> {
    let hidden = desc.hidden;
    if matches!(role, WeightRole::Norm | WeightRole::PostNorm) {
        return Some(Shape(1, hidden, &["embedding_length"]));
    }
    match &desc.params {
        LayerParams::Attention(params) => attention(params, hidden, role),
        LayerParams::Mlp(mlp) => {
            const KEYS: &[&str] = &["embedding_length", "feed_forward_length"];
            Some(match role {
                WeightRole::Down => Shape(hidden, mlp.width, KEYS),
                _ => Shape(mlp.width, hidden, KEYS),
            })
        }
        LayerParams::Moe(params) => moe(params, hidden, role),
        LayerParams::Mamba1(params) => mamba1(params, hidden, role),
        LayerParams::Mamba2(params) => mamba2(params, hidden, role),
        LayerParams::ShortConv(params) => {
            const KEYS: &[&str] = &["embedding_length", "shortconv.l_cache"];
            Some(match role {
                WeightRole::InProjection => Shape(3 * hidden, hidden, KEYS),
                WeightRole::Conv => Shape(hidden, params.taps, KEYS),
                WeightRole::ConvBias => Shape(1, hidden, KEYS),
                _ => Shape(hidden, hidden, KEYS),
            })
        }
        LayerParams::Embedding(params) => Some(Shape(params.vocabulary, hidden, &["embedding_length"])),
        LayerParams::Head(params) => Some(Shape(params.vocabulary, hidden, &["embedding_length"])),
        _ => None,
    }
}

fn attention(params: &Attention, hidden: usize, role: WeightRole) -> Option<Shape> {
    const QUERY: &[&str] = &["embedding_length", "attention.head_count", "attention.key_length"];
    const KEY: &[&str] = &["embedding_length", "attention.head_count_kv", "attention.key_length"];
    const VALUE: &[&str] = &["embedding_length", "attention.head_count_kv", "attention.value_length"];
    const OUTPUT: &[&str] = &["embedding_length", "attention.head_count", "attention.value_length"];
    let Attention { n_heads, n_kv_heads, key_dim, value_dim, .. } = *params;
    Some(match role {
        WeightRole::Query => Shape(n_heads * key_dim, hidden, QUERY),
        WeightRole::QueryBias => Shape(1, n_heads * key_dim, QUERY),
        WeightRole::QueryNorm => Shape(1, key_dim, QUERY),
        WeightRole::Key => Shape(n_kv_heads * key_dim, hidden, KEY),
        WeightRole::KeyBias => Shape(1, n_kv_heads * key_dim, KEY),
        WeightRole::KeyNorm => Shape(1, key_dim, KEY),
        WeightRole::Value => Shape(n_kv_heads * value_dim, hidden, VALUE),
        WeightRole::ValueBias => Shape(1, n_kv_heads * value_dim, VALUE),
        WeightRole::AttentionOutput => Shape(hidden, n_heads * value_dim, OUTPUT),
        WeightRole::AttentionOutputBias => Shape(1, hidden, OUTPUT),
        WeightRole::RopeFactors => Shape(1, params.rope_dims / 2, &["rope.dimension_count"]),
        _ => return None,
    })
}

fn moe(params: &Moe, hidden: usize, role: WeightRole) -> Option<Shape> {
    const EXPERTS: &[&str] =
        &["embedding_length", "expert_count", "expert_feed_forward_length", "feed_forward_length"];
    const SHARED: &[&str] = &["embedding_length", "expert_shared_feed_forward_length"];
    let Moe { n_experts, width, .. } = *params;
    let shared = params.shared_width.unwrap_or(0);
    Some(match role {
        WeightRole::Router => Shape(n_experts, hidden, EXPERTS),
        WeightRole::RouterBias => Shape(1, n_experts, EXPERTS),
        WeightRole::ExpertsGate | WeightRole::ExpertsUp => Shape(n_experts * width, hidden, EXPERTS),
        WeightRole::ExpertsDown => Shape(n_experts * hidden, width, EXPERTS),
        WeightRole::SharedGate | WeightRole::SharedUp => Shape(shared, hidden, SHARED),
        WeightRole::SharedDown => Shape(hidden, shared, SHARED),
        WeightRole::SharedRouter => Shape(1, hidden, SHARED),
        _ => return None,
    })
}

fn mamba1(params: &Mamba1, hidden: usize, role: WeightRole) -> Option<Shape> {
    const INNER: &[&str] = &["embedding_length", "ssm.inner_size"];
    const CONV: &[&str] = &["ssm.inner_size", "ssm.conv_kernel"];
    const STATE: &[&str] = &["ssm.inner_size", "ssm.state_size"];
    const DT: &[&str] = &["ssm.inner_size", "ssm.time_step_rank"];
    const X: &[&str] = &["ssm.inner_size", "ssm.time_step_rank", "ssm.state_size"];
    let Mamba1 { inner, state, taps, dt_rank, .. } = *params;
    Some(match role {
        WeightRole::InProjection => Shape(2 * inner, hidden, INNER),
        WeightRole::OutProjection => Shape(hidden, inner, INNER),
        WeightRole::Conv => Shape(inner, taps, CONV),
        WeightRole::ConvBias => Shape(1, inner, CONV),
        WeightRole::SsmX => Shape(dt_rank + 2 * state, inner, X),
        WeightRole::SsmDt => Shape(inner, dt_rank, DT),
        WeightRole::SsmDtNorm => Shape(1, dt_rank, DT),
        WeightRole::SsmDtBias => Shape(1, inner, DT),
        WeightRole::SsmA => Shape(inner, state, STATE),
        WeightRole::SsmD => Shape(1, inner, STATE),
        WeightRole::SsmBNorm | WeightRole::SsmCNorm => Shape(1, state, STATE),
        _ => return None,
    })
}

fn mamba2(params: &Mamba2, hidden: usize, role: WeightRole) -> Option<Shape> {
    const IN: &[&str] =
        &["embedding_length", "ssm.inner_size", "ssm.state_size", "ssm.group_count", "ssm.time_step_rank"];
    const CONV: &[&str] = &["ssm.inner_size", "ssm.state_size", "ssm.group_count", "ssm.conv_kernel"];
    const HEADS: &[&str] = &["ssm.time_step_rank"];
    let Mamba2 { inner, state, taps, n_heads, n_groups } = *params;
    let channels = inner + 2 * n_groups * state;
    Some(match role {
        WeightRole::InProjection => Shape(inner + channels + n_heads, hidden, IN),
        WeightRole::OutProjection => Shape(hidden, inner, &["embedding_length", "ssm.inner_size"]),
        WeightRole::Conv => Shape(channels, taps, CONV),
        WeightRole::ConvBias => Shape(1, channels, CONV),
        WeightRole::SsmDtBias | WeightRole::SsmA | WeightRole::SsmD => Shape(1, n_heads, HEADS),
        WeightRole::SsmNorm => Shape(n_groups, inner / n_groups, &["ssm.inner_size", "ssm.group_count"]),
        _ => return None,
    })
}
