//! How to load a model.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use herald_api::ActivationPrecision;

use crate::folders;
use crate::gguf::Override;
use crate::kv_cache::MemoryOptions;
use crate::lora::LoraFile;
use crate::plugin::Search;

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The backend to ask first, or `None` (or `auto`) for the fastest.
    pub backend: Option<String>,
    /// The folder of the calibrations that tell which is the fastest; `None`: plugins' own scores tell.
    pub calibrations: Option<PathBuf>,
    /// The folder in which weights are kept as backends pack them ([`crate::packs`]), so that they are packed once and shared by
    /// processes; `None`: each process packs its own.
    pub packs: Option<PathBuf>,
    /// Where to look for plugins.
    pub search: Search,
    /// Threads to compute with; `None`: as many as this process may use.
    pub threads: Option<NonZeroUsize>,
    /// How finely matmuls with quantised weights may represent activations: 16 bits change logits by about a millionth; 8
    /// bits by about a thousandth, and take about three quarters of the time. The last MLP and the output head always
    /// have 16. `None`: what suits the model ([`ModelPlan::usual_activations`](crate::model::ModelPlan::usual_activations)).
    pub activations: Option<ActivationPrecision>,
    /// The most tokens of a forward pass; longer prompts go in pieces.
    pub max_batch: usize,
    /// The most tokens that are drafted for a pass (speculative decoding), where every layer promises batch invariance: the text is the
    /// same with and without. Drafts have as many tokens as pay, at most [`LoadOptions::MAX_DRAFT`]; 0: none.
    pub max_draft: usize,
    /// The fewest tokens of a draft, even where fewer would pay: 0, but for experiments.
    pub min_draft: usize,
    /// A smaller model of the same vocabulary (a GGUF file) that drafts too, where that pays, loaded with the same backend and threads,
    /// and with memory beside the model's, within the same budget. `None`: drafts come from the text, the answer's form, and the
    /// model's own block for multi-token prediction, where its file has one.
    pub draft_model: Option<PathBuf>,
    /// The most tokens that a sequence may have; `None`: what the model was trained for.
    pub context: Option<usize>,
    /// Tokens of a KV page.
    pub page_tokens: usize,
    /// The most bytes of RAM of the prefix cache: what earlier sequences computed, for prompts that begin alike. 0: there is none.
    pub prefix_bytes: usize,
    /// A folder in which the prefix cache outlives the engine, for this and other processes; `None`: it doesn't.
    pub cache_dir: Option<PathBuf>,
    /// The most bytes of files there.
    pub cache_dir_bytes: u64,
    /// How much of a sequence is kept how.
    pub memory: MemoryOptions,
    /// Metadata that this run has other values for than the file.
    pub overrides: Vec<Override>,
    /// The source of a chat template to use in place of the file's.
    pub chat_template: Option<String>,
    /// Adapters (LoRA) to load beside the model.
    pub loras: Vec<LoraFile>,
}

impl LoadOptions {
    /// The most tokens of a draft: a pass of 32 tokens costs little more for each than one of many.
    pub const MAX_DRAFT: usize = 31;
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            backend: None,
            calibrations: folders::calibrations(),
            packs: folders::packs(),
            search: Search::usual(),
            threads: None,
            activations: None,
            max_batch: 512,
            max_draft: Self::MAX_DRAFT,
            min_draft: 0,
            draft_model: None,
            context: None,
            page_tokens: 64,
            prefix_bytes: 512 << 20,
            cache_dir: None,
            cache_dir_bytes: 8 << 30,
            memory: MemoryOptions::default(),
            overrides: Vec::new(),
            chat_template: None,
            loras: Vec::new(),
        }
    }
}
