//! Having the plugins build a model's layers, each by the best one that can.

use std::sync::Arc;

use herald_api::import::{
    LayerHandle, LayerSpec, Lent, SharedBytes, SharedWeight, StableBytes, TokenizerHandle,
};
use herald_api::{DType, LayerParams};

use super::fault::{BuildResult, PluginRanking, is_not_offered};
use super::tiers::{MemoryParts, build_tiers};
use crate::backend_choice::Choice;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorView};
use crate::kv_cache::LayerNeeds;
use crate::model::{Constant, LayerPlan, ModelPlan, WeightPlan};
use crate::options::LoadOptions;
use crate::plugin::{Loaded, Plugins};
use crate::threads::ThreadPool;

/// A model's parts, built.
pub(super) struct ModelParts {
    pub(super) layers: Vec<LayerHandle>,
    pub(super) memory: MemoryParts,
    pub(super) tokenizer: TokenizerHandle,
}

/// Builds everything. `ranked`: the plugins in the order in which they are asked.
pub(super) fn build(
    gguf: &Gguf,
    plan: &ModelPlan,
    ranked: Vec<Loaded>,
    pool: &Arc<ThreadPool>,
    options: &LoadOptions,
) -> Result<ModelParts> {
    PluginRanking::new(ranked).build(|plugins| {
        let layers = build_layers(gguf, plan, plugins, pool, options)?;
        let memory = build_tiers(&layers, plan, plugins, options)?;
        let tokenizer = build_tokenizer(gguf, plugins)?;
        Ok(ModelParts { layers, memory, tokenizer })
    })
}

fn build_layers(
    gguf: &Gguf,
    plan: &ModelPlan,
    plugins: &PluginRanking,
    pool: &Arc<ThreadPool>,
    options: &LoadOptions,
) -> BuildResult<Vec<LayerHandle>> {
    let threads = Lent::new(&**pool);
    let build = |layer: &LayerPlan| {
        let spec = layer_spec(gguf, layer, pool.threads().get(), options)?;
        let part = || format!("the {} layer of block {}", layer.desc.kind().name(), layer.desc.block);
        let made = plugins.first_of(part, |plugin| plugin.create_layer(spec.clone(), threads.parallel()))?;
        give_back(gguf, layer, &made);
        Ok(made)
    };
    plan.layers.iter().map(build).collect()
}

/// Where another plugin was picked for prompts, has it build the layers that it can: a layer or none for each of the built
/// ones, or an empty list where it builds none. Embedding and head stay as they are, since the embedding is only looked up, and
/// the head sees only the last token of a prompt. Where the plugin fails, `choice` is changed.
pub(super) fn for_prompts(
    gguf: &Gguf,
    plan: &ModelPlan,
    built: &ModelParts,
    plugins: &Plugins,
    choice: &mut Choice,
    pool: &Arc<ThreadPool>,
    options: &LoadOptions,
) -> Result<Vec<Option<LayerHandle>>> {
    let chosen = plugins.usable.iter().find(|loaded| loaded.plugin.name() == choice.prefill);
    let Some(Loaded { plugin, .. }) = chosen.filter(|_| choice.is_split()) else { return Ok(Vec::new()) };
    if built.memory.needs.iter().any(|needs| matches!(needs, LayerNeeds::State(_))) {
        choice.unsplit("the model keeps states that only the plugin which wrote them can read");
        return Ok(Vec::new());
    }
    let threads = Lent::new(&**pool);
    let mut layers = Vec::with_capacity(plan.layers.len());
    for (layer, other) in plan.layers.iter().zip(&built.layers) {
        let needless = matches!(layer.desc.params, LayerParams::Embedding(_) | LayerParams::Head(_));
        if needless || other.plugin() == plugin.name() {
            layers.push(None);
            continue;
        }
        let spec = layer_spec(gguf, layer, pool.threads().get(), options)?;
        match plugin.create_layer(spec, threads.parallel()) {
            Ok(made) if made.state_bytes() == 0 => {
                give_back(gguf, layer, &made);
                layers.push(Some(made));
            }
            Ok(_) => layers.push(None),
            Err(error) if is_not_offered(&error) => layers.push(None),
            Err(error) => {
                let part = format!("{} layer of block {}", layer.desc.kind().name(), layer.desc.block);
                tracing::warn!("backend {} computes no prompts: the {part}: {error}", plugin.name());
                choice.unsplit(&format!("its {part} failed: {error}"));
                return Ok(Vec::new());
            }
        }
    }
    if layers.iter().all(Option::is_none) {
        choice.unsplit("it offers none of the model's layers");
        return Ok(Vec::new());
    }
    let bytes: usize = layers.iter().flatten().map(LayerHandle::weight_bytes).sum();
    tracing::info!("{}; the second one's weights take {} MB", choice.why, bytes / 1_000_000);
    Ok(layers)
}

