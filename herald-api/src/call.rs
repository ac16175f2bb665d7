//! A forward call as a backend sees it: safe views over what the host lent for the call.

use std::any::Any;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Mutex;

use crate::abi::{self, AbiStruct, HeraldPage, HeraldParallel, HeraldSequence, HeraldTask};
use crate::export::catch;
use crate::fetch::Fetch;

/// No sequence is believed to be longer, so that places in it can be added without overflow.
const MOST_TOKENS: u64 = 1 << 48;

/// The host's threads, lent for one call.
///
/// Only the thread that was handed it may use it, and not from within a task; so it is neither `Send` nor `Sync`.
#[derive(Clone, Copy, Debug)]
pub struct Parallel<'a> {
    raw: HeraldParallel,
    lent: PhantomData<(&'a (), *mut ())>,
}

type Task<'t> = dyn Fn(Range<usize>, usize) + Sync + 't;

struct Job<'t> {
    task: &'t Task<'t>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

unsafe extern "C" fn run_job(argument: *mut c_void, begin: u64, end: u64, worker: u32) {
    // SAFETY: `Parallel::run` passes a Job that outlives the call.
    let job = unsafe { &*argument.cast_const().cast::<Job<'_>>() };
    let done = catch(|| (job.task)(begin as usize..end as usize, worker as usize));
    if let Err(panic) = done {
        job.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(panic);
    }
}

unsafe extern "C" fn run_inline(_: *mut c_void, items: u64, task: *const HeraldTask) {
    // SAFETY: `Parallel::run` passes a task of its own.
    if let Ok(HeraldTask { run: Some(run), argument, .. }) = unsafe { abi::read(task) }
        && items > 0
    {
        // SAFETY: one call over all items, as the task's contract allows.
        unsafe { run(argument, 0, items, 0) };
    }
}

impl<'a> Parallel<'a> {
    /// The calling thread alone.
    #[must_use]
    pub fn serial() -> Self {
        Self {
            raw: HeraldParallel { workers: 1, run: Some(run_inline), ..AbiStruct::empty() },
            lent: PhantomData,
        }
    }

    /// What a host lent.
    ///
    /// # Safety
    /// `pointer` is null, or a host's `HeraldParallel` that is good for the lifetime `'a`, on this thread.
    pub(crate) unsafe fn from_raw(pointer: *const HeraldParallel) -> Result<Self, String> {
        // SAFETY: the caller vouches.
        let raw = unsafe { abi::read(pointer)? };
        if raw.run.is_none() || raw.workers == 0 {
            return Err("HeraldParallel has no run function or no workers".to_owned());
        }
        Ok(Self { raw, lent: PhantomData })
    }

    pub(crate) fn raw(&self) -> &HeraldParallel {
        &self.raw
    }

    /// How many workers may run at once, this thread counted; at least 1.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.raw.workers as usize
    }

    /// Does items `0..items`: calls `task` with ranges of them that don't overlap and the number of the worker that it
    /// runs on (no two calls at once share one), and returns when all are done.
    ///
    /// # Panics
    /// Where a task panicked: with that panic, after the others have ended.
    pub fn run(&self, items: usize, task: &Task<'_>) {
        let Some(run) = self.raw.run else { return };
        let job = Job { task, panic: Mutex::new(None) };
        let raw = HeraldTask {
            argument: (&raw const job).cast_mut().cast(),
            run: Some(run_job),
            ..AbiStruct::empty()
        };
        // SAFETY: the host's contract: it returns when every item is done, so job and raw outlive all calls.
        unsafe { run(self.raw.context, items as u64, &raw) };
        if let Some(panic) = job.panic.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            resume_unwind(panic);
        }
    }
}

impl Parallel<'_> {
    /// Does the chunks of `data`, each of `chunk_len` elements (the last one may be shorter): calls `task` with a chunk's
    /// number, the chunk, and the worker that it runs on. So a layer writes its output in parallel without `unsafe`.
    ///
    /// # Panics
    /// Where `chunk_len` is 0, and as [`Parallel::run`].
    pub fn for_chunks<T: Send>(
        &self,
        data: &mut [T],
        chunk_len: usize,
        task: &(dyn Fn(usize, &mut [T], usize) + Sync),
    ) {
        assert!(chunk_len > 0, "chunks of no elements");
        let (len, n_chunks) = (data.len(), data.len().div_ceil(chunk_len));
        let whole = Shared(data.as_mut_ptr());
        self.run(n_chunks, &|range, worker| {
            for index in range.start..range.end.min(n_chunks) {
                let start = index * chunk_len;
                // SAFETY: the chunk is within `data`, which is borrowed for the whole run; chunks don't overlap, and the
                // host's contract is that no two calls share an item.
                let chunk = unsafe {
                    std::slice::from_raw_parts_mut(whole.get().add(start), chunk_len.min(len - start))
                };
                task(index, chunk, worker);
            }
        });
    }
}

