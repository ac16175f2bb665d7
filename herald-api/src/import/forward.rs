//! What the host lends for a forward call: threads, buffers, and each sequence's pages and state.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;

use super::tier::PageHandle;
use crate::abi::{self, AbiStruct, HeraldPage, HeraldParallel, HeraldSequence, HeraldTask};
use crate::call::Parallel;
use crate::{AlignedBytes, Error, Result};

/// Threads that the host can lend.
pub trait Executor: Sync {
    /// How many workers may run at once, the calling thread counted; at least 1.
    fn workers(&self) -> usize;

    /// Does items `0..items` by calling `task` with ranges that don't overlap and the worker's number, on this thread
    /// and others; returns when all are done. No two calls at once have the same worker.
    fn run(&self, items: usize, task: &(dyn Fn(Range<usize>, usize) + Sync));
}

/// An executor's threads, lent to a plugin for a call.
pub struct Lent<'e>(&'e dyn Executor);

impl<'e> Lent<'e> {
    /// Lends these threads.
    #[must_use]
    pub fn new(executor: &'e dyn Executor) -> Self {
        Self(executor)
    }

    /// What a call takes.
    #[must_use]
    pub fn parallel(&self) -> Parallel<'_> {
        let raw = HeraldParallel {
            context: std::ptr::from_ref(self).cast_mut().cast(),
            workers: self.0.workers().max(1) as u32,
            run: Some(run),
            ..AbiStruct::empty()
        };
        // SAFETY: the context is `self`, which the result borrows. It has a function and a worker, so it is accepted.
        unsafe { Parallel::from_raw(&raw) }.unwrap_or_else(|_| Parallel::serial())
    }
}

struct Argument(*mut c_void);

// SAFETY: the ABI's contract: a task may be called from any of the host's threads.
unsafe impl Send for Argument {}
// SAFETY: as for Send.
unsafe impl Sync for Argument {}

impl Argument {
    fn get(&self) -> *mut c_void {
        self.0
    }
}

unsafe extern "C" fn run(context: *mut c_void, items: u64, task: *const HeraldTask) {
    // SAFETY: the context is the `Lent` that `parallel` was asked of, which outlives the call that it was lent for.
    let lent = unsafe { &*context.cast_const().cast::<Lent<'_>>() };
    // SAFETY: the plugin's contract: a task of its own.
    let Ok(HeraldTask { run: Some(run), argument, .. }) = (unsafe { abi::read(task) }) else { return };
    let argument = Argument(argument);
    lent.0.run(items as usize, &|range, worker| {
        // SAFETY: the plugin's contract: any of the host's threads may run the task, over ranges that don't overlap.
        unsafe { run(argument.get(), range.start as u64, range.end as u64, worker as u32) };
    });
}

/// A forward call's buffers.
pub struct Forward<'c> {
    /// Tokens of the batch.
    pub n_tokens: usize,
    /// Token ids `[n_tokens]`, or empty.
    pub tokens: &'c [u32],
    /// Positions for RoPE `[n_tokens]`, or empty.
    pub positions: &'c [u32],
    /// Activations `[n_tokens, hidden]`; `None`: the output holds them too.
    pub input: Option<&'c [f32]>,
    /// Activations `[n_tokens, hidden]`, or logits `[n_tokens, vocabulary]`.
    pub output: &'c mut [f32],
    /// Threads.
    pub parallel: Parallel<'c>,
}

/// A page as a sequence uses it in a batch.
pub enum PageUse<'b> {
    /// Earlier tokens only: read.
    Shared(&'b PageHandle),
    /// Room for tokens of this batch: read and written.
    Own(&'b mut PageHandle),
}

/// Memory for descriptions of batches, kept from call to call.
#[derive(Default)]
pub struct BatchBuffers {
    sequences: Vec<HeraldSequence>,
    pages: Vec<HeraldPage>,
    first_pages: Vec<usize>,
    state_bytes: Vec<usize>,
    sequence_list: Vec<*const HeraldSequence>,
    page_list: Vec<*const HeraldPage>,
}

// SAFETY: between batches it holds no pointer that anything follows: `begin` clears it.
unsafe impl Send for BatchBuffers {}
// SAFETY: as for Send; nothing reads it through a shared reference.
unsafe impl Sync for BatchBuffers {}

impl BatchBuffers {
    /// Begins a batch without sequences.
    pub fn begin<'b>(&'b mut self) -> Batch<'b> {
        self.sequences.clear();
        self.pages.clear();
        self.first_pages.clear();
        self.state_bytes.clear();
        Batch { buffers: self, lent: PhantomData }
    }
}

