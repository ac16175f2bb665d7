//! Memory tiers of a plugin, and the pages in them.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Inner, Plugin, call, refused};
use crate::abi::{
    self, AbiStruct, HeraldPage, HeraldTier, HeraldTierConfig, HeraldTierQuery, HeraldTierStats,
    HeraldTierTable,
};
use crate::call::Page;
use crate::{
    AlignedBytes, Error, Found, MemoryTier, RawPage, Result, Status, TierConfig, TierKind, TierStats,
};

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
        call(|error| unsafe { create(&raw, &mut made, error) })?;
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
    /// The format of pages as attention writes them, or of states.
    fn format(&self) -> u32 {
        if self.config.state_bytes > 0 { abi::HERALD_PAGE_OPAQUE } else { abi::HERALD_PAGE_I16 }
    }

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

    /// Makes an empty page, which the handle owns: dropping it drops the page.
    ///
    /// # Errors
    /// As [`MemoryTier::put`] and [`MemoryTier::view`].
    pub fn reserve(&self) -> Result<PageHandle> {
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        self.put(id, None)?;
        self.seen(id, self.0.format(), self.0.page_bytes)
    }

    /// Keeps a whole page of another tier in this one's own format, where it can be read in place: as
    /// [`abi::HERALD_PAGE_Q4`]. The handle owns it.
    ///
    /// # Errors
    /// As [`MemoryTier::put`] and [`MemoryTier::view`].
    pub fn keep(&self, page: &PageHandle) -> Result<PageHandle> {
        let id = self.put_whole(page)?;
        let bytes = self.0.config.q4_page_bytes().ok_or_else(|| Error::invalid("a page that overflows"))?;
        self.seen(id, abi::HERALD_PAGE_Q4, bytes)
    }

    /// Keeps a whole page of another tier, where it is only read while it is opened. Dropping the result drops the page.
    ///
    /// # Errors
    /// As [`MemoryTier::put`].
    pub fn store(&self, page: &PageHandle) -> Result<StoredPage> {
        Ok(StoredPage { tier: self.clone(), id: self.put_whole(page)? })
    }

    /// The page `id` of a tier that found it in its file. Dropping the result drops the page, so there may be one for each
    /// page.
    #[must_use]
    pub fn stored(&self, id: u64) -> StoredPage {
        StoredPage { tier: self.clone(), id }
    }

    fn put_whole(&self, page: &PageHandle) -> Result<u64> {
        let (keys, values) = page.bytes();
        let view = Page::new(page.format(), page.capacity(), page.capacity(), keys, values)
            .ok_or_else(|| Error::invalid("a page to keep is not aligned"))?;
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        self.put(id, Some(&view))?;
        Ok(id)
    }

    /// Copies a page of this tier out to a page of an active tier.
    ///
    /// # Errors
    /// As [`MemoryTier::get`]; [`Status::InvalidArgument`] where the page isn't this tier's or the shapes differ.
    pub fn restore(&self, page: &PageHandle, into: &mut PageHandle) -> Result<()> {
        if !matches!(&page.held, Held::InTier(tier) if tier.is(self)) {
            return Err(Error::invalid("a page was to be restored by a tier that it doesn't belong to"));
        }
        self.copy_out(page.id, into)
    }

    fn copy_out(&self, id: u64, into: &mut PageHandle) -> Result<()> {
        if into.format() != abi::HERALD_PAGE_I16 {
            return Err(Error::invalid("a page was to be restored to one of another format"));
        }
        let buffer = |pointer: *mut c_void, len: u64| -> &mut [u8] {
            if len == 0 {
                return &mut [];
            }
            // SAFETY: the page has so many bytes there, and is borrowed mutably.
            unsafe { std::slice::from_raw_parts_mut(pointer.cast(), len as usize) }
        };
        let keys = buffer(into.raw.keys, into.raw.key_bytes);
        let values = buffer(into.raw.values, into.raw.value_bytes);
        self.get(id, keys, values).map(drop)
    }

    /// The handle of a page that was put under `id`, which must be seen in this format and size, at aligned places.
    fn seen(&self, id: u64, format: u32, page_bytes: (usize, usize)) -> Result<PageHandle> {
        // From here on, dropping the handle drops the page.
        let held = Held::InTier(self.clone());
        let mut handle = PageHandle { held, id, raw: AbiStruct::empty() };
        handle.raw = self.in_place(id, format, page_bytes)?;
        Ok(handle)
    }

    /// Where the tier keeps a page, which must be in this format and size, at aligned places.
    fn in_place(&self, id: u64, format: u32, page_bytes: (usize, usize)) -> Result<HeraldPage> {
        let seen = self.view(id)?;
        let aligned = |pointer: *mut u8, bytes: usize| {
            bytes == 0 || (!pointer.is_null() && (pointer as usize).is_multiple_of(AlignedBytes::ALIGN))
        };
        if (seen.key_bytes, seen.value_bytes) != page_bytes
            || seen.format != format
            || !aligned(seen.keys, seen.key_bytes)
            || !aligned(seen.values, seen.value_bytes)
        {
            return Err(refused(format!(
                "its memory tier gave a page of format {} with {} and {} bytes at {:p} and {:p}, where format {format} with \
                 {page_bytes:?} bytes at aligned places was expected",
                seen.format, seen.key_bytes, seen.value_bytes, seen.keys, seen.values
            )));
        }
        Ok(HeraldPage {
            capacity: self.0.config.page_tokens as u32,
            format: seen.format,
            keys: seen.keys.cast(),
            values: seen.values.cast(),
            key_bytes: seen.key_bytes as u64,
            value_bytes: seen.value_bytes as u64,
            ..AbiStruct::empty()
        })
    }
}

