//! The options that commands share: the model and how to run it. `arguments` says which command takes which.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{OsStringValueParser, PossibleValue, StringValueParser, TypedValueParser};
use herald::gguf::Override;
use herald::plugin::{Plugins, Search, Trial, this_machine};
use herald::threads::MAX_THREADS;
use herald::{ActivationPrecision, Capacity, LoadOptions, LoraFile, MemoryOptions, NeuroEngine};

use super::arguments::Listed;
use super::failure::Failure;
use super::serve::ServeConfig;
use super::store;

/// The heading of the options that say what runs where.
const MODEL: &str = "Model and backends";

/// The heading of the options that bound what a sequence takes.
const MEMORY: &str = "Context and memory";

/// The model and how to run it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = MODEL)]
pub(super) struct EngineOptions {
    /// The model: a GGUF file, or the name of one that was pulled or that the configuration has; `host serve` takes several, and folders
    /// [default: smollm2-135m-instruct]
    #[arg(
        short,
        long = "model",
        env = "HERALD_MODEL",
        value_name = "PATH|NAME",
        value_parser = Listed::new(OsStringValueParser::new(), store::values),
        hide_possible_values = true,
        hide_env_values = true
    )]
    pub(super) models: Vec<OsString>,

    /// The models that are named, each with the options that the configuration has for it.
    #[arg(skip)]
    pub(super) each: Vec<(OsString, EngineOptions)>,

    /// What the configuration says of `host serve`.
    #[arg(skip)]
    pub(super) serve: ServeConfig,

    /// The preferred backend for each layer: `simd`, `blas`, `cpu` or another plugin's name; `auto` is the best for this
    /// machine [default: auto]
    #[arg(
        long,
        env = "HERALD_BACKEND",
        value_name = "NAME",
        value_parser = Listed::new(StringValueParser::new(), backends),
        hide_possible_values = true,
        hide_env_values = true
    )]
    pub(super) backend: Option<String>,

    /// Threads to compute with [default: one for each CPU that this process may use]
    #[arg(short, long, env = "HERALD_THREADS", hide_env_values = true, value_name = "N", value_parser = threads)]
    pub(super) threads: Option<NonZeroUsize>,

    /// Bits of activations where they are multiplied with quantised weights: `int8`, or `int16`, which is slower and as good as
    /// exact; the last MLP and the output head always have 16 [default: int8; int16 for models that embed or rank, and for `host logits`]
    #[arg(long, env = "HERALD_ACTIVATIONS", hide_env_values = true, value_name = "TYPE", value_parser = activations)]
    pub(super) activations: Option<ActivationPrecision>,

    /// Maximum tokens to draft for a pass (speculative decoding): as many as pay, and the text stays the same; 0 drafts none
    /// [default: 31]
    #[arg(long, env = "HERALD_MAX_DRAFT", hide_env_values = true, value_name = "TOKENS")]
    pub(super) max_draft: Option<usize>,

    /// A smaller model of the same vocabulary that drafts too, where that pays: a GGUF file, or the name of one that was pulled; the text
    /// stays the same [default: none]
    #[arg(
        long,
        env = "HERALD_DRAFT",
        value_name = "PATH|NAME",
        value_parser = Listed::new(OsStringValueParser::new(), store::values),
        hide_possible_values = true,
        hide_env_values = true
    )]
    pub(super) draft: Option<OsString>,

    /// Maximum length of a sequence [default: what the model was trained for]
    #[arg(short, long, env = "HERALD_CONTEXT", hide_env_values = true, value_name = "TOKENS", help_heading = MEMORY)]
    pub(super) context: Option<NonZeroUsize>,

    /// Maximum tokens of one forward pass; longer prompts are split [default: 512]
    #[arg(long, env = "HERALD_BATCH", hide_env_values = true, value_name = "TOKENS", help_heading = MEMORY)]
    pub(super) batch: Option<NonZeroUsize>,

    /// How many of a sequence's latest tokens keep their keys and values at 16 bits, as a number or as bytes; older ones are
    /// compressed to 4 bits [default: 3072]
    #[arg(long, env = "HERALD_ACTIVE_TOKENS", hide_env_values = true, value_name = "TOKENS|BYTES", help_heading = MEMORY)]
    pub(super) active_tokens: Option<Capacity>,

    /// How many of the compressed tokens stay in RAM, as a number or as bytes; the oldest go to a file [default: 32768]
    #[arg(long, env = "HERALD_COMPRESSED_TOKENS", hide_env_values = true, value_name = "TOKENS|BYTES", help_heading = MEMORY)]
    pub(super) compressed_tokens: Option<Capacity>,

    /// The file for the oldest tokens' keys and values, or a folder for a temporary one [default: the user's cache folder]
    #[arg(long, env = "HERALD_ARCHIVE", hide_env_values = true, value_name = "FILE|FOLDER", help_heading = MEMORY)]
    pub(super) archive: Option<PathBuf>,

    /// Compress that file with LZ4
    #[arg(long, env = "HERALD_ARCHIVE_LZ4", hide_env_values = true, help_heading = MEMORY)]
    pub(super) archive_lz4: bool,

    /// How many pages of older tokens each layer selects to attend to, by score; `all` for every one [default: 64]
    #[arg(long, env = "HERALD_SELECTED_PAGES", hide_env_values = true, value_name = "PAGES|all", value_parser = selected_pages, help_heading = MEMORY)]
    pub(super) selected_pages: Option<SelectedPages>,

    /// RAM budget for the KV cache, such as 2GiB; at the limit, tokens are compressed and archived earlier [default: no limit]
    #[arg(long, env = "HERALD_MEMORY_BUDGET", hide_env_values = true, value_name = "BYTES", value_parser = bytes, help_heading = MEMORY)]
    pub(super) memory_budget: Option<u64>,

    /// RAM for what earlier prompts and answers computed, for prompts that begin with the same tokens; 0B keeps nothing
    /// [default: 512MiB]
    #[arg(long, env = "HERALD_CACHE_BYTES", hide_env_values = true, value_name = "BYTES", value_parser = bytes, help_heading = MEMORY)]
    pub(super) cache_bytes: Option<u64>,

    /// A folder in which that is kept for the next run, and for other programs with the same model [default: none]
    #[arg(long, env = "HERALD_CACHE_DIR", hide_env_values = true, value_name = "FOLDER", help_heading = MEMORY)]
    pub(super) cache_dir: Option<PathBuf>,

    /// How much that folder may take [default: 8GiB]
    #[arg(long, env = "HERALD_CACHE_DIR_BYTES", hide_env_values = true, value_name = "BYTES", value_parser = bytes, help_heading = MEMORY)]
    pub(super) cache_dir_bytes: Option<u64>,

    /// Pack the model's weights anew, in memory of this process alone, in place of once in a file that processes share (`host cache packs`)
    #[arg(long, env = "HERALD_NO_PACK_CACHE", hide_env_values = true, help_heading = MEMORY)]
    pub(super) no_pack_cache: bool,

    /// A TOML file with values for those of these options that aren't given [default: herald/config.toml in the user's
    /// configuration folder, if it exists]
    #[arg(long, env = "HERALD_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub(super) config: Option<PathBuf>,

    /// Load this plugin too; may be given more than once
    #[arg(long = "plugin", value_name = "FILE")]
    pub(super) plugins: Vec<PathBuf>,

    /// Load plugins even from files and folders that others may write to
    #[arg(long)]
    pub(super) allow_insecure_plugins: bool,

    /// Set a key of the model's metadata for this run, as KEY=VALUE or KEY=TYPE:VALUE, where TYPE is `int`, `float`, `bool` or
    /// `str`; may be given more than once
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<Override>,

    /// Whether the configuration says how tokens are chosen.
    #[arg(skip)]
    pub(super) has_sampling: bool,

    /// A chat template to use in place of the model's: a file with Jinja source, or a name such as `chatml` or `llama3`
    #[arg(
        long,
        env = "HERALD_CHAT_TEMPLATE",
        hide_env_values = true,
        value_name = "FILE|NAME",
        value_parser = Listed::new(StringValueParser::new(), templates).try_map(ChosenTemplate::read),
        hide_possible_values = true
    )]
    pub(super) chat_template: Option<ChosenTemplate>,

    /// Load this adapter (LoRA, a GGUF file) beside the model, and add its updates to the model's, multiplied by SCALE [default: 1]; may
    /// be given more than once
    #[arg(long = "lora", value_name = "[NAME=]FILE[:SCALE]")]
    pub(super) loras: Vec<String>,

    /// Print more about what it does; twice for still more
    #[arg(short, long, global = true, help_heading = None::<&str>, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(super) verbose: u8,

    /// Print nothing but errors
    #[arg(short, long, global = true, help_heading = None::<&str>)]
    pub(super) quiet: bool,
}

