//! How checks are written: a function that gives a figure, or says what is wrong.

use crate::{Outcome, Sink};

/// What a check gives: the figure that shows that it passes, which may be empty, or what came of it instead.
pub(crate) type Verdict<T = String> = Result<T, Outcome>;

/// Runs a check.
pub(crate) fn run(sink: &mut Sink<'_>, subject: impl Into<String>, check: impl FnOnce() -> Verdict) {
    sink.check(subject, || check().map_or_else(|outcome| outcome, Outcome::Passed));
}

/// Does the work on `threads` threads at once, each with its number; the first of their verdicts that isn't good.
pub(crate) fn on_threads(threads: u64, work: impl Fn(u64) -> Verdict<()> + Sync) -> Verdict<()> {
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        running.into_iter().try_for_each(|thread| {
            let skipped = || Outcome::Skipped("a thread of the check panicked".to_owned());
            thread.join().unwrap_or_else(|_| Err(skipped()))
        })
    })
}

/// Fails the check with a fault and a sentence unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $fault:ident, $($sentence:tt)+) => {
        match $condition {
            true => {}
            false => {
                let sentence = format!($($sentence)+);
                return Err($crate::check::failed($crate::Fault::$fault, sentence));
            }
        }
    };
}
pub(crate) use ensure;

pub(crate) fn failed(fault: crate::Fault, sentence: String) -> Outcome {
    Outcome::Failed(fault, sentence)
}
