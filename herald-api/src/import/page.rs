//! Pages in a plugin's memory tiers, or of the host's own bytes.

use std::ffi::c_void;
use std::sync::Arc;

use super::refused;
use super::tier::{Made, TierHandle};
use crate::abi::{self, AbiStruct, HeraldPage};
use crate::{AlignedBytes, Error, Page, Result, TierConfig};

impl TierHandle {
    /// Makes an empty page, which the handle owns: dropping it drops the page.
    ///
    /// # Errors
    /// As [`MemoryTier::put`](crate::MemoryTier::put) and [`MemoryTier::view`](crate::MemoryTier::view).
    pub fn reserve(&self) -> Result<PageHandle> {
        let tier = self.made();
        let id = tier.next_id();
        tier.put(id, None)?;
        self.seen(id, tier.format(), tier.page_bytes())
    }

    /// Keeps a whole page of another tier in this one's own format, where it can be read in place: as
    /// [`abi::HERALD_PAGE_Q4`]. The handle owns it.
    ///
    /// # Errors
    /// As [`MemoryTier::put`](crate::MemoryTier::put) and [`MemoryTier::view`](crate::MemoryTier::view).
    pub fn keep(&self, page: &PageHandle) -> Result<PageHandle> {
        let id = self.put_whole(page)?;
        let bytes = self.config().q4_page_bytes().ok_or_else(|| Error::invalid("a page that overflows"))?;
        self.seen(id, abi::HERALD_PAGE_Q4, bytes)
    }

    /// Keeps a whole page of another tier, where it is only read while it is opened. Dropping the result drops the page.
    ///
    /// # Errors
    /// As [`MemoryTier::put`](crate::MemoryTier::put).
    pub fn store(&self, page: &PageHandle) -> Result<StoredPage> {
        Ok(StoredPage::new(self, self.put_whole(page)?))
    }

    fn put_whole(&self, page: &PageHandle) -> Result<u64> {
        let (keys, values) = page.bytes();
        let view = Page::new(page.format(), page.capacity(), page.capacity(), keys, values)
            .ok_or_else(|| Error::invalid("a page to keep is not aligned"))?;
        let id = self.made().next_id();
        self.made().put(id, Some(&view))?;
        Ok(id)
    }

    /// Copies a page of this tier out to a page of an active tier.
    ///
    /// # Errors
    /// As [`MemoryTier::get`](crate::MemoryTier::get); [`crate::Status::InvalidArgument`] where the page isn't this tier's or the shapes differ.
    pub fn restore(&self, page: &PageHandle, into: &mut PageHandle) -> Result<()> {
        if !matches!(&page.held, Held::InTier(tier) if tier.is(self)) {
            return Err(Error::invalid("a page was to be restored by a tier that it doesn't belong to"));
        }
        self.made().copy_out(page.id, into)
    }

    /// The handle of a page that was put under `id`, which must be seen in this format and size, at aligned addresses.
    fn seen(&self, id: u64, format: u32, page_bytes: (usize, usize)) -> Result<PageHandle> {
        // From here on, dropping the handle drops the page.
        let held = Held::InTier(self.clone());
        let mut handle = PageHandle { held, id, raw: AbiStruct::empty() };
        handle.raw = self.made().in_place(id, format, page_bytes)?;
        Ok(handle)
    }
}

impl Made {
    fn copy_out(&self, id: u64, into: &mut PageHandle) -> Result<()> {
        into.writable()?;
        if into.format() != abi::HERALD_PAGE_I16 {
            return Err(Error::invalid("a page was to be restored to one of another format"));
        }
        let buffer = |pointer: *mut c_void, len: u64| -> &mut [u8] {
            if len == 0 {
                return &mut [];
            }
            // SAFETY: the page has this many bytes there, and is borrowed mutably.
            unsafe { std::slice::from_raw_parts_mut(pointer.cast(), len as usize) }
        };
        let keys = buffer(into.raw.keys, into.raw.key_bytes);
        let values = buffer(into.raw.values, into.raw.value_bytes);
        self.get(id, keys, values).map(drop)
    }

