//! `NeuroEngine`: a model, the plugins that compute it, and the threads that they run on.

mod archives;
mod budget;
mod build;
mod calibrate;
mod census;
mod draft_model;
mod drafts;
mod embed;
mod fault;
mod finite;
mod forward;
mod generate;
mod generation;
mod interrupt;
mod loras;
mod makers;
mod memory;
mod mtp;
mod pass;
mod products;
mod rank;
mod reuse;
mod saved;
mod scaled;
mod thinking;
mod tiers;
mod usage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use herald_api::import::{LayerHandle, TokenizerHandle};

use crate::backend_choice::{self, Choice, Picked, Shapes};
use crate::chat::ChatTemplate;
use crate::constrain::Forms;
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::kv_cache::{MemoryOptions, MemoryUsage, SequenceMemory, TierTraffic};
use crate::lora::{Loras, Selection};
use crate::model::{self, ModelPlan};
use crate::options::LoadOptions;
use crate::packs::Packs;
use crate::plugin::{self, Plugins};
use crate::sampler::{SamplerConfig, recommended};
use crate::speculation::PassCost;
use crate::stop::Stop;
use crate::threads::ThreadPool;
use crate::tokenizer::AscTokenizer;

pub use calibrate::{calibrate, calibrate_within};
pub(crate) use census::SharedPages;
pub(crate) use draft_model::Follower;
pub use embed::EmbedOptions;
pub use forward::BatchEntry;
pub use generate::{Finish, GenerateOptions, Generated, TokenOutput};
pub(crate) use generation::{ChosenToken, Generation};
pub use products::{Watched, WeightProduct};
pub use saved::{LoadedState, SavedExtras};
pub use thinking::ThinkingBudget;

use draft_model::DraftModel;
use memory::EngineMemory;
use mtp::{FusionLayers, LastStates};
use pass::Workspace;
use products::Watchers;

/// The fewest tokens of a batch that goes to the plugin for prompts: from about here on, its matmuls of many tokens are at their
/// best.
const PROMPT_FROM: usize = 32;

/// The next engine's number. An address would not do, since a later engine may get that of an earlier one.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// A loaded model, ready to run. Calls may come from many threads at once; they share the threads that it computes with.
pub struct NeuroEngine {
    // Layers come before what they depend on, so that they are dropped first.
    layers: Vec<LayerHandle>,
    /// Layers of another plugin that compute prompts in place of those above; empty where there are none.
    prompt_layers: Vec<Option<LayerHandle>>,
    /// Norms what embeddings are pooled from.
    pooled_norm: Option<LayerHandle>,
    /// What embeddings go through after pooling.
    dense: Vec<LayerHandle>,
    /// The layers among the steps that make scores of what was pooled.
    rank_layers: Vec<LayerHandle>,
    /// Of a block for multi-token prediction, what makes its input.
    fusion: Option<FusionLayers>,
    choice: Choice,
    memory: EngineMemory,
    loras: Loras,
    tokenizer: Arc<AscTokenizer>,
    template: Option<String>,
    plan: ModelPlan,
    gguf: Gguf,
    path: PathBuf,
    pool: Arc<ThreadPool>,
    workspaces: Mutex<Vec<Workspace>>,
    /// Made when an answer is first constrained.
    forms: OnceLock<Forms>,
    max_batch: usize,
    /// The fewest and the most tokens of a draft.
    draft_tokens: [usize; 2],
    /// What guesses what comes next, where there is such a thing: a smaller model, or a block of the model's own file.
    draft_model: Option<Box<DraftModel>>,
    /// Whether sequences keep the states of their last tokens, for such a block.
    keeps_states: bool,
    /// The first of the last layers in which no token reads another's.
    tail: usize,
    /// Those who are shown products.
    watchers: Watchers,
    /// What every layer promises.
    batch_invariant_tokens: usize,
    /// What passes that decode cost.
    pass_cost: Mutex<PassCost>,
    context: usize,
    page_tokens: usize,
    load_time: Duration,
    /// A number that no other engine of this process has had.
    id: u64,
    /// The process that loaded it.
    process: u32,
}

