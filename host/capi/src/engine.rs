//! Engines: loading a model, and facts about it.

use std::ffi::c_char;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

use herald_api::abi::{AbiStruct, HERALD_NO_TOKEN, HeraldError};

use super::arguments::{self, Call, Handle};
use super::status::{Failure, Outcome, free};
use herald_engine::chat::ChatTemplate;
use herald_engine::plugin::Search;
use herald_engine::{ActivationPrecision, Capacity, LoadOptions, LoraFile, MemoryOptions, NeuroEngine};

/// Load plugins even from files and folders that other users may write to.
pub const HERALD_LOAD_ALLOW_INSECURE_PLUGINS: u32 = 1 << 0;
/// Load only the plugins that HeraldEngineOptions.plugins names.
pub const HERALD_LOAD_ONLY_NAMED_PLUGINS: u32 = 1 << 1;
/// Nothing lossy: activations have 16 bits, and all keys and values stay at 16 bits in RAM, whatever the length of a sequence and the memory_budget (where that is
/// used up, calls fail with OUT_OF_MEMORY). Not together with active_tokens, compressed_tokens, archive or selected_pages.
pub const HERALD_LOAD_EXACT: u32 = 1 << 2;
/// Compress archived pages with LZ4.
pub const HERALD_LOAD_ARCHIVE_LZ4: u32 = 1 << 3;
/// Keep nothing of earlier prompts and answers for later prompts that begin alike.
pub const HERALD_LOAD_NO_PREFIX_CACHE: u32 = 1 << 4;
/// Activations may be 8 bits where they are multiplied with quantised weights, though HERALD_LOAD_EXACT is set or the model embeds or
/// ranks. For other models that is the default.
pub const HERALD_LOAD_INT8_ACTIVATIONS: u32 = 1 << 5;
/// Pack weights in memory of this process alone, in place of once in a file in the user's cache folder, which processes share.
pub const HERALD_LOAD_NO_PACK_CACHE: u32 = 1 << 6;
/// Activations are 16 bits where they are multiplied with quantised weights: slower than 8, and as good as exact. HERALD_LOAD_EXACT means
/// this too, and it is the default for models that embed or rank. Not together with HERALD_LOAD_INT8_ACTIVATIONS.
pub const HERALD_LOAD_INT16_ACTIVATIONS: u32 = 1 << 7;

/// HeraldEngineOptions.selected_pages: all of them.
pub const HERALD_ALL_PAGES: u32 = 0xffff_ffff;
/// HeraldEngineOptions.max_draft_tokens: none.
pub const HERALD_NO_DRAFTS: u32 = 0xffff_ffff;

/// A loaded model, the plugins that run it, and their threads.
#[derive(Clone)]
pub struct HeraldEngine {
    pub(super) engine: Arc<NeuroEngine>,
    template: Arc<OnceLock<ChatTemplate>>,
}

impl Handle for HeraldEngine {
    fn engine(&self) -> &NeuroEngine {
        &self.engine
    }
}

impl HeraldEngine {
    /// The model's chat template, compiled at its first use.
    pub(super) fn template(&self) -> Outcome<&ChatTemplate> {
        if let Some(template) = self.template.get() {
            return Ok(template);
        }
        let template = self.engine.chat_template().map_err(Failure::unsupported)?;
        Ok(self.template.get_or_init(|| template))
    }
}

