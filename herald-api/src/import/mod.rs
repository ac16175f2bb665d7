//! From a plugin's C table to safe handles: the host's side of the boundary.
//!
//! A plugin is another party's code: its table is checked before use, its answers are checked as they come, and every
//! handle keeps the library loaded for as long as it lives.

mod forward;
mod layer;
mod log;
mod page;
mod tier;
mod tokenizer;
mod weight;

use std::any::Any;
use std::ffi::c_char;
use std::sync::Arc;

pub use forward::{Batch, BatchBuffers, Executor, Fetcher, Forward, Lent, PageUse};
pub use layer::{LayerHandle, LayerSpec, Observing};
pub use page::{PageHandle, StoredPage};
pub use tier::{TierById, TierHandle};
pub use tokenizer::TokenizerHandle;
pub use weight::{SharedBytes, SharedWeight, StableBytes};

use crate::abi::{
    self, AbiStruct, HeraldHardware, HeraldLayerTable, HeraldPlugin, HeraldProbe, HeraldTierTable,
    HeraldTokenizerTable,
};
use crate::marshal::{c_text, one_line, slice, text, try_call};
use crate::{Error, Hardware, LayerKind, Probe, Result, Status, TierKind};

/// The entry function of a plugin.
pub type Entry = unsafe extern "C" fn() -> *const HeraldPlugin;

/// What a plugin's log lines go through: the level (`HERALD_LOG_*`) and the line.
pub type LogSink = fn(level: u32, line: &str);

/// A plugin whose table has been checked.
#[derive(Clone)]
pub struct Plugin(Arc<Inner>);

struct Inner {
    name: String,
    version: String,
    description: String,
    table: HeraldPlugin,
    layers: Option<HeraldLayerTable>,
    layer_kinds: Vec<u32>,
    tokenizers: Option<HeraldTokenizerTable>,
    tiers: Option<HeraldTierTable>,
    tier_kinds: Vec<u32>,
    /// What keeps the library loaded: dropped after everything else.
    _library: Box<dyn Any + Send + Sync>,
}

// SAFETY: the ABI's functions may be called from any thread, and the pointers in the tables are to constants.
unsafe impl Send for Inner {}
// SAFETY: as for Send.
unsafe impl Sync for Inner {}

