//! Memory tiers: where pages of keys and values, and recurrent states, are kept.

use std::ffi::c_char;

use super::{HeraldError, HeraldPage, HeraldTier};

/// Pages as attention writes them (HERALD_PAGE_I16), in RAM.
pub const HERALD_TIER_ACTIVE: u32 = 1;
/// Pages quantised, in RAM.
pub const HERALD_TIER_COMPRESSED: u32 = 2;
/// Pages in a file.
pub const HERALD_TIER_ARCHIVED: u32 = 3;

/// HeraldTierConfig.flags: pages in a file are to be compressed further with LZ4, where that makes them smaller.
pub const HERALD_TIER_LZ4: u64 = 1;

/// What a tier keeps: pages of one shape.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldTierConfig {
    /// sizeof(HeraldTierConfig) of the host.
    pub struct_size: usize,
    /// HERALD_TIER_*.
    pub kind: u32,
    /// Key and value heads; 0 where it keeps recurrent states.
    pub n_kv_heads: u32,
    /// Elements of a key head.
    pub key_dim: u32,
    /// Elements of a value head.
    pub value_dim: u32,
    /// Tokens that a page has room for.
    pub page_tokens: u32,
    /// Not used; 0.
    pub reserved: u32,
    /// Bytes of a recurrent state; 0 where it keeps keys and values.
    pub state_bytes: u64,
    /// The most bytes that it may keep; 0: no limit.
    pub capacity_bytes: u64,
    /// HERALD_TIER_ARCHIVED: the file's path as the system has it (on Unix any bytes but NUL); valid during the call. A file that is there is opened with the pages in it
    /// (see list). A folder: a file without a name in it, made when the first page comes, which goes with the tier.
    pub path: *const c_char,
    /// Bytes of path.
    pub path_len: usize,
    /// HERALD_TIER_LZ4, or 0.
    pub flags: u64,
}

/// A search for the pages that a query would attend to most.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldTierQuery {
    /// sizeof(HeraldTierQuery) of the host.
    pub struct_size: usize,
    /// Ids of the pages to choose among.
    pub ids: *const u64,
    /// How many ids.
    pub n_ids: usize,
    /// Queries, rotated as keys are: [n_queries, n_kv_heads, key_dim].
    pub query: *const f32,
    /// How many queries share the search (heads of a group, tokens of a batch); at least 1.
    pub n_queries: usize,
}

/// What a tier holds and has done since it was made.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldTierStats {
    /// sizeof(HeraldTierStats) of the host.
    pub struct_size: usize,
    /// Pages that it holds.
    pub pages: u64,
    /// Tokens that they hold.
    pub tokens: u64,
    /// Bytes that they take in this tier.
    pub bytes: u64,
    /// Calls of get and view that found their page.
    pub hits: u64,
    /// Calls of get and view that did not.
    pub misses: u64,
    /// Bytes of RAM that its pages take; for a tier in RAM, the same as bytes.
    pub memory_bytes: u64,
    /// Pages whose checksum, or whose entry in the index of the file, turned out to be wrong: they are gone.
    pub damaged: u64,
}

