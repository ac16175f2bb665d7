//! How a caller and its workers wait for each other: briefly awake, then asleep.
//!
//! Workers wait for a new *ticket*, and the caller for *pending* to become zero. Both are atomic numbers, which a thread that is
//! awake just reads. A thread that is about to sleep reads the number again under the mutex, and one that changes it takes the
//! mutex before it wakes others, so no change falls between that reading and the sleep.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::sync::{AtomicU64, AtomicUsize, Condvar, Mutex, MutexGuard, Ordering};

/// What the ticket becomes when the pool ends.
pub(super) const CLOSED: u64 = u64::MAX;
/// The bits of a ticket that say how many workers take part; those above say whether who waits watches first, and count
/// the loops.
const ACTIVE_BITS: u32 = 16;
const WATCH_BIT: u64 = 1 << ACTIVE_BITS;
const LOOPS_SHIFT: u32 = ACTIVE_BITS + 1;
/// Set in `pending` when the caller sleeps, so that only then does the last worker make a system call.
const CALLER_SLEEPS: usize = 1 << (usize::BITS - 1);
/// How long to watch before sleeping: longer than the work between two loops of a step, much shorter than anyone
/// would notice of an idle engine.
const WATCH: Duration = Duration::from_micros(50);
/// The most threads that can take part, the caller included.
pub(super) const MAX_THREADS: usize = 1024;
const WORDS: usize = MAX_THREADS.div_ceil(64);

/// Which workers sleep, a bit each.
type Asleep = [u64; WORDS];

#[derive(Debug)]
pub(super) struct Signal {
    ticket: AtomicU64,
    pending: AtomicUsize,
    asleep: Mutex<Asleep>,
    /// Wakes each worker by itself: those that take no part sleep on.
    bells: Vec<Condvar>,
    none_pending: Condvar,
}

impl Signal {
    /// For at most `threads` threads, the caller included.
    pub(super) fn new(threads: usize) -> Self {
        assert!(threads <= MAX_THREADS, "{threads} threads at one signal");
        Self {
            ticket: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
            asleep: Mutex::new([0; WORDS]),
            bells: (0..threads).map(|_| Condvar::new()).collect(),
            none_pending: Condvar::new(),
        }
    }

    /// Caller: starts a loop in which the workers below `active` take part, the caller being worker 0. All that the
    /// caller wrote before is visible to a worker that sees the ticket. With `watch` false, the workers sleep at once
    /// when they have done their shares: there are fewer processors than threads, so whoever watches may keep whom
    /// they wait for from running.
    pub(super) fn start(&self, active: usize, watch: bool) {
        // Relaxed: published by the ticket. No worker reads it before, as all have finished the loop before this one.
        self.pending.store(active - 1, Ordering::Relaxed);
        // Relaxed: only the one caller writes tickets.
        let loops = self.ticket.load(Ordering::Relaxed) >> LOOPS_SHIFT;
        let watch = if watch { WATCH_BIT } else { 0 };
        self.publish((loops + 1) << LOOPS_SHIFT | watch | active as u64);
    }

    /// Caller: tells the workers that the pool ends.
    pub(super) fn close(&self) {
        self.publish(CLOSED);
    }

    fn publish(&self, ticket: u64) {
        let asleep = {
            let asleep = self.lock();
            // Release: pairs with the workers' Acquire, and carries the task and `pending`.
            self.ticket.store(ticket, Ordering::Release);
            *asleep
        };
        for (word, mut bits) in asleep.into_iter().enumerate() {
            while bits != 0 {
                let worker = word * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if is_for(ticket, worker) {
                    self.bells[worker].notify_one();
                }
            }
        }
    }

    /// Worker: waits for a ticket other than `seen` that is for it, and returns it. Tickets in which it takes no part
    /// neither wake it nor keep it awake.
    pub(super) fn next_ticket(&self, seen: u64, worker: usize) -> u64 {
        let next = || {
            // Acquire: pairs with the Release in `publish`.
            Some(self.ticket.load(Ordering::Acquire))
                .filter(|&ticket| ticket != seen && is_for(ticket, worker))
        };
        if let Some(ticket) = watch_for(seen & WATCH_BIT != 0, next) {
            return ticket;
        }
        let (word, bit) = (worker / 64, 1 << (worker % 64));
        let mut asleep = self.lock();
        loop {
            if let Some(ticket) = next() {
                return ticket;
            }
            asleep[word] |= bit;
            asleep = self.bells[worker].wait(asleep).unwrap_or_else(PoisonError::into_inner);
            asleep[word] &= !bit;
        }
    }

    /// Worker: says that its share is done. It must not touch the task afterwards: the caller may have returned.
    pub(super) fn finish(&self) {
        // Release: the caller that sees zero sees what the workers wrote. Each later decrement continues the release
        // sequence of those before, so one Acquire of the last value suffices.
        if self.pending.fetch_sub(1, Ordering::Release) == CALLER_SLEEPS + 1 {
            // The caller set the flag under the mutex and holds it until it sleeps.
            drop(self.lock());
            self.none_pending.notify_all();
        }
    }

    /// Caller: waits until all workers of the loop have finished; `watch` as in [`Signal::start`].
    pub(super) fn wait_until_finished(&self, watch: bool) {
        // Acquire: pairs with the Release in `finish`.
        let none = || (self.pending.load(Ordering::Acquire) == 0).then_some(());
        if watch_for(watch, none).is_some() {
            return;
        }
        let mut guard = self.lock();
        self.pending.fetch_or(CALLER_SLEEPS, Ordering::Relaxed);
        while self.pending.load(Ordering::Acquire) != CALLER_SLEEPS {
            guard = self.none_pending.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Asleep> {
        // Nothing panics while it is held.
        self.asleep.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a worker takes part in the loop of this ticket, or is to end by it.
fn is_for(ticket: u64, worker: usize) -> bool {
    ticket == CLOSED || (worker as u64) < ticket & (WATCH_BIT - 1)
}

/// What `ready` gives, if it gives it soon: at once, or, where `watch` is true, within a moment.
fn watch_for<T>(watch: bool, ready: impl Fn() -> Option<T>) -> Option<T> {
    if let Some(value) = ready() {
        return Some(value);
    }
    if !watch {
        return None;
    }
    let start = Instant::now();
    // Without yielding in between: Linux takes that for a whole slice that the thread has had, so beside other programs a thread
    // that yields here again and again hardly runs at all. Whom it waits for may have been put on the same processor, and runs
    // once this thread sleeps.
    while start.elapsed() < WATCH {
        // Reading the clock costs more than reading the number.
        for _ in 0..64 {
            if let Some(value) = ready() {
                return Some(value);
            }
            std::hint::spin_loop();
        }
    }
    None
}
