//! What the host lends for a forward call: threads, buffers, and each sequence's pages and state.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use super::page::PageHandle;
use crate::abi::{self, AbiStruct, HeraldLora, HeraldPage, HeraldParallel, HeraldSequence, HeraldTask};
use crate::sequence::Needs;
use crate::{AlignedBytes, Error, Lora, Parallel, Result, Status};

/// Threads that the host can lend.
///
/// Layers write in parallel to places that they tell apart by the items and the worker that a task is called with, so an
/// implementation promises what no signature says:
///
/// ```compile_fail,E0200
/// use std::ops::Range;
///
/// struct Twice;
///
/// impl herald_api::import::Executor for Twice {
///     fn workers(&self) -> usize {
///         2
///     }
///
///     fn run(&self, items: usize, task: &(dyn Fn(Range<usize>, usize) + Sync)) {
///         std::thread::scope(|scope| {
///             scope.spawn(|| task(0..items, 0));
///             task(0..items, 0);
///         });
///     }
/// }
/// ```
///
/// # Safety
/// `run` calls `task` with ranges within `0..items` that don't overlap, and with workers below `workers`, which doesn't
/// change; no two calls at once have the same worker; and it returns, or unwinds, only when all calls have ended.
pub unsafe trait Executor: Sync {
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
    // SAFETY: the plugin's contract: its own task.
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

/// Page selection: brings the pages that a layer's queries would attend to most.
pub trait Fetcher {
    /// Adds pages to the batch ([`Batch::add_fetched`]). `scores`: one for each selectable page, sequence after sequence;
    /// the greater, the more it would be attended to.
    ///
    /// # Errors
    /// Where a page can't be had: the call then fails with the error.
    fn fetch(&mut self, scores: &[f32], batch: &mut Batch<'_>) -> Result<()>;
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
    /// Pages, each with its sequence.
    pages: Vec<(usize, HeraldPage)>,
    /// Low-rank updates, each with its sequence.
    loras: Vec<(usize, HeraldLora)>,
    /// Pages that were fetched during the call, kept until the next.
    fetched: Vec<Arc<PageHandle>>,
    scores: Vec<f32>,
    /// Bytes of each sequence's state.
    state_bytes: Vec<usize>,
    /// Bytes of all summaries of each sequence.
    summary_bytes: Vec<usize>,
    /// What a call sees as it begins, and once pages were fetched: it may still look at the former then.
    lists: [Lists; 2],
}

/// The C lists of a batch.
#[derive(Default)]
struct Lists {
    sequences: Vec<HeraldSequence>,
    pages: Vec<HeraldPage>,
    loras: Vec<HeraldLora>,
    sequence_list: Vec<*const HeraldSequence>,
    page_list: Vec<*const HeraldPage>,
    lora_list: Vec<*const HeraldLora>,
}

impl Lists {
    fn clear(&mut self) {
        self.sequences.clear();
        self.pages.clear();
        self.loras.clear();
        self.sequence_list.clear();
        self.page_list.clear();
        self.lora_list.clear();
    }

    /// Lists `pages` and `loras`, which lie together by sequence.
    fn fill(
        &mut self,
        sequences: &[HeraldSequence],
        pages: &[(usize, HeraldPage)],
        loras: &[(usize, HeraldLora)],
    ) {
        self.clear();
        self.sequences.extend_from_slice(sequences);
        self.pages.extend(pages.iter().map(|(_, page)| *page));
        self.page_list.extend(self.pages.iter().map(std::ptr::from_ref));
        self.loras.extend(loras.iter().map(|(_, lora)| *lora));
        self.lora_list.extend(self.loras.iter().map(std::ptr::from_ref));
        let (mut next_page, mut next_lora) = (0, 0);
        for (index, sequence) in self.sequences.iter_mut().enumerate() {
            (sequence.pages, sequence.n_pages) = part_of(index, pages, &self.page_list, &mut next_page);
            (sequence.loras, sequence.n_loras) = part_of(index, loras, &self.lora_list, &mut next_lora);
        }
        self.sequence_list.extend(self.sequences.iter().map(std::ptr::from_ref));
    }
}

/// The part of a list, from `next` on, that belongs to the sequence `index`, as C takes it.
fn part_of<T>(
    index: usize,
    items: &[(usize, T)],
    list: &[*const T],
    next: &mut usize,
) -> (*const *const T, usize) {
    let len = items[*next..].iter().take_while(|(of, _)| *of == index).count();
    let part = &list[*next..*next + len];
    *next += len;
    (if part.is_empty() { std::ptr::null() } else { part.as_ptr() }, len)
}

// SAFETY: between batches it holds no pointer that anything follows: `begin` clears it.
unsafe impl Send for BatchBuffers {}
// SAFETY: as for Send; nothing reads it through a shared reference.
unsafe impl Sync for BatchBuffers {}

impl BatchBuffers {
    /// Lets go of pages that were fetched.
    pub fn end(&mut self) {
        self.fetched.clear();
    }