/// Memory tiers of a plugin. Ids are the caller's: any number, once each. All calls but destroy may come from any
/// thread, many at once; that nobody reads a page's bytes while another writes them is the caller's part.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldTierTable {
    /// sizeof(HeraldTierTable) of the plugin.
    pub struct_size: usize,
    /// The HERALD_TIER_* kinds that it offers.
    pub kinds: *const u32,
    /// How many kinds.
    pub n_kinds: usize,
    /// Makes a tier and puts it in *out, for the caller to give to destroy. On failure *out is untouched.
    /// Statuses: OK; UNSUPPORTED (another kind); INVALID_ARGUMENT; IO; OUT_OF_MEMORY; INTERNAL.
    pub create: Option<
        unsafe extern "C" fn(
            config: *const HeraldTierConfig,
            out: *mut *mut HeraldTier,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Keeps a page under a new id. page: its contents as HERALD_PAGE_I16 (or HERALD_PAGE_OPAQUE for a state), or in the
    /// tier's own format as view gives it, copied; or
    /// null for an empty page of zeros, to be written through view and told to commit.
    /// Statuses: OK; INVALID_ARGUMENT (the id is taken, the shape is another); OUT_OF_MEMORY (capacity_bytes is full);
    /// UNSUPPORTED (no empty pages in this tier); IO.
    pub put: Option<
        unsafe extern "C" fn(
            tier: *mut HeraldTier,
            id: u64,
            page: *const HeraldPage,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Copies a page out as HERALD_PAGE_I16 (or HERALD_PAGE_OPAQUE) into the buffers that into names, and sets its
    /// n_tokens. Statuses: OK; NOT_FOUND; BUFFER_TOO_SMALL; CORRUPT (a checksum); IO.
    pub get: Option<
        unsafe extern "C" fn(
            tier: *mut HeraldTier,
            id: u64,
            into: *mut HeraldPage,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Fills page with pointers to where the tier itself keeps it, in the tier's own format; they stay valid until the
    /// page is dropped or the tier destroyed, or as often released as viewed. start is left alone. Statuses: OK;
    /// NOT_FOUND; UNSUPPORTED (a tier whose pages can't be read in place); CORRUPT (a checksum); IO.
    pub view: Option<
        unsafe extern "C" fn(
            tier: *mut HeraldTier,
            id: u64,
            page: *mut HeraldPage,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Says that the page's first n_tokens slots now hold tokens, written through view.
    /// Statuses: OK; NOT_FOUND; INVALID_ARGUMENT (more than page_tokens).
    pub commit: Option<
        unsafe extern "C" fn(tier: *mut HeraldTier, id: u64, n_tokens: u32, error: *mut HeraldError) -> u32,
    >,
    /// Forgets a page. Statuses: OK; NOT_FOUND.
    pub drop: Option<unsafe extern "C" fn(tier: *mut HeraldTier, id: u64, error: *mut HeraldError) -> u32>,
    /// Destroys a tier that no call is running on, with its pages. Null is allowed.
    pub destroy: Option<unsafe extern "C" fn(tier: *mut HeraldTier)>,
    /// Fills out. May be null. Statuses: OK.
    pub stats: Option<
        unsafe extern "C" fn(
            tier: *mut HeraldTier,
            out: *mut HeraldTierStats,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Finds the pages that the queries would attend to most: writes the ids of at most k of the query's pages and their
    /// scores, best first, to ids and scores, which have room for k, and their number to *n. A page's score is the
    /// greatest query-key product over its tokens, heads and the queries, or a bound above it. May be null.
    /// Statuses: OK; NOT_FOUND (one of the ids); INVALID_ARGUMENT.
    pub search: Option<
        unsafe extern "C" fn(
            tier: *mut HeraldTier,
            query: *const HeraldTierQuery,
            k: usize,
            ids: *mut u64,
            scores: *mut f32,
            n: *mut usize,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Says that what one call of view gave is not used any more. May be null: pages then stay where they were viewed.
    /// Statuses: OK; NOT_FOUND.
    pub release: Option<unsafe extern "C" fn(tier: *mut HeraldTier, id: u64, error: *mut HeraldError) -> u32>,
    /// Writes the ids of at most room pages to ids, in any order, and how many pages there are to *n. May be null.
    /// Statuses: OK; UNSUPPORTED (as if it were null).
    pub list: Option<
        unsafe extern "C" fn(
            tier: *mut HeraldTier,
            ids: *mut u64,
            room: usize,
            n: *mut usize,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Returns when every page that was put is in the tier's file, so that it outlives the process. May be null: there is
    /// nothing to wait for. Statuses: OK; IO.
    pub flush: Option<unsafe extern "C" fn(tier: *mut HeraldTier, error: *mut HeraldError) -> u32>,
}
