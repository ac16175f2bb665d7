//! The pool: its threads, and the loops that they share.
//!
//! The threads are a *team* that pools of several sizes share: a pool of `n` threads runs its loops on the team's first `n`
//! members, and one loop runs at a time. So engines that want different numbers of threads never compute with more than the
//! largest of these.

use std::any::Any;
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::available_threads;
use super::locked;
use super::share::{Division, Shares};
use super::signal::{CLOSED, Signal};

/// The most threads that a pool may have.
pub const MAX_THREADS: usize = super::signal::MAX_THREADS;

/// Why a pool could not be made. Each displays as one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ThreadPoolError {
    /// More threads than [`MAX_THREADS`].
    #[error("thread pool: {0} threads were asked for, expected at most {MAX_THREADS}")]
    TooMany(usize),
    /// The operating system refused a thread.
    #[error("thread pool: the operating system refused thread {worker} of {threads}: {reason}")]
    Spawn {
        /// Its number, from 1.
        worker: usize,
        /// How many the pool was to have, including the caller's.
        threads: NonZeroUsize,
        /// What the system said.
        reason: std::io::Error,
    },
}

/// A body of a loop: gets a range of the items and the number of the worker that it runs on.
type Body<'a> = dyn Fn(Range<usize>, usize) + Sync + 'a;

/// A fixed number of threads that share the items of one loop at a time. Idle, they sleep.
///
/// ```
/// use std::num::NonZeroUsize;
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use herald::threads::ThreadPool;
///
/// let pool = ThreadPool::new(NonZeroUsize::new(2).unwrap())?;
/// let sum = AtomicUsize::new(0);
/// pool.run(1000, &|items, _worker| {
///     sum.fetch_add(items.sum(), Ordering::Relaxed);
/// });
/// assert_eq!(sum.into_inner(), 499_500);
/// # Ok::<(), herald::threads::ThreadPoolError>(())
/// ```
#[derive(Debug)]
pub struct ThreadPool {
    team: Arc<Team>,
    threads: NonZeroUsize,
    /// What is left of the loop that runs.
    shares: Shares,
    /// Whether there is a processor for each thread.
    watch: bool,
}

/// Threads that pools share; they end with the last of these.
#[derive(Debug)]
pub(super) struct Team {
    shared: Arc<Shared>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    /// Held by the caller whose loop runs.
    turn: Mutex<()>,
    /// The process that has the threads.
    process: u32,
}

#[derive(Debug)]
struct Shared {
    signal: Signal,
    /// The loop that runs: written before its ticket is, and valid until its last worker has finished.
    task: AtomicPtr<Task<'static>>,
    /// The first panic of a worker in this loop.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

struct Task<'a> {
    /// The pool that it is a loop of.
    pool: PoolId,
    shares: &'a Shares,
    division: Division,
    body: &'a Body<'a>,
}

/// The team's address, and the pool's threads.
type PoolId = (usize, NonZeroUsize);

impl Task<'_> {
    /// Does items as a worker until none are left.
    fn work(&self, worker: usize) {
        WORKING.set(Some((self.pool, worker)));
        while let Some(items) = self.shares.take(&self.division, worker) {
            (self.body)(items, worker);
        }
    }
}

thread_local! {
    /// The pool whose loop this thread works on, and as which worker.
    static WORKING: Cell<Option<(PoolId, usize)>> = const { Cell::new(None) };
}

impl ThreadPool {
    /// A pool of this many threads, the thread that calls [`ThreadPool::run`] included: it starts one fewer.
    ///
    /// # Errors
    /// More than [`MAX_THREADS`]; the operating system refuses a thread.
    pub fn new(threads: NonZeroUsize) -> Result<Self, ThreadPoolError> {
        Self::of(&Arc::new(Team::new(threads.get().min(MAX_THREADS))), threads)
    }

    /// A pool of the first `threads` threads of a team, which starts those that it lacks.
    ///
    /// # Errors
    /// As for [`ThreadPool::new`].
    pub(super) fn of(team: &Arc<Team>, threads: NonZeroUsize) -> Result<Self, ThreadPoolError> {
        team.grow(threads)?;
        let shares = Shares::new(threads.get());
        Ok(Self { team: Arc::clone(team), threads, shares, watch: threads <= available_threads() })
    }