    /// Begins a batch without sequences.
    pub fn begin<'b>(&'b mut self) -> Batch<'b> {
        self.sequences.clear();
        self.pages.clear();
        self.loras.clear();
        self.fetched.clear();
        self.state_bytes.clear();
        self.summary_bytes.clear();
        self.lists.iter_mut().for_each(Lists::clear);
        Batch { buffers: self, lent: PhantomData }
    }
}

/// The sequences of a batch for one layer: it borrows their pages and states for as long as it lives.
pub struct Batch<'b> {
    buffers: &'b mut BatchBuffers,
    lent: PhantomData<&'b mut PageHandle>,
}

impl<'b> Batch<'b> {
    /// Adds a sequence's next `n_tokens` tokens, before which it had `past`. `pages`, each with the position of its first
    /// token, in rising order, must have room for the tokens in its own pages; a layer without KV takes none.
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
        let Some(end) = past.checked_add(n_tokens) else {
            return Err(Error::invalid(format!("a sequence of {past} tokens can't have {n_tokens} more")));
        };
        let (first_page, index) = (self.buffers.pages.len(), self.buffers.sequences.len());
        let (mut last_end, mut covered) = (0, past);
        for (start, page) in pages {
            let (handle, own) = match page {
                PageUse::Shared(handle) => (handle, false),
                PageUse::Own(handle) => {
                    handle.writable()?;
                    (&*handle, true)
                }
            };
            let page_end = start.saturating_add(handle.capacity());
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
            self.buffers.pages.push((index, raw));
        }
        let n_pages = self.buffers.pages.len() - first_page;
        if n_pages > 0 && covered < end {
            return Err(Error::invalid(format!(
                "the pages of a sequence have room up to token {covered}, where {end} was expected"
            )));
        }
        let first = self.buffers.sequences.last().map_or(0, |last| last.first.saturating_add(last.n_tokens));
        self.buffers.sequences.push(HeraldSequence {
            first,
            n_tokens: n_tokens as u64,
            past: past as u64,
            state: state.as_ref().map_or(std::ptr::null_mut(), |state| state.as_ptr().cast()),
            ..AbiStruct::empty()
        });
        self.buffers.state_bytes.push(state.map_or(0, |state| state.len()));
        self.buffers.summary_bytes.push(0);
        Ok(())
    }

    /// Gives the sequence that was pushed last its selectable pages, for the layer to choose among: the positions where they
    /// begin, rising, and their summaries, aligned to 8 bytes, as many as there are pages.
    pub fn selectable_pages(&mut self, starts: &'b [u64], summaries: &'b [u8]) {
        if let (Some(sequence), Some(bytes)) =
            (self.buffers.sequences.last_mut(), self.buffers.summary_bytes.last_mut())
        {
            *bytes = summaries.len();
            sequence.selectable_starts = starts.as_ptr();
            sequence.selectable_summaries = summaries.as_ptr().cast();
            sequence.n_selectable = starts.len();
        }
    }

    /// Bounds the distance in tokens between a query and a key that RoPE sees, for the sequence that was pushed last.
    pub fn max_distance(&mut self, tokens: usize) {
        if let Some(sequence) = self.buffers.sequences.last_mut() {
            sequence.max_distance = tokens as u64;
        }
    }

    /// Adds a low-rank update of one of the layer's weights for the tokens of the sequence that was pushed last, after those that it
    /// has. The call checks it.
    pub fn push_lora(&mut self, lora: Lora<'b>) {
        let Some(index) = self.buffers.sequences.len().checked_sub(1) else { return };
        let raw = HeraldLora {
            role: lora.role as u32,
            rank: u32::try_from(lora.rank).unwrap_or(u32::MAX),
            columns: lora.columns as u64,
            rows: lora.rows as u64,
            down: lora.down.as_ptr(),
            up: lora.up.as_ptr(),
            scale: lora.scale,
            ..AbiStruct::empty()
        };
        // Its slices have as many elements as the C struct says, whatever the fields said.
        let fits = |width: usize, len: usize| width.checked_mul(lora.rank) == Some(len);
        let is_whole = fits(lora.columns, lora.down.len()) && fits(lora.rows, lora.up.len());
        self.buffers.loras.push((index, if is_whole { raw } else { HeraldLora { rank: 0, ..raw } }));
    }

    /// How many sequences there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffers.sequences.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffers.sequences.is_empty()
    }

    /// How many selectable pages each sequence has, in order.
    #[must_use]
    pub fn n_selectable(&self) -> Vec<usize> {
        self.buffers.sequences.iter().map(|sequence| sequence.n_selectable).collect()
    }

    /// Adds a whole page of earlier tokens to the sequence `index`, which is kept for as long as the batch: beforehand, or
    /// while the layer waits for it.
    ///
    /// # Errors
    /// [`crate::Status::InvalidArgument`] where the sequence has no such tokens.
    pub fn add_fetched(&mut self, index: usize, start: usize, page: Arc<PageHandle>) -> Result<()> {
        let past = self.buffers.sequences.get(index).map_or(0, |sequence| sequence.past);
        let mut raw = page.raw();
        raw.start = start as u64;
        raw.n_tokens = raw.capacity;
        if raw.start.saturating_add(u64::from(raw.capacity)) > past {
            return Err(Error::invalid(format!(
                "a page at token {start} was fetched for a sequence of {past} tokens"
            )));
        }
        self.buffers.pages.push((index, raw));
        self.buffers.fetched.push(page);
        Ok(())
    }

    /// Memory for the selectable pages' scores, `width` for each, and how many elements that makes.
    ///
    /// # Errors
    /// [`crate::Status::OutOfMemory`].
    pub(super) fn scores(&mut self, width: usize) -> Result<(*mut f32, usize)> {
        let n_pages: usize = self.buffers.sequences.iter().map(|sequence| sequence.n_selectable).sum();
        let scores = &mut self.buffers.scores;
        let len = n_pages.saturating_mul(width);
        scores.try_reserve(len.saturating_sub(scores.len())).map_err(|_| {
            Error::new(
                Status::OutOfMemory,
                format!("there is no memory for {width} scores of {n_pages} pages"),
            )
        })?;
        scores.resize(len, 0.0);
        Ok((scores.as_mut_ptr(), len))
    }

    /// The selectable pages' scores, as the layer left them, apart from the batch that they are to change.
    pub(super) fn take_scores(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.buffers.scores)
    }

    pub(super) fn give_scores(&mut self, scores: Vec<f32>) {
        self.buffers.scores = scores;
    }

    /// The C lists, once everything has been pushed; others, once more was fetched, beside which the former stay as they are.
    ///
    /// # Errors
    /// [`crate::Status::InvalidArgument`] where the sequences don't bring what a layer of these needs takes.
    pub(super) fn sequences(
        &mut self,
        n_tokens: usize,
        needs: Needs,
        fetched: bool,
    ) -> Result<&[*const HeraldSequence]> {
        let buffers = &mut *self.buffers;
        let tokens =
            buffers.sequences.iter().fold(0, |sum: u64, sequence| sum.saturating_add(sequence.n_tokens));
        if tokens != n_tokens as u64 || buffers.state_bytes.iter().any(|bytes| *bytes < needs.state_bytes) {
            return Err(Error::invalid(format!(
                "the sequences bring {tokens} tokens and states of {:?} bytes, where {n_tokens} tokens and {} bytes were \
                 expected",
                buffers.state_bytes, needs.state_bytes
            )));
        }
        for (sequence, bytes) in buffers.sequences.iter().zip(&buffers.summary_bytes) {
            if sequence.n_selectable.checked_mul(needs.summary_bytes) != Some(*bytes) {
                return Err(Error::invalid(format!(
                    "a sequence brings {bytes} bytes of summaries of {} selectable pages, where {} each were expected",
                    sequence.n_selectable, needs.summary_bytes
                )));
            }
        }
        if !buffers.fetched.is_empty() {
            buffers.pages.sort_by_key(|(index, page)| (*index, page.start));
        }
        let lists = &mut buffers.lists[usize::from(fetched)];
        lists.fill(&buffers.sequences, &buffers.pages, &buffers.loras);
        Ok(&lists.sequence_list)
    }
}
