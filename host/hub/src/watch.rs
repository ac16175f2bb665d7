//! What is told while a model is fetched, and trying again.

use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::http::Trouble;
use crate::settings::Patience;

/// What happens while a model is fetched.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A file begins, or goes on: `at` of its `bytes` are there from an earlier time.
    File {
        /// Its name.
        path: &'a str,
        /// Bytes that are there.
        at: u64,
        /// Bytes that it has.
        bytes: u64,
    },
    /// So many bytes of the file are there.
    Bytes(u64),
    /// Something failed, and is tried again after a pause.
    Again {
        /// What failed, in one sentence.
        why: &'a str,
        /// How long the pause is.
        pause: Duration,
    },
    /// Another process fetches the file, and is waited for.
    Waiting,
    /// Time passes. It is told several times a second where nothing else is.
    Tick,
}

/// Who is told. Where it breaks, the fetch ends with [`Error::Interrupted`], and goes on from there the next time.
pub type Watch<'a> = dyn FnMut(Event<'_>) -> ControlFlow<()> + 'a;

/// Tells the watcher.
pub(crate) fn tell(watch: &mut Watch<'_>, event: Event<'_>) -> Result<()> {
    match watch(event) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted),
    }
}

/// Lets time pass, of which the watcher is told.
pub(crate) fn sleep(pause: Duration, watch: &mut Watch<'_>) -> Result<()> {
    let end = Instant::now() + pause;
    loop {
        tell(watch, Event::Tick)?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// Retries where no file has begun yet.
const FEW: u32 = 3;

/// How often in a row something failed.
#[derive(Debug)]
pub(crate) struct Retries {
    patience: Patience,
    failures: u32,
}

impl Retries {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, failures: 0 }
    }

    /// It got on.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt, where there is one.
    pub(crate) fn again(&mut self, trouble: Trouble, watch: &mut Watch<'_>) -> Result<()> {
        let (why, after) = match trouble {
            Trouble::Again(why, after) => (why, after),
            Trouble::Final(error) => return Err(error),
        };
        let longest = self.patience.longest_pause;
        if let Some(after) = after.filter(|after| *after > longest) {
            return Err(Error::Failed(format!("{why}; it asks to be left alone for {} s", after.as_secs())));
        }
        if self.failures >= self.patience.retries {
            let attempts = self.patience.retries + 1;
            return Err(Error::Failed(format!("{why}; {attempts} attempts in a row failed")));
        }
        let usual = self.patience.pause.saturating_mul(1 << self.failures.min(16));
        let pause = after.unwrap_or(usual).min(longest);
        self.failures += 1;
        tell(watch, Event::Again { why: &why, pause })?;
        sleep(pause, watch)
    }

    /// Calls until it works, fails for good, or has failed too often: somebody waits for the first answer.
    pub(crate) fn until<T>(
        patience: Patience,
        watch: &mut Watch<'_>,
        call: impl Fn() -> std::result::Result<T, Trouble>,
    ) -> Result<T> {
        let mut retries = Self::new(Patience { retries: patience.retries.min(FEW), ..patience });
        loop {
            match call() {
                Ok(value) => return Ok(value),
                Err(trouble) => retries.again(trouble, watch)?,
            }
        }
    }
}