/// Gives the file's pages of a layer's weights back where the backend made its own copy of the weights.
fn give_back(gguf: &Gguf, layer: &LayerPlan, made: &LayerHandle) {
    if made.weight_bytes() > 0 {
        let tensors = layer.weights.iter().filter_map(|weight| gguf.tensor(&weight.tensor));
        tensors.for_each(|tensor| gguf.give_back(tensor));
    }
}

/// Builds the tokenizer alone.
pub(super) fn tokenizer(gguf: &Gguf, ranked: Vec<Loaded>) -> Result<TokenizerHandle> {
    PluginRanking::new(ranked).build(|plugins| build_tokenizer(gguf, plugins))
}

fn build_tokenizer(gguf: &Gguf, plugins: &PluginRanking) -> BuildResult<TokenizerHandle> {
    let vocabulary = crate::tokenizer::vocabulary(gguf)?;
    plugins.first_of(|| "the tokenizer".to_owned(), |plugin| plugin.create_tokenizer(&vocabulary.view()))
}

// SAFETY: a view keeps its file mapped, read-only, in one place for as long as it lives.
unsafe impl StableBytes for TensorView {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A weight that is in no file.
fn constant_weight(weight: &WeightPlan, Constant { value, len }: Constant) -> Result<SharedWeight> {
    let bytes: Vec<u8> = std::iter::repeat_n(value.to_le_bytes(), len).flatten().collect();
    let range = 0..bytes.len();
    let none = || Error::Invalid(format!("{} is empty", weight.tensor));
    Ok(SharedWeight {
        role: weight.role,
        name: weight.tensor.clone(),
        dtype: DType::F32,
        dims: vec![len as u64],
        data: SharedBytes::new(Arc::new(bytes), range).ok_or_else(none)?,
    })
}

fn layer_spec(gguf: &Gguf, layer: &LayerPlan, workers: usize, options: &LoadOptions) -> Result<LayerSpec> {
    let weights = layer
        .weights
        .iter()
        .map(|weight| {
            if let Some(constant) = weight.constant {
                return constant_weight(weight, constant);
            }
            let missing = || Error::Invalid(format!("the model has no tensor {}", weight.tensor));
            let tensor = gguf.tensor(&weight.tensor).ok_or_else(missing)?;
            let view = gguf.view(tensor);
            let mut dims: Vec<u64> = tensor.dims().iter().map(|dim| *dim as u64).collect();
            let mut bytes = 0..view.len();
            if let Some(rows) = &weight.rows {
                let row_bytes = view.len() / tensor.dims().iter().skip(1).product::<usize>().max(1);
                bytes = rows.start * row_bytes..rows.end * row_bytes;
                dims = vec![dims[0], rows.len() as u64];
            }
            Ok(SharedWeight {
                role: weight.role,
                name: weight.tensor.clone(),
                dtype: tensor.dtype(),
                dims,
                data: SharedBytes::new(Arc::new(view), bytes).ok_or_else(missing)?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(LayerSpec {
        desc: layer.desc.clone(),
        weights,
        max_tokens: match layer.desc.params {
            LayerParams::Head(_) => options.max_batch.min(super::pass::HEAD_TOKENS),
            _ => options.max_batch,
        },
        max_workers: workers,
        page_tokens: options.page_tokens,
    })
}