/// How to load a model. Zero is every field's default, except for model_path, which has none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldEngineOptions {
    /// sizeof(HeraldEngineOptions).
    pub struct_size: usize,
    /// The model: a GGUF file, or a split model's first file. NUL-terminated.
    pub model_path: *const c_char,
    /// The preferred backend, NUL-terminated UTF-8; null or "auto": the fastest.
    pub backend: *const c_char,
    /// Threads to compute with; 0: as many as this process may use.
    pub threads: u32,
    /// Maximum number of tokens of a sequence; 0: what the model was trained for.
    pub context: u32,
    /// Maximum number of tokens of a pass, and of sequences of herald_decode; longer prompts are split. 0: 512.
    pub max_batch: u32,
    /// HERALD_LOAD_* bits.
    pub flags: u32,
    /// Plugin files to load in addition to those in the usual folders (see docs/PLUGINS.md): n_plugins paths, each
    /// NUL-terminated; null for none.
    pub plugins: *const *const c_char,
    /// Number of plugins.
    pub n_plugins: usize,
    /// How many of a sequence's latest tokens keep their keys and values at 16 bits (the active tier); older ones, except those
    /// of the first page, are compressed to 4 bits, which is lossy. 0: 3,072. HERALD_LOAD_EXACT turns this off.
    pub active_tokens: u64,
    /// How many of the compressed tokens stay in RAM (the compressed tier); the oldest go to a file. 0: 32,768.
    pub compressed_tokens: u64,
    /// The file for the oldest tokens' keys and values (the archived tier), or a folder for a nameless one that goes with the
    /// engine. NUL-terminated; null: the latter, in the user's cache folder. Nothing is written before the first page is
    /// archived.
    pub archive: *const c_char,
    /// Bytes of RAM for keys, values and recurrent states of all sequences, and for the prefix cache. At the limit tokens are
    /// compressed and archived earlier, and where that doesn't suffice a call fails with OUT_OF_MEMORY. 0: no limit.
    pub memory_budget: u64,
    /// Bytes of RAM of the prefix cache: what earlier prompts and answers computed, for prompts that begin alike. 0: 512 MiB.
    pub prefix_bytes: u64,
    /// How many pages (of 64 tokens) of compressed and archived tokens each layer selects to attend to, by score.
    /// HERALD_ALL_PAGES: all; 0: 64.
    pub selected_pages: u32,
    /// Maximum number of tokens to draft for a pass (speculative decoding), which leaves every text as it is, to the bit; drafts have
    /// as many as pay. HERALD_NO_DRAFTS: none; 0: 31, which is the most.
    pub max_draft_tokens: u32,
    /// A folder in which the prefix cache outlives the engine, for this and other processes with the same model. NUL-terminated;
    /// null: it doesn't.
    pub cache_dir: *const c_char,
    /// Bytes of files there; 0: 8 GiB.
    pub cache_dir_bytes: u64,
    /// Adapters (LoRA) to load beside the model: n_loras GGUF files, each NUL-terminated; null for none. Sequences begin with all of them,
    /// at these scales; herald_sequence_set_loras and HeraldGenerateOptions.loras choose others, by their indices here.
    pub loras: *const *const c_char,
    /// What each one's updates are multiplied by: n_loras numbers, 0 to begin without it; null: 1 for all.
    pub lora_scales: *const f32,
    /// Number of loras.
    pub n_loras: usize,
    /// A smaller model of the same vocabulary that drafts too, where that pays: a GGUF file. NUL-terminated; null: drafts come from the text
    /// and the answer's form alone.
    pub draft_model: *const c_char,
}

/// Facts about a loaded model.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldEngineInfo {
    /// sizeof(HeraldEngineInfo).
    pub struct_size: usize,
    /// Number of tokens in the vocabulary, and of a token's logits; ids are below it.
    pub vocabulary: u32,
    /// Maximum number of tokens of a sequence.
    pub context: u32,
    /// Size of a token's activations.
    pub hidden: u32,
    /// Number of blocks.
    pub blocks: u32,
    /// The token that begins a text, or HERALD_NO_TOKEN.
    pub bos: u32,
    /// The token that ends a text, or HERALD_NO_TOKEN.
    pub eos: u32,
    /// Number of threads.
    pub threads: u32,
    /// Unused; 0.
    pub reserved: u32,
    /// Seconds that loading took.
    pub load_seconds: f64,
}

/// The library's version, such as "1.2.0", NUL-terminated, valid forever. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn herald_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Loads a model and writes the engine to *out; the caller frees it with herald_engine_free. On failure *out is null.
/// Any thread, many at once. Statuses: OK; INVALID_ARGUMENT; NOT_FOUND (no such file or backend, or no plugin at all);
/// IO; CORRUPT (a damaged file); UNSUPPORTED (a model that no plugin can run); OUT_OF_MEMORY; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_engine_load(
    options: *const HeraldEngineOptions,
    out: *mut *mut HeraldEngine,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        call.write_handle(out, || {
            let raw = call.read(options)?;
            let path = call.path(raw.model_path, "model_path")?;
            let engine = Arc::new(NeuroEngine::load(&path, &load_options(call, &raw)?)?);
            Ok(HeraldEngine { engine, template: Arc::default() })
        })
    })
}

