//! Having the plugins build a model's layers, each by the best one that can.

use std::ptr;
use std::sync::{Arc, Mutex};

use herald_api::import::{
    LayerHandle, LayerSpec, Lent, SharedBytes, SharedWeight, StableBytes, TokenizerHandle,
};
use herald_api::{ActivationPrecision, DType, LayerDesc, LayerParams};

use super::fault::{BuildResult, PluginRanking, is_not_offered};
use super::mtp::FusionLayers;
use super::scaled;
use super::tiers::{MemoryParts, build_tiers};
use crate::backend_choice::Choice;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorView};
use crate::kv_cache::LayerNeeds;
use crate::lora::Loras;
use crate::model::{Fusion, LayerPlan, ModelPlan, RankStep, WeightPlan};
use crate::options::LoadOptions;
use crate::packs::Packs;
use crate::plugin::{Loaded, Plugins};
use crate::threads::{ThreadPool, into_value, locked};
use crate::tokenizer::VocabularyOf;

/// A model's parts, built.
pub(super) struct ModelParts {
    pub(super) layers: Vec<LayerHandle>,
    /// The norm of what is pooled.
    pub(super) pooled_norm: Option<LayerHandle>,
    /// What pooled vectors go through.
    pub(super) dense: Vec<LayerHandle>,
    /// What makes scores of pooled vectors.
    pub(super) rank_layers: Vec<LayerHandle>,
    /// What makes the input of a block for multi-token prediction.
    pub(super) fusion: Option<FusionLayers>,
    pub(super) memory: MemoryParts,
    /// Where it was asked for.
    pub(super) tokenizer: Option<TokenizerHandle>,
}

/// What is built.
pub(super) struct Model<'m> {
    pub(super) gguf: &'m Gguf,
    pub(super) plan: &'m ModelPlan,
    pub(super) loras: &'m Loras,
    pub(super) options: &'m LoadOptions,
    pub(super) packs: &'m Packs,
    /// Where a tokenizer is to be built.
    pub(super) vocabulary: Option<&'m VocabularyOf<'m>>,
}

/// Builds everything. `ranked`: the plugins in the order in which they are asked.
pub(super) fn build(model: &Model<'_>, ranked: Vec<Loaded>, pool: &Arc<ThreadPool>) -> Result<ModelParts> {
    let Model { plan, options, packs, vocabulary, .. } = *model;
    PluginRanking::new(ranked).build(|plugins| {
        let layers = || build_layers(model, plugins, pool);
        let tokenizer = || vocabulary.map(|vocabulary| build_tokenizer(vocabulary, plugins)).transpose();
        // Weights that are packed take one thread no longer than the tokenizer does; those that are not yet take all of them.
        let is_packed =
            vocabulary.is_some() && plugins.ranked.first().is_some_and(|loaded| packs.is_there(loaded));
        let (layers, tokenizer) =
            if is_packed { both(pool, layers, tokenizer) } else { (layers(), tokenizer()) };
        let (BuiltLayers { layers, pooled_norm, dense, rank_layers, fusion }, tokenizer) =
            (layers?, tokenizer?);
        let memory = build_tiers(&layers, plan, plugins, options)?;
        Ok(ModelParts { layers, pooled_norm, dense, rank_layers, fusion, memory, tokenizer })
    })
}

/// All layers of a model: see [`ModelParts`].
struct BuiltLayers {
    layers: Vec<LayerHandle>,
    pooled_norm: Option<LayerHandle>,
    dense: Vec<LayerHandle>,
    rank_layers: Vec<LayerHandle>,
    fusion: Option<FusionLayers>,
}

fn build_layers(
    model: &Model<'_>,
    plugins: &PluginRanking,
    pool: &Arc<ThreadPool>,
) -> BuildResult<BuiltLayers> {
    let Model { plan, loras, .. } = *model;
    let build = |layer: &LayerPlan| build_layer(model, layer, 0, plugins, pool);
    let layers = plan.layers.iter().enumerate();
    let layers = layers.map(|(index, layer)| build_layer(model, layer, loras.max_rank(index), plugins, pool));
    Ok(BuiltLayers {
        layers: layers.collect::<BuildResult<_>>()?,
        pooled_norm: plan.pooled_norm.as_ref().map(build).transpose()?,
        dense: plan.dense.iter().map(build).collect::<BuildResult<_>>()?,
        rank_layers: plan.rank.iter().filter_map(RankStep::layer).map(build).collect::<BuildResult<_>>()?,
        fusion: plan.fusion.as_ref().map(|fusion| build_fusion(fusion, build)).transpose()?,
    })
}

