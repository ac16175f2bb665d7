//! Memory tiers of a plugin, and the pages in them.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::page::StoredPage;
use super::{Inner, Plugin, refused};
use crate::abi::{
    self, AbiStruct, HeraldPage, HeraldTier, HeraldTierConfig, HeraldTierQuery, HeraldTierStats,
    HeraldTierTable,
};
use crate::marshal::try_call;
use crate::{Error, Found, MemoryTier, Page, RawPage, Result, Status, TierConfig, TierKind, TierStats};

/// No archive is believed to hold more pages: of 64 tokens each, these would be a thousand million tokens.
const MAX_PAGES: usize = 1 << 24;

/// How often a tier is asked for its pages while it says each time that it holds more.
const MAX_LISTINGS: usize = 8;

/// Ids from here on are not believed: new pages' ids, which count up from the greatest one, must not come to their end.
const MAX_ID: u64 = 1 << 62;

/// A tier that a plugin made.
///
/// Its pages are owned by handles, and only they name them: a page is read and dropped through the handle that owns it, never
/// by its id, so that nothing is read after it was dropped.
///
/// ```compile_fail,E0599
/// fn use_after_free(tier: &herald_api::import::TierHandle) {
///     let page = tier.reserve().unwrap();
///     tier.drop_page(page.id()).unwrap();
///     page.bytes();
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn two_owners(tier: &herald_api::import::TierHandle) {
///     let both = [tier.stored(7), tier.stored(7)];
/// }
/// ```
///
/// ```compile_fail,E0599
/// fn read_beside_a_writer(tier: &herald_api::import::TierHandle, page: &mut herald_api::import::PageHandle) {
///     let (keys, values) = (&mut [0; 8], &mut [0; 8]);
///     tier.get(0, keys, values);
/// }
/// ```
#[derive(Clone)]
pub struct TierHandle(Arc<Made>);

/// A tier by its pages' ids, as C has it: for code that checks plugins.
///
/// It comes from [`TierHandle::by_id`], whose contract binds every call of it.
#[derive(Clone)]
pub struct TierById(Arc<Made>);

pub(super) struct Made {
    raw: NonNull<HeraldTier>,
    plugin: Arc<Inner>,
    config: TierConfig,
    page_bytes: (usize, usize),
    next_id: AtomicU64,
    /// Pages that it found in its file and that nobody owns yet.
    found: Mutex<Vec<u64>>,
}

// SAFETY: the ABI's contract: all calls but destroy may come from any thread, many at once.
unsafe impl Send for Made {}
// SAFETY: as for Send.
unsafe impl Sync for Made {}

impl Plugin {
    /// Has the plugin make a tier.
    ///
    /// # Errors
    /// [`crate::Status::Unsupported`] where it doesn't offer this one; otherwise as the plugin failed.
    pub fn create_tier(&self, config: &TierConfig) -> Result<TierHandle> {
        let table = self.0.tiers.as_ref().filter(|_| self.0.tier_kinds.contains(&(config.kind as u32)));
        let create = table.and_then(|table| table.create).ok_or_else(|| {
            Error::unsupported(format!("{} offers no {} memory tier", self.name(), config.kind.name()))
        })?;
        let page_bytes =
            config.page_bytes().ok_or_else(|| Error::invalid(format!("a page of {config:?} overflows")))?;
        // A path's own bytes, which on Unix need not be UTF-8.
        let path = config.path.as_ref().map_or(&[][..], |path| path.as_os_str().as_encoded_bytes());
        let number = |value: usize, what: &str| {
            u32::try_from(value).map_err(|_| {
                Error::invalid(format!(
                    "a memory tier was to have {value} {what}, where at most {} were expected",
                    u32::MAX
                ))
            })
        };
        let raw = HeraldTierConfig {
            kind: config.kind as u32,
            n_kv_heads: number(config.n_kv_heads, "heads")?,
            key_dim: number(config.key_dim, "elements of a key")?,
            value_dim: number(config.value_dim, "elements of a value")?,
            page_tokens: number(config.page_tokens, "tokens of a page")?,
            state_bytes: config.state_bytes as u64,
            capacity_bytes: config.capacity_bytes.unwrap_or(0),
            path: path.as_ptr().cast(),
            path_len: path.len(),
            flags: if config.lz4 { abi::HERALD_TIER_LZ4 } else { 0 },
            ..AbiStruct::empty()
        };
        let mut made = std::ptr::null_mut();
        // SAFETY: the ABI's contract; the configuration lives for the call.
        try_call(|error| unsafe { create(&raw, &mut made, error) })?;
        let raw = NonNull::new(made)
            .ok_or_else(|| refused("its tier_create succeeded without a tier".to_owned()))?;
        let made = Made {
            raw,
            plugin: Arc::clone(&self.0),
            config: config.clone(),
            page_bytes,
            next_id: AtomicU64::new(0),
            found: Mutex::default(),
        };
        // A file may have pages in it already.
        if config.kind == TierKind::Archived && made.table().list.is_some() {
            let found = made.found_pages()?;
            made.next_id.store(found.last().map_or(0, |last| last + 1), Ordering::Relaxed);
            *made.found.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = found;
        }
        Ok(TierHandle(Arc::new(made)))
    }
}

impl Made {
    fn table(&self) -> &HeraldTierTable {
        // A tier is only made by a plugin that has the table.
        self.plugin.tiers.as_ref().unwrap_or(&NO_TIERS.0)
    }
}

struct NoTiers(HeraldTierTable);

// SAFETY: it has no pointers but null ones.
unsafe impl Sync for NoTiers {}

static NO_TIERS: NoTiers = NoTiers(HeraldTierTable {
    struct_size: size_of::<HeraldTierTable>(),
    kinds: std::ptr::null(),
    n_kinds: 0,
    create: None,
    put: None,
    get: None,
    view: None,
    commit: None,
    drop: None,
    destroy: None,
    stats: None,
    search: None,
    release: None,
    list: None,
    flush: None,
});

fn missing(what: &str) -> Error {
    Error::unsupported(format!("the plugin's memory tiers have no {what} function"))
}

impl TierHandle {
    /// Whether both are the same tier.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// What the tier keeps.
    #[must_use]
    pub fn config(&self) -> &TierConfig {
        &self.0.config
    }

    /// Returns when every page would outlive the process, in a tier whose pages do.
    ///
    /// # Errors
    /// As [`MemoryTier::flush`].
    pub fn flush(&self) -> Result<()> {
        self.0.flush()
    }

    /// What it holds and has done.
    #[must_use]
    pub fn stats(&self) -> TierStats {
        self.0.stats()
    }

    /// The pages that an archived tier found in its file, each once: a second call has none. Dropping one drops the page.
    #[must_use]
    pub fn take_found(&self) -> Vec<StoredPage> {
        let mut found = self.0.found.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::take(&mut *found).into_iter().map(|id| StoredPage::new(self, id)).collect()
    }

    /// The tier by its pages' ids, for code that checks what a plugin does with them.
    ///
    /// # Safety
    /// No handle of this tier's pages is used any more, neither a [`PageHandle`](super::PageHandle) nor a [`StoredPage`], while
    /// the result or a clone of it is called with an id that the handle may have. While one thread reads a page, through
    /// `get`, `put` of another tier, `search` or where `view` says that it lies, no other writes or drops it.
    #[must_use]
    pub unsafe fn by_id(&self) -> TierById {
        TierById(Arc::clone(&self.0))
    }

    pub(super) fn made(&self) -> &Made {
        &self.0
    }
}

impl Made {
    pub(super) fn config(&self) -> &TierConfig {
        &self.config
    }

    /// The format of the pages that it gives and takes: as attention writes them, or states.
    pub(super) fn format(&self) -> u32 {
        if self.config.state_bytes > 0 { abi::HERALD_PAGE_OPAQUE } else { abi::HERALD_PAGE_I16 }
    }

    /// Bytes of such a page's keys (or of the state) and values.
    pub(super) fn page_bytes(&self) -> (usize, usize) {
        self.page_bytes
    }

    /// An id that no page has had.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// The ids of pages that it found in its file, rising, each once.
    fn found_pages(&self) -> Result<Vec<u64>> {
        let mut ids = match self.list() {
            // As without the function: a tier in Rust always has one.
            Err(error) if error.status() == Status::Unsupported => Vec::new(),
            ids => ids?,
        };
        ids.sort_unstable();
        if let Some([id, _]) = ids.array_windows().find(|[a, b]| a == b) {
            return Err(refused(format!("its memory tier lists the page {id} twice")));
        }
        match ids.last() {
            Some(last) if *last >= MAX_ID => Err(refused(format!(
                "its memory tier lists a page {last}, where numbers below {MAX_ID} were expected"
            ))),
            _ => Ok(ids),
        }
    }
}

// Calls by id. Who makes them answers for the ids: handles for their own, and whoever has a `TierById`.
impl Made {
    pub(super) fn put(&self, id: u64, page: Option<&Page<'_>>) -> Result<()> {
        let put = self.table().put.ok_or_else(|| missing("put"))?;
        if let Some(page) = page {
            let format = self.format();
            let bytes = (page.key_bytes().len(), page.value_bytes().len());
            let own = page.format() == abi::HERALD_PAGE_Q4
                && self.config.kind != TierKind::Active
                && self.config.state_bytes == 0
                && self.config.q4_page_bytes() == Some(bytes);
            if !own && (page.format() != format || bytes != self.page_bytes) {
                return Err(Error::invalid(format!(
                    "page {id} has format {} with {bytes:?} bytes of keys and values, where format {format} with {:?} was \
                     expected",
                    page.format(),
                    self.page_bytes
                )));
            }
        }
        let raw = page.map_or(std::ptr::null(), Page::raw);
        // SAFETY: the ABI's contract; the page lives for the call.
        try_call(|error| unsafe { put(self.raw.as_ptr(), id, raw, error) })
    }

    pub(super) fn get(&self, id: u64, keys: &mut [u8], values: &mut [u8]) -> Result<usize> {
        let get = self.table().get.ok_or_else(|| missing("get"))?;
        if (keys.len(), values.len()) != self.page_bytes {
            let short = keys.len() < self.page_bytes.0 || values.len() < self.page_bytes.1;
            let status = if short { Status::BufferTooSmall } else { Status::InvalidArgument };
            return Err(Error::new(
                status,
                format!(
                    "page {id} was to be copied to {} and {} bytes, where {:?} were expected",
                    keys.len(),
                    values.len(),
                    self.page_bytes
                ),
            ));
        }
        let mut page = HeraldPage {
            keys: keys.as_mut_ptr().cast(),
            key_bytes: keys.len() as u64,
            values: values.as_mut_ptr().cast(),
            value_bytes: values.len() as u64,
            ..AbiStruct::empty()
        };
        // SAFETY: the ABI's contract; the buffers have the sizes that are said.
        try_call(|error| unsafe { get(self.raw.as_ptr(), id, &mut page, error) })?;
        let n_tokens = page.n_tokens as usize;
        if n_tokens > self.config.page_tokens {
            return Err(refused(format!(
                "its memory tier says that page {id} holds {n_tokens} tokens, where at most {} have room",
                self.config.page_tokens
            )));
        }
        Ok(n_tokens)
    }

    pub(super) fn view(&self, id: u64) -> Result<RawPage> {
        let view = self.table().view.ok_or_else(|| missing("view"))?;
        let mut page: HeraldPage = AbiStruct::empty();
        // SAFETY: the ABI's contract; the page is our own.
        try_call(|error| unsafe { view(self.raw.as_ptr(), id, &mut page, error) })?;
        // SAFETY: the plugin's contract says of its pages what `RawPage` asks for.
        Ok(unsafe {
            RawPage::new(
                page.n_tokens as usize,
                page.format,
                (page.keys.cast(), page.key_bytes as usize),
                (page.values.cast(), page.value_bytes as usize),
            )
        })
    }

    pub(super) fn commit(&self, id: u64, n_tokens: usize) -> Result<()> {
        let commit = self.table().commit.ok_or_else(|| missing("commit"))?;
        let n_tokens =
            u32::try_from(n_tokens).map_err(|_| Error::invalid(format!("a page of {n_tokens} tokens")))?;
        // SAFETY: the ABI's contract.
        try_call(|error| unsafe { commit(self.raw.as_ptr(), id, n_tokens, error) })
    }

    pub(super) fn drop_page(&self, id: u64) -> Result<()> {
        let drop = self.table().drop.ok_or_else(|| missing("drop"))?;
        // SAFETY: the ABI's contract.
        try_call(|error| unsafe { drop(self.raw.as_ptr(), id, error) })
    }

    pub(super) fn release(&self, id: u64) -> Result<()> {
        let Some(release) = self.table().release else { return Ok(()) };
        // SAFETY: the ABI's contract.
        try_call(|error| unsafe { release(self.raw.as_ptr(), id, error) })
    }

    pub(super) fn list(&self) -> Result<Vec<u64>> {
        let list = self.table().list.ok_or_else(|| missing("list"))?;
        let mut ids: Vec<u64> = Vec::new();
        for _ in 0..MAX_LISTINGS {
            let mut n = 0;
            // SAFETY: the ABI's contract; the buffer has room for as many as are said.
            try_call(|error| unsafe { list(self.raw.as_ptr(), ids.as_mut_ptr(), ids.len(), &mut n, error) })?;
            if n <= ids.len() {
                ids.truncate(n);
                return Ok(ids);
            }
            if n > MAX_PAGES {
                return Err(refused(format!(
                    "its memory tier says that it holds {n} pages, where at most {MAX_PAGES} were expected"
                )));
            }
            // Other threads may put more until the next call.
            let room = n + n / 8;
            ids.try_reserve_exact(room - ids.len()).map_err(|_| {
                Error::new(Status::OutOfMemory, format!("there is no memory for the list of {n} pages"))
            })?;
            ids.resize(room, 0);
        }
        Err(refused(format!(
            "its memory tier said {MAX_LISTINGS} times in a row that it holds more pages than before, {} at last",
            ids.len()
        )))
    }

    pub(super) fn flush(&self) -> Result<()> {
        let Some(flush) = self.table().flush else { return Ok(()) };
        // SAFETY: the ABI's contract.
        try_call(|error| unsafe { flush(self.raw.as_ptr(), error) })
    }

    pub(super) fn stats(&self) -> TierStats {
        let mut raw: HeraldTierStats = AbiStruct::empty();
        if let Some(stats) = self.table().stats {
            // SAFETY: the ABI's contract; the answer is our own. A tier that can't say counts as empty.
            let _ = try_call(|error| unsafe { stats(self.raw.as_ptr(), &mut raw, error) });
        }
        TierStats {
            pages: raw.pages,
            tokens: raw.tokens,
            bytes: raw.bytes,
            hits: raw.hits,
            misses: raw.misses,
            memory_bytes: raw.memory_bytes,
            damaged: raw.damaged,
        }
    }

    pub(super) fn search(&self, query: &[f32], ids: &[u64], k: usize) -> Result<Vec<Found>> {
        let search = self.table().search.ok_or_else(|| missing("search"))?;
        let width = self.config.n_kv_heads * self.config.key_dim;
        if width == 0 || query.is_empty() || !query.len().is_multiple_of(width) {
            return Err(Error::invalid(format!(
                "a search brought {} query elements, where a multiple of {width} was expected",
                query.len()
            )));
        }
        let raw = HeraldTierQuery {
            ids: ids.as_ptr(),
            n_ids: ids.len(),
            query: query.as_ptr(),
            n_queries: query.len() / width,
            ..AbiStruct::empty()
        };
        let room = k.min(ids.len());
        let (mut found, mut scores, mut n) = (vec![0_u64; room], vec![0.0_f32; room], 0);
        // SAFETY: the ABI's contract; both buffers have room for `room`.
        try_call(|error| unsafe {
            let tier = self.raw.as_ptr();
            search(tier, &raw, room, found.as_mut_ptr(), scores.as_mut_ptr(), &mut n, error)
        })?;
        if n > room {
            return Err(refused(format!("its search found {n} pages, where at most {room} were asked for")));
        }
        Ok(found.into_iter().zip(scores).take(n).map(|(id, score)| Found { id, score }).collect())
    }
}

impl MemoryTier for TierById {
    fn put(&self, id: u64, page: Option<&Page<'_>>) -> Result<()> {
        self.0.put(id, page)
    }

    fn get(&self, id: u64, keys: &mut [u8], values: &mut [u8]) -> Result<usize> {
        self.0.get(id, keys, values)
    }

    fn view(&self, id: u64) -> Result<RawPage> {
        self.0.view(id)
    }

    fn release(&self, id: u64) -> Result<()> {
        self.0.release(id)
    }

    fn list(&self) -> Result<Vec<u64>> {
        self.0.list()
    }

    fn flush(&self) -> Result<()> {
        self.0.flush()
    }

    fn commit(&self, id: u64, n_tokens: usize) -> Result<()> {
        self.0.commit(id, n_tokens)
    }

    fn drop_page(&self, id: u64) -> Result<()> {
        self.0.drop_page(id)
    }

    fn stats(&self) -> TierStats {
        self.0.stats()
    }

    fn search(&self, query: &[f32], ids: &[u64], k: usize) -> Result<Vec<Found>> {
        self.0.search(query, ids, k)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(destroy) = self.table().destroy {
            // SAFETY: the tier came from this plugin, and nothing else holds it any more.
            unsafe { destroy(self.raw.as_ptr()) };
        }
    }
}
