//! Sequences of a batch, as a backend sees them.

use std::marker::PhantomData;
use std::ops::Range;

use crate::abi::{self, AbiStruct, HeraldSequence};
use crate::page::{MAX_TOKENS, Page, bytes, q4_page_bytes};
use crate::{Attention, Lora};

/// What a layer said when it was made, which bounds what its calls bring.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    /// Bytes of a sequence's recurrent state.
    pub(crate) state_bytes: usize,
    /// Bytes of a page's summary.
    pub(crate) summary_bytes: usize,
    /// Formats of whole pages that it reads besides 16-bit integers.
    pub(crate) page_formats: u32,
    /// The largest rank of low-rank updates of its weights.
    pub(crate) max_lora_rank: usize,
}

/// One sequence's part of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    raw: HeraldSequence,
    needs: Needs,
    lent: PhantomData<&'a ()>,
}

impl<'a> Sequence<'a> {
    /// The indices of its tokens in the batch.
    #[must_use]
    pub fn batch(&self) -> Range<usize> {
        self.raw.first as usize..(self.raw.first + self.raw.n_tokens) as usize
    }

    /// Tokens that it had before this batch: the position in the sequence of its first token here.
    #[must_use]
    pub fn past(&self) -> usize {
        self.raw.past as usize
    }

    /// How many KV pages it has.
    #[must_use]
    pub fn n_pages(&self) -> usize {
        self.raw.n_pages
    }

    /// Its page `index`, in rising order of start.
    ///
    /// # Panics
    /// Where `index` is not less than `n_pages`.
    #[must_use]
    #[inline]
    pub fn page(&self, index: usize) -> Page<'a> {
        assert!(index < self.raw.n_pages, "page {index} of {}", self.raw.n_pages);
        // SAFETY: `Sequences::from_raw` has read and accepted every page of every sequence.
        unsafe {
            let raw = abi::read(self.raw.pages.add(index).read());
            Page::accepted(raw.unwrap_or_else(|_| AbiStruct::empty()))
        }
    }

    /// The position in the sequence of a page's first token: [`Page::start`] without the rest of the page.
    ///
    /// # Panics
    /// As [`Sequence::page`].
    #[must_use]
    #[inline]
    pub fn page_start(&self, index: usize) -> usize {
        assert!(index < self.raw.n_pages, "page {index} of {}", self.raw.n_pages);
        // SAFETY: `Sequences::from_raw` has read every page of every sequence, and the start is among what each has.
        unsafe { (&raw const (*self.raw.pages.add(index).read()).start).read() as usize }
    }

    /// The format of a page: [`Page::format`] without the rest of the page.
    ///
    /// # Panics
    /// As [`Sequence::page`].
    #[must_use]
    #[inline]
    pub fn page_format(&self, index: usize) -> u32 {
        assert!(index < self.raw.n_pages, "page {index} of {}", self.raw.n_pages);
        // SAFETY: as for the start.
        unsafe { (&raw const (*self.raw.pages.add(index).read()).format).read() }
    }

    /// Its pages, in rising order of start.
    pub fn pages(&self) -> impl Iterator<Item = Page<'a>> + use<'a> {
        let this = *self;
        (0..self.raw.n_pages).map(move |index| this.page(index))
    }

    /// Page selection: the positions where its selectable pages begin, rising.
    #[must_use]
    pub fn selectable_starts(&self) -> &'a [u64] {
        if self.raw.n_selectable == 0 {
            return &[];
        }
        // SAFETY: `Sequences::from_raw` checked the pointer; the host lent that many for 'a.
        unsafe { std::slice::from_raw_parts(self.raw.selectable_starts, self.raw.n_selectable) }
    }

    /// The summaries of its selectable pages, each of the `summary_bytes` that the layer asked for.
    #[must_use]
    pub fn selectable_summaries(&self) -> &'a [u8] {
        // `Sequences::from_raw` checked the pointer, and that the product is a possible size.
        let len = self.raw.n_selectable * self.needs.summary_bytes;
        bytes(self.raw.selectable_summaries.cast_mut(), len as u64)
    }

    /// The greatest distance between a query and a key that RoPE may see; `None`: positions stay as they are.
    #[must_use]
    pub fn max_distance(&self) -> Option<usize> {
        (self.raw.max_distance != 0).then_some(self.raw.max_distance as usize)
    }

    /// Low-rank updates of the layer's weights for this sequence's tokens, to be added one after another.
    pub fn loras(&self) -> impl Iterator<Item = Lora<'a>> + use<'a> {
        let this = *self;
        (0..this.raw.n_loras).filter_map(move |index| {
            // SAFETY: `Sequences::from_raw` has read and accepted every one of them.
            unsafe { Lora::from_raw(this.raw.loras.add(index).read(), this.needs.max_lora_rank).ok() }
        })
    }

    /// Its recurrent state; null where there is none. [`Sequence::state_bytes`] bytes, aligned to 64.
    #[must_use]
    pub fn state(&self) -> *mut u8 {
        self.raw.state.cast()
    }

    /// Bytes of its recurrent state, as the layer that was called asked.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        if self.raw.state.is_null() { 0 } else { self.needs.state_bytes }
    }
}

