//! The pools of this process: engines that compute with as many threads share one.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use herald_api::import::Executor;

use super::{ThreadPool, ThreadPoolError, available_threads};

/// A tree, whose every part begins where a pointer points: leak checkers see it as held, and a hash table as lost.
static POOLS: Mutex<BTreeMap<NonZeroUsize, Weak<ThreadPool>>> = Mutex::new(BTreeMap::new());

/// The pool of so many threads (`None`: as many as this process may use) that lives in this process, made if there is
/// none. It ends with its last user.
///
/// # Errors
/// As [`ThreadPool::new`].
pub fn shared(threads: Option<NonZeroUsize>) -> Result<Arc<ThreadPool>, ThreadPoolError> {
    let threads = threads.unwrap_or_else(available_threads);
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = pools.get(&threads).and_then(Weak::upgrade) {
        return Ok(pool);
    }
    let pool = Arc::new(ThreadPool::new(threads)?);
    pools.retain(|_, pool| pool.strong_count() > 0);
    pools.insert(threads, Arc::downgrade(&pool));
    Ok(pool)
}

impl Executor for ThreadPool {
    fn workers(&self) -> usize {
        self.threads().get()
    }

    fn run(&self, items: usize, task: &(dyn Fn(Range<usize>, usize) + Sync)) {
        ThreadPool::run(self, items, task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_share_a_pool_while_one_lives() {
        let threads = NonZeroUsize::new(3);
        let (first, second) = (shared(threads).unwrap(), shared(threads).unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        let other = shared(NonZeroUsize::new(4)).unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
    }
}
