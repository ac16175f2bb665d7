//! Threads for tests: as many as asked, and ranges of items as ragged as a host may make them.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use herald_api::import::Executor;

/// An executor with this many scoped threads.
pub(super) struct Scoped(pub(super) usize);

// SAFETY: each range is taken once, each worker is one thread, and the scope ends when all have ended.
unsafe impl Executor for Scoped {
    fn workers(&self) -> usize {
        self.0
    }

    fn run(&self, items: usize, task: &(dyn Fn(Range<usize>, usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let work = |worker: usize| {
            // Ranges of one to three items a worker at a time, so that boundaries fall everywhere; of many items, some
            // hundred ranges.
            let len = (items / 128).max(1) + worker;
            loop {
                let begin = next.fetch_add(len, Ordering::Relaxed);
                if begin >= items {
                    break;
                }
                task(begin..items.min(begin + len), worker);
            }
        };
        std::thread::scope(|scope| {
            for worker in 1..self.0 {
                let work = &work;
                scope.spawn(move || work(worker));
            }
            work(0);
        });
    }
}
