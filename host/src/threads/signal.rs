//! How a caller and its workers wait for each other: briefly awake, then asleep.
//!
//! Two things are waited for, each an atomic number: a new *ticket*, by workers; *pending* at zero, by the caller.
//! Awake, one just reads the number. Whoever is about to sleep reads it again under the mutex, and whoever changes it
//! takes the mutex before waking, so that no change falls between that reading and the sleep.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What the ticket becomes when the pool ends.
pub(super) const CLOSED: u64 = u64::MAX;
/// The bits of a ticket that say how many workers take part; those above count the loops.
const ACTIVE_BITS: u32 = 16;
/// Set in `pending` when the caller sleeps, so that only then does the last worker make a system call.
const CALLER_SLEEPS: usize = 1 << (usize::BITS - 1);
/// How long to watch before sleeping: longer than the work between two loops of a step, much shorter than anyone
/// would notice of an idle engine.
const WATCH: Duration = Duration::from_micros(50);

#[derive(Debug)]
pub(super) struct Signal {
    ticket: AtomicU64,
    pending: AtomicUsize,
    sleeping_workers: Mutex<usize>,
    new_ticket: Condvar,
    none_pending: Condvar,
    watch: Duration,
}

impl Signal {
    /// With `watch` false, those who wait sleep at once: there are fewer processors than threads, so whoever watches
    /// may keep whom they wait for from running.
    pub(super) fn new(watch: bool) -> Self {
        Self {
            ticket: AtomicU64::new(0),
            pending: AtomicUsize::new(0),
            sleeping_workers: Mutex::new(0),
            new_ticket: Condvar::new(),
            none_pending: Condvar::new(),
            watch: if watch { WATCH } else { Duration::ZERO },
        }
    }

    /// Caller: starts a loop in which the workers below `active` take part, the caller being worker 0. All that the
    /// caller wrote before is visible to a worker that sees the ticket.
    pub(super) fn start(&self, active: usize) {
        // Relaxed: published by the ticket. No worker reads it before, as all have finished the loop before this one.
        self.pending.store(active - 1, Ordering::Relaxed);
        // Relaxed: only the one caller writes tickets.
        let loops = self.ticket.load(Ordering::Relaxed) >> ACTIVE_BITS;
        self.publish((loops + 1) << ACTIVE_BITS | active as u64);
    }

    /// Caller: tells the workers that the pool ends.
    pub(super) fn close(&self) {
        self.publish(CLOSED);
    }

    fn publish(&self, ticket: u64) {
        let sleeping = self.lock();
        // Release: pairs with the workers' Acquire, and carries the task and `pending`.
        self.ticket.store(ticket, Ordering::Release);
        let any = *sleeping > 0;
        drop(sleeping);
        if any {
            self.new_ticket.notify_all();
        }
    }

    /// Worker: waits for a ticket other than `seen`.
    pub(super) fn next_ticket(&self, seen: u64) -> u64 {
        // Acquire: pairs with the Release in `publish`.
        let is_new = || Some(self.ticket.load(Ordering::Acquire)).filter(|&ticket| ticket != seen);
        if let Some(ticket) = self.watch_for(is_new) {
            return ticket;
        }
        let mut sleeping = self.lock();
        loop {
            if let Some(ticket) = is_new() {
                return ticket;
            }
            *sleeping += 1;
            sleeping = self.new_ticket.wait(sleeping).unwrap_or_else(PoisonError::into_inner);
            *sleeping -= 1;
        }
    }

    /// Whether `worker` takes part in the loop of this ticket (not [`CLOSED`]).
    pub(super) fn takes_part(ticket: u64, worker: usize) -> bool {
        (worker as u64) < ticket & ((1 << ACTIVE_BITS) - 1)
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

    /// Caller: waits until all workers of the loop have finished.
    pub(super) fn wait_until_finished(&self) {
        // Acquire: pairs with the Release in `finish`.
        let none = || (self.pending.load(Ordering::Acquire) == 0).then_some(());
        if self.watch_for(none).is_some() {
            return;
        }
        let mut guard = self.lock();
        self.pending.fetch_or(CALLER_SLEEPS, Ordering::Relaxed);
        while self.pending.load(Ordering::Acquire) != CALLER_SLEEPS {
            guard = self.none_pending.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn watch_for<T>(&self, ready: impl Fn() -> Option<T>) -> Option<T> {
        if let Some(value) = ready() {
            return Some(value);
        }
        if self.watch.is_zero() {
            return None;
        }
        let start = Instant::now();
        loop {
            // What follows costs more than reading the number.
            for _ in 0..64 {
                if let Some(value) = ready() {
                    return Some(value);
                }
                std::hint::spin_loop();
            }
            // Whom this thread waits for may have been put on the same processor, and would only run once this
            // thread sleeps.
            thread::yield_now();
            if start.elapsed() >= self.watch {
                return None;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        // Nothing panics while it is held.
        self.sleeping_workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
