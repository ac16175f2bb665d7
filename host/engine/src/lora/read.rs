//! Adapter files as llama.cpp's converter writes them: GGUF with `general.type` "adapter" and `adapter.type` "lora", and of each
//! weight `NAME` that is updated the tensors `NAME.lora_a`, `[rank, columns]`, and `NAME.lora_b`, `[rows, rank]`.
//!
//! Nothing is passed over: a tensor or a setting that isn't computed with here is refused, since the result would be another.

use std::collections::BTreeMap;
use std::sync::Arc;

use herald_api::WeightRole;
use sha2::{Digest, Sha256};

use super::{Adapter, LoraFile, Update};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo};
use crate::model::{ModelPlan, WeightPlan};

/// Settings of adapters that are known; what an adapter is called or meant for changes no result.
const SETTINGS: [&str; 4] =
    ["adapter.type", "adapter.lora.alpha", "adapter.lora.task_name", "adapter.lora.prompt_prefix"];

/// The two matrices of an update.
type Pair<'g> = [Option<&'g TensorInfo>; 2];

/// Reads an adapter of a model.
pub(super) fn adapter(file: &LoraFile, model: &Gguf, plan: &ModelPlan) -> Result<Adapter> {
    let gguf = Gguf::open(&file.path)?;
    let refused = |sentence: String| Error::Invalid(format!("{}: {sentence}", file.path.display()));
    let alpha = check_settings(&gguf, plan, refused)?;
    let pairs = pairs(&gguf).map_err(refused)?;
    let mut layers: Vec<Vec<Update>> = plan.layers.iter().map(|_| Vec::new()).collect();
    let mut hash = Sha256::new();
    hash.update(alpha.map_or([0; 4], f32::to_le_bytes));
    for (name, pair) in pairs {
        let missing = || refused(format!("the adapter updates {name}, which the model doesn't have"));
        let tensor = model.tensor(name).ok_or_else(missing)?;
        let uses = uses(name, plan).map_err(refused)?;
        let [down, up] = shapes(name, pair, tensor).map_err(refused)?;
        for tensor in [down, up] {
            hash.update(format!("{} {} {:?}\n", tensor.name(), tensor.dtype(), tensor.dims()));
            hash.update(gguf.bytes(tensor));
        }
        let (columns, rank) = (row_len(down), n_rows(down));
        let [down, up] = [values(&gguf, down).map_err(refused)?, values(&gguf, up).map_err(refused)?];
        let down = Arc::<[f32]>::from(down);
        for (layer, weight) in uses {
            let rows = weight.rows.clone().unwrap_or(0..up.len() / rank);
            layers[layer].push(Update {
                role: weight.role,
                rank,
                columns,
                rows: rows.len(),
                down: Arc::clone(&down),
                up: transposed(&up[rows.start * rank..rows.end * rank], rank),
                factor: Adapter::factor(alpha, rank),
            });
        }
    }
    let named = || file.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    Ok(Adapter {
        name: file.name.clone().unwrap_or_else(named),
        path: file.path.clone(),
        scale: file.scale,
        alpha,
        digest: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        layers,
    })
}

/// Checks that a file is an adapter for the model's architecture; returns its alpha, where it has one.
fn check_settings(gguf: &Gguf, plan: &ModelPlan, refused: impl Fn(String) -> Error) -> Result<Option<f32>> {
    let metadata = gguf.metadata();
    for (key, expected) in [
        ("general.type", "adapter"),
        ("adapter.type", "lora"),
        ("general.architecture", plan.architecture.as_str()),
    ] {
        let found = metadata.get::<&str>(key)?;
        if found != Some(expected) {
            let found = found.map_or("missing".to_owned(), |found| format!("{found:?}"));
            return Err(refused(format!("the adapter's {key} is {found}, where {expected:?} was expected")));
        }
    }
    let known = |key: &str| !key.starts_with("adapter.") || SETTINGS.contains(&key);
    if let Some((key, value)) = metadata.iter().find(|(key, _)| !known(key)) {
        return Err(refused(format!(
            "the adapter's {key} is {value:?}, which HERALD doesn't compute with: its results could be wrong without"
        )));
    }
    match metadata.get::<f32>("adapter.lora.alpha")? {
        Some(alpha) if !alpha.is_finite() => Err(refused(format!(
            "the adapter's adapter.lora.alpha is {alpha}, where a finite number was expected"
        ))),
        alpha => Ok(alpha.filter(|alpha| *alpha != 0.0)),
    }
}