fn load_options(call: &Call, raw: &HeraldEngineOptions) -> Outcome<LoadOptions> {
    let known = HERALD_LOAD_ALLOW_INSECURE_PLUGINS
        | HERALD_LOAD_ONLY_NAMED_PLUGINS
        | HERALD_LOAD_EXACT
        | HERALD_LOAD_ARCHIVE_LZ4
        | HERALD_LOAD_NO_PREFIX_CACHE
        | HERALD_LOAD_INT8_ACTIVATIONS
        | HERALD_LOAD_NO_PACK_CACHE
        | HERALD_LOAD_INT16_ACTIVATIONS;
    arguments::flags(raw.flags, known)?;
    let only_named = raw.flags & HERALD_LOAD_ONLY_NAMED_PLUGINS != 0;
    let usual = Search::usual();
    let mut search = if only_named { Search { folders: Vec::new(), ..usual } } else { usual };
    search.allow_insecure = raw.flags & HERALD_LOAD_ALLOW_INSECURE_PLUGINS != 0;
    let plugins = call.slice(raw.plugins, raw.n_plugins, "plugins")?;
    for (index, plugin) in plugins.iter().enumerate() {
        search.files.push(call.path(*plugin, &format!("plugins[{index}]"))?);
    }
    let defaults = LoadOptions::default();
    Ok(LoadOptions {
        backend: call.c_text(raw.backend, "backend")?.map(str::to_owned),
        search,
        threads: NonZeroUsize::new(raw.threads as usize),
        activations: activations(raw.flags)?,
        max_batch: NonZeroUsize::new(raw.max_batch as usize).map_or(defaults.max_batch, NonZeroUsize::get),
        max_draft: match raw.max_draft_tokens {
            0 => defaults.max_draft,
            HERALD_NO_DRAFTS => 0,
            tokens => tokens as usize,
        },
        draft_model: (!raw.draft_model.is_null())
            .then(|| call.path(raw.draft_model, "draft_model"))
            .transpose()?,
        context: NonZeroUsize::new(raw.context as usize).map(NonZeroUsize::get),
        prefix_bytes: match raw.prefix_bytes {
            _ if raw.flags & HERALD_LOAD_NO_PREFIX_CACHE != 0 => 0,
            0 => defaults.prefix_bytes,
            bytes => saturated(bytes),
        },
        packs: defaults.packs.filter(|_| raw.flags & HERALD_LOAD_NO_PACK_CACHE == 0),
        cache_dir: (!raw.cache_dir.is_null()).then(|| call.path(raw.cache_dir, "cache_dir")).transpose()?,
        cache_dir_bytes: if raw.cache_dir_bytes == 0 {
            defaults.cache_dir_bytes
        } else {
            raw.cache_dir_bytes
        },
        memory: memory_options(call, raw, defaults.memory.clone())?,
        loras: lora_files(call, raw)?,
        ..defaults
    })
}

/// The precision of activations that flags ask for.
fn activations(flags: u32) -> Outcome<Option<ActivationPrecision>> {
    let has = |flag| flags & flag != 0;
    match (has(HERALD_LOAD_INT8_ACTIVATIONS), has(HERALD_LOAD_INT16_ACTIVATIONS)) {
        (true, true) => Err(Failure::invalid(
            "HERALD_LOAD_INT8_ACTIVATIONS and HERALD_LOAD_INT16_ACTIVATIONS are both set, where at most one was expected",
        )),
        (true, false) => Ok(Some(ActivationPrecision::Int8)),
        (false, true) => Ok(Some(ActivationPrecision::Int16)),
        (false, false) => Ok(has(HERALD_LOAD_EXACT).then_some(ActivationPrecision::Int16)),
    }
}

