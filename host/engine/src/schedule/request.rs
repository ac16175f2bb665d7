//! A request, and what becomes of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};

use super::Shared;
use crate::engine::{GenerateOptions, Generated};
use crate::error::{Error, Result};
use crate::metrics::RequestMetrics;
use crate::sampler::Sampled;

/// What is to be generated.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The prompt's ids.
    pub prompt: Vec<u32>,
    /// How to generate.
    pub options: GenerateOptions,
    /// Whose request it is: where places are short, clients are served alike, whoever asks more.
    pub client: String,
}

/// What a request's sink is told.
#[derive(Debug)]
pub enum Event {
    /// A token came.
    Token {
        /// The token, with its log-probability and the likeliest others where they were asked for.
        sampled: Sampled,
        /// Whole characters that can't be part of a stop text any more; may be empty.
        text: String,
        /// Whether this is nothing but text that was held back until the end: its token was given before.
        tail: bool,
    },
    /// It has ended, be it because it was cancelled; nothing comes after.
    Done(Box<Answer>),
    /// It failed; nothing comes after.
    Failed(Error),
}

/// A request's whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What was generated.
    pub generated: Generated,
    /// What it took.
    pub metrics: RequestMetrics,
}

/// Takes a request's events, on the scheduler's thread (it must not dawdle) or on that of whoever cancels a request that
/// still waits. Returns `false` to cancel.
pub type Sink = Box<dyn FnMut(Event) -> bool + Send>;

/// A request that was accepted.
#[derive(Clone)]
pub struct Handle {
    pub(super) id: u64,
    pub(super) client: String,
    pub(super) cancelled: Arc<AtomicBool>,
    pub(super) shared: Weak<Shared>,
}

impl Handle {
    /// Ends the request: at once where it waits, else before the next step, when its memory is freed. Its sink is told
    /// [`Event::Done`] with what there is.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        if let Some(shared) = self.shared.upgrade() {
            shared.cancel_waiting(&self.client, self.id);
        }
    }
}

/// A request that was accepted, whose events come to here. Dropped before its end, it cancels the request.
pub struct Ticket {
    handle: Handle,
    events: Receiver<Event>,
}

impl Ticket {
    pub(super) fn sink() -> (Sink, Receiver<Event>) {
        let (sender, receiver): (Sender<Event>, _) = channel();
        (Box::new(move |event| sender.send(event).is_ok()), receiver)
    }

    pub(super) fn new(handle: Handle, events: Receiver<Event>) -> Self {
        Self { handle, events }
    }

    /// Waits for the next event; `None` after the last.
    #[must_use]
    pub fn next(&self) -> Option<Event> {
        self.events.recv().ok()
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// Why it failed.
    pub fn wait(self) -> Result<Answer> {
        while let Some(event) = self.next() {
            match event {
                Event::Token { .. } => {}
                Event::Done(answer) => return Ok(*answer),
                Event::Failed(error) => return Err(error),
            }
        }
        Err(Error::Invalid("the scheduler is gone, and the request with it".to_owned()))
    }

    /// As [`Handle::cancel`]; the events that are left can still be had.
    pub fn cancel(&self) {
        self.handle.cancel();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.handle.cancel();
    }
}
