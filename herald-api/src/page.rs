//! Pages of keys and values, as a backend sees them.

use std::ffi::c_void;
use std::marker::PhantomData;

use crate::abi::{AbiStruct, HeraldPage};

/// No sequence is believed to be longer, so that positions in it can be added without overflow.
pub(crate) const MAX_TOKENS: u64 = 1 << 48;

/// A page of keys and values (or a recurrent state), seen through the struct that crossed the boundary.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    raw: HeraldPage,
    lent: PhantomData<&'a [u8]>,
}

impl<'a> Page<'a> {
    /// A page that the caller holds: `n_tokens` tokens of the `capacity` that `keys` and `values` have room for.
    /// `None` where they contradict each other, or are not aligned to 8 bytes.
    #[must_use]
    pub fn new(
        format: u32,
        n_tokens: usize,
        capacity: usize,
        keys: &'a [u8],
        values: &'a [u8],
    ) -> Option<Self> {
        let raw = HeraldPage {
            n_tokens: u32::try_from(n_tokens).ok()?,
            capacity: u32::try_from(capacity).ok()?,
            format,
            keys: keys.as_ptr().cast_mut().cast(),
            values: values.as_ptr().cast_mut().cast(),
            key_bytes: keys.len() as u64,
            value_bytes: values.len() as u64,
            ..AbiStruct::empty()
        };
        // SAFETY: the pointers are of slices that hold for 'a. Nothing writes through them: that takes `key_slot`, whose
        // callers write only pages that a call lent them.
        unsafe { Self::from_raw(raw) }.ok()
    }

    pub(crate) fn raw(&self) -> *const HeraldPage {
        &raw const self.raw
    }

    /// A page that the other side described.
    ///
    /// # Safety
    /// The pointers of `raw` hold for the lifetime `'a`.
    pub(crate) unsafe fn from_raw(raw: HeraldPage) -> Result<Self, String> {
        let holds = |pointer: *mut c_void, bytes: u64| {
            bytes == 0
                || (!pointer.is_null() && pointer.cast::<u64>().is_aligned() && bytes <= isize::MAX as u64)
        };
        if !holds(raw.keys, raw.key_bytes) || !holds(raw.values, raw.value_bytes) {
            return Err(format!(
                "HeraldPage at token {} has {} bytes of keys at {:p} and {} of values at {:p}, where aligned memory \
                 was expected",
                raw.start, raw.key_bytes, raw.keys, raw.value_bytes, raw.values
            ));
        }
        if raw.n_tokens > raw.capacity || raw.start > MAX_TOKENS {
            return Err(format!(
                "HeraldPage at token {} says that it holds {} tokens with room for {}",
                raw.start, raw.n_tokens, raw.capacity
            ));
        }
        Ok(Self { raw, lent: PhantomData })
    }

    /// A page that [`Page::from_raw`] has accepted before, read again.
    ///
    /// # Safety
    /// It did, and the pointers hold for the lifetime `'a`.
    #[inline]
    pub(crate) unsafe fn accepted(raw: HeraldPage) -> Self {
        Self { raw, lent: PhantomData }
    }

    /// The position in its sequence of the page's first token.
    #[must_use]
    pub fn start(&self) -> usize {
        self.raw.start as usize
    }

