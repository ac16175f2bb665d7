//! The host's threads, as a backend sees them.

use std::any::Any;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Mutex;

use crate::abi::{self, AbiStruct, HeraldParallel, HeraldTask};
use crate::marshal::catch;

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
    // SAFETY: `Parallel::run` passes its own task.
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
        // SAFETY: the host's contract: a HeraldParallel that is good for the call; `read` checks the struct.
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
    /// runs on (no two calls at once share one), and returns when all are done. A worker may get several ranges, one after
    /// the other.
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
