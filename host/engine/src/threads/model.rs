//! The signal and the shares under loom, which tries every order in which threads may run and every value that memory may show them: no
//! wake-up is lost (that would be a deadlock), what one side wrote the other sees (else there would be a data race), and each item is
//! given once.
//!
//! Threads sleep at once here; watching only reads a number more often before that.

/// Loom's in place of the standard library's.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    pub(super) use loom::sync::{Condvar, Mutex, MutexGuard};
}

#[path = "signal.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "compiled once more, over loom; the model needs not all of it"
)]
mod signal;

#[path = "share.rs"]
#[allow(clippy::duplicate_mod, reason = "as above")]
mod share;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use share::Shares;
use signal::{CLOSED, Signal};

/// A pool's memory: what the caller writes for the workers, and each of them for the caller.
struct Memory {
    signal: Signal,
    task: UnsafeCell<u64>,
    results: Vec<UnsafeCell<u64>>,
}

// SAFETY: the cells are only reached as the signal allows, which is what loom checks here.
unsafe impl Sync for Memory {}
// SAFETY: it holds nothing that is a thread's own.
unsafe impl Send for Memory {}

/// Loops in which the given numbers of threads take part, the caller included, under every order with at most `preemptions`
/// preemptions.
fn loops(threads: usize, active: &'static [usize], preemptions: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let memory = Arc::new(Memory {
            signal: Signal::new(threads),
            task: UnsafeCell::new(0),
            results: (0..threads).map(|_| UnsafeCell::new(0)).collect(),
        });
        let workers: Vec<_> = (1..threads)
            .map(|worker| {
                let memory = memory.clone();
                thread::spawn(move || {
                    let mut ticket = 0;
                    loop {
                        ticket = memory.signal.next_ticket(ticket, worker);
                        if ticket == CLOSED {
                            return;
                        }
                        // SAFETY: as in the pool: the caller waits until `finish`.
                        let task = memory.task.with(|task| unsafe { *task });
                        // SAFETY: each worker has a cell of its own.
                        memory.results[worker].with_mut(|result| unsafe { *result += task });
                        memory.signal.finish();
                    }
                })
            })
            .collect();
        let mut sums = vec![0; threads];
        for (number, active) in (1..).zip(active) {
            // SAFETY: no worker reads it before the ticket.
            memory.task.with_mut(|task| unsafe { *task = number });
            memory.signal.start(*active, false);
            memory.signal.wait_until_finished(false);
            for (worker, sum) in sums.iter_mut().enumerate().take(*active).skip(1) {
                *sum += number;
                // SAFETY: all workers of the loop have finished.
                memory.results[worker].with(|result| assert_eq!(unsafe { *result }, *sum, "worker {worker}"));
            }
        }
        memory.signal.close();
        workers.into_iter().for_each(|worker| worker.join().expect("a worker ends"));
    });
}

#[test]
fn a_caller_and_a_worker() {
    loops(2, &[2, 2], 3);
}

#[test]
fn two_workers_of_which_one_sits_a_loop_out() {
    loops(3, &[3, 2, 3], 2);
}

/// Workers take all of a loop's items, each item once.
fn shares(workers: usize, items: usize, preemptions: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let shares = Arc::new(Shares::new(workers));
        let division = shares.divide(items, workers);
        let take = move |shares: &Shares, worker| {
            let taken: Vec<usize> = std::iter::from_fn(|| shares.take(&division, worker)).flatten().collect();
            taken
        };
        let others: Vec<_> = (1..workers)
            .map(|worker| {
                let shares = shares.clone();
                thread::spawn(move || take(&shares, worker))
            })
            .collect();
        let mut taken = take(&shares, 0);
        others.into_iter().for_each(|other| taken.extend(other.join().expect("a worker ends")));
        taken.sort_unstable();
        assert!(taken.into_iter().eq(0..items), "each item is given once");
    });
}

#[test]
fn two_workers_share() {
    shares(2, 7, 4);
}

#[test]
fn three_workers_share() {
    shares(3, 4, 2);
}
