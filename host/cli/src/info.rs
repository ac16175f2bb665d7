//! `host info`: the contents of a model file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use clap::builder::PathBufValueParser;
use herald::backend_choice::{Choice, Shapes, pick_backends};
use herald::gguf::{Gguf, Value as Held};
use herald::model::{self, ModelPlan};
use herald::plugin::{Plugins, this_machine};
use herald::threads::available_threads;
use herald_api::LayerParams;
use serde_json::{Value, json};

use super::arguments::Listed;
use super::failure::Failure;
use super::options::EngineOptions;
use super::{facts, output, store};

/// How many elements of an array are shown.
const SHOWN: usize = 6;

/// Show a model's metadata, layers and tensors
#[derive(Debug, Args)]
pub(super) struct Info {
    /// The model: a GGUF file, or a name that `host pull` knows [default: as --model says]
    #[arg(value_name = "PATH|NAME", value_parser = Listed::new(PathBufValueParser::new(), store::values), hide_possible_values = true)]
    file: Option<PathBuf>,
    /// Leave out the list of tensors
    #[arg(long)]
    no_tensors: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Info {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let path = match &self.file {
            Some(file) => store::file(file, options.quiet)?,
            None => options.model_path()?,
        };
        let gguf = Gguf::open(&path).map_err(herald::Error::from)?;
        let plan = model::plan(&gguf);
        let (parameters, types) = (facts::parameters(&gguf), facts::types(&gguf));
        if self.json {
            let tensors: Vec<_> = gguf
                .tensors()
                .map(|tensor| {
                    json!({"name": tensor.name(), "type": tensor.dtype().name(), "dims": tensor.dims(), "bytes": tensor.bytes()})
                })
                .collect();
            let metadata: serde_json::Map<String, Value> =
                gguf.metadata().iter().map(|(key, value)| (key.to_owned(), as_json(&value))).collect();
            return output::json(&json!({
                "path": path.to_string_lossy(),
                "gguf_version": gguf.version(),
                "file_bytes": gguf.file_bytes(),
                "parameters": parameters,
                "model": plan.as_ref().ok().map(summary),
                "unsupported": plan.as_ref().err().map(ToString::to_string),
                "choice": plan.as_ref().ok().and_then(|plan| choice(&Shapes::of(&gguf, plan), options)),
                "metadata": metadata,
                "tensors": if self.no_tensors { Value::Null } else { Value::Array(tensors) },
            }));
        }
        output::line(format!(
            "{}: GGUF version {}, {}, {} tensors, {:.1} million parameters",
            path.display(),
            gguf.version(),
            output::bytes(gguf.file_bytes()),
            gguf.tensors().len(),
            parameters as f64 / 1e6
        ))?;
        match &plan {
            Ok(plan) => print_plan(plan)?,
            Err(error) => output::line(format!("\nHERALD can't run it: {error}"))?,
        }
        let mut table = output::table(&["TYPE", "TENSORS", "SIZE"]);
        for (name, (count, bytes)) in types {
            table.add_row(vec![
                name.into(),
                output::number(count),
                output::number(output::bytes(bytes as u64)),
            ]);
        }
        output::line("")?;
        output::print_table(&table)?;
        let mut table = output::table(&["KEY", "VALUE"]);
        for (key, value) in gguf.metadata().iter() {
            table.add_row(vec![key.to_owned(), shown(&value)]);
        }
        output::line("")?;
        output::print_table(&table)?;
        if self.no_tensors {
            return Ok(());
        }
        let mut table = output::table(&["TENSOR", "TYPE", "DIMENSIONS", "SIZE"]);
        for tensor in gguf.tensors() {
            let dims: Vec<String> = tensor.dims().iter().map(ToString::to_string).collect();
            table.add_row(vec![
                tensor.name().into(),
                tensor.dtype().name().into(),
                dims.join(" x ").into(),
                output::number(output::bytes(tensor.bytes() as u64)),
            ]);
        }
        output::line("")?;
        output::print_table(&table)
    }
}

/// The plugins that would run it, if there are any.
fn choice(shapes: &Shapes, options: &EngineOptions) -> Option<Choice> {
    let load = options.load_options();
    let plugins = Plugins::discover(&load.search, &this_machine());
    let threads = load.threads.unwrap_or_else(available_threads).get();
    Some(pick_backends(&plugins, &load, threads, Some(shapes)).ok()?.choice)
}

