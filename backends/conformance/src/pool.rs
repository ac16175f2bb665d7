//! The threads that checks lend to plugins, and what a plugin does wrong with them.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle, ThreadId};

use herald_api::abi::{self, AbiStruct, HeraldParallel, HeraldTask};

use crate::hooks::{Counters, Watch};

thread_local! {
    /// Whether this thread does a task's items.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

/// How items are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// One worker, which does all items at once.
    Alone,
    /// So many workers, which take ranges as ragged as a host may make them.
    Ragged(usize),
    /// So many workers, of which only the last does anything: item by item, from the last to the first.
    LastOnly(usize),
}

impl Sharing {
    pub(crate) fn workers(self) -> usize {
        match self {
            Self::Alone => 1,
            Self::Ragged(workers) | Self::LastOnly(workers) => workers,
        }
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// Threads that wait for work.
pub(crate) struct Pool {
    workers: Vec<(Sender<Work>, Option<JoinHandle<()>>)>,
    /// The system's numbers of the threads.
    ids: Vec<i32>,
}

impl Pool {
    /// So many threads.
    pub(crate) fn new(threads: usize) -> Self {
        let (tell, told) = mpsc::channel();
        let start = |_| {
            let (sender, receiver): (Sender<Work>, Receiver<Work>) = mpsc::channel();
            let tell = tell.clone();
            let run = move || {
                let _ = tell.send(thread_number());
                drop(tell);
                receiver.into_iter().for_each(|work| work());
            };
            (sender, thread::Builder::new().spawn(run).ok())
        };
        let workers: Vec<_> = (0..threads).map(start).collect();
        drop(tell);
        Self { workers, ids: told.into_iter().collect() }
    }

    /// The system's numbers of its threads.
    pub(crate) fn ids(&self) -> &[i32] {
        &self.ids
    }

    /// Runs `work(i)` for each of 0 to `count - 1`: 0 here, the others on threads; at most one more than there are threads.
    pub(crate) fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        let (tell, told) = mpsc::channel::<()>();
        // SAFETY: only the lifetime is made longer. This function returns when every thread has dropped what it was sent.
        let shared: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(work) };
        let mut left = Vec::new();
        for index in 1..count {
            let tell = tell.clone();
            let job: Work = Box::new(move || {
                shared(index);
                drop(tell);
            });
            match self.workers.get(index - 1) {
                Some((sender, Some(_))) => left.extend(sender.send(job).err().map(|unsent| unsent.0)),
                _ => left.push(job),
            }
        }
        drop(tell);
        work(0);
        left.into_iter().for_each(|job| job());
        // Nobody sends anything: this ends when all senders are gone.
        let _ = told.recv();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (sender, thread) in self.workers.drain(..) {
            drop(sender);
            if let Some(thread) = thread {
                let _ = thread.join();
            }
        }
    }
}

/// The system's number of the calling thread.
pub(crate) fn thread_number() -> i32 {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: gettid only returns a number.
        unsafe { libc::gettid() }
    }
    #[cfg(not(target_os = "linux"))]
    0
}

/// Threads lent for one call.
pub(crate) struct Lent<'p> {
    pool: &'p Pool,
    sharing: Sharing,
    counters: &'p Counters,
    owner: ThreadId,
    misuse: Mutex<Option<String>>,
}

impl<'p> Lent<'p> {
    /// Threads of `pool` for this thread; what they allocate counts for `counters`.
    pub(crate) fn new(pool: &'p Pool, sharing: Sharing, counters: &'p Counters) -> Self {
        Self { pool, sharing, counters, owner: thread::current().id(), misuse: Mutex::new(None) }
    }

    /// What a call takes, good for as long as this is.
    pub(crate) fn raw(&self) -> HeraldParallel {
        HeraldParallel {
            context: std::ptr::from_ref(self).cast_mut().cast(),
            workers: self.sharing.workers() as u32,
            run: Some(run),
            ..AbiStruct::empty()
        }
    }

    /// What the plugin did with them that it mustn't.
    pub(crate) fn misuse(&self) -> Option<String> {
        self.misuse.lock().ok().and_then(|misuse| misuse.clone())
    }

