//! Having the plugins build a model's layers, each by the best one that can.

use std::sync::Arc;

use herald_api::import::{
    LayerHandle, LayerSpec, Lent, Plugin, SharedBytes, SharedWeight, StableBytes, TierHandle, TokenizerHandle,
};
use herald_api::{LayerParams, Status, TierConfig, TierKind, abi};

use super::LoadOptions;
use super::archives::Archives;
use crate::backend_choice::Choice;
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorView};
use crate::kv_cache::{self, LayerNeeds, Ledger, Limits, PagesNeeds};
use crate::metrics::TierTraffic;
use crate::model::{LayerPlan, ModelPlan};
use crate::plugin::{Loaded, Plugins};
use crate::threads::ThreadPool;

/// A model's parts, built.
pub(super) struct ModelParts {
    pub(super) layers: Vec<LayerHandle>,
    pub(super) needs: Vec<LayerNeeds>,
    pub(super) tokenizer: TokenizerHandle,
    pub(super) traffic: Arc<TierTraffic>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) limits: Limits,
}

/// A plugin that failed in a way that no plugin may: it is left out, and everything is built anew without it.
pub(super) struct PluginFault {
    pub(super) plugin: String,
    pub(super) reason: String,
}

impl PluginFault {
    fn leave_out(self, ranked: &mut Vec<Loaded>, faults: &mut Vec<String>) {
        let Self { plugin, reason } = self;
        tracing::warn!("backend {plugin} is refused: {reason}");
        ranked.retain(|loaded| loaded.plugin.name() != plugin);
        faults.push(format!("{plugin}: {reason}"));
    }
}

/// Builds everything. `ranked`: the plugins in the order in which they are to be asked.
pub(super) fn build(
    gguf: &Gguf,
    plan: &ModelPlan,
    mut ranked: Vec<Loaded>,
    pool: &Arc<ThreadPool>,
    options: &LoadOptions,
) -> Result<ModelParts> {
    let mut faults = Vec::new();
    loop {
        match build_with(gguf, plan, &ranked, pool, options, &faults)? {
            Ok(built) => return Ok(built),
            Err(faulty) => faulty.leave_out(&mut ranked, &mut faults),
        }
    }
}

fn build_with(
    gguf: &Gguf,
    plan: &ModelPlan,
    ranked: &[Loaded],
    pool: &Arc<ThreadPool>,
    options: &LoadOptions,
    faults: &[String],
) -> Result<Result<ModelParts, PluginFault>> {
    let threads = Lent::new(&**pool);
    let mut layers = Vec::with_capacity(plan.layers.len());
    for layer in &plan.layers {
        let order = order(gguf, layer, pool.threads().get(), options)?;
        let part = || format!("the {} layer of block {}", layer.desc.kind().name(), layer.desc.block);
        match first_of(ranked, part, faults, |plugin| plugin.create_layer(order.clone(), threads.parallel()))?
        {
            Ok(made) => {
                give_back(gguf, layer, &made);
                layers.push(made);
            }
            Err(faulty) => return Ok(Err(faulty)),
        }
    }
    let mut tiers: Vec<TierHandle> = Vec::new();
    let mut archives = Archives::new(&options.memory);
    let traffic: Arc<TierTraffic> = Arc::default();
    let ledger: Arc<Ledger> = Arc::default();
    let mut needs = Vec::with_capacity(layers.len());
    for layer in &layers {
        needs.push(match (&layer.desc().params, layer.state_bytes()) {
            (LayerParams::Attention(attention), _) => {
                let config = TierConfig {
                    kind: TierKind::Active,
                    n_kv_heads: attention.n_kv_heads,
                    key_dim: attention.key_dim,
                    value_dim: attention.value_dim,
                    page_tokens: options.page_tokens,
                    state_bytes: 0,
                    capacity_bytes: None,
                    path: None,
                    lz4: false,
                };
                let mut tier_of = |config: &TierConfig| -> Result<Result<TierHandle, PluginFault>> {
                    if let Some(tier) = tiers.iter().find(|tier| tier.config() == config) {
                        return Ok(Ok(tier.clone()));
                    }
                    let part = || format!("the {} memory tier", config.kind.name());
                    let made = first_of(ranked, part, faults, |plugin| plugin.create_tier(config))?;
                    tiers.extend(made.as_ref().ok().cloned());
                    Ok(made)
                };
                let tier = match tier_of(&config)? {
                    Ok(tier) => tier,
                    Err(faulty) => return Ok(Err(faulty)),
                };
                // Pages are compressed where the layer reads such pages and can choose among them. Behind a sliding
                // window there is nothing to choose.
                let selected_pages = options.memory.selected_pages;
                let chooses = layer.summary_bytes() > 0 || selected_pages.is_none();
                let (mut compressed, mut archived) = (None, None);
                if layer.reads(abi::HERALD_PAGE_Q4) && chooses && attention.window.is_none() {
                    match tier_of(&TierConfig { kind: TierKind::Compressed, ..config.clone() }) {
                        Ok(Ok(tier)) => compressed = Some(tier),
                        Ok(Err(faulty)) => return Ok(Err(faulty)),
                        Err(none) => tracing::debug!("older pages stay uncompressed: {none}"),
                    }
                }
                if compressed.is_some() {
                    archived = match archives.tier(&config, ranked)? {
                        Ok(tier) => tier,
                        Err(faulty) => return Ok(Err(faulty)),
                    };
                }
                LayerNeeds::Pages(PagesNeeds {
                    tier,
                    compressed,
                    archive: archived,
                    traffic: Arc::clone(&traffic),
                    ledger: Arc::clone(&ledger),
                    selected_pages,
                    trained_context: plan.context,
                    summary_bytes: layer.summary_bytes(),
                })
            }
            (_, 0) => LayerNeeds::Nothing,
            (_, bytes) => LayerNeeds::State(bytes),
        });
    }
    let limits = kv_cache::limits(&needs, &options.memory);
    Ok(tokenizer_with(gguf, ranked, faults)?.map(|tokenizer| ModelParts {
        layers,
        needs,
        tokenizer,
        traffic,
        ledger,
        limits,
    }))
}