impl EngineOptions {
    /// Where to search for plugins.
    pub(super) fn search(&self) -> Search {
        let mut search = Search::usual();
        search.files.clone_from(&self.plugins);
        search.allow_insecure = self.allow_insecure_plugins;
        search.trial = Trial::by(std::env::current_exe().ok());
        search
    }

    /// That the plugins which `--plugin` names can be used, whether or not the command needs any.
    pub(super) fn check_plugins(&self) -> Result<(), Failure> {
        if self.plugins.is_empty() {
            return Ok(());
        }
        let named = Search { folders: Vec::new(), ..self.search() };
        Plugins::discover(&named, &this_machine())
            .check_named()
            .map_err(|error| Failure::Failed(error.to_string()))
    }

    /// These options as arguments for a child process of this program that runs `model` on `backend`.
    pub(super) fn arguments(&self, model: &Path, backend: &str) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            vec!["--model".into(), model.into(), "--backend".into(), backend.into()];
        let values = [
            ("--threads", self.threads.map(|number| number.to_string())),
            ("--activations", self.activations.map(|precision| name_of(precision).to_owned())),
            ("--max-draft", self.max_draft.map(|number| number.to_string())),
            ("--context", self.context.map(|number| number.to_string())),
            ("--batch", self.batch.map(|number| number.to_string())),
            ("--active-tokens", self.active_tokens.map(|capacity| capacity.to_string())),
            ("--compressed-tokens", self.compressed_tokens.map(|capacity| capacity.to_string())),
            ("--memory-budget", self.memory_budget.map(|bytes| Capacity::Bytes(bytes).to_string())),
            ("--cache-bytes", self.cache_bytes.map(|bytes| Capacity::Bytes(bytes).to_string())),
            ("--cache-dir-bytes", self.cache_dir_bytes.map(|bytes| Capacity::Bytes(bytes).to_string())),
            (
                "--selected-pages",
                self.selected_pages
                    .map(|SelectedPages(pages)| pages.map_or("all".to_owned(), |pages| pages.to_string())),
            ),
        ];
        for (name, value) in values {
            arguments.extend(value.into_iter().flat_map(|value| [name.into(), value.into()]));
        }
        let paths =
            [("--archive", &self.archive), ("--cache-dir", &self.cache_dir), ("--config", &self.config)];
        for (name, path) in paths {
            arguments.extend(path.iter().flat_map(|path| [name.into(), path.into()]));
        }
        if self.archive_lz4 {
            arguments.push("--archive-lz4".into());
        }
        if self.no_pack_cache {
            arguments.push("--no-pack-cache".into());
        }
        for set in &self.set {
            arguments.extend(["--set".into(), set.to_string().into()]);
        }
        if let Some(template) = &self.chat_template {
            arguments.extend(["--chat-template".into(), template.given.clone().into()]);
        }
        for lora in &self.loras {
            arguments.extend(["--lora".into(), lora.into()]);
        }
        for plugin in &self.plugins {
            arguments.extend(["--plugin".into(), plugin.into()]);
        }
        if self.allow_insecure_plugins {
            arguments.push("--allow-insecure-plugins".into());
        }
        arguments
    }

    /// The library's options for loading a model.
    pub(super) fn load_options(&self) -> LoadOptions {
        let usual = LoadOptions::default();
        LoadOptions {
            // An empty environment variable counts as unset.
            backend: self.backend.clone().filter(|name| !name.is_empty()),
            search: self.search(),
            threads: self.threads,
            activations: self.activations,
            max_batch: self.max_batch(),
            max_draft: self.max_draft.unwrap_or(usual.max_draft),
            context: self.context.map(NonZeroUsize::get),
            prefix_bytes: self
                .cache_bytes
                .map_or(usual.prefix_bytes, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            packs: usual.packs.filter(|_| !self.no_pack_cache),
            cache_dir: self.cache_dir.clone(),
            cache_dir_bytes: self.cache_dir_bytes.unwrap_or(usual.cache_dir_bytes),
            memory: MemoryOptions {
                active: self.active_tokens.unwrap_or(usual.memory.active),
                compressed: self.compressed_tokens.unwrap_or(usual.memory.compressed),
                selected_pages: self
                    .selected_pages
                    .map_or(usual.memory.selected_pages, |SelectedPages(pages)| pages),
                archive: self.archive.clone(),
                archive_lz4: self.archive_lz4,
                budget: self.memory_budget,
            },
            overrides: self.set.clone(),
            chat_template: self.chat_template.as_ref().map(|template| template.source.clone()),
            loras: self.loras.iter().map(|text| LoraFile::parse(text)).collect(),
            ..usual
        }
    }

    /// The same with the draft model, for a command that generates text.
    pub(super) fn load_options_with_draft(&self) -> Result<LoadOptions, Failure> {
        // An empty name counts as none.
        let draft = self.draft.as_deref().filter(|name| !name.is_empty());
        let draft_model = draft.map(|name| store::resolve(Some(name), self.quiet)).transpose()?;
        Ok(LoadOptions { draft_model, ..self.load_options() })
    }

    /// Maximum tokens of one forward pass.
    pub(super) fn max_batch(&self) -> usize {
        self.batch.map_or(LoadOptions::default().max_batch, NonZeroUsize::get)
    }

    /// The model that was named.
    pub(super) fn model(&self) -> Option<&OsStr> {
        self.models.first().map(OsString::as_os_str)
    }

    /// The model's file.
    pub(super) fn model_path(&self) -> Result<PathBuf, Failure> {
        store::resolve(self.model(), self.quiet)
    }

    /// Loads the model.
    pub(super) fn load(&self) -> Result<NeuroEngine, Failure> {
        Ok(NeuroEngine::load(&self.model_path()?, &self.load_options())?)
    }

    /// Loads the model with activations of 16 bits, unless the user asks for others.
    pub(super) fn load_exactly(&self) -> Result<NeuroEngine, Failure> {
        let activations = self.activations.or(Some(ActivationPrecision::Int16));
        Ok(NeuroEngine::load(&self.model_path()?, &LoadOptions { activations, ..self.load_options() })?)
    }

    /// Loads the model, and its draft model.
    pub(super) fn load_with_draft(&self) -> Result<NeuroEngine, Failure> {
        Ok(NeuroEngine::load(&self.model_path()?, &self.load_options_with_draft()?)?)
    }
}