    /// Where the tier keeps a page, which must be in this format and size, at aligned addresses.
    fn in_place(&self, id: u64, format: u32, page_bytes: (usize, usize)) -> Result<HeraldPage> {
        let seen = self.view(id)?;
        let ((keys, key_bytes), (values, value_bytes)) = (seen.keys(), seen.values());
        let aligned = |pointer: *mut u8, bytes: usize| {
            bytes == 0 || (!pointer.is_null() && (pointer as usize).is_multiple_of(AlignedBytes::ALIGN))
        };
        if (key_bytes, value_bytes) != page_bytes
            || seen.format() != format
            || !aligned(keys, key_bytes)
            || !aligned(values, value_bytes)
        {
            // What was viewed is released, and an error of that adds nothing.
            let _ = self.release(id);
            return Err(refused(format!(
                "its memory tier gave a page of format {} with {key_bytes} and {value_bytes} bytes at {keys:p} and \
                 {values:p}, where format {format} with {page_bytes:?} bytes at aligned addresses was expected",
                seen.format()
            )));
        }
        Ok(HeraldPage {
            capacity: self.config().page_tokens as u32,
            format,
            keys: keys.cast(),
            values: values.cast(),
            key_bytes: key_bytes as u64,
            value_bytes: value_bytes as u64,
            ..AbiStruct::empty()
        })
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
    /// Tokens that it has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.raw.capacity as usize
    }

    /// Whether it is this page, opened.
    #[must_use]
    pub fn is_opened_of(&self, stored: &Arc<StoredPage>) -> bool {
        matches!(&self.held, Held::Opened(opened) if Arc::ptr_eq(opened, stored))
    }

    /// Tells the tier that the first `n_tokens` slots are written.
    ///
    /// # Errors
    /// As [`MemoryTier::commit`](crate::MemoryTier::commit).
    pub fn commit(&mut self, n_tokens: usize) -> Result<()> {
        match &self.held {
            Held::InTier(tier) => tier.made().commit(self.id, n_tokens),
            Held::Opened(_) | Held::Own(_) => Ok(()),
        }
    }

    /// A whole page of the host's own bytes, in the format [`abi::HERALD_PAGE_Q4`] and of the shape of a tier's pages:
    /// keys, then values at the next multiple of [`AlignedBytes::ALIGN`].
    ///
    /// # Errors
    /// [`crate::Status::InvalidArgument`] where there are more or fewer bytes.
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
            // SAFETY: the tier holds this many bytes there until the handle is dropped; writing them takes `&mut self`.
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
                // SAFETY: both have this many bytes; this page is borrowed mutably, so the other is another page.
                unsafe { std::ptr::copy(from.as_ptr(), to.cast(), from.len()) };
            }
        }
        Ok(())
    }

    /// What was opened may lie in memory that can only be read.
    pub(super) fn writable(&self) -> Result<()> {
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
                // SAFETY: the page has this many bytes there, which are this handle's alone while it is borrowed mutably; the
                // source is another slice.
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
            Held::InTier(tier) => tier.made().drop_page(self.id),
            Held::Opened(stored) => stored.tier.made().release(self.id),
            Held::Own(_) => Ok(()),
        };
    }
}

const _: () = assert!(abi::HERALD_PAGE_I16 != 0, "an empty HeraldPage must have no valid format");

/// A page in a tier that is not in place at all times: it can be opened for as long as it is read. The tier drops it when it
/// is dropped itself.
pub struct StoredPage {
    tier: TierHandle,
    id: u64,
}

impl StoredPage {
    /// The owner of the page `id`, of which there must be no other.
    pub(super) fn new(tier: &TierHandle, id: u64) -> Self {
        Self { tier: tier.clone(), id }
    }

    /// The tier.
    #[must_use]
    pub fn tier(&self) -> &TierHandle {
        &self.tier
    }

    /// The page in place, as [`abi::HERALD_PAGE_Q4`], until the handle is dropped.
    ///
    /// # Errors
    /// As [`MemoryTier::view`](crate::MemoryTier::view).
    pub fn open(self: &Arc<Self>) -> Result<PageHandle> {
        let config = self.tier.config();
        let bytes = config.q4_page_bytes().ok_or_else(|| Error::invalid("a page that overflows"))?;
        let raw = self.tier.made().in_place(self.id, abi::HERALD_PAGE_Q4, bytes)?;
        Ok(PageHandle { held: Held::Opened(Arc::clone(self)), id: self.id, raw })
    }

    /// Copies it out to a page of an active tier.
    ///
    /// # Errors
    /// As [`MemoryTier::get`](crate::MemoryTier::get).
    pub fn restore(&self, into: &mut PageHandle) -> Result<()> {
        self.tier.made().copy_out(self.id, into)
    }
}

impl Drop for StoredPage {
    fn drop(&mut self) {
        // Nobody is left to tell: the page is either gone or the tier is failing as a whole.
        let _ = self.tier.made().drop_page(self.id);
    }
}
