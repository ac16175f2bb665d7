//! The memory-tier interface: where pages of keys and values, and recurrent states, are kept.

use std::path::PathBuf;

use crate::page::{Page, q4_page_bytes};
use crate::{Result, abi};

/// Kinds of tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum TierKind {
    /// Pages as attention writes them (16 bits), in RAM.
    Active = abi::HERALD_TIER_ACTIVE,
    /// Pages quantised, in RAM.
    Compressed = abi::HERALD_TIER_COMPRESSED,
    /// Pages in a file.
    Archived = abi::HERALD_TIER_ARCHIVED,
}

impl TierKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Active, Self::Compressed, Self::Archived];

    /// The kind with this number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == code)
    }

    /// The word for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Compressed => "compressed",
            Self::Archived => "archived",
        }
    }
}

/// What a tier keeps: pages of one shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierConfig {
    /// The tier's kind.
    pub kind: TierKind,
    /// Key and value heads; 0 where it keeps recurrent states.
    pub n_kv_heads: usize,
    /// Elements of a key head.
    pub key_dim: usize,
    /// Elements of a value head.
    pub value_dim: usize,
    /// Tokens that a page has room for.
    pub page_tokens: usize,
    /// Bytes of a recurrent state; 0 where it keeps keys and values.
    pub state_bytes: usize,
    /// The most bytes that it may keep; `None`: no limit.
    pub capacity_bytes: Option<u64>,
    /// An archived tier's file; or a folder, for a file without a name that goes with the tier.
    pub path: Option<PathBuf>,
    /// Whether pages in a file are compressed further with LZ4.
    pub lz4: bool,
}

impl TierConfig {
    /// Bytes of a page's keys (or of a state) and of its values, as [`abi::HERALD_PAGE_I16`] lays them out; `None`
    /// where that overflows.
    #[must_use]
    pub fn page_bytes(&self) -> Option<(usize, usize)> {
        if self.state_bytes > 0 {
            return Some((self.state_bytes, 0));
        }
        let slots = self.n_kv_heads.checked_mul(self.page_tokens)?;
        let bytes =
            |dim: usize| slots.checked_mul(dim.checked_mul(size_of::<i16>())?.checked_add(size_of::<f32>())?);
        Some((bytes(self.key_dim)?, bytes(self.value_dim)?))
    }

    /// Bytes of a page's keys and of its values, as [`abi::HERALD_PAGE_Q4`] lays them out; `None` where that overflows.
    #[must_use]
    pub fn q4_page_bytes(&self) -> Option<(usize, usize)> {
        q4_page_bytes(self.n_kv_heads, self.key_dim, self.value_dim, self.page_tokens)
    }
}

/// What a tier holds and has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierStats {
    /// Pages that it holds.
    pub pages: u64,
    /// Tokens that they hold.
    pub tokens: u64,
    /// Bytes that they take in this tier.
    pub bytes: u64,
    /// Calls of `get` and `view` that found their page.
    pub hits: u64,
    /// Calls of `get` and `view` that did not.
    pub misses: u64,
    /// Bytes of RAM that its pages take.
    pub memory_bytes: u64,
    /// Pages that turned out to be damaged: they are gone.
    pub damaged: u64,
}

// Plugins say these numbers, so no sum of them may overflow.
impl std::ops::AddAssign for TierStats {
    fn add_assign(&mut self, other: Self) {
        self.pages = self.pages.saturating_add(other.pages);
        self.tokens = self.tokens.saturating_add(other.tokens);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.hits = self.hits.saturating_add(other.hits);
        self.misses = self.misses.saturating_add(other.misses);
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
        self.damaged = self.damaged.saturating_add(other.damaged);
    }
}

/// A page that a search found, and how much a query would attend to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The page.
    pub id: u64,
    /// The greatest query-key product over its tokens and heads, or a bound above it.
    pub score: f32,
}

/// A backend's memory tiers. The implementing type carries no data: it names the functions of a table.
pub trait TierFactory: 'static {
    /// The kinds that it offers.
    const KINDS: &'static [TierKind];

    /// Makes an empty tier.
    ///
    /// # Errors
    /// [`crate::Status::Unsupported`] for another kind, [`crate::Status::InvalidArgument`] for an impossible shape,
    /// [`crate::Status::Io`] where the file can't be had.
    fn create(config: &TierConfig) -> Result<Box<dyn MemoryTier>>;
}

