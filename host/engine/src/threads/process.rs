//! The pools of this process: all engines compute with the same threads, each with as many of them as it was told.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, Weak};

use herald_api::import::Executor;

use super::locked;
use super::pool::Team;
use super::{MAX_THREADS, ThreadPool, ThreadPoolError, available_threads};

/// The threads, while any engine lives, and the process that they are of.
static TEAM: Mutex<(u32, Weak<Team>)> = Mutex::new((0, Weak::new()));

/// A pool of `threads` threads (`None`: as many as this process may use). All pools that this returns share their threads, so
/// two never compute at once. The threads end with the last pool.
///
/// # Errors
/// As [`ThreadPool::new`].
pub fn shared(threads: Option<NonZeroUsize>) -> Result<Arc<ThreadPool>, ThreadPoolError> {
    let threads = threads.unwrap_or_else(available_threads);
    let mut shared = locked(&TEAM);
    let (process, team) = &*shared;
    let here = std::process::id();
    // A fork has the team's memory without its threads.
    let team = team.upgrade().filter(|_| *process == here);
    let team = team.unwrap_or_else(|| Arc::new(Team::new(MAX_THREADS)));
    let pool = ThreadPool::of(&team, threads)?;
    *shared = (here, Arc::downgrade(&team));
    Ok(Arc::new(pool))
}

// SAFETY: `ThreadPool::run` takes each item once, counts its workers, and returns when all have ended.
unsafe impl Executor for ThreadPool {
    fn workers(&self) -> usize {
        self.threads().get()
    }

    fn run(&self, items: usize, task: &(dyn Fn(Range<usize>, usize) + Sync)) {
        ThreadPool::run(self, items, task);
    }
}