fn build_fusion(
    fusion: &Fusion,
    build: impl Fn(&LayerPlan) -> BuildResult<LayerHandle>,
) -> BuildResult<FusionLayers> {
    let heads_norms = match fusion.heads_norms.as_deref() {
        Some([of_model, own]) => Some([build(of_model)?, build(own)?]),
        None => None,
    };
    Ok(FusionLayers {
        embedding_norm: build(&fusion.embedding_norm)?,
        state_norm: build(&fusion.state_norm)?,
        projection: build(&fusion.projection)?,
        heads_norms,
    })
}

/// Does both, at the same time where the pool has two threads. Loops of theirs then run on one thread each.
fn both<A: Send, B: Send>(
    pool: &ThreadPool,
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B + Send,
) -> (A, B) {
    let (first, second) = (Mutex::new(Job::Waiting(first)), Mutex::new(Job::Waiting(second)));
    pool.run(2, &|items, _| {
        items.for_each(|item| if item == 0 { locked(&first).work() } else { locked(&second).work() });
    });
    (into_value(first).result(), into_value(second).result())
}

/// Work that a loop of the pool does once.
enum Job<W, R> {
    Waiting(W),
    Working,
    Done(R),
}

impl<R, W: FnOnce() -> R> Job<W, R> {
    fn work(&mut self) {
        if let Self::Waiting(work) = std::mem::replace(self, Self::Working) {
            *self = Self::Done(work());
        }
    }

    /// What it came to.
    ///
    /// # Panics
    /// Where it wasn't done, which a loop that ended has.
    fn result(self) -> R {
        match self {
            Self::Done(result) => result,
            Self::Waiting(_) | Self::Working => unreachable!("a loop ends once all of its items are done"),
        }
    }
}

/// Builds a layer whose calls bring low-rank updates of up to this rank.
fn build_layer(
    model: &Model<'_>,
    layer: &LayerPlan,
    max_lora_rank: usize,
    plugins: &PluginRanking,
    pool: &Arc<ThreadPool>,
) -> BuildResult<LayerHandle> {
    let spec = layer_spec(model, layer, max_lora_rank, pool.threads().get())?;
    let part = || format!("the {} layer of block {}", layer.desc.kind().name(), layer.desc.block);
    let made = plugins.first_of(part, |loaded| create_layer(model, loaded, spec.clone(), pool))?;
    give_back(model, layer, &made);
    Ok(made)
}

/// Has a plugin make a layer that adds the updates which its calls will bring.
fn create_layer(
    model: &Model<'_>,
    loaded: &Loaded,
    spec: LayerSpec,
    pool: &Arc<ThreadPool>,
) -> herald_api::Result<LayerHandle> {
    let (kind, wanted) = (spec.desc.kind().name(), spec.max_lora_rank);
    let spec = LayerSpec { packs: model.packs.of(loaded), ..spec };
    let threads = Lent::new(&**pool);
    let made = loaded.plugin.create_layer(spec, threads.parallel())?;
    if made.max_lora_rank() < wanted {
        return Err(herald_api::Error::unsupported(format!(
            "its {kind} layers add low-rank updates (LoRA) of rank {} at most, where {wanted} was expected",
            made.max_lora_rank()
        )));
    }
    Ok(made)
}

