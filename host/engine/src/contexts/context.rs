//! One context: a sequence, behind a lock, and the rule that keeps locks from waiting for each other in a circle.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard};

use crate::engine::Sequence;
use crate::error::{Error, Result};
use crate::kv_cache::MemoryUsage;
use crate::stop::Stop;
use crate::threads::locked;

thread_local! {
    /// Whether this thread works on a context.
    static HOLDS: Cell<bool> = const { Cell::new(false) };
}

/// This thread's right to hold one context. It has only one, so no two threads can wait for each other.
pub(super) struct Hold(PhantomData<*const ()>);

impl Hold {
    /// # Errors
    /// Where this thread works on a context already: the call came from a callback of that work.
    pub(super) fn begin() -> Result<Self> {
        if HOLDS.replace(true) {
            return Err(Error::Invalid(
                "a context was to be worked on from within the callback of work on one, where calls that don't work on \
                 contexts were expected"
                    .to_owned(),
            ));
        }
        Ok(Self(PhantomData))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        HOLDS.set(false);
    }
}

/// A context's sequence, and what belongs to it.
pub(super) struct State {
    pub(super) sequence: Sequence,
    /// Tokens that were chosen, and are run before the next input.
    pub(super) pending: Vec<u32>,
    /// The manager's epoch when it was last used.
    pub(super) used: u64,
    closed: bool,
}

impl State {
    /// Removes the tokens from `pending` that were run since the sequence had `before` tokens.
    pub(super) fn ran(&mut self, before: usize) {
        let ran = self.sequence.tokens().len() - before;
        self.pending.drain(..ran.min(self.pending.len()));
    }
}

/// A context, and what it held when work on it last ended.
pub(super) struct Context {
    state: Mutex<State>,
    usage: Mutex<MemoryUsage>,
    /// Tells work on it to stop.
    pub(super) stop: Stop,
}

impl Context {
    pub(super) fn new(sequence: Sequence) -> Self {
        let usage = Mutex::new(sequence.memory_usage());
        let state = State { sequence, pending: Vec::new(), used: 0, closed: false };
        Self { state: Mutex::new(state), usage, stop: Stop::default() }
    }

    /// Waits for it; `None` where it has been closed.
    pub(super) fn lock<'c>(&'c self, _: &'c Hold) -> Option<Held<'c>> {
        // A callback that panicked did so between two passes, with the sequence whole.
        let state = locked(&self.state);
        (!state.closed).then_some(Held { context: self, state })
    }

    /// As [`Context::lock`], without waiting.
    pub(super) fn try_lock<'c>(&'c self, _: &'c Hold) -> Result<Option<Held<'c>>, Busy> {
        let state = match self.state.try_lock() {
            Ok(state) => state,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return Err(Busy),
        };
        Ok((!state.closed).then_some(Held { context: self, state }))
    }

    /// Closes it as soon as nobody works on it.
    pub(super) fn close(&self, hold: &Hold) {
        if let Some(mut held) = self.lock(hold) {
            held.closed = true;
            held.sequence.truncate(0);
            held.sequence.give_back_room();
        }
    }

    pub(super) fn usage(&self) -> MemoryUsage {
        *locked(&self.usage)
    }
}

/// Somebody works on the context.
pub(super) struct Busy;

/// A context that this thread works on.
pub(super) struct Held<'c> {
    context: &'c Context,
    state: MutexGuard<'c, State>,
}

impl Deref for Held<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let usage = self.state.sequence.memory_usage();
        *locked(&self.context.usage) = usage;
    }
}