/// A pointer for tasks that don't touch each other's elements.
struct Shared<T>(*mut T);

// SAFETY: each element is used by one task only, which for `T: Send` may be on another thread.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn get(&self) -> *mut T {
        self.0
    }
}

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
        if raw.n_tokens > raw.capacity || raw.start > MOST_TOKENS {
            return Err(format!(
                "HeraldPage at token {} says that it holds {} tokens with room for {}",
                raw.start, raw.n_tokens, raw.capacity
            ));
        }
        Ok(Self { raw, lent: PhantomData })
    }

    /// The place in its sequence of the page's first token.
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

    /// Its keys ([`abi::HERALD_PAGE_I16`]).
    #[must_use]
    pub fn keys(&self, n_kv_heads: usize) -> Rows<'a> {
        self.rows(self.key_bytes(), n_kv_heads)
    }

    /// Its values ([`abi::HERALD_PAGE_I16`]).
    #[must_use]
    pub fn values(&self, n_kv_heads: usize) -> Rows<'a> {
        self.rows(self.value_bytes(), n_kv_heads)
    }

    fn rows(&self, bytes: &'a [u8], n_kv_heads: usize) -> Rows<'a> {
        let slots = n_kv_heads * self.capacity();
        let (scales, codes) = bytes.split_at(bytes.len().min(slots * size_of::<f32>()));
        // SAFETY: any bits are floats and integers. The page's start is aligned to 8 (`from_raw`), and so what follows a
        // whole number of float32 to 2; what isn't whole is left out.
        let (scales, codes) = unsafe { (scales.align_to().1, codes.align_to().1) };
        Rows { scales, codes }
    }

    /// Its keys and values ([`abi::HERALD_PAGE_Q4`]).
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
        // SAFETY: the caller vouches.
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
        // SAFETY: the caller vouches.
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
        assert!(row < slots, "row {row} of a page of {slots}");
        let dim = (bytes as usize / slots).saturating_sub(size_of::<f32>()) / size_of::<i16>();
        // SAFETY: within the page, as the caller vouches and the row is checked; aligned as in `rows`.
        unsafe {
            let codes = base.cast::<f32>().add(slots).cast::<i16>().add(row * dim);
            (&mut *base.cast::<f32>().add(row), std::slice::from_raw_parts_mut(codes, dim))
        }
    }
}

/// Tokens of keys, and channels of values, that share a step and an offset in a page of 4-bit codes.
pub const Q4_GROUP: usize = 64;

/// Keys or values of a page of 4-bit codes; see [`abi::HERALD_PAGE_Q4`].
#[derive(Clone, Copy, Debug)]
pub struct Q4Rows<'a> {
    /// Steps and offsets, each the bits of a float16. Keys: `[n_kv_heads, ceil(capacity / 64), key_dim]`, values:
    /// `[n_kv_heads, capacity, ceil(value_dim / 64)]`.
    pub pairs: &'a [[u16; 2]],
    /// `[n_kv_heads, capacity, ceil(dim / 2)]`.
    pub codes: &'a [u8],
}

/// Bytes of a page's keys and values as [`abi::HERALD_PAGE_Q4`] lays them out; `None` where that overflows.
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
pub struct Rows<'a> {
    /// `[n_kv_heads, capacity]`.
    pub scales: &'a [f32],
    /// `[n_kv_heads, capacity, dim]`.
    pub codes: &'a [i16],
}

fn bytes<'a>(pointer: *mut c_void, len: u64) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: `Page::from_raw` checked the pointer, and its caller vouched for the bytes during 'a.
    unsafe { std::slice::from_raw_parts(pointer.cast_const().cast(), len as usize) }
}

/// One sequence's part of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    raw: HeraldSequence,
    lent: PhantomData<&'a ()>,
}

impl<'a> Sequence<'a> {
    /// Its tokens' places in the batch.
    #[must_use]
    pub fn batch(&self) -> Range<usize> {
        self.raw.first as usize..(self.raw.first + self.raw.n_tokens) as usize
    }