    /// Whether another pool's loops run on the same threads.
    #[cfg(test)]
    pub(super) fn is_of_team_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.team, &other.team)
    }

    /// How many threads compute, the caller's included; worker numbers are below it.
    #[must_use]
    pub fn threads(&self) -> NonZeroUsize {
        self.threads
    }

    /// Does the items `0..items`: calls `body` with ranges of them that don't overlap and aren't empty, and the number of the worker that
    /// it runs on, and returns when all calls have. Each worker begins with an even, contiguous share, in some pieces; one that is done
    /// takes pieces of the others'. The calling thread is worker 0. What `body` wrote is visible to the caller then.
    ///
    /// Any thread may call this. Loops of several callers run one after the other. A call from inside a loop (of this
    /// pool or another) runs `body` at once on the same thread, with all items: as the worker that it is where it is
    /// of this pool, else as worker 0.
    ///
    /// # Panics
    /// With the panic of a `body` that panicked (the caller's own, if several did), after all calls have ended. The
    /// pool remains usable.
    pub fn run(&self, items: usize, body: &(dyn Fn(Range<usize>, usize) + Sync)) {
        if items == 0 {
            return;
        }
        let pool = (Arc::as_ptr(&self.team).addr(), self.threads);
        if let Some((outer, worker)) = WORKING.get() {
            body(0..items, if outer == pool { worker } else { 0 });
            return;
        }
        let Team { shared, turn, .. } = &*self.team;
        let turn = locked(turn);
        let active = items.min(self.threads.get());
        // Its shares are this loop's alone: one runs at a time.
        let task = Task { pool, shares: &self.shares, division: self.shares.divide(items, active), body };
        if active > 1 {
            let erased = ptr::from_ref(&task).cast::<Task<'static>>().cast_mut();
            // Relaxed: the ticket publishes it.
            shared.task.store(erased, Ordering::Relaxed);
            shared.signal.start(active, self.watch);
        }
        let own = catch_unwind(AssertUnwindSafe(|| task.work(0)));
        WORKING.set(None);
        if active > 1 {
            // Not even a panic may leave before: the workers use `task`, on this stack.
            shared.signal.wait_until_finished(self.watch);
        }
        let others = locked(&shared.panic).take();
        drop(turn);
        if let Some(payload) = own.err().or(others) {
            resume_unwind(payload);
        }
    }
}

impl Team {
    /// A team without threads yet, for at most this many, including the caller's.
    pub(super) fn new(max_threads: usize) -> Self {
        let shared = Shared {
            signal: Signal::new(max_threads),
            task: AtomicPtr::new(ptr::null_mut()),
            panic: Mutex::new(None),
        };
        let process = std::process::id();
        Self { shared: Arc::new(shared), workers: Mutex::default(), turn: Mutex::new(()), process }
    }

    /// Starts threads until it has as many, the caller included.
    fn grow(&self, threads: NonZeroUsize) -> Result<(), ThreadPoolError> {
        if threads.get() > MAX_THREADS {
            return Err(ThreadPoolError::TooMany(threads.get()));
        }
        let mut workers = locked(&self.workers);
        for worker in workers.len() + 1..threads.get() {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name(format!("herald-{worker}"));
            let started = thread.spawn(move || {
                crate::system::be_interactive();
                shared.work(worker);
            });
            workers.push(started.map_err(|reason| ThreadPoolError::Spawn { worker, threads, reason })?);
        }
        Ok(())
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // A fork lacks the threads, and would wait for them for ever.
            let workers = std::mem::take(&mut self.workers).into_inner();
            let workers = workers.unwrap_or_else(PoisonError::into_inner);
            workers.into_iter().for_each(std::mem::forget);
            return;
        }
        self.shared.signal.close();
        for worker in self.workers.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // It catches its tasks' panics and has none of its own.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The life of a worker.
    fn work(&self, worker: usize) {
        let mut ticket = 0;
        loop {
            ticket = self.signal.next_ticket(ticket, worker);
            if ticket == CLOSED {
                return;
            }
            self.help(worker);
            self.signal.finish();
        }
    }

    fn help(&self, worker: usize) {
        let task = self.task.load(Ordering::Relaxed);
        // SAFETY: this worker takes part in the loop of the ticket that it saw. `run` stored the pointer to a live
        // `Task` before it published the ticket (Release, which the worker's read acquired), and neither returns nor
        // unwinds, nor stores another, until this worker has called `finish`, which it does after this function. So
        // the task, and what its body borrows for the erased lifetime, outlive this reference. Sharing it is sound:
        // its fields are only read, and the body is `Sync`.
        let task = unsafe { &*task };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| task.work(worker))) {
            let mut first = locked(&self.panic);
            if first.is_none() {
                *first = Some(payload);
            } else {
                // Dropping it could panic in turn, and this worker must get to `finish`.
                std::mem::forget(payload);
            }
        }
    }
}
