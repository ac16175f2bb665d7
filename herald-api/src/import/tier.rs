//! Memory tiers of a plugin, and the pages in them.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Inner, Plugin, refused};
use crate::abi::{
    self, AbiStruct, HeraldPage, HeraldTier, HeraldTierConfig, HeraldTierQuery, HeraldTierStats,
    HeraldTierTable,
};
use crate::marshal::try_call;
use crate::{Error, Found, MemoryTier, Page, RawPage, Result, Status, TierConfig, TierKind, TierStats};

/// A tier that a plugin made.
#[derive(Clone)]
pub struct TierHandle(Arc<Made>);

struct Made {
    raw: NonNull<HeraldTier>,
    plugin: Arc<Inner>,
    config: TierConfig,
    page_bytes: (usize, usize),
    next_id: AtomicU64,
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
        let path = config.path.as_deref().unwrap_or("");
        let raw = HeraldTierConfig {
            kind: config.kind as u32,
            n_kv_heads: config.n_kv_heads as u32,
            key_dim: config.key_dim as u32,
            value_dim: config.value_dim as u32,
            page_tokens: config.page_tokens as u32,
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
        let made = TierHandle(Arc::new(Made {
            raw,
            plugin: Arc::clone(&self.0),
            config: config.clone(),
            page_bytes,
            next_id: AtomicU64::new(0),
        }));
        // A file may have pages in it already.
        if config.kind == TierKind::Archived && made.0.table().list.is_some() {
            let next = made.list()?.into_iter().max().map_or(0, |last| last.saturating_add(1));
            made.0.next_id.store(next, Ordering::Relaxed);
        }
        Ok(made)
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

    /// The format of the pages that it gives and takes: as attention writes them, or states.
    pub(super) fn format(&self) -> u32 {
        if self.0.config.state_bytes > 0 { abi::HERALD_PAGE_OPAQUE } else { abi::HERALD_PAGE_I16 }
    }

    /// Bytes of such a page's keys (or of the state) and values.
    pub(super) fn page_bytes(&self) -> (usize, usize) {
        self.0.page_bytes
    }

    /// An id that no page has had.
    pub(super) fn next_id(&self) -> u64 {
        self.0.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

impl MemoryTier for TierHandle {
    fn put(&self, id: u64, page: Option<&Page<'_>>) -> Result<()> {
        let put = self.0.table().put.ok_or_else(|| missing("put"))?;
        if let Some(page) = page {
            let format = self.format();
            let bytes = (page.key_bytes().len(), page.value_bytes().len());
            let own = page.format() == abi::HERALD_PAGE_Q4 && self.0.config.q4_page_bytes() == Some(bytes);
            if !own && (page.format() != format || bytes != self.0.page_bytes) {
                return Err(Error::invalid(format!(
                    "page {id} has format {} with {bytes:?} bytes of keys and values, where format {format} with {:?} was \
                     expected",
                    page.format(),
                    self.0.page_bytes
                )));
            }
        }
        let raw = page.map_or(std::ptr::null(), Page::raw);
        // SAFETY: the ABI's contract; the page lives for the call.
        try_call(|error| unsafe { put(self.0.raw.as_ptr(), id, raw, error) })
    }

    fn get(&self, id: u64, keys: &mut [u8], values: &mut [u8]) -> Result<usize> {
        let get = self.0.table().get.ok_or_else(|| missing("get"))?;
        if (keys.len(), values.len()) != self.0.page_bytes {
            let short = keys.len() < self.0.page_bytes.0 || values.len() < self.0.page_bytes.1;
            let status = if short { Status::BufferTooSmall } else { Status::InvalidArgument };
            return Err(Error::new(
                status,
                format!(
                    "page {id} was to be copied to {} and {} bytes, where {:?} were expected",
                    keys.len(),
                    values.len(),
                    self.0.page_bytes
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
        try_call(|error| unsafe { get(self.0.raw.as_ptr(), id, &mut page, error) })?;
        let n_tokens = page.n_tokens as usize;
        if n_tokens > self.0.config.page_tokens {
            return Err(refused(format!(
                "its memory tier says that page {id} holds {n_tokens} tokens, where at most {} have room",
                self.0.config.page_tokens
            )));
        }
        Ok(n_tokens)
    }

    fn view(&self, id: u64) -> Result<RawPage> {
        let view = self.0.table().view.ok_or_else(|| missing("view"))?;
        let mut page: HeraldPage = AbiStruct::empty();
        // SAFETY: the ABI's contract; the page is our own.
        try_call(|error| unsafe { view(self.0.raw.as_ptr(), id, &mut page, error) })?;
        Ok(RawPage {
            n_tokens: page.n_tokens as usize,
            format: page.format,
            keys: page.keys.cast(),
            key_bytes: page.key_bytes as usize,
            values: page.values.cast(),
            value_bytes: page.value_bytes as usize,
        })
    }

    fn commit(&self, id: u64, n_tokens: usize) -> Result<()> {
        let commit = self.0.table().commit.ok_or_else(|| missing("commit"))?;
        let n_tokens =
            u32::try_from(n_tokens).map_err(|_| Error::invalid(format!("a page of {n_tokens} tokens")))?;
        // SAFETY: the ABI's contract.
        try_call(|error| unsafe { commit(self.0.raw.as_ptr(), id, n_tokens, error) })
    }

    fn drop_page(&self, id: u64) -> Result<()> {
        let drop = self.0.table().drop.ok_or_else(|| missing("drop"))?;
        // SAFETY: the ABI's contract.
        try_call(|error| unsafe { drop(self.0.raw.as_ptr(), id, error) })
    }

    fn release(&self, id: u64) -> Result<()> {
        let Some(release) = self.0.table().release else { return Ok(()) };
        // SAFETY: the ABI's contract.
        try_call(|error| unsafe { release(self.0.raw.as_ptr(), id, error) })
    }

    fn list(&self) -> Result<Vec<u64>> {
        let list = self.0.table().list.ok_or_else(|| missing("list"))?;
        let (mut ids, mut n) = (Vec::new(), 0);
        loop {
            // SAFETY: the ABI's contract; the buffer has room for all of them.
            try_call(|error| unsafe {
                list(self.0.raw.as_ptr(), ids.as_mut_ptr(), ids.len(), &mut n, error)
            })?;
            if n <= ids.len() {
                ids.truncate(n);
                return Ok(ids);
            }
            ids.resize(n, 0);
        }
    }

    fn flush(&self) -> Result<()> {
        let Some(flush) = self.0.table().flush else { return Ok(()) };
        // SAFETY: the ABI's contract.
        try_call(|error| unsafe { flush(self.0.raw.as_ptr(), error) })
    }

    fn stats(&self) -> TierStats {
        let mut raw: HeraldTierStats = AbiStruct::empty();
        if let Some(stats) = self.0.table().stats {
            // SAFETY: the ABI's contract; the answer is our own. A tier that can't say counts as empty.
            let _ = try_call(|error| unsafe { stats(self.0.raw.as_ptr(), &mut raw, error) });
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

    fn search(&self, query: &[f32], ids: &[u64], k: usize) -> Result<Vec<Found>> {
        let search = self.0.table().search.ok_or_else(|| missing("search"))?;
        let width = self.0.config.n_kv_heads * self.0.config.key_dim;
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
            let tier = self.0.raw.as_ptr();
            search(tier, &raw, room, found.as_mut_ptr(), scores.as_mut_ptr(), &mut n, error)
        })?;
        if n > room {
            return Err(refused(format!("its search found {n} pages, where at most {room} were asked for")));
        }
        Ok(found.into_iter().zip(scores).take(n).map(|(id, score)| Found { id, score }).collect())
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