/// A memory tier. Ids are the caller's: any number, once each. Calls may come from many threads at once, with the same id too.
/// A page's bytes are written only through the pointers that [`MemoryTier::view`] gives: that nobody reads them meanwhile is
/// the part of whoever does.
pub trait MemoryTier: Send + Sync {
    /// Keeps a copy of a page, as attention writes it or in the tier's own format, under a new id; `None`: an empty page of zeros, to be written through [`MemoryTier::view`].
    ///
    /// # Errors
    /// [`crate::Status::InvalidArgument`] where the id is taken or the shape is another,
    /// [`crate::Status::OutOfMemory`] where the tier is full.
    fn put(&self, id: u64, page: Option<&Page<'_>>) -> Result<()>;

    /// Copies a page's keys and values (or its state) out, as they were put, into buffers of exactly their sizes; returns how many
    /// tokens it holds.
    ///
    /// # Errors
    /// [`crate::Status::NotFound`], [`crate::Status::BufferTooSmall`], [`crate::Status::Corrupt`].
    fn get(&self, id: u64, keys: &mut [u8], values: &mut [u8]) -> Result<usize>;

    /// Where the tier itself keeps the page, in its own format; valid until the page is dropped or the tier destroyed, or
    /// as often released as viewed.
    ///
    /// # Errors
    /// [`crate::Status::NotFound`], or [`crate::Status::Unsupported`] where pages can't be read in place;
    /// [`crate::Status::Corrupt`] and [`crate::Status::Io`] where they lie in a file.
    fn view(&self, id: u64) -> Result<RawPage>;

    /// Says that what one call of `view` gave is not used any more.
    ///
    /// # Errors
    /// [`crate::Status::NotFound`].
    fn release(&self, _id: u64) -> Result<()> {
        Ok(())
    }

    /// The ids of all pages, in any order.
    ///
    /// # Errors
    /// [`crate::Status::Unsupported`] where the tier can't say.
    fn list(&self) -> Result<Vec<u64>> {
        Err(crate::Error::unsupported("the memory tier doesn't list its pages"))
    }

    /// Returns when every page that was put would outlive the process, in a tier whose pages do.
    ///
    /// # Errors
    /// [`crate::Status::Io`].
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Says that the page's first `n_tokens` slots now hold tokens.
    ///
    /// # Errors
    /// [`crate::Status::NotFound`], [`crate::Status::InvalidArgument`].
    fn commit(&self, id: u64, n_tokens: usize) -> Result<()>;

    /// Forgets a page.
    ///
    /// # Errors
    /// [`crate::Status::NotFound`].
    fn drop_page(&self, id: u64) -> Result<()>;

    /// What it holds and has done.
    fn stats(&self) -> TierStats;

    /// Finds at most `k` of the pages `ids`, those that the queries would attend to most, best first. `query` holds any
    /// number of queries, each `[n_kv_heads, key_dim]`.
    ///
    /// # Errors
    /// [`crate::Status::NotFound`] for an id that it doesn't hold, [`crate::Status::InvalidArgument`] for another shape,
    /// [`crate::Status::Unsupported`] where the tier doesn't search.
    fn search(&self, _query: &[f32], _ids: &[u64], _k: usize) -> Result<Vec<Found>> {
        Err(crate::Error::unsupported("the memory tier doesn't search its pages"))
    }
}

/// Where a tier keeps a page: plain pointers, since how long they live is between the tier and its caller.
///
/// Whoever is given one reads what it points to, so making one takes a promise:
///
/// ```compile_fail,E0451
/// # use herald_api::{RawPage, abi::HERALD_PAGE_I16};
/// fn view() -> RawPage {
///     let nowhere = (64 as *mut u8, 1 << 20);
///     RawPage { n_tokens: 1, format: HERALD_PAGE_I16, keys: nowhere, values: nowhere }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RawPage {
    n_tokens: usize,
    format: u32,
    keys: (*mut u8, usize),
    values: (*mut u8, usize),
}

impl RawPage {
    /// A page of `n_tokens` tokens in `format` (`HERALD_PAGE_*`), whose keys (or state) and values lie there: each a pointer and
    /// a number of bytes, or null and 0.
    ///
    /// # Safety
    /// The bytes are initialised and stay where they are as long as [`MemoryTier::view`] says of what it returns; but for a
    /// page in a file, they can be written as well; and the tier itself uses them only in its own calls.
    #[must_use]
    pub unsafe fn new(
        n_tokens: usize,
        format: u32,
        keys: (*mut u8, usize),
        values: (*mut u8, usize),
    ) -> Self {
        Self { n_tokens, format, keys, values }
    }

    /// Tokens that it holds.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// `HERALD_PAGE_*`.
    #[must_use]
    pub fn format(&self) -> u32 {
        self.format
    }

    /// Where the keys (or the state) lie, and how many bytes they are.
    #[must_use]
    pub fn keys(&self) -> (*mut u8, usize) {
        self.keys
    }

    /// Where the values lie, and how many bytes they are; null and 0 where there are none.
    #[must_use]
    pub fn values(&self) -> (*mut u8, usize) {
        self.values
    }
}