/// The sequences of a batch for one layer: it borrows their pages and states for as long as it lives.
pub struct Batch<'b> {
    buffers: &'b mut BatchBuffers,
    lent: PhantomData<&'b mut PageHandle>,
}

impl<'b> Batch<'b> {
    /// Adds a sequence's next `n_tokens` tokens, before which it had `past`. `pages`, each with the place of its first
    /// token, in rising order, must have room for the tokens in pages of its own; a layer without KV takes none.
    ///
    /// # Errors
    /// [`crate::Status::InvalidArgument`] where the pages don't hold the batch's tokens, or overlap.
    pub fn push(
        &mut self,
        n_tokens: usize,
        past: usize,
        state: Option<&'b mut AlignedBytes>,
        pages: impl IntoIterator<Item = (usize, PageUse<'b>)>,
    ) -> Result<()> {
        let end = past + n_tokens;
        let first_page = self.buffers.pages.len();
        let (mut last_end, mut covered) = (0, past);
        for (start, page) in pages {
            let (handle, own) = match page {
                PageUse::Shared(handle) => (handle, false),
                PageUse::Own(handle) => (&*handle, true),
            };
            let page_end = start + handle.capacity();
            if start < last_end || start >= end || (!own && page_end > past) || (own && start > covered) {
                return Err(Error::invalid(format!(
                    "the page at token {start} with room for {} doesn't suit a sequence of {past} tokens and {n_tokens} \
                     new ones",
                    handle.capacity()
                )));
            }
            last_end = page_end;
            if own {
                covered = page_end.max(covered);
            }
            let mut raw = handle.raw();
            raw.start = start as u64;
            raw.n_tokens = (end.min(page_end) - start) as u32;
            self.buffers.pages.push(raw);
        }
        let n_pages = self.buffers.pages.len() - first_page;
        if n_pages > 0 && covered < end {
            return Err(Error::invalid(format!(
                "the pages of a sequence have room up to token {covered}, where {end} was expected"
            )));
        }
        let first = self.buffers.sequences.last().map_or(0, |last| last.first + last.n_tokens);
        self.buffers.sequences.push(HeraldSequence {
            first,
            n_tokens: n_tokens as u64,
            past: past as u64,
            n_pages,
            state: state.as_ref().map_or(std::ptr::null_mut(), |state| state.as_ptr().cast()),
            ..AbiStruct::empty()
        });
        self.buffers.first_pages.push(first_page);
        self.buffers.state_bytes.push(state.map_or(0, |state| state.len()));
        Ok(())
    }

    /// The C lists, once everything is in place.
    pub(super) fn sequences(
        &mut self,
        n_tokens: usize,
        state_bytes: usize,
    ) -> Result<&[*const HeraldSequence]> {
        let buffers = &mut *self.buffers;
        let tokens: u64 = buffers.sequences.iter().map(|sequence| sequence.n_tokens).sum();
        if tokens != n_tokens as u64 || buffers.state_bytes.iter().any(|bytes| *bytes < state_bytes) {
            return Err(Error::invalid(format!(
                "the sequences bring {tokens} tokens and states of {:?} bytes, where {n_tokens} tokens and {state_bytes} \
                 bytes were expected",
                buffers.state_bytes
            )));
        }
        buffers.page_list.clear();
        buffers.page_list.extend(buffers.pages.iter().map(std::ptr::from_ref));
        for (sequence, first) in buffers.sequences.iter_mut().zip(&buffers.first_pages) {
            sequence.pages =
                if sequence.n_pages == 0 { std::ptr::null() } else { buffers.page_list[*first..].as_ptr() };
        }
        buffers.sequence_list.clear();
        buffers.sequence_list.extend(buffers.sequences.iter().map(std::ptr::from_ref));
        Ok(&buffers.sequence_list)
    }
}
