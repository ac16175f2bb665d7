//! Panics that the boundary catches become a sentence for the caller, so they are not printed as well: a program whose plugin
//! panics shows one line, as for any other failure.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::{Level, log};

thread_local! {
    /// How many of this thread's callers catch what it panics with.
    static CAUGHT: Cell<usize> = const { Cell::new(0) };
}

/// Runs code whose panic the caller will tell of.
pub(crate) fn catch<T>(body: impl FnOnce() -> T) -> std::thread::Result<T> {
    CAUGHT.set(CAUGHT.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(body));
    CAUGHT.set(CAUGHT.get() - 1);
    done
}

/// From now on, panics that are caught go to the host's log, with their place, at the level for developers. A plugin has a
/// panic hook of its own, so this is not the host's.
pub(super) fn log_what_is_caught() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let other = take_hook();
        set_hook(Box::new(move |panic| {
            if CAUGHT.get() > 0 {
                log(Level::Debug, &panic.to_string());
            } else {
                other(panic);
            }
        }));
    });
}