impl Plugin {
    /// Asks a plugin for its table and checks it: version, sizes, required functions, texts, and (of Rust plugins)
    /// layouts; then starts it. `library` is what keeps the entry's code loaded.
    ///
    /// # Errors
    /// One sentence that says what was wrong and what was expected; the plugin is not to be used.
    ///
    /// # Safety
    /// `entry` must be a plugin's `herald_plugin_v1`, good for as long as `library` lives.
    pub unsafe fn load(entry: Entry, library: Box<dyn Any + Send + Sync>, log: LogSink) -> Result<Self> {
        // SAFETY: the entry is a plugin's, by this function's contract, and the ABI says what it returns; every struct is
        // checked as it is read.
        unsafe {
            let table = abi::read(entry()).map_err(refused)?;
            if table.abi_version != abi::HERALD_ABI_VERSION {
                return Err(refused(format!(
                    "it was built for version {} of the ABI, where version {} was expected",
                    table.abi_version,
                    abi::HERALD_ABI_VERSION
                )));
            }
            let name = short_text(table.name, table.name_len, 64, "its name")?;
            if name.is_empty()
                || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            {
                return Err(refused(format!(
                    "its name is {name:?}, where letters, digits, '-' and '_' were expected"
                )));
            }
            let version = one_line(&short_text(table.version, table.version_len, 64, "its version")?);
            let description = if table.description.is_null() {
                String::new()
            } else {
                one_line(&short_text(table.description, table.description_len, 256, "its description")?)
            };
            if !table.layout.is_null() {
                let layout = short_text(table.layout, table.layout_len, 1 << 20, "its layout report")?;
                crate::layout::check(&layout).map_err(refused)?;
            }
            let layers = optional(table.layers, "layers", |table: &HeraldLayerTable| {
                table.create.is_some()
                    && table.info.is_some()
                    && table.forward.is_some()
                    && table.destroy.is_some()
            })?;
            let layer_kinds = kinds(layers.as_ref().map(|table| (table.kinds, table.n_kinds)), "layer")?;
            let tokenizers = optional(table.tokenizers, "tokenizers", |table: &HeraldTokenizerTable| {
                table.create.is_some()
                    && table.encode.is_some()
                    && table.decode.is_some()
                    && table.destroy.is_some()
            })?;
            let tiers = optional(table.tiers, "tiers", |table: &HeraldTierTable| {
                table.create.is_some()
                    && table.put.is_some()
                    && table.get.is_some()
                    && table.view.is_some()
                    && table.commit.is_some()
                    && table.drop.is_some()
                    && table.destroy.is_some()
            })?;
            let tier_kinds = kinds(tiers.as_ref().map(|table| (table.kinds, table.n_kinds)), "tier")?;
            if table.probe.is_none() {
                return Err(refused("it has no probe function".to_owned()));
            }
            if let Some(start) = table.start {
                let host = log::host_for(&name, log);
                try_call(|error| start(host, error))?;
            }
            Ok(Self(Arc::new(Inner {
                name,
                version,
                description,
                table,
                layers,
                layer_kinds,
                tokenizers,
                tiers,
                tier_kinds,
                _library: library,
            })))
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its own version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// Its line for people; may be empty.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.0.description
    }

    /// The kinds of layers that it offers, of those that this host knows.
    #[must_use]
    pub fn layer_kinds(&self) -> Vec<LayerKind> {
        self.0.layer_kinds.iter().filter_map(|code| LayerKind::from_code(*code)).collect()
    }

    /// Whether it offers tokenizers.
    #[must_use]
    pub fn offers_tokenizers(&self) -> bool {
        self.0.tokenizers.is_some()
    }

    /// The kinds of tiers that it offers, of those that this host knows.
    #[must_use]
    pub fn tier_kinds(&self) -> Vec<TierKind> {
        self.0.tier_kinds.iter().filter_map(|code| TierKind::from_code(*code)).collect()
    }

    /// The C table that it was loaded from, for tools that call its functions with arguments of their own, such as the
    /// conformance suite. Whoever calls them keeps the rules of [`crate::abi`].
    #[must_use]
    pub fn table(&self) -> &HeraldPlugin {
        &self.0.table
    }

    /// The C table of its layers, where it offers any; as for [`Plugin::table`].
    #[must_use]
    pub fn layer_table(&self) -> Option<&HeraldLayerTable> {
        self.0.layers.as_ref()
    }

    /// The C table of its tokenizers, where it offers any; as for [`Plugin::table`].
    #[must_use]
    pub fn tokenizer_table(&self) -> Option<&HeraldTokenizerTable> {
        self.0.tokenizers.as_ref()
    }

    /// The C table of its tiers, where it offers any; as for [`Plugin::table`].
    #[must_use]
    pub fn tier_table(&self) -> Option<&HeraldTierTable> {
        self.0.tiers.as_ref()
    }

    /// How well it suits the machine.
    ///
    /// # Errors
    /// [`Status::Unsupported`] with the reason where it can't run there; otherwise as the plugin failed.
    pub fn probe(&self, hardware: &Hardware) -> Result<Probe> {
        let raw = HeraldHardware {
            arch: hardware.arch,
            cpus: hardware.cpus,
            features: hardware.features,
            memory_bytes: hardware.memory_bytes,
            ..AbiStruct::empty()
        };
        let mut answer: HeraldProbe = AbiStruct::empty();
        let probe = self.0.table.probe.ok_or_else(|| refused("it has no probe function".to_owned()))?;
        // SAFETY: the ABI's contract; both structs are our own.
        try_call(|error| unsafe { probe(&raw, &mut answer, error) })?;
        if answer.score == 0 {
            return Err(refused("its probe gave the score 0, where at least 1 was expected".to_owned()));
        }
        Ok(Probe { score: answer.score, variant: c_text(&answer.variant) })
    }
}

fn refused(reason: String) -> Error {
    Error::new(Status::Corrupt, reason)
}

/// Reads an interface's table, where the plugin has one.
///
/// # Safety
/// As for [`abi::read`].
unsafe fn optional<T: AbiStruct>(
    table: *const T,
    what: &str,
    complete: impl Fn(&T) -> bool,
) -> Result<Option<T>> {
    if table.is_null() {
        return Ok(None);
    }
    // SAFETY: the plugin's contract: null, or a static table.
    let table = unsafe { abi::read(table).map_err(refused)? };
    if !complete(&table) {
        return Err(refused(format!("its table of {what} ({}) lacks a required function", T::NAME)));
    }
    Ok(Some(table))
}

/// # Safety
/// A pointer that is not null points to as many numbers as are said.
unsafe fn kinds(list: Option<(*const u32, usize)>, what: &str) -> Result<Vec<u32>> {
    let Some((kinds, len)) = list else { return Ok(Vec::new()) };
    if len > 1024 {
        return Err(refused(format!(
            "it says that it offers {len} {what} kinds, where at most 1024 were expected"
        )));
    }
    // SAFETY: the plugin's contract: the list has this many numbers.
    unsafe { slice(kinds, len, &format!("its list of {what} kinds")) }.map(<[u32]>::to_vec)
}

/// # Safety
/// A pointer that is not null points to `len` bytes, where `len` is at most `most`.
unsafe fn short_text(pointer: *const c_char, len: usize, most: usize, what: &str) -> Result<String> {
    if pointer.is_null() || len > most {
        return Err(refused(format!(
            "{what} is {len} bytes at {pointer:p}, where at most {most} bytes were expected"
        )));
    }
    // SAFETY: the plugin's contract: the text has this many bytes.
    unsafe { text(pointer, len, what) }.map(str::to_owned)
}
