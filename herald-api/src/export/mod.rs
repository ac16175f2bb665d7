//! From safe traits to the C table: what [`export_plugin!`](crate::export_plugin) expands to.
//!
//! Every function here is called by a host that may be written in any language, so each checks what it is given, turns
//! errors into a status and a sentence, and lets no panic out.

mod layer;
mod panics;
mod tier;
mod tokenizer;

use std::sync::OnceLock;

pub use layer::layer_table;
pub use tier::tier_table;
pub use tokenizer::tokenizer_table;

use crate::abi::{self, AbiStruct, HeraldError, HeraldHardware, HeraldHost, HeraldPlugin, HeraldProbe};
use crate::marshal::{catch, fill_text, guard};
use crate::{Error, Hardware, Probe, Result};

/// A plugin's table, shared with the host for as long as the library is loaded.
pub struct Table(HeraldPlugin);

// SAFETY: the pointers in it are to statics that never change.
unsafe impl Send for Table {}
// SAFETY: as for Send.
unsafe impl Sync for Table {}

/// What a plugin says of itself.
pub struct About {
    /// A short name, unique among plugins.
    pub name: &'static str,
    /// The plugin's own version.
    pub version: &'static str,
    /// One line for people.
    pub description: &'static str,
}

/// A plugin whose probe the table calls. `export_plugin!` implements it.
pub trait Probed: 'static {
    /// How well the plugin suits the machine.
    ///
    /// # Errors
    /// [`crate::Status::Unsupported`] with the reason where it can't run there.
    fn probe(hardware: &Hardware) -> Result<Probe>;
}

impl Table {
    /// A table without any interface: what it says of itself, and its probe.
    #[must_use]
    pub fn new<P: Probed>(about: &About) -> Self {
        let layout = crate::layout::carried();
        Self(HeraldPlugin {
            abi_version: abi::HERALD_ABI_VERSION,
            name: about.name.as_ptr().cast(),
            name_len: about.name.len(),
            version: about.version.as_ptr().cast(),
            version_len: about.version.len(),
            description: about.description.as_ptr().cast(),
            description_len: about.description.len(),
            layout: layout.map_or(std::ptr::null(), |text| text.as_ptr().cast()),
            layout_len: layout.map_or(0, str::len),
            start: Some(start),
            probe: Some(probe::<P>),
            ..AbiStruct::empty()
        })
    }

    /// Adds engine layers.
    #[must_use]
    pub fn layers<F: crate::LayerFactory>(mut self) -> Self {
        self.0.layers = layer_table::<F>();
        self
    }

    /// Adds tokenizers.
    #[must_use]
    pub fn tokenizers<F: crate::TokenizerFactory>(mut self) -> Self {
        self.0.tokenizers = tokenizer_table::<F>();
        self
    }

    /// Adds memory tiers.
    #[must_use]
    pub fn tiers<F: crate::TierFactory>(mut self) -> Self {
        self.0.tiers = tier_table::<F>();
        self
    }
}

/// The entry function's body: the table, made once; null where making it panicked.
pub fn entry(cell: &'static OnceLock<Table>, make: fn() -> Table) -> *const HeraldPlugin {
    catch(|| &raw const cell.get_or_init(make).0).unwrap_or(std::ptr::null())
}

/// Makes this library a HERALD plugin: defines the entry function `herald_plugin_v1` over safe types.
///
/// ```
/// use herald_api::{Hardware, Probe, Result};
///
/// fn probe(_: &Hardware) -> Result<Probe> {
///     Ok(Probe { score: 100, variant: "scalar".to_owned() })
/// }
///
/// herald_api::export_plugin! {
///     name: "example",
///     version: env!("CARGO_PKG_VERSION"),
///     description: "Offers nothing yet",
///     probe: probe,
/// }
/// # fn main() { assert!(!herald_plugin_v1().is_null()); }
/// ```
///
/// After `probe` come the interfaces that it offers, each a type that implements the factory trait, in this order:
/// `layers: T` ([`LayerFactory`](crate::LayerFactory)), `tokenizers: T`
/// ([`TokenizerFactory`](crate::TokenizerFactory)), `tiers: T` ([`TierFactory`](crate::TierFactory)).
#[macro_export]
macro_rules! export_plugin {
    (
        name: $name:expr,
        version: $version:expr,
        description: $description:expr,
        probe: $probe:path
        $(, layers: $layers:ty)?
        $(, tokenizers: $tokenizers:ty)?
        $(, tiers: $tiers:ty)?
        $(,)?
    ) => {
        /// The plugin's entry: a table that lives as long as the library is loaded. See `herald_plugin.h`.
        #[unsafe(no_mangle)]
        pub extern "C" fn herald_plugin_v1() -> *const $crate::abi::HeraldPlugin {
            struct ThisPlugin;
            impl $crate::export::Probed for ThisPlugin {
                fn probe(hardware: &$crate::Hardware) -> $crate::Result<$crate::Probe> {
                    $probe(hardware)
                }
            }
            static TABLE: ::std::sync::OnceLock<$crate::export::Table> = ::std::sync::OnceLock::new();
            $crate::export::entry(&TABLE, || {
                let about = $crate::export::About {
                    name: $name,
                    version: $version,
                    description: $description,
                };
                $crate::export::Table::new::<ThisPlugin>(&about)
                    $(.layers::<$layers>())?
                    $(.tokenizers::<$tokenizers>())?
                    $(.tiers::<$tiers>())?
            })
        }
    };
}

/// Levels of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Level {
    /// Something failed and the user should know.
    Error = abi::HERALD_LOG_ERROR,
    /// Something is not as it should be, and work goes on.
    Warn = abi::HERALD_LOG_WARN,
    /// Worth a line to an interested user.
    Info = abi::HERALD_LOG_INFO,
    /// Worth a line to a developer.
    Debug = abi::HERALD_LOG_DEBUG,
}

struct Logger(HeraldHost);

// SAFETY: the host's contract: log may be called from any thread, until the process ends.
unsafe impl Send for Logger {}
// SAFETY: as for Send.
unsafe impl Sync for Logger {}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Writes one line to the host's log; nothing where no host has started this plugin.
pub fn log(level: Level, line: &str) {
    if let Some(Logger(HeraldHost { log: Some(log), context, .. })) = LOGGER.get() {
        // SAFETY: the host's contract, for as long as the process lives.
        unsafe { log(*context, level as u32, line.as_ptr().cast(), line.len()) };
    }
}

unsafe extern "C" fn start(host: *const HeraldHost, error: *mut HeraldError) -> u32 {
    // SAFETY: the host's contract for both.
    unsafe {
        guard(error, || {
            let host = abi::read(host).map_err(Error::invalid)?;
            LOGGER.get_or_init(|| Logger(host));
            panics::log_what_is_caught();
            Ok(())
        })
    }
}

unsafe extern "C" fn probe<P: Probed>(
    hardware: *const HeraldHardware,
    out: *mut HeraldProbe,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract for all three.
    unsafe {
        guard(error, || {
            let raw = abi::read(hardware).map_err(Error::invalid)?;
            let found = P::probe(&Hardware {
                arch: raw.arch,
                cpus: raw.cpus,
                features: raw.features,
                memory_bytes: raw.memory_bytes,
            })?;
            let mut answer = HeraldProbe { score: found.score, ..AbiStruct::empty() };
            fill_text(&mut answer.variant, &found.variant);
            abi::write(out, &answer).map_err(Error::invalid)
        })
    }
}