    /// Tokens that it holds.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        self.raw.n_tokens as usize
    }

    /// Tokens that it has room for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.raw.capacity as usize
    }

    /// `HERALD_PAGE_*`.
    #[must_use]
    pub fn format(&self) -> u32 {
        self.raw.format
    }

    /// The bytes of its keys, or of the state.
    #[must_use]
    pub fn key_bytes(&self) -> &'a [u8] {
        bytes(self.raw.keys, self.raw.key_bytes)
    }

    /// The bytes of its values.
    #[must_use]
    pub fn value_bytes(&self) -> &'a [u8] {
        bytes(self.raw.values, self.raw.value_bytes)
    }

    /// Its keys ([`HERALD_PAGE_I16`](crate::abi::HERALD_PAGE_I16)).
    #[must_use]
    pub fn keys(&self, n_kv_heads: usize) -> I16Rows<'a> {
        self.rows(self.key_bytes(), n_kv_heads)
    }

    /// Its values ([`HERALD_PAGE_I16`](crate::abi::HERALD_PAGE_I16)).
    #[must_use]
    pub fn values(&self, n_kv_heads: usize) -> I16Rows<'a> {
        self.rows(self.value_bytes(), n_kv_heads)
    }

    fn rows(&self, bytes: &'a [u8], n_kv_heads: usize) -> I16Rows<'a> {
        let slots = n_kv_heads * self.capacity();
        let (scales, codes) = bytes.split_at(bytes.len().min(slots * size_of::<f32>()));
        // SAFETY: any bits are floats and integers. The page's start is aligned to 8 (`from_raw`), and so what follows a
        // whole number of float32 to 2; what isn't whole is left out.
        let (scales, codes) = unsafe { (scales.align_to().1, codes.align_to().1) };
        I16Rows { scales, codes }
    }

    /// Its keys and values ([`HERALD_PAGE_Q4`](crate::abi::HERALD_PAGE_Q4)).
    #[must_use]
    pub fn quantised(&self, n_kv_heads: usize, key_dim: usize, value_dim: usize) -> [Q4Rows<'a>; 2] {
        let capacity = self.capacity();
        let rows = |bytes: &'a [u8], pairs: usize| {
            let (pairs, codes) = bytes.split_at(bytes.len().min(pairs * 4));
            // SAFETY: any bits are pairs of 16-bit numbers; the page's start is aligned to 8 (`from_raw`).
            Q4Rows { pairs: unsafe { pairs.align_to().1 }, codes }
        };
        [
            rows(self.key_bytes(), n_kv_heads * capacity.div_ceil(Q4_GROUP) * key_dim),
            rows(self.value_bytes(), n_kv_heads * capacity * value_dim.div_ceil(Q4_GROUP)),
        ]
    }

    /// Where the key of a head in a slot is written: its scale, and its codes.
    ///
    /// # Safety
    /// The page has the shape of `n_kv_heads` heads, head and slot are within it, and while the result lives nobody else
    /// reads or writes this head of this slot.
    #[must_use]
    pub unsafe fn key_slot(
        &self,
        n_kv_heads: usize,
        head: usize,
        slot: usize,
    ) -> (&'a mut f32, &'a mut [i16]) {
        // SAFETY: this function's contract is the same.
        unsafe { self.slot(self.raw.keys, self.raw.key_bytes, n_kv_heads, head * self.capacity() + slot) }
    }

    /// Where the value of a head in a slot is written.
    ///
    /// # Safety
    /// As for [`Page::key_slot`].
    #[must_use]
    pub unsafe fn value_slot(
        &self,
        n_kv_heads: usize,
        head: usize,
        slot: usize,
    ) -> (&'a mut f32, &'a mut [i16]) {
        // SAFETY: this function's contract is the same.
        unsafe { self.slot(self.raw.values, self.raw.value_bytes, n_kv_heads, head * self.capacity() + slot) }
    }

    /// # Safety
    /// As for [`Page::key_slot`], of the row `row` of `[n_kv_heads, capacity]`.
    unsafe fn slot(
        &self,
        base: *mut c_void,
        bytes: u64,
        n_kv_heads: usize,
        row: usize,
    ) -> (&'a mut f32, &'a mut [i16]) {
        let slots = n_kv_heads * self.capacity();
        let scales = slots.checked_mul(size_of::<f32>()).filter(|scales| *scales as u64 <= bytes);
        assert!(row < slots && scales.is_some(), "row {row} of a page of {slots} in {bytes} bytes");
        let dim = (bytes as usize / slots).saturating_sub(size_of::<f32>()) / size_of::<i16>();
        // SAFETY: the row is within the page (checked, and the caller's page has this shape); aligned as in `rows`; nobody else
        // is at the row, which is the caller's part of the contract.
        unsafe {
            let codes = base.cast::<f32>().add(slots).cast::<i16>().add(row * dim);
            (&mut *base.cast::<f32>().add(row), std::slice::from_raw_parts_mut(codes, dim))
        }
    }
}

/// Tokens of keys, and channels of values, that share a step and an offset in a page of 4-bit codes.
pub const Q4_GROUP: usize = 64;

/// Keys or values of a page of 4-bit codes; see [`HERALD_PAGE_Q4`](crate::abi::HERALD_PAGE_Q4).
#[derive(Clone, Copy, Debug)]
pub struct Q4Rows<'a> {
    /// Steps and offsets, each the bits of a float16. Keys: `[n_kv_heads, ceil(capacity / 64), key_dim]`, values:
    /// `[n_kv_heads, capacity, ceil(value_dim / 64)]`.
    pub pairs: &'a [[u16; 2]],
    /// `[n_kv_heads, capacity, ceil(dim / 2)]`.
    pub codes: &'a [u8],
}

/// Bytes of a page's keys and values as [`HERALD_PAGE_Q4`](crate::abi::HERALD_PAGE_Q4) lays them out; `None` where that overflows.
#[must_use]
pub fn q4_page_bytes(
    n_kv_heads: usize,
    key_dim: usize,
    value_dim: usize,
    capacity: usize,
) -> Option<(usize, usize)> {
    let codes = |dim: usize| n_kv_heads.checked_mul(capacity)?.checked_mul(dim.div_ceil(2));
    let key_pairs = n_kv_heads.checked_mul(capacity.div_ceil(Q4_GROUP))?.checked_mul(key_dim)?;
    let value_pairs = n_kv_heads.checked_mul(capacity)?.checked_mul(value_dim.div_ceil(Q4_GROUP))?;
    let bytes = |pairs: usize, codes: usize| pairs.checked_mul(4)?.checked_add(codes);
    Some((bytes(key_pairs, codes(key_dim)?)?, bytes(value_pairs, codes(value_dim)?)?))
}

/// Keys or values of a page: an element is its scale times its code.
#[derive(Clone, Copy, Debug)]
pub struct I16Rows<'a> {
    /// `[n_kv_heads, capacity]`.
    pub scales: &'a [f32],
    /// `[n_kv_heads, capacity, dim]`.
    pub codes: &'a [i16],
}

pub(crate) fn bytes<'a>(pointer: *mut c_void, len: u64) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: `from_raw` checked the pointer; whoever made the view holds the bytes during 'a.
    unsafe { std::slice::from_raw_parts(pointer.cast_const().cast(), len as usize) }
}

// SAFETY: through a shared reference these only read what the host lent for the call, as any thread may; what they give
// for writing is raw pointers, whose use is their user's word.
unsafe impl Send for Page<'_> {}
// SAFETY: as for Send.
unsafe impl Sync for Page<'_> {}