/// One context: the tokens that it has seen, and what the layers keep of them.
pub struct Sequence {
    memory: SequenceMemory,
    tokens: Vec<u32>,
    /// Which engine it belongs to.
    engine: u64,
    /// Tells work on it to stop.
    stop: Option<Stop>,
    /// Whether a pass ended between two layers, so that the recurrent states of some have seen more than those of others.
    torn: bool,
    /// Whether its pages are those of its tokens.
    is_own: bool,
    /// Who shares its pages.
    cache_key: Option<String>,
    /// The adapters that its tokens are computed with.
    loras: Arc<Selection>,
    /// Where it leaves what earlier sequences had, as far as whole pages go.
    branch: usize,
    /// What the last block made of its last tokens, where the engine keeps that.
    states: LastStates,
    /// Of a block for multi-token prediction, the states beside the tokens that it is to run, `[n_tokens, hidden]`.
    states_beside: Vec<f32>,
}

impl Sequence {
    /// The tokens that it has seen.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Bytes that the layers keep of it, and the states of its last tokens where the model's own block reads them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.memory.bytes() + self.states.bytes()
    }

    /// What the tiers hold of it. Pages that it shares with others count whole, and look-ups don't count.
    #[must_use]
    pub fn memory_usage(&self) -> MemoryUsage {
        self.memory.usage(self.tokens.len())
    }

    /// Forgets the tokens from the `len`-th on. Where the model keeps recurrent states, which can only go back to the beginning
    /// (see [`NeuroEngine::rewind`]), forgets nothing and returns `false`.
    pub fn truncate(&mut self, len: usize) -> bool {
        if len >= self.tokens.len() && !self.torn {
            return true;
        }
        let done = self.memory.truncate(len);
        if done {
            self.tokens.truncate(len);
            self.torn = false;
        }
        done
    }

    /// Ties work on it to a [`Stop`], which is looked at before each layer; `None`: nothing stops it. Work that is stopped fails
    /// with [`Error::Cancelled`]: the sequence then holds the pieces (of at most the batch's size) that were run, and goes on
    /// from there. A fork begins without one.
    pub fn set_stop(&mut self, stop: Option<Stop>) {
        self.stop = stop;
    }

    /// What tells work on it to stop.
    #[must_use]
    pub fn stop(&self) -> Option<&Stop> {
        self.stop.as_ref()
    }

    /// Whether all layers' states have seen the same tokens.
    pub(crate) fn is_whole(&self) -> Result<()> {
        if self.torn {
            return Err(Error::Invalid(
                "an earlier pass over this sequence failed and left its recurrent states half updated, so it can only go back to \
                 0 tokens"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Whether work on it is to stop.
    pub(crate) fn ends(&self) -> bool {
        self.stop.as_ref().is_some_and(Stop::ends)
    }

    /// [`Error::Cancelled`] where work on it is to stop.
    pub(crate) fn go_on(&self) -> Result<()> {
        if self.ends() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

impl NeuroEngine {
    /// Loads a model: reads the file, finds the plugins, and has them build every layer.
    ///
    /// # Errors
    /// One sentence: a file that can't be read or is damaged, an architecture that isn't known, no plugin that can
    /// build a part, a wrong option.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self> {
        let start = Instant::now();
        if options.max_batch == 0 || options.page_tokens == 0 || options.context == Some(0) {
            return Err(Error::Invalid("max_batch, page_tokens and context must be at least 1".to_owned()));
        }
        let gguf = open(path, options)?;
        let plan = model::plan(&gguf)
            .map_err(|source| Error::Model { path: path.to_owned(), source: Box::new(source) })?;
        let pool = crate::threads::shared(options.threads)?;
        let plugins = Plugins::discover(&options.search, &plugin::this_machine());
        let threads = pool.threads().get();
        let Picked { choice, ignored } =
            backend_choice::pick_backends(&plugins, options, threads, Some(&Shapes::of(&gguf, &plan)))?;
        ignored.iter().for_each(|sentence| tracing::warn!("{sentence}"));
        let packs = Packs::new(options.packs.as_deref(), &gguf);
        let mut engine = Self::assemble((path, gguf, plan), &plugins, choice, pool, options, (&packs, None))?;
        let mtp = DraftModel::of_own_block(&engine, &plugins, options, &packs);
        packs.keep();
        engine.memory.prefixes.open(|| engine.cache_scope()).map_err(|source| Error::File {
            path: options.cache_dir.clone().unwrap_or_default(),
            what: "the folder of the prefix cache can't be used".to_owned(),
            source,
        })?;
        engine.keeps_states = mtp.is_some();
        let draft_model = match mtp {
            None => DraftModel::beside(&engine, options)?,
            own => own,
        };
        engine.draft_model = draft_model.map(Box::new);
        engine.load_time = start.elapsed();
        Ok(engine)
    }

    /// Has the plugins of `choice` build a model, with packs of its weights, and a tokenizer where none is given.
    fn assemble(
        (path, gguf, plan): (&Path, Gguf, ModelPlan),
        plugins: &Plugins,
        mut choice: Choice,
        pool: Arc<ThreadPool>,
        options: &LoadOptions,
        (packs, tokenizer): (&Packs, Option<Arc<AscTokenizer>>),
    ) -> Result<Self> {
        let ranked = plugins.ranked(Some(&choice.decode), &options.search)?;
        let context = options.context.unwrap_or(plan.context);
        // Where tokens attend to later ones, a text runs in one pass.
        let max_batch =
            if plan.is_bidirectional() { options.max_batch.max(context) } else { options.max_batch };
        let options = &LoadOptions { max_batch, ..options.clone() };
        let loras = Loras::load(&options.loras, &gguf, &plan)?;
        let vocabulary = match tokenizer {
            None => Some(crate::tokenizer::vocabulary(&gguf)?),
            Some(_) => None,
        };
        let vocabulary = vocabulary.as_ref();
        let model = &build::Model { gguf: &gguf, plan: &plan, loras: &loras, options, packs, vocabulary };
        let built = build::build(model, ranked, &pool)?;
        let prompt_layers = build::for_prompts(model, &built, plugins, &mut choice, &pool)?;
        let made = built.tokenizer.as_ref().map(TokenizerHandle::plugin);
        makers::lines(&built.layers, &prompt_layers, &built.memory.makers, made)
            .iter()
            .for_each(|line| tracing::info!("{line}"));
        let tokenizer = match (tokenizer, vocabulary, built.tokenizer) {
            (Some(given), ..) => given,
            (None, Some(vocabulary), Some(made)) => {
                Arc::new(AscTokenizer::new(&gguf, vocabulary, made, plan.vocabulary)?)
            }
            (None, ..) => unreachable!("a vocabulary that was read has its tokenizer built"),
        };
        let template = match &options.chat_template {
            Some(template) => Some(template.clone()),
            None => gguf.metadata().get::<&str>("tokenizer.chat_template")?.map(str::to_owned),
        };
        let promised = built.layers.iter().map(LayerHandle::batch_invariant_tokens);
        let batch_invariant_tokens = promised.min().unwrap_or(0);
        // A layer of any kind may keep a state, if its plugin says so.
        let stateful = built.layers.iter().rposition(|layer| layer.state_bytes() > 0);
        let tail = plan.tail().max(stateful.map_or(0, |last| last + 1));
        Ok(Self {
            layers: built.layers,
            prompt_layers,
            pooled_norm: built.pooled_norm,
            dense: built.dense,
            rank_layers: built.rank_layers,
            fusion: built.fusion,
            choice,
            memory: EngineMemory::new(built.memory, options),
            loras,
            tokenizer,
            template,
            plan,
            gguf,
            path: path.to_owned(),
            pool,
            workspaces: Mutex::default(),
            forms: OnceLock::new(),
            max_batch: options.max_batch,
            draft_tokens: [options.min_draft, options.max_draft].map(|n| n.min(LoadOptions::MAX_DRAFT)),
            draft_model: None,
            keeps_states: false,
            tail,
            watchers: Watchers::default(),
            batch_invariant_tokens,
            pass_cost: Mutex::default(),
            context,
            page_tokens: options.page_tokens,
            load_time: Duration::ZERO,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            process: std::process::id(),
        })
    }

    /// Loads a model's tokenizer alone, which needs neither its weights nor an architecture that HERALD knows. Only the options
    /// about plugins count.
    ///
    /// # Errors
    /// One sentence: a file that can't be read or is damaged, a vocabulary that no plugin has a tokenizer for.
    pub fn load_tokenizer(path: &Path, options: &LoadOptions) -> Result<AscTokenizer> {
        let gguf = open(path, options)?;
        let plugins = Plugins::discover(&options.search, &plugin::this_machine());
        let ranked = plugins.ranked(options.backend.as_deref(), &options.search)?;
        let vocabulary = &crate::tokenizer::vocabulary(&gguf)?;
        let tokenizer = build::tokenizer(vocabulary, ranked)?;
        tracing::info!("{}: the tokenizer", tokenizer.plugin());
        AscTokenizer::new(&gguf, vocabulary, tokenizer, usize::MAX)
    }

    /// The model's file, or the first of its parts.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The model's file, for its metadata and tensors.
    #[must_use]
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// What the model is made of.
    #[must_use]
    pub fn plan(&self) -> &ModelPlan {
        &self.plan
    }

    /// The model's tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &AscTokenizer {
        &self.tokenizer
    }

    /// How the model's makers want its tokens chosen: see [`crate::sampler::recommended`].
    #[must_use]
    pub fn recommended_sampling(&self) -> SamplerConfig {
        recommended(self.gguf.metadata())
    }

    /// The tokens whose text holds one of these.
    ///
    /// # Errors
    /// Where the tokenizer fails.
    pub fn tokens_with(&self, texts: &[&str]) -> Result<BTreeSet<u32>> {
        let mut found = BTreeSet::new();
        for token in 0..self.tokenizer.vocabulary() as u32 {
            let bytes = self.tokenizer.token_bytes(token, false)?;
            let text = String::from_utf8_lossy(&bytes);
            if texts.iter().any(|part| text.contains(part)) {
                found.insert(token);
            }
        }
        Ok(found)
    }

    /// The source of the model's chat template, where it has one.
    #[must_use]
    pub fn chat_template_source(&self) -> Option<&str> {
        self.template.as_deref()
    }

    /// The model's chat template.
    ///
    /// # Errors
    /// Where the model has none, or it is no template.
    pub fn chat_template(&self) -> Result<ChatTemplate> {
        let source = self.template.as_deref().ok_or_else(|| {
            let path = self.path.display();
            Error::Invalid(format!(
                "{path} has no chat template (tokenizer.chat_template): it is no chat model, or its template has to be named \
                 (--chat-template)"
            ))
        })?;
        let (bos, eos) = (self.tokenizer.bos_text(), self.tokenizer.eos_text());
        Ok(ChatTemplate::new(source, &bos, &eos)?)
    }

    /// Which plugins are asked first for the layers, and why.
    #[must_use]
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// The plugins that compute the layers, most layers first, and how many each has, including those only for prompts.
    #[must_use]
    pub fn backends(&self) -> Vec<(String, usize)> {
        let mut counts: Vec<(String, usize)> = Vec::new();
        for layer in self.all_layers() {
            match counts.iter_mut().find(|(name, _)| name == layer.plugin()) {
                Some((_, count)) => *count += 1,
                None => counts.push((layer.plugin().to_owned(), 1)),
            }
        }
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }

    /// The plugin that computes the logits; empty where the model has no head.
    #[must_use]
    pub fn head_backend(&self) -> &str {
        self.layers.last().map_or("", LayerHandle::plugin)
    }

    /// All layers, those for prompts last.
    fn all_layers(&self) -> impl Iterator<Item = &LayerHandle> {
        self.layers.iter().chain(self.prompt_layers.iter().flatten())
    }

    /// The layer of this index that computes a batch of `n_tokens`. One that has selectable pages stays with the plugin that
    /// wrote their summaries: only that one can read them.
    fn layer_for(&self, index: usize, n_tokens: usize, has_selectable_pages: bool) -> &LayerHandle {
        let prompts = self.prompt_layers.get(index).and_then(Option::as_ref);
        let prompts = prompts.filter(|_| n_tokens >= PROMPT_FROM && !has_selectable_pages);
        prompts.unwrap_or(&self.layers[index])
    }

    /// Threads that it computes with.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads().get()
    }

    /// The most tokens that a sequence may have.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// The most tokens of one forward pass.
    #[must_use]
    pub fn max_batch(&self) -> usize {
        self.max_batch
    }

    /// Tokens of a page of keys and values.
    #[must_use]
    pub fn page_tokens(&self) -> usize {
        self.page_tokens
    }

    /// How much of a sequence is kept how.
    #[must_use]
    pub fn memory_options(&self) -> &MemoryOptions {
        &self.memory.options
    }

    /// Counts what moves between its memory tiers.
    #[must_use]
    pub fn traffic(&self) -> &Arc<TierTraffic> {
        &self.memory.traffic
    }

    pub(crate) fn forms(&self) -> Result<&Forms> {
        if let Some(forms) = self.forms.get() {
            return Ok(forms);
        }
        let forms = Forms::new(&self.tokenizer, self.plan.vocabulary)?;
        Ok(self.forms.get_or_init(|| forms))
    }

    /// The threads that it computes with.
    #[must_use]
    pub fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    /// How long loading took.
    #[must_use]
    pub fn load_time(&self) -> Duration {
        self.load_time
    }

    /// Whether this is the process that loaded it, and not one that was forked from that: a fork lacks the threads, and any lock
    /// may be held there by one of these.
    ///
    /// # Errors
    /// [`Error::Forked`] where it isn't.
    pub fn in_its_process(&self) -> Result<()> {
        let here = std::process::id();
        if here == self.process { Ok(()) } else { Err(Error::Forked { here, loaded: self.process }) }
    }

    /// Opens an empty sequence.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub fn sequence(&self) -> Result<Sequence> {
        self.in_its_process()?;
        self.memory.make_room_for_states()?;
        let memory = SequenceMemory::new(&self.memory.needs, &self.memory.ledger)
            .map_err(|source| Error::Plugin { what: "a new sequence".to_owned(), source })?;
        Ok(self.opened(memory, Vec::new()))
    }

    fn opened(&self, memory: SequenceMemory, tokens: Vec<u32>) -> Sequence {
        Sequence {
            memory,
            tokens,
            engine: self.id,
            stop: None,
            torn: false,
            is_own: true,
            cache_key: None,
            loras: self.loras.usual(),
            branch: 0,
            states: LastStates::default(),
            states_beside: Vec::new(),
        }
    }
}

/// Opens a model's file, with the metadata that the options set.
pub(super) fn open(path: &Path, options: &LoadOptions) -> Result<Gguf> {
    let mut gguf = Gguf::open(path)?;
    for set in &options.overrides {
        gguf.set(set).map_err(|sentence| Error::Invalid(format!("{}: {sentence}", path.display())))?;
    }
    Ok(gguf)
}