    fn misused(&self, what: impl Into<String>) {
        if let Ok(mut misuse) = self.misuse.lock() {
            misuse.get_or_insert(what.into());
        }
    }

    fn share(&self, items: u64, task: &Task) {
        match self.sharing {
            Sharing::Alone => task.call(self.counters, 0, items, 0),
            Sharing::LastOnly(workers) => {
                (0..items)
                    .rev()
                    .for_each(|item| task.call(self.counters, item, item + 1, workers as u32 - 1));
            }
            Sharing::Ragged(workers) => {
                let next = AtomicU64::new(0);
                self.pool.run(workers, &|worker| {
                    let len = (items / 128).max(1) + worker as u64;
                    loop {
                        let begin = next.fetch_add(len, Ordering::Relaxed);
                        if begin >= items {
                            break;
                        }
                        task.call(self.counters, begin, items.min(begin + len), worker as u32);
                    }
                });
            }
        }
    }
}

/// A plugin's task.
struct Task {
    run: unsafe extern "C" fn(*mut c_void, u64, u64, u32),
    argument: *mut c_void,
}

// SAFETY: the ABI's contract: a task may be called from any of the host's threads.
unsafe impl Sync for Task {}

impl Task {
    fn call(&self, counters: &Counters, begin: u64, end: u64, worker: u32) {
        // SAFETY: the counters outlive the call, within which this is dropped.
        let _watch = unsafe { Watch::begin(counters) };
        let before = IN_TASK.replace(true);
        // SAFETY: the plugin's contract: any of the host's threads may run the task, over ranges that don't overlap.
        unsafe { (self.run)(self.argument, begin, end, worker) };
        IN_TASK.set(before);
    }
}

unsafe extern "C" fn run(context: *mut c_void, items: u64, task: *const HeraldTask) {
    // SAFETY: nothing of this function is the plugin's: it isn't watched meanwhile.
    let _watch = unsafe { Watch::begin(std::ptr::null()) };
    // SAFETY: the context is the `Lent` that the plugin was handed, which outlives the call that it was lent for.
    let lent = unsafe { &*context.cast_const().cast::<Lent<'_>>() };
    // SAFETY: the plugin's contract: its own task.
    let task = match unsafe { abi::read(task) } {
        Ok(HeraldTask { run: Some(run), argument, .. }) => Task { run, argument },
        Ok(_) => return lent.misused("its HeraldTask has no run function"),
        Err(what) => return lent.misused(what),
    };
    if IN_TASK.get() {
        lent.misused("it called HeraldParallel.run from within a task");
        // All the same its items get done, so that it can go on.
        task.call(lent.counters, 0, items, 0);
        return;
    }
    if thread::current().id() != lent.owner {
        lent.misused("it called HeraldParallel.run on a thread that wasn't handed it");
    }
    if items > 0 {
        lent.share(items, &task);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    unsafe extern "C" fn add(argument: *mut c_void, begin: u64, end: u64, _: u32) {
        // SAFETY: the test's own counts, one for each item.
        let counts = unsafe { &*argument.cast_const().cast::<[AtomicU32; 300]>() };
        (begin..end).for_each(|item| {
            counts[item as usize].fetch_add(1, Ordering::Relaxed);
        });
    }

    #[test]
    fn every_item_is_done_once() {
        let pool = Pool::new(2);
        assert_eq!(pool.ids().len(), 2);
        for sharing in [Sharing::Alone, Sharing::Ragged(3), Sharing::LastOnly(4), Sharing::Ragged(8)] {
            let counts = [const { AtomicU32::new(0) }; 300];
            let counters = Counters::default();
            let lent = Lent::new(&pool, sharing, &counters);
            let task = HeraldTask {
                argument: (&raw const counts).cast_mut().cast(),
                run: Some(add),
                ..AbiStruct::empty()
            };
            let raw = lent.raw();
            // SAFETY: the struct is good, and so is the task.
            unsafe { run(raw.context, 300, &raw const task) };
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{sharing:?}");
            assert_eq!(lent.misuse(), None);
        }
    }
}
