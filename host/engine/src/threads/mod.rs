//! The threads that compute.
//!
//! Plugins start no threads of their own: the host lends them this pool, so however many backends and engines there
//! are, no more threads compute than the user allowed. A decode step runs hundreds of short parallel loops, some of
//! ten microseconds, so a loop must start and end in about one: workers watch for the next loop for a moment before
//! they sleep, and take a loop's items in a few pieces, not one by one.

#[cfg(test)]
mod model;
mod pool;
mod process;
mod share;
mod signal;
mod sync;
#[cfg(test)]
mod tests;

pub use pool::{MAX_THREADS, ThreadPool, ThreadPoolError};
pub use process::shared;

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many threads this process may keep busy: the processors that its affinity allows, or fewer where a container's
/// CPU quota (cgroup v1 or v2) does. 1 where the system doesn't say.
#[must_use]
pub fn available_threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Locks a mutex, even where a thread panicked while it held it. No holder of a mutex in HERALD leaves its data half changed, so
/// that does no harm.
pub fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a mutex held, as [`locked`] locks it.
pub fn into_value<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