/// The backends that come with HERALD. A plugin may have any other name.
fn backends() -> Vec<PossibleValue> {
    ["auto", "simd", "blas", "cpu"].into_iter().map(PossibleValue::new).collect()
}

/// A chat template that was chosen: what was given, and its source.
#[derive(Clone, Debug)]
pub(super) struct ChosenTemplate {
    given: String,
    source: String,
}

impl ChosenTemplate {
    /// The template of a name, or else of a file.
    pub(super) fn read(given: String) -> Result<Self, String> {
        let source = match herald::chat::named_template(&given) {
            Some(source) => source.to_owned(),
            None => std::fs::read_to_string(&given).map_err(|error| {
                let names: Vec<&str> = herald::chat::template_names().collect();
                format!("it can't be read as a file ({error}), and the names are {}", names.join(", "))
            })?,
        };
        // A byte order mark is no part of the template.
        let source = source.strip_prefix('\u{FEFF}').map_or_else(|| source.clone(), str::to_owned);
        Ok(Self { given, source })
    }
}

/// The names of chat templates.
fn templates() -> Vec<PossibleValue> {
    herald::chat::template_names().map(PossibleValue::new).collect()
}

/// Pages of older tokens to select; `None`: all.
#[derive(Clone, Copy, Debug)]
pub(super) struct SelectedPages(Option<usize>);