/// Has the plugin that was chosen for prompts build the layers that it can, where that is another one: a layer or none for
/// each of the built ones; nothing at all where there is none to build. The embedding is only looked up, and of a prompt the
/// head sees the last token: both stay as they are. Where the plugin fails, `choice` is told.
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
    if built.needs.iter().any(|needs| matches!(needs, LayerNeeds::State(_))) {
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
        let order = order(gguf, layer, pool.threads().get(), options)?;
        match plugin.create_layer(order, threads.parallel()) {
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

/// Gives the file's pages of a layer's weights back where the backend has weights of its own, and no use for the file's.
fn give_back(gguf: &Gguf, layer: &LayerPlan, made: &LayerHandle) {
    if made.weight_bytes() > 0 {
        let tensors = layer.weights.iter().filter_map(|weight| gguf.tensor(&weight.tensor));
        tensors.for_each(|tensor| gguf.give_back(tensor));
    }
}

/// Whether a plugin's answer is that it can't make the part: a shape that contradicts the description may be the model's
/// fault, so it is no failure of the plugin's.
fn is_not_offered(error: &herald_api::Error) -> bool {
    matches!(error.status(), Status::Unsupported | Status::InvalidArgument)
}

/// Builds the tokenizer alone.
pub(super) fn tokenizer(gguf: &Gguf, mut ranked: Vec<Loaded>) -> Result<TokenizerHandle> {
    let mut faults = Vec::new();
    loop {
        match tokenizer_with(gguf, &ranked, &faults)? {
            Ok(built) => return Ok(built),
            Err(faulty) => faulty.leave_out(&mut ranked, &mut faults),
        }
    }
}

fn tokenizer_with(
    gguf: &Gguf,
    ranked: &[Loaded],
    faults: &[String],
) -> Result<Result<TokenizerHandle, PluginFault>> {
    let vocabulary = crate::tokenizer::vocabulary(gguf)?;
    let part = || "the tokenizer".to_owned();
    first_of(ranked, part, faults, |plugin| plugin.create_tokenizer(&vocabulary.view()))
}

/// The first plugin's answer that isn't "not offered"; any other failure is the plugin's own.
fn first_of<T>(
    ranked: &[Loaded],
    part: impl Fn() -> String,
    faults: &[String],
    make: impl Fn(&Plugin) -> herald_api::Result<T>,
) -> Result<Result<T, PluginFault>> {
    let mut reasons = Vec::new();
    for loaded in ranked {
        let name = loaded.plugin.name();
        match make(&loaded.plugin) {
            Ok(made) => return Ok(Ok(made)),
            Err(error) if is_not_offered(&error) => {
                reasons.push(format!("{name}: {error}"));
            }
            Err(error) => {
                return Ok(Err(PluginFault {
                    plugin: name.to_owned(),
                    reason: format!("{}: {error}", part()),
                }));
            }
        }
    }
    reasons.extend(faults.iter().cloned());
    let reasons = if reasons.is_empty() { "no plugin is left".to_owned() } else { reasons.join("; ") };
    Err(Error::Unbuilt { part: part(), reasons })
}

// SAFETY: a view keeps its file mapped, read-only, in one place for as long as it lives.
unsafe impl StableBytes for TensorView {
    fn bytes(&self) -> &[u8] {
        self
    }
}

fn order(gguf: &Gguf, layer: &LayerPlan, workers: usize, options: &LoadOptions) -> Result<LayerSpec> {
    let weights = layer
        .weights
        .iter()
        .map(|weight| {
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
            LayerParams::Head(_) => options.max_batch.min(super::forward::HEAD_TOKENS),
            _ => options.max_batch,
        },
        max_workers: workers,
        page_tokens: options.page_tokens,
    })
}
