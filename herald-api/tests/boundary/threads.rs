//! Threads to lend to calls.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use herald_api::import::Executor;

/// As many threads as it says, one item at a time.
pub(crate) struct Threads(pub(crate) usize);

// SAFETY: each item is taken once, each worker is one thread, and the scope ends when all have ended.
unsafe impl Executor for Threads {
    fn workers(&self) -> usize {
        self.0
    }

    fn run(&self, items: usize, task: &(dyn Fn(Range<usize>, usize) + Sync)) {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for worker in 0..self.0 {
                let next = &next;
                scope.spawn(move || {
                    loop {
                        let item = next.fetch_add(1, Ordering::Relaxed);
                        if item >= items {
                            break;
                        }
                        task(item..item + 1, worker);
                    }
                });
            }
        });
    }
}