/// A page in a tier that is not in place at all times: it can be opened for as long as it is read. The tier drops it when it
/// is dropped itself.
pub struct StoredPage {
    tier: TierHandle,
    id: u64,
}

impl StoredPage {
    /// The id that the tier knows it by.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The tier.
    #[must_use]
    pub fn tier(&self) -> &TierHandle {
        &self.tier
    }

    /// The page in place, as [`abi::HERALD_PAGE_Q4`], until the handle is dropped.
    ///
    /// # Errors
    /// As [`MemoryTier::view`].
    pub fn open(self: &Arc<Self>) -> Result<PageHandle> {
        let config = self.tier.config();
        let bytes = config.q4_page_bytes().ok_or_else(|| Error::invalid("a page that overflows"))?;
        let raw = self.tier.in_place(self.id, abi::HERALD_PAGE_Q4, bytes)?;
        Ok(PageHandle { held: Held::Opened(Arc::clone(self)), id: self.id, raw })
    }

    /// Copies it out to a page of an active tier.
    ///
    /// # Errors
    /// As [`MemoryTier::get`].
    pub fn restore(&self, into: &mut PageHandle) -> Result<()> {
        self.tier.copy_out(self.id, into)
    }
}

impl Drop for StoredPage {
    fn drop(&mut self) {
        // Nobody is left to tell: the page is either gone or the tier is failing as a whole.
        let _ = self.tier.drop_page(self.id);
    }
}

