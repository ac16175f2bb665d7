//! Where checks say what they are about, and what came of them.

use crate::{Finding, Outcome};

/// Watches checks.
pub trait Observer {
    /// A check of `subject` is about to begin: whether it is to be run. Checks come in the same order every time, so one that
    /// ended the process can be left out in the next.
    fn begins(&mut self, subject: &str) -> bool;

    /// The check that began last has ended.
    fn ends(&mut self, finding: Finding);
}

/// Runs checks, under an [`Observer`]'s eyes.
pub struct Sink<'o> {
    observer: &'o mut dyn Observer,
    alone: bool,
}

impl<'o> Sink<'o> {
    /// Checks whose findings go to `observer`.
    pub fn new(observer: &'o mut dyn Observer) -> Self {
        Self { observer, alone: false }
    }

    /// The process does nothing but these checks, so that its threads and its memory tell about the plugin: more is checked.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// Whether [`Sink::alone`] was said.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.alone
    }

    /// Runs one check. Everything that calls the plugin belongs in `check`: it isn't called where the check is left out, and
    /// whatever happens in it is put down to `subject`.
    pub fn check(&mut self, subject: impl Into<String>, check: impl FnOnce() -> Outcome) {
        let subject = subject.into();
        if self.observer.begins(&subject) {
            let outcome = check();
            self.observer.ends(Finding { subject, outcome });
        }
    }

    /// Passes on what needed no call of the plugin.
    pub fn found(&mut self, subject: impl Into<String>, outcome: Outcome) {
        self.check(subject, || outcome);
    }
}