/// The file's tensors by the weights that they update.
fn pairs(gguf: &Gguf) -> Result<BTreeMap<&str, Pair<'_>>, String> {
    let mut pairs: BTreeMap<&str, Pair<'_>> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let name = tensor.name();
        let (weight, side) = match (name.strip_suffix(".lora_a"), name.strip_suffix(".lora_b")) {
            (Some(weight), _) => (weight, 0),
            (_, Some(weight)) => (weight, 1),
            _ => {
                return Err(format!(
                    "the adapter has the tensor {name}, where names that end in .lora_a or .lora_b were expected"
                ));
            }
        };
        pairs.entry(weight).or_default()[side] = Some(tensor);
    }
    if pairs.is_empty() {
        return Err(
            "the adapter has no tensors, where some that end in .lora_a and .lora_b were expected".to_owned()
        );
    }
    Ok(pairs)
}

/// Both matrices of an update, whose shapes fit each other and the model's tensor.
fn shapes<'g>(name: &str, pair: Pair<'g>, tensor: &TensorInfo) -> Result<[&'g TensorInfo; 2], String> {
    let [Some(down), Some(up)] = pair else {
        let (has, lacks) = if pair[0].is_some() { ("a", "b") } else { ("b", "a") };
        return Err(format!(
            "the adapter has {name}.lora_{has} without {name}.lora_{lacks}, where both were expected"
        ));
    };
    let expected = [row_len(tensor), n_rows(down), n_rows(tensor)];
    let fits = down.dims().len() <= 2
        && up.dims().len() <= 2
        && tensor.dims().len() == 2
        && [row_len(down), row_len(up), n_rows(up)] == expected;
    if fits {
        return Ok([down, up]);
    }
    Err(format!(
        "the adapter's {name}.lora_a and .lora_b have the dimensions {:?} and {:?}, where [{}, rank] and [rank, {}] were expected \
         for the model's {:?}",
        down.dims(),
        up.dims(),
        expected[0],
        expected[2],
        tensor.dims()
    ))
}

/// Where the model uses a tensor: layers, and what they use it for. All must be products that updates can be added to.
fn uses<'p>(name: &str, plan: &'p ModelPlan) -> Result<Vec<(usize, &'p WeightPlan)>, String> {
    let mut uses = Vec::new();
    for (index, layer) in plan.layers.iter().enumerate() {
        for weight in layer.weights.iter().filter(|weight| weight.tensor == name) {
            let takes = layer.desc.lora_shape(weight.role).is_some() && !plan.scales.contains_key(name);
            if !takes {
                return Err(unsupported(
                    name,
                    &format!("the {} layer", layer.desc.kind().name()),
                    weight.role,
                ));
            }
            uses.push((index, weight));
        }
    }
    if uses.is_empty() {
        return Err(format!("the adapter updates {name}, which none of the model's layers multiplies with"));
    }
    Ok(uses)
}

fn unsupported(name: &str, layer: &str, role: WeightRole) -> String {
    format!(
        "the adapter updates {name} ({role:?} of {layer}), where HERALD adds updates to the projections of attention and of dense \
         MLPs alone"
    )
}

fn row_len(tensor: &TensorInfo) -> usize {
    tensor.dims().first().copied().unwrap_or(1)
}

fn n_rows(tensor: &TensorInfo) -> usize {
    tensor.dims().iter().skip(1).product()
}

/// A tensor's elements, row after row, all of which are numbers: what comes of others would be put down to the layer.
fn values(gguf: &Gguf, tensor: &TensorInfo) -> Result<Vec<f32>, String> {
    let mut values = vec![0.0; tensor.elements()];
    let bytes = gguf.bytes(tensor);
    let rows = bytes.chunks_exact(bytes.len() / n_rows(tensor));
    for (row, values) in rows.zip(values.chunks_exact_mut(row_len(tensor))) {
        herald_formats::dequantize_row(tensor.dtype(), row, values);
    }
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => {
            Err(format!("the adapter's {} holds {value}, where finite numbers were expected", tensor.name()))
        }
        None => Ok(values),
    }
}

/// `[rows, columns]` as `[columns, rows]`.
fn transposed(matrix: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| matrix.iter().skip(column).step_by(columns).copied()).collect()
}