    /// Tokens that it had before this batch: the place in the sequence of its first token here.
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
        // SAFETY: `Sequences::from_raw` has read every page of every sequence.
        let raw = unsafe { abi::read(self.raw.pages.add(index).read()) };
        Page { raw: raw.unwrap_or_else(|_| AbiStruct::empty()), lent: PhantomData }
    }

    /// The place in the sequence of a page's first token: [`Page::start`] without the rest of the page.
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
    pub fn selectable_summaries(&self, summary_bytes: usize) -> &'a [u8] {
        bytes(self.raw.selectable_summaries.cast_mut(), (self.raw.n_selectable * summary_bytes) as u64)
    }

    /// The greatest distance between a query and a key that RoPE may see; `None`: positions stay as they are.
    #[must_use]
    pub fn max_distance(&self) -> Option<usize> {
        (self.raw.max_distance != 0).then_some(self.raw.max_distance as usize)
    }

    /// Its recurrent state; null where there is none. `state_bytes` as the layer asked, aligned to 64 bytes.
    #[must_use]
    pub fn state(&self) -> *mut u8 {
        self.raw.state.cast()
    }
}

/// The sequences of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Sequences<'a> {
    list: *const *const HeraldSequence,
    len: usize,
    lent: PhantomData<&'a ()>,
}

impl<'a> Sequences<'a> {
    /// Checks what the host lent: every sequence and page is there, and they cover the batch's tokens in order.
    ///
    /// # Safety
    /// The pointers are null or hold for the lifetime `'a`, as `HeraldCall` says.
    pub(crate) unsafe fn from_raw(
        list: *const *const HeraldSequence,
        len: usize,
        n_tokens: usize,
    ) -> Result<Self, String> {
        if len > 0 && list.is_null() {
            return Err(format!("HeraldCall has {len} sequences at null"));
        }
        let sequences = Self { list, len, lent: PhantomData };
        let mut next = 0;
        for index in 0..len {
            // SAFETY: the caller vouches for `len` pointers, and `read` checks each.
            let raw: HeraldSequence = unsafe { abi::read(list.add(index).read())? };
            if raw.first != next || raw.n_tokens == 0 || raw.n_tokens > n_tokens as u64 - next {
                return Err(format!(
                    "HeraldSequence {index} has tokens {}..{}+{} of a batch of {n_tokens}, where they were to begin at \
                     {next}",
                    raw.first, raw.first, raw.n_tokens
                ));
            }
            if raw.past > MOST_TOKENS {
                return Err(format!(
                    "HeraldSequence {index} says that it had {} tokens before, where at most {MOST_TOKENS} were expected",
                    raw.past
                ));
            }
            next += raw.n_tokens;
            let aligned =
                raw.selectable_starts.is_aligned() && raw.selectable_summaries.cast::<u64>().is_aligned();
            if raw.n_selectable > 0
                && (raw.selectable_starts.is_null() || raw.selectable_summaries.is_null() || !aligned)
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
                // SAFETY: the caller vouches for `n_pages` pointers, and for what each page points to.
                unsafe { Page::from_raw(abi::read(raw.pages.add(page).read())?)? };
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
        Sequence { raw: raw.unwrap_or_else(|_| AbiStruct::empty()), lent: PhantomData }
    }

    /// The sequences, in the order of their tokens in the batch.
    pub fn iter(&self) -> impl Iterator<Item = Sequence<'a>> + use<'a> {
        let this = *self;
        (0..self.len).map(move |index| this.get(index))
    }
}

// SAFETY: through a shared reference these only read what the host lent for the call, as any thread may; what they give
// for writing is raw pointers, whose use is their user's word.
unsafe impl Send for Page<'_> {}
// SAFETY: as for Send.
unsafe impl Sync for Page<'_> {}
// SAFETY: as for Page.
unsafe impl Send for Sequence<'_> {}
// SAFETY: as for Page.
unsafe impl Sync for Sequence<'_> {}
// SAFETY: as for Page.
unsafe impl Send for Sequences<'_> {}
// SAFETY: as for Page.
unsafe impl Sync for Sequences<'_> {}

/// A forward call: a flat batch of tokens from any number of sequences.
#[derive(Debug)]
pub struct Call<'a> {
    /// Tokens of the batch: 1 to `max_tokens`.
    pub n_tokens: usize,
    /// Token ids `[n_tokens]`; empty for layers other than the embedding, where the host left them out.
    pub tokens: &'a [u32],
    /// Positions for RoPE `[n_tokens]`; empty where the host left them out.
    pub positions: &'a [u32],
    /// Activations `[n_tokens, hidden]`; `None`: the output holds them too.
    pub input: Option<&'a [f32]>,
    /// Activations `[n_tokens, hidden]` that a residual branch adds to and the embedding fills, or the head's logits
    /// `[n_tokens, vocabulary]`.
    pub output: &'a mut [f32],
    /// The sequences, covering the batch's tokens in order.
    pub sequences: Sequences<'a>,
    /// Memory to work in, aligned to 64 bytes, at least what the layer asked for; holds anything at first.
    pub scratch: &'a mut [u8],
    /// Threads to work with.
    pub parallel: Parallel<'a>,
    /// Page selection; `None` where no sequence has selectable pages.
    pub fetch: Option<Fetch<'a>>,
}