/// Where another plugin was picked for prompts, has it build the layers that it can: a layer or none for each of the built
/// ones, or an empty list where it builds none. Embedding and head stay as they are, since the embedding is only looked up, and
/// the head sees only the last token of a prompt. Where the plugin fails, `choice` is changed.
pub(super) fn for_prompts(
    model: &Model<'_>,
    built: &ModelParts,
    plugins: &Plugins,
    choice: &mut Choice,
    pool: &Arc<ThreadPool>,
) -> Result<Vec<Option<LayerHandle>>> {
    let Model { plan, loras, .. } = *model;
    let chosen = plugins.usable.iter().find(|loaded| loaded.plugin.name() == choice.prefill);
    let Some(loaded) = chosen.filter(|_| choice.is_split()) else { return Ok(Vec::new()) };
    let plugin = &loaded.plugin;
    if built.memory.needs.iter().any(|needs| matches!(needs, LayerNeeds::State(_))) {
        choice.unsplit("the model keeps states that only the plugin which wrote them can read");
        return Ok(Vec::new());
    }
    let mut layers = Vec::with_capacity(plan.layers.len());
    for (index, (layer, other)) in plan.layers.iter().zip(&built.layers).enumerate() {
        let needless = matches!(layer.desc.params, LayerParams::Embedding(_) | LayerParams::Head(_));
        if needless || other.plugin() == plugin.name() {
            layers.push(None);
            continue;
        }
        let spec = layer_spec(model, layer, loras.max_rank(index), pool.threads().get())?;
        match create_layer(model, loaded, spec, pool) {
            Ok(made) if made.state_bytes() == 0 => {
                give_back(model, layer, &made);
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

/// Gives the file's pages of a layer's weights back where the backend has its own copy of the weights.
fn give_back(model: &Model<'_>, layer: &LayerPlan, made: &LayerHandle) {
    if made.weight_bytes() > 0 || model.packs.has(made.plugin()) {
        let tensors = layer.weights.iter().filter_map(|weight| model.gguf.tensor(&weight.tensor));
        tensors.for_each(|tensor| model.gguf.give_back(tensor));
    }
}

/// Builds the tokenizer alone.
pub(super) fn tokenizer(vocabulary: &VocabularyOf<'_>, ranked: Vec<Loaded>) -> Result<TokenizerHandle> {
    PluginRanking::new(ranked).build(|plugins| build_tokenizer(vocabulary, plugins))
}

fn build_tokenizer(vocabulary: &VocabularyOf<'_>, plugins: &PluginRanking) -> BuildResult<TokenizerHandle> {
    plugins
        .first_of(|| "the tokenizer".to_owned(), |loaded| loaded.plugin.create_tokenizer(&vocabulary.view()))
}

// SAFETY: a view keeps its file mapped, read-only, in one place for as long as it lives.
unsafe impl StableBytes for TensorView {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A weight that is no tensor.
fn constant(weight: &WeightPlan, values: &[f32]) -> Result<SharedWeight> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let whole = 0..bytes.len();
    let data = SharedBytes::new(Arc::new(bytes), whole);
    Ok(SharedWeight {
        role: weight.role,
        name: weight.tensor.clone(),
        dtype: DType::F32,
        dims: vec![values.len() as u64],
        data: data.ok_or_else(|| Error::Invalid(format!("{} has no bytes", weight.tensor)))?,
    })
}

/// A weight as plugins get it: a part of the mapped file, or made here.
fn shared(gguf: &Gguf, plan: &ModelPlan, weight: &WeightPlan) -> Result<SharedWeight> {
    let missing = || Error::Invalid(format!("the model has no tensor {}", weight.tensor));
    if let Some(values) = plan.constants.get(&weight.tensor) {
        return constant(weight, values);
    }
    let tensor = gguf.tensor(&weight.tensor).ok_or_else(missing)?;
    let mut dims: Vec<u64> = tensor.dims().iter().map(|dim| *dim as u64).collect();
    // Of a vector, a part has elements in place of rows.
    let is_vector = dims.len() == 1;
    let n_rows = tensor.dims().iter().skip(usize::from(!is_vector)).product::<usize>().max(1);
    let rows = weight.rows.clone().unwrap_or(0..n_rows);
    if weight.rows.is_some() {
        let len = rows.len() as u64;
        dims = if is_vector { vec![len] } else { vec![dims[0], len] };
    }
    let (dtype, data) = if let Some(scale) = plan.scales.get(&weight.tensor) {
        let halves = scaled::rows(gguf, tensor, rows, scale)?;
        let whole = 0..halves.len();
        (DType::F16, SharedBytes::new(Arc::new(halves), whole))
    } else {
        let view = gguf.view(tensor);
        let row_bytes = view.len() / n_rows;
        (tensor.dtype(), SharedBytes::new(Arc::new(view), rows.start * row_bytes..rows.end * row_bytes))
    };
    let data = data.ok_or_else(missing)?;
    Ok(SharedWeight { role: weight.role, name: weight.tensor.clone(), dtype, dims, data })
}

/// Whether a layer multiplies activations of 16 bits whatever the others do: one of the last, whose rounding goes straight into the
/// predictions. They read one token of a prompt, and where they have a few, as in a decode step, they wait for their weights: 16 bits take
/// no longer. Only where many are decoded or verified at once they do, or all tokens' results are kept for a block that guesses.
fn is_exact(plan: &ModelPlan, layer: &LayerPlan) -> bool {
    // Of a block that only guesses, all but the head read whole prompts, and all layers of a model without a head read whole texts.
    let reads_few = plan.fusion.is_none() || matches!(layer.desc.params, LayerParams::Head(_));
    plan.has_head() && reads_few && plan.layers[plan.tail()..].iter().any(|last| ptr::eq(last, layer))
}

fn layer_spec(
    model: &Model<'_>,
    layer: &LayerPlan,
    max_lora_rank: usize,
    workers: usize,
) -> Result<LayerSpec> {
    let Model { gguf, plan, options, .. } = *model;
    let weights = layer.weights.iter().map(|weight| shared(gguf, plan, weight));
    let weights = weights.collect::<Result<Vec<_>>>()?;
    let activations = match options.activations {
        _ if is_exact(plan, layer) => ActivationPrecision::Int16,
        Some(activations) => activations,
        None => plan.usual_activations(),
    };
    Ok(LayerSpec {
        desc: LayerDesc { activations, ..layer.desc.clone() },
        weights,
        max_tokens: match layer.desc.params {
            LayerParams::Head(_) => options.max_batch.min(super::pass::HEAD_TOKENS),
            _ => options.max_batch,
        },
        max_workers: workers,
        page_tokens: options.page_tokens,
        max_lora_rank,
        packs: None,
    })
}