pub(super) fn bytes(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(Capacity::Bytes(bytes)) => Ok(bytes),
        _ => Err("a number of bytes with its unit was expected, such as 2GiB or 500MB".to_owned()),
    }
}

pub(super) fn selected_pages(text: &str) -> Result<SelectedPages, String> {
    if text == "all" {
        return Ok(SelectedPages(None));
    }
    let pages = text.parse().ok().filter(|pages| *pages > 0);
    pages
        .map(|pages| SelectedPages(Some(pages)))
        .ok_or_else(|| "a number from 1 or `all` was expected".to_owned())
}

pub(super) fn activations(text: &str) -> Result<ActivationPrecision, String> {
    match text {
        "int16" => Ok(ActivationPrecision::Int16),
        "int8" => Ok(ActivationPrecision::Int8),
        _ => Err("`int16` or `int8` was expected".to_owned()),
    }
}

/// A precision as [`activations`] reads it.
fn name_of(precision: ActivationPrecision) -> &'static str {
    match precision {
        ActivationPrecision::Int8 => "int8",
        _ => "int16",
    }
}

pub(super) fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let threads = text.parse().ok().filter(|threads: &NonZeroUsize| threads.get() <= MAX_THREADS);
    threads.ok_or_else(|| format!("a number from 1 to {MAX_THREADS} was expected"))
}