/// The sequences of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a> {
    list: *const *const HeraldSequence,
    len: usize,
    needs: Needs,
    lent: PhantomData<&'a ()>,
}

impl<'a> Sequences<'a> {
    /// Checks what the host lent to a layer of these needs: every sequence and page is there, and they cover the batch's
    /// tokens in order.
    ///
    /// # Safety
    /// The pointers are null or hold for the lifetime `'a`, as `HeraldCall` says.
    pub(crate) unsafe fn from_raw(
        list: *const *const HeraldSequence,
        len: usize,
        n_tokens: usize,
        needs: Needs,
    ) -> Result<Self, String> {
        if len > 0 && list.is_null() {
            return Err(format!("HeraldCall has {len} sequences at null"));
        }
        let sequences = Self { list, len, needs, lent: PhantomData };
        let mut next = 0;
        for index in 0..len {
            // SAFETY: the host's contract: the list has `len` pointers; `read` checks each struct.
            let raw: HeraldSequence = unsafe { abi::read(list.add(index).read())? };
            if raw.first != next || raw.n_tokens == 0 || raw.n_tokens > n_tokens as u64 - next {
                return Err(format!(
                    "HeraldSequence {index} has tokens {}..{}+{} of a batch of {n_tokens}, where they were to begin at \
                     {next}",
                    raw.first, raw.first, raw.n_tokens
                ));
            }
            if raw.past > MAX_TOKENS {
                return Err(format!(
                    "HeraldSequence {index} says that it had {} tokens before, where at most {MAX_TOKENS} were expected",
                    raw.past
                ));
            }
            next += raw.n_tokens;
            let aligned =
                raw.selectable_starts.is_aligned() && raw.selectable_summaries.cast::<u64>().is_aligned();
            let possible = |bytes: usize| {
                raw.n_selectable.checked_mul(bytes).is_some_and(|bytes| isize::try_from(bytes).is_ok())
            };
            let fits = possible(size_of::<u64>()) && possible(needs.summary_bytes);
            if raw.n_selectable > 0
                && (raw.selectable_starts.is_null()
                    || raw.selectable_summaries.is_null()
                    || !aligned
                    || !fits)
            {
                return Err(format!(
                    "HeraldSequence {index} has {} selectable pages that begin at {:p} with summaries at {:p}, where aligned \
                     memory was expected",
                    raw.n_selectable, raw.selectable_starts, raw.selectable_summaries
                ));
            }
            if raw.n_pages > 0 && raw.pages.is_null() {
                return Err(format!("HeraldSequence {index} has {} pages at null", raw.n_pages));
            }
            for page in 0..raw.n_pages {
                // SAFETY: the host's contract: `n_pages` pointers, and each page's bytes are good for the call.
                unsafe { Page::from_raw(abi::read(raw.pages.add(page).read())?)? };
            }
            if raw.n_loras > 0 && (raw.loras.is_null() || needs.max_lora_rank == 0) {
                return Err(format!(
                    "HeraldSequence {index} has {} low-rank updates at {:p} for a layer that takes ranks up to {}",
                    raw.n_loras, raw.loras, needs.max_lora_rank
                ));
            }
            for lora in 0..raw.n_loras {
                // SAFETY: the host's contract: `n_loras` pointers, and what each points to is good for the call.
                unsafe { Lora::from_raw(raw.loras.add(lora).read(), needs.max_lora_rank)? };
            }
        }
        if len > 0 && next != n_tokens as u64 {
            return Err(format!("the sequences have {next} tokens of a batch of {n_tokens}"));
        }
        Ok(sequences)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sequence `index`.
    ///
    /// # Panics
    /// Where `index` is not less than `len`.
    #[must_use]
    pub fn get(&self, index: usize) -> Sequence<'a> {
        assert!(index < self.len, "sequence {index} of {}", self.len);
        // SAFETY: `from_raw` has read every one.
        let raw = unsafe { abi::read(self.list.add(index).read()) };
        let raw = raw.unwrap_or_else(|_| AbiStruct::empty());
        Sequence { raw, needs: self.needs, lent: PhantomData }
    }