/// The adapters to load, which are called by their indices.
fn lora_files(call: &Call, raw: &HeraldEngineOptions) -> Outcome<Vec<LoraFile>> {
    let paths = call.slice(raw.loras, raw.n_loras, "loras")?;
    let scales = match raw.lora_scales.is_null() {
        true => &[],
        false => call.slice(raw.lora_scales, raw.n_loras, "lora_scales")?,
    };
    let file = |(index, path): (usize, &*const c_char)| {
        Ok(LoraFile {
            path: call.path(*path, &format!("loras[{index}]"))?,
            name: Some(index.to_string()),
            scale: scales.get(index).copied().unwrap_or(1.0),
        })
    };
    paths.iter().enumerate().map(file).collect()
}

fn memory_options(call: &Call, raw: &HeraldEngineOptions, defaults: MemoryOptions) -> Outcome<MemoryOptions> {
    let capacity = |tokens: u64, usual| if tokens == 0 { usual } else { Capacity::Tokens(saturated(tokens)) };
    let archive = (!raw.archive.is_null()).then(|| call.path(raw.archive, "archive")).transpose()?;
    let mut options = MemoryOptions {
        active: capacity(raw.active_tokens, defaults.active),
        compressed: capacity(raw.compressed_tokens, defaults.compressed),
        selected_pages: match raw.selected_pages {
            0 => defaults.selected_pages,
            HERALD_ALL_PAGES => None,
            pages => Some(pages as usize),
        },
        archive,
        archive_lz4: raw.flags & HERALD_LOAD_ARCHIVE_LZ4 != 0,
        budget: (raw.memory_budget != 0).then_some(raw.memory_budget),
    };
    if raw.flags & HERALD_LOAD_EXACT != 0 {
        let others = [
            ("active_tokens", raw.active_tokens != 0),
            ("compressed_tokens", raw.compressed_tokens != 0),
            ("archive", options.archive.is_some()),
            ("selected_pages", raw.selected_pages != 0),
        ];
        if let Some((name, _)) = others.iter().find(|(_, set)| *set) {
            return Err(Failure::invalid(format!(
                "HERALD_LOAD_EXACT and {name} are both set, where at most one was expected"
            )));
        }
        options.active = MemoryOptions::EXACT;
    }
    Ok(options)
}

fn saturated(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Frees an engine. Its sequences may be freed before or after it, and keep the model in memory until then. No call may be
/// running on the engine. Any thread. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_engine_free(engine: *mut HeraldEngine) {
    // SAFETY: by herald.h's rules it is null or came from `herald_engine_load`, and the caller doesn't use it again.
    unsafe { free(engine) };
}

/// Fills info, whose struct_size the caller must set. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_engine_info(
    engine: *const HeraldEngine,
    info: *mut HeraldEngineInfo,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let HeraldEngine { engine, .. } = call.handle(engine, "engine")?;
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let answer = HeraldEngineInfo {
            vocabulary: number(engine.plan().vocabulary),
            context: number(engine.context()),
            hidden: number(engine.plan().hidden),
            blocks: number(engine.plan().blocks),
            bos: engine.tokenizer().bos().unwrap_or(HERALD_NO_TOKEN),
            eos: engine.tokenizer().eos().unwrap_or(HERALD_NO_TOKEN),
            threads: number(engine.threads()),
            load_seconds: engine.load_time().as_secs_f64(),
            ..AbiStruct::empty()
        };
        call.fill(info, &answer)
    })
}

/// Writes the name of the backend that computes most layers, NUL-terminated, to name, and its length without the NUL to
/// *len. capacity: size of name in bytes, which must be greater than *len. Any thread, many at once. Statuses: OK;
/// BUFFER_TOO_SMALL, with *len the length; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_engine_backend(
    engine: *const HeraldEngine,
    name: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let HeraldEngine { engine, .. } = call.handle(engine, "engine")?;
        let backends = engine.backends();
        let first = backends.first().map_or("", |(name, _)| name);
        call.write_text(first.as_bytes(), name, capacity, len)
    })
}

/// Empties the prefix cache's RAM: what earlier prompts and answers computed, which later prompts that begin alike take over (see
/// HeraldGenerated.n_cached_tokens). Sequences keep theirs, and the files of cache_dir stay. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_engine_forget_prefixes(
    engine: *const HeraldEngine,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        call.handle(engine, "engine")?.engine.forget_prefixes();
        Ok(())
    })
}
