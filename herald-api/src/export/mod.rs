//! From safe traits to the C table: what [`export_plugin!`](crate::export_plugin) expands to.
//!
//! Every function here is called by a host that may be written in any language, so each checks what it is given, turns
//! errors into a status and a sentence, and lets no panic out.

mod layer;
mod panics;
mod tier;
mod tokenizer;

use std::any::Any;
use std::ffi::c_char;
use std::sync::OnceLock;

pub use layer::layer_table;
pub(crate) use panics::catch;
pub use tier::tier_table;
pub use tokenizer::tokenizer_table;

use crate::abi::{self, AbiStruct, HeraldError, HeraldHardware, HeraldHost, HeraldPlugin, HeraldProbe};
use crate::{Error, Hardware, Probe, Result, Status};

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
    /// [`Status::Unsupported`] with the reason where it can't run there.
    fn probe(hardware: &Hardware) -> Result<Probe>;
}

impl Table {
    /// A table without any interface: what it says of itself, and its probe.
    #[must_use]
    pub fn new<P: Probed>(about: &About) -> Self {
        let layout = crate::layout::report();
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

/// Runs a call's body: its status, and on failure the sentence in the caller's buffer. No panic gets out.
///
/// # Safety
/// `error` is null or a caller's `HeraldError`.
pub(crate) unsafe fn guard(error: *mut HeraldError, body: impl FnOnce() -> Result<()>) -> u32 {
    let failure = match catch(body) {
        Ok(Ok(())) => return abi::HERALD_STATUS_OK,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            Error::new(Status::Internal, format!("the plugin panicked: {}", panic_message(&*panic)))
        }
    };
    if !error.is_null() {
        let mut answer: HeraldError = AbiStruct::empty();
        fill_text(&mut answer.message, failure.message());
        // SAFETY: the caller vouches for a pointer that is not null. A buffer that can't be read gets no sentence.
        let _ = unsafe { abi::write(error, &answer) };
    }
    failure.status().code()
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Copies text into a C array, cut at a character where it is too long, NUL-terminated.
pub(crate) fn fill_text(array: &mut [c_char], text: &str) {
    let room = array.len() - 1;
    let mut len = text.len().min(room);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    for (to, from) in array.iter_mut().zip(&text.as_bytes()[..len]) {
        *to = (*from).cast_signed() as c_char;
    }
    array[len] = 0;
}

/// A slice that the other side gave as pointer and length.
///
/// # Safety
/// A pointer that is not null and is aligned must point to `len` values that hold for the lifetime `'a`.
pub(crate) unsafe fn slice<'a, T>(pointer: *const T, len: usize, what: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| isize::try_from(*bytes).is_ok());
    if pointer.is_null() || !pointer.is_aligned() || bytes.is_none() {
        return Err(Error::invalid(format!(
            "{what} is {len} elements at {pointer:p}, where aligned memory was expected"
        )));
    }
    // SAFETY: checked, and the caller vouches for the rest.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// A text that the other side gave as pointer and length.
///
/// # Safety
/// As for [`slice`].
pub(crate) unsafe fn text<'a>(pointer: *const c_char, len: usize, what: &str) -> Result<&'a str> {
    // SAFETY: the caller vouches.
    let bytes = unsafe { slice(pointer.cast::<u8>(), len, what)? };
    std::str::from_utf8(bytes).map_err(|error| {
        Error::invalid(format!("{what} is not UTF-8: byte {} begins no character", error.valid_up_to()))
    })
}