    /// The sequences, in the order of their tokens in the batch.
    pub fn iter(&self) -> impl Iterator<Item = Sequence<'a>> + use<'a> {
        let this = *self;
        (0..self.len).map(move |index| this.get(index))
    }
}

// SAFETY: as for Page.
unsafe impl Send for Sequence<'_> {}
// SAFETY: as for Page.
unsafe impl Sync for Sequence<'_> {}
// SAFETY: as for Page.
unsafe impl Send for Sequences<'_> {}
// SAFETY: as for Page.
unsafe impl Sync for Sequences<'_> {}

/// A sequence's pages are of attention's shape, in formats that the layer reads (those that are written: 16-bit integers),
/// don't overlap, rise, and have room for the batch's tokens.
pub(crate) fn check_pages(
    sequence: &Sequence<'_>,
    shape: &Attention,
    page_formats: u32,
) -> Result<(), String> {
    let end = sequence.past() + sequence.batch().len();
    let (mut last_end, mut covered) = (0, sequence.past());
    for page in sequence.pages() {
        let slots = shape.n_kv_heads.saturating_mul(page.capacity());
        let bytes =
            |dim: usize| slots.saturating_mul(size_of::<f32>() + dim.saturating_mul(size_of::<i16>()));
        let (keys, values) = (page.key_bytes().len(), page.value_bytes().len());
        let expected = (bytes(shape.key_dim), bytes(shape.value_dim));
        let whole = page.start() + page.capacity() <= sequence.past();
        let is_q4 = page.format() == abi::HERALD_PAGE_Q4
            && whole
            && page_formats & (1 << abi::HERALD_PAGE_Q4) != 0
            && q4_page_bytes(shape.n_kv_heads, shape.key_dim, shape.value_dim, page.capacity())
                == Some((keys, values));
        if !is_q4 && (page.format() != abi::HERALD_PAGE_I16 || (keys, values) != expected) {
            return Err(format!(
                "a page of format {} with {keys} bytes of keys and {values} of values, where format {} with {} and {} \
                 was expected",
                page.format(),
                abi::HERALD_PAGE_I16,
                expected.0,
                expected.1
            ));
        }
        let page_end = page.start() + page.capacity();
        if page.start() < last_end || page.start() + page.n_tokens() > end {
            return Err(format!(
                "a page of {} tokens at token {}, where it was to begin at {last_end} or later and hold no token past \
                 {end}",
                page.n_tokens(),
                page.start()
            ));
        }
        last_end = page_end;
        if page.start() <= covered {
            covered = covered.max(page_end);
        }
    }
    if covered < end {
        return Err(format!(
            "pages with room up to token {covered} of a sequence, where room up to {end} was expected"
        ));
    }
    Ok(())
}
