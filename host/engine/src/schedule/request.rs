//! A request, and what becomes of it.

use std::sync::Weak;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::Shared;
use super::queue::ClientId;
use crate::engine::{GenerateOptions, Generated};
use crate::error::{Error, Result};
use crate::metrics::RequestMetrics;
use crate::sampler::Sampled;
use crate::stop::Stop;

/// What is to be generated.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The prompt's ids.
    pub prompt: Vec<u32>,
    /// How to generate.
    pub options: GenerateOptions,
    /// Whose request it is. Where slots are short, all clients are served equally.
    pub client: String,
}

/// What a request's sink is called with.
#[derive(Debug)]
pub enum Event {
    /// A token came.
    Token {
        /// The token, with its log-probability and, where the sampler is set so, the likeliest others.
        sampled: Sampled,
        /// Whole characters that can't be part of a stop text any more; may be empty.
        text: String,
        /// Whether this is only text that was held back until the end, whose token was given before.
        tail: bool,
    },
    /// It has ended or was cancelled. This is the last event.
    Done(Box<Answer>),
    /// It failed. This is the last event.
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

/// Takes a request's events, on the scheduler's thread (so it must be quick) or on the thread that cancels a request that still
/// waits. Returns `false` to cancel.
pub type Sink = Box<dyn FnMut(Event) -> bool + Send>;

/// A request that was accepted.
#[derive(Clone)]
pub struct Handle {
    pub(super) id: u64,
    pub(super) client: ClientId,
    pub(super) stop: Stop,
    pub(super) shared: Weak<Shared>,
}

impl Handle {
    /// Ends the request: at once where it waits, after the running layer where nobody else waits for the step, and otherwise
    /// before the next step. Its memory is freed, and its sink gets [`Event::Done`] with what was generated.
    pub fn cancel(&self) {
        self.stop.set();
        if let Some(shared) = self.shared.upgrade() {
            shared.cancel_waiting(self.client, self.id);
        }
    }
}

/// A request that was accepted, with its events. When it is dropped before the end, it cancels the request.
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
        Err(Error::SchedulerEnded)
    }

    /// As [`Handle::cancel`]; the remaining events can still be read.
    pub fn cancel(&self) {
        self.handle.cancel();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.handle.cancel();
    }
}
