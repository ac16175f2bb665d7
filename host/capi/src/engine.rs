//! Engines: loading a model, and what there is to know about it.

use std::ffi::c_char;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

use herald_api::abi::{self, AbiStruct, HERALD_NO_TOKEN, HeraldError};

use super::arguments;
use super::status::{Failure, Outcome, free, guard};
use herald_engine::chat::ChatTemplate;
use herald_engine::plugin::Search;
use herald_engine::{LoadOptions, NeuroEngine};

/// Load plugins also from files and folders that other users may write to.
pub const HERALD_LOAD_ALLOW_INSECURE_PLUGINS: u32 = 1 << 0;
/// Load no plugins but the files that HeraldEngineOptions.plugins names.
pub const HERALD_LOAD_ONLY_NAMED_PLUGINS: u32 = 1 << 1;

/// A loaded model, the plugins that compute it, and the threads that they run on.
pub struct HeraldEngine {
    pub(super) engine: Arc<NeuroEngine>,
    template: OnceLock<ChatTemplate>,
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

/// How to load a model. A zero is each field's default; only model_path has none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldEngineOptions {
    /// sizeof(HeraldEngineOptions).
    pub struct_size: usize,
    /// The model: a GGUF file, or the first of a split one. NUL-terminated.
    pub model_path: *const c_char,
    /// The backend to ask first, NUL-terminated UTF-8; null or "auto": the fastest.
    pub backend: *const c_char,
    /// Threads to compute with; 0: as many as this process may use.
    pub threads: u32,
    /// The most tokens that a sequence may have; 0: what the model was trained for.
    pub context: u32,
    /// The most tokens of a pass, and the most sequences of herald_decode; longer prompts go in pieces. 0: 512.
    pub max_batch: u32,
    /// HERALD_LOAD_* bits.
    pub flags: u32,
    /// Plugin files to load beside those that are found in the usual places (see docs/PLUGINS.md), n_plugins paths, each
    /// NUL-terminated; null for none.
    pub plugins: *const *const c_char,
    /// How many plugins.
    pub n_plugins: usize,
}

/// What there is to know about a loaded model.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldEngineInfo {
    /// sizeof(HeraldEngineInfo).
    pub struct_size: usize,
    /// Logits of a token; ids are below it.
    pub vocabulary: u32,
    /// The most tokens that a sequence may have.
    pub context: u32,
    /// Elements of a token's activations.
    pub hidden: u32,
    /// Blocks of layers.
    pub blocks: u32,
    /// The token that begins a text, or HERALD_NO_TOKEN.
    pub bos: u32,
    /// The token that ends a text, or HERALD_NO_TOKEN.
    pub eos: u32,
    /// Threads that it computes with.
    pub threads: u32,
    /// Not used; 0.
    pub reserved: u32,
    /// How long loading took, in seconds.
    pub load_seconds: f64,
}

/// The library's version, such as "1.2.0", NUL-terminated; the library's own, valid for ever. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn herald_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Loads a model and puts the engine in *out, for the caller to give to herald_engine_free; on failure *out becomes null.
/// Any thread, many at once. Statuses: OK; INVALID_ARGUMENT; NOT_FOUND (no such file, backend, or no plugin at all);
/// IO; CORRUPT (a damaged file); UNSUPPORTED (a model that no plugin can run); OUT_OF_MEMORY; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_engine_load(
    options: *const HeraldEngineOptions,
    out: *mut *mut HeraldEngine,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let out = arguments::place(out, "out")?;
            out.write(std::ptr::null_mut());
            let raw = abi::read(options).map_err(Failure::invalid)?;
            let path = arguments::path(raw.model_path, "model_path")?;
            let engine = Arc::new(NeuroEngine::load(&path, &load_options(&raw)?)?);
            out.write(Box::into_raw(Box::new(HeraldEngine { engine, template: OnceLock::new() })));
            Ok(())
        })
    }
}

/// # Safety
/// The pointers in it are as the header asks.
unsafe fn load_options(raw: &HeraldEngineOptions) -> Outcome<LoadOptions> {
    arguments::flags(raw.flags, HERALD_LOAD_ALLOW_INSECURE_PLUGINS | HERALD_LOAD_ONLY_NAMED_PLUGINS)?;
    let only_named = raw.flags & HERALD_LOAD_ONLY_NAMED_PLUGINS != 0;
    let mut search = if only_named { Search::default() } else { Search::usual() };
    search.allow_insecure = raw.flags & HERALD_LOAD_ALLOW_INSECURE_PLUGINS != 0;
    // SAFETY: the caller vouches.
    let plugins = unsafe { arguments::slice(raw.plugins, raw.n_plugins, "plugins")? };
    for (index, plugin) in plugins.iter().enumerate() {
        // SAFETY: the caller vouches.
        search.files.push(unsafe { arguments::path(*plugin, &format!("plugins[{index}]"))? });
    }
    let defaults = LoadOptions::default();
    Ok(LoadOptions {
        // SAFETY: the caller vouches.
        backend: unsafe { arguments::c_text(raw.backend, "backend")? }.map(str::to_owned),
        search,
        threads: NonZeroUsize::new(raw.threads as usize),
        max_batch: NonZeroUsize::new(raw.max_batch as usize).map_or(defaults.max_batch, NonZeroUsize::get),
        context: NonZeroUsize::new(raw.context as usize).map(NonZeroUsize::get),
        ..defaults
    })
}

/// Frees an engine. Its sequences stay good to be freed, before or after it, and keep the model in memory until they
/// are. Any thread, while no call runs on the engine. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_engine_free(engine: *mut HeraldEngine) {
    // SAFETY: the caller keeps to the header's rules.
    unsafe { free(engine) };
}

/// Fills info, whose struct_size the caller has set. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_engine_info(
    engine: *const HeraldEngine,
    info: *mut HeraldEngineInfo,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let HeraldEngine { engine, .. } = arguments::value(engine, "engine")?;
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
            abi::write(info, &answer).map_err(Failure::invalid)
        })
    }
}

/// Writes the name of the backend that computes most of the layers to name, NUL-terminated, and its length without the
/// NUL to *len. capacity: bytes that name has room for, which must be more than *len. Any thread, many at once.
/// Statuses: OK; BUFFER_TOO_SMALL, with *len the length; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_engine_backend(
    engine: *const HeraldEngine,
    name: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let HeraldEngine { engine, .. } = arguments::value(engine, "engine")?;
            let backends = engine.backends();
            let first = backends.first().map_or("", |(name, _)| name);
            arguments::answer_text(first.as_bytes(), name, capacity, len)
        })
    }
}