/// Bytes of a token's keys and values in all layers.
fn kv_bytes(plan: &ModelPlan) -> usize {
    let of_layer = |params: &LayerParams| match params {
        LayerParams::Attention(attention) => {
            let row = |dim: usize| size_of::<f32>() + dim * size_of::<i16>();
            attention.n_kv_heads * (row(attention.key_dim) + row(attention.value_dim))
        }
        _ => 0,
    };
    plan.layers.iter().map(|layer| of_layer(&layer.desc.params)).sum()
}

/// Bytes of a sequence's recurrent states in float32, from the shapes: the convolutions' latest inputs and the SSM states.
fn state_bytes(plan: &ModelPlan) -> usize {
    let elements = plan.layers.iter().filter_map(|layer| layer.desc.params.state_elements(layer.desc.hidden));
    elements.sum::<usize>() * size_of::<f32>()
}

fn kinds(plan: &ModelPlan) -> BTreeMap<&'static str, usize> {
    let mut kinds = BTreeMap::new();
    for layer in &plan.layers {
        *kinds.entry(layer.desc.kind().name()).or_default() += 1;
    }
    kinds
}

fn summary(plan: &ModelPlan) -> Value {
    json!({
        "architecture": plan.architecture,
        "hidden": plan.hidden,
        "vocabulary": plan.vocabulary,
        "context": plan.context,
        "blocks": plan.blocks,
        "layers": kinds(plan),
        "kv_bytes_per_token": kv_bytes(plan),
        "state_bytes": state_bytes(plan),
    })
}

fn print_plan(plan: &ModelPlan) -> Result<(), Failure> {
    let kinds: Vec<String> = kinds(plan).into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    output::line(format!(
        "{}: hidden size {}, {} blocks, vocabulary of {}, trained for {} tokens",
        plan.architecture, plan.hidden, plan.blocks, plan.vocabulary, plan.context
    ))?;
    output::line(format!("layers: {}", kinds.join(", ")))?;
    let (token, context) = (kv_bytes(plan) as u64, (kv_bytes(plan) * plan.context) as u64);
    if token > 0 {
        output::line(format!(
            "keys and values: {} a token, {} for the whole context",
            output::bytes(token),
            output::bytes(context)
        ))?;
    }
    match state_bytes(plan) {
        0 => Ok(()),
        bytes => output::line(format!(
            "recurrent states: {} a sequence, whatever its length",
            output::bytes(bytes as u64)
        )),
    }
}

/// A value as text; long ones are cut.
fn shown(value: &Held<'_>) -> String {
    match value {
        Held::String(bytes) => {
            let text = String::from_utf8_lossy(bytes).replace('\n', "\\n");
            let cut: String = text.chars().take(72).collect();
            if cut.len() < text.len() { format!("{cut}... ({} bytes)", bytes.len()) } else { cut }
        }
        Held::Array(array) => {
            let mut elements: Vec<String> = array.elements().take(SHOWN).map(|value| shown(&value)).collect();
            if array.len() > SHOWN {
                elements.push(format!("... ({} in all)", array.len()));
            }
            format!("[{}]", elements.join(", "))
        }
        value => as_json(value).to_string(),
    }
}

/// A value as JSON; long arrays as their first elements and their length.
fn as_json(value: &Held<'_>) -> Value {
    match *value {
        Held::U8(value) => value.into(),
        Held::I8(value) => value.into(),
        Held::U16(value) => value.into(),
        Held::I16(value) => value.into(),
        Held::U32(value) => value.into(),
        Held::I32(value) => value.into(),
        Held::U64(value) => value.into(),
        Held::I64(value) => value.into(),
        Held::F32(value) => value.into(),
        Held::F64(value) => value.into(),
        Held::Bool(value) => value.into(),
        Held::String(bytes) => String::from_utf8_lossy(bytes).into(),
        Held::Array(array) if array.len() <= 64 => array.elements().map(|value| as_json(&value)).collect(),
        Held::Array(array) => json!({
            "type": array.element_type().name(),
            "length": array.len(),
            "first": array.elements().take(SHOWN).map(|value| as_json(&value)).collect::<Vec<_>>(),
        }),
    }
}
