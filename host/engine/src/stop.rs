//! Telling work to stop, from another thread or by a deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Tells work to stop: a flag that anyone may set, and a deadline. Clones share the flag.
///
/// [`Sequence::set_stop`](crate::Sequence::set_stop) ties one to a sequence: passes look at it between any two layers.
///
/// ```
/// use std::time::Instant;
/// use herald::Stop;
///
/// let stop = Stop::default();
/// let elsewhere = stop.clone();
/// std::thread::spawn(move || elsewhere.set()).join().unwrap();
/// assert!(stop.ends() && stop.reset() && !stop.ends());
/// assert!(stop.until(Some(Instant::now())).ends());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

impl Stop {
    /// The same flag with a deadline, or without one.
    #[must_use]
    pub fn until(&self, deadline: Option<Instant>) -> Self {
        Self { flag: Arc::clone(&self.flag), deadline }
    }

    /// The same with another deadline, if that comes before its own.
    #[must_use]
    pub fn or_at(&self, deadline: Option<Instant>) -> Self {
        self.until(self.deadline.into_iter().chain(deadline).min())
    }

    /// Sets the flag, which stays set until [`Stop::reset`]. A signal handler may call this.
    pub fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Clears the flag. Returns whether it was set.
    pub fn reset(&self) -> bool {
        self.flag.swap(false, Ordering::Relaxed)
    }

    /// Whether the flag is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Whether work is to stop.
    #[must_use]
    pub fn ends(&self) -> bool {
        self.is_set() || self.is_late()
    }
}