impl MemoryTier for TierHandle {
    fn put(&self, id: u64, page: Option<&Page<'_>>) -> Result<()> {
        let put = self.0.table().put.ok_or_else(|| missing("put"))?;
        if let Some(page) = page {
            let format = self.0.format();
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
        call(|error| unsafe { put(self.0.raw.as_ptr(), id, raw, error) })
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
        call(|error| unsafe { get(self.0.raw.as_ptr(), id, &mut page, error) })?;
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
        call(|error| unsafe { view(self.0.raw.as_ptr(), id, &mut page, error) })?;
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
        call(|error| unsafe { commit(self.0.raw.as_ptr(), id, n_tokens, error) })
    }

    fn drop_page(&self, id: u64) -> Result<()> {
        let drop = self.0.table().drop.ok_or_else(|| missing("drop"))?;
        // SAFETY: the ABI's contract.
        call(|error| unsafe { drop(self.0.raw.as_ptr(), id, error) })
    }

    fn release(&self, id: u64) -> Result<()> {
        let Some(release) = self.0.table().release else { return Ok(()) };
        // SAFETY: the ABI's contract.
        call(|error| unsafe { release(self.0.raw.as_ptr(), id, error) })
    }

    fn list(&self) -> Result<Vec<u64>> {
        let list = self.0.table().list.ok_or_else(|| missing("list"))?;
        let (mut ids, mut n) = (Vec::new(), 0);
        loop {
            // SAFETY: the ABI's contract; the buffer has room for so many.
            call(|error| unsafe { list(self.0.raw.as_ptr(), ids.as_mut_ptr(), ids.len(), &mut n, error) })?;
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
        call(|error| unsafe { flush(self.0.raw.as_ptr(), error) })
    }

    fn stats(&self) -> TierStats {
        let mut raw: HeraldTierStats = AbiStruct::empty();
        if let Some(stats) = self.0.table().stats {
            // SAFETY: the ABI's contract; the answer is our own. A tier that can't say counts as empty.
            let _ = call(|error| unsafe { stats(self.0.raw.as_ptr(), &mut raw, error) });
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
        call(|error| unsafe {
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

/// A page in place: one in a tier, which drops it when the handle is dropped; one that was opened; or one of the host's own
/// bytes.
pub struct PageHandle {
    held: Held,
    id: u64,
    raw: HeraldPage,
}

/// What keeps a page's bytes where they are.
enum Held {
    /// The tier, which drops the page with the handle.
    InTier(TierHandle),
    /// A page that is released with the handle.
    Opened(Arc<StoredPage>),
    /// The handle itself.
    Own(AlignedBytes),
}

// SAFETY: the bytes that it points to are its own until it is dropped, like a Box's; writing them takes `&mut`.
unsafe impl Send for PageHandle {}
// SAFETY: as for Send.
unsafe impl Sync for PageHandle {}

impl PageHandle {
    /// The id that the tier knows it by.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Tokens that it has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.raw.capacity as usize
    }

    /// Tells the tier that the first `n_tokens` slots are written.
    ///
    /// # Errors
    /// As [`MemoryTier::commit`].
    pub fn commit(&mut self, n_tokens: usize) -> Result<()> {
        match &self.held {
            Held::InTier(tier) => tier.commit(self.id, n_tokens),
            Held::Opened(_) | Held::Own(_) => Ok(()),
        }
    }

    /// A whole page of the host's own bytes, in the format [`abi::HERALD_PAGE_Q4`] and of the shape of a tier's pages:
    /// keys, then values at the next multiple of [`AlignedBytes::ALIGN`].
    ///
    /// # Errors
    /// [`Status::InvalidArgument`] where there are not so many bytes.
    pub fn of_bytes(config: &TierConfig, bytes: AlignedBytes) -> Result<Self> {
        let (keys, values) = config.q4_page_bytes().ok_or_else(|| Error::invalid("a page that overflows"))?;
        let start = keys.next_multiple_of(AlignedBytes::ALIGN);
        if bytes.len() != start + values {
            return Err(Error::invalid(format!(
                "a page has {} bytes, where {} were expected",
                bytes.len(),
                start + values
            )));
        }
        let raw = HeraldPage {
            capacity: config.page_tokens as u32,
            format: abi::HERALD_PAGE_Q4,
            keys: bytes.as_ptr().cast(),
            values: bytes.as_ptr().wrapping_add(start).cast(),
            key_bytes: keys as u64,
            value_bytes: values as u64,
            ..AbiStruct::empty()
        };
        Ok(Self { held: Held::Own(bytes), id: 0, raw })
    }

    /// Bytes of the handle's own; 0 for a page in a tier.
    #[must_use]
    pub fn own_bytes(&self) -> usize {
        match &self.held {
            Held::Own(bytes) => bytes.len(),
            Held::InTier(_) | Held::Opened(_) => 0,
        }
    }

    /// Its format, `HERALD_PAGE_*`.
    #[must_use]
    pub fn format(&self) -> u32 {
        self.raw.format
    }

    /// The bytes of its keys (or of the state) and of its values.
    #[must_use]
    pub fn bytes(&self) -> (&[u8], &[u8]) {
        let bytes = |pointer: *mut c_void, len: u64| -> &[u8] {
            if len == 0 {
                return &[];
            }
            // SAFETY: the tier holds so many bytes there until the handle is dropped; writing them takes `&mut self`.
            unsafe { std::slice::from_raw_parts(pointer.cast_const().cast(), len as usize) }
        };
        (bytes(self.raw.keys, self.raw.key_bytes), bytes(self.raw.values, self.raw.value_bytes))
    }

    /// Overwrites it with the contents of another page of the same tier.
    ///
    /// # Errors
    /// [`crate::Status::InvalidArgument`] where the other has another format or size.
    pub fn copy_from(&mut self, other: &Self) -> Result<()> {
        self.writable()?;
        let shape = |page: &Self| (page.raw.format, page.raw.key_bytes, page.raw.value_bytes);
        if shape(self) != shape(other) {
            return Err(Error::invalid(format!(
                "a page of format, key and value bytes {:?} was to be copied to one of {:?}",
                shape(other),
                shape(self)
            )));
        }
        for (to, from) in [(self.raw.keys, other.bytes().0), (self.raw.values, other.bytes().1)] {
            if !from.is_empty() {
                // SAFETY: both have so many bytes; this page is borrowed mutably, so the other is another page.
                unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.cast(), from.len()) };
            }
        }
        Ok(())
    }

    /// What was opened may lie in memory that can only be read.
    fn writable(&self) -> Result<()> {
        if matches!(self.held, Held::Opened(_)) {
            return Err(Error::invalid("a page that was opened for reading was to be written"));
        }
        Ok(())
    }

    pub(super) fn raw(&self) -> HeraldPage {
        self.raw
    }
}

impl PageHandle {
    /// Overwrites it with bytes of keys (or of the state) and of values, as another page's [`PageHandle::bytes`] gave them.
    ///
    /// # Errors
    /// [`crate::Status::InvalidArgument`] where there are more or fewer than it holds.
    pub fn overwrite(&mut self, keys: &[u8], values: &[u8]) -> Result<()> {
        self.writable()?;
        let found = (keys.len() as u64, values.len() as u64);
        if found != (self.raw.key_bytes, self.raw.value_bytes) {
            return Err(Error::invalid(format!(
                "a page was to be filled with {found:?} bytes of keys and values, where {:?} were expected",
                (self.raw.key_bytes, self.raw.value_bytes)
            )));
        }
        for (to, from) in [(self.raw.keys, keys), (self.raw.values, values)] {
            if !from.is_empty() {
                // SAFETY: the page has so many bytes there, which are this handle's alone while it is borrowed mutably; the
                // source is a slice that lives beside that borrow.
                unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.cast(), from.len()) };
            }
        }
        Ok(())
    }
}

impl Drop for PageHandle {
    fn drop(&mut self) {
        // Nobody is left to tell: the page is either gone or the tier is failing as a whole.
        let _ = match &self.held {
            Held::InTier(tier) => tier.drop_page(self.id),
            Held::Opened(stored) => stored.tier.release(self.id),
            Held::Own(_) => Ok(()),
        };
    }
}

const _: () = assert!(abi::HERALD_PAGE_I16 != 0, "an empty HeraldPage must have no valid format");
