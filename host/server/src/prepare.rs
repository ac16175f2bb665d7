//! Preparing requests: rendering templates, dividing texts into tokens, compiling forms.
//!
//! This takes processor time before a request has a slot, so it must not take it from those that have one. Few requests are
//! prepared at once, on threads of their own; forms, which may take long, have threads apart from texts. Whoever waits too long
//! is told so, and whoever hangs up ends the work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use herald::schedule::{Event, Handle, Request, Scheduler};
use herald::{NeuroEngine, Stop};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Texts that are prepared at once.
const TEXTS: usize = 2;

/// Forms that are compiled at once.
const FORMS: usize = 2;

/// Threads for all work of this kind.
pub(super) const THREADS: usize = TEXTS + FORMS;

/// Places for requests that are being prepared.
pub(super) struct Preparing {
    texts: Arc<Semaphore>,
    forms: Arc<Semaphore>,
    time: Duration,
}

/// A request's events. Dropping it cancels the request, which happens when the client disconnects.
pub(super) struct Events {
    pub(super) receiver: UnboundedReceiver<Event>,
    handle: Handle,
}

impl Drop for Events {
    fn drop(&mut self) {
        self.handle.cancel();
    }
}

/// Ends the work when nobody waits for it any more.
struct EndsWithMe(Stop);

impl Drop for EndsWithMe {
    fn drop(&mut self) {
        self.0.set();
    }
}

impl Preparing {
    /// Where each request is prepared within `time`.
    pub(super) fn new(time: Duration) -> Self {
        Self { texts: Arc::new(Semaphore::new(TEXTS)), forms: Arc::new(Semaphore::new(FORMS)), time }
    }

    /// Makes a request by `make`, and submits it.
    pub(super) async fn submit(
        &self,
        scheduler: &Arc<Scheduler>,
        make: impl FnOnce(&NeuroEngine) -> Result<Request, ApiError> + Send + 'static,
    ) -> Result<Events, ApiError> {
        let deadline = Instant::now() + self.time;
        let ends = EndsWithMe(Stop::default());
        let stop = ends.0.until(Some(deadline));
        let maker = Arc::clone(scheduler);
        let request = self.run(&self.texts, &stop, deadline, move || make(maker.engine())).await?;
        let place = if request.options.constraint.is_some() { &self.forms } else { &self.texts };
        let (scheduler, until) = (Arc::clone(scheduler), stop.clone());
        let submit = move || {
            let (sender, receiver) = unbounded_channel();
            let sink = Box::new(move |event| sender.send(event).is_ok());
            let handle = scheduler.submit_until(request, sink, &until).map_err(|error| match error {
                herald::Error::Cancelled => too_long(),
                error => error.into(),
            })?;
            Ok(Events { receiver, handle })
        };
        self.run(place, &stop, deadline, submit).await
    }

    /// Runs `work` on a thread of its own, once there is a place for it.
    async fn run<T: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        stop: &Stop,
        deadline: Instant,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let place = tokio::time::timeout_at(deadline.into(), Arc::clone(places).acquire_owned());
        // It is never closed.
        let place: OwnedSemaphorePermit = place.await.ok().and_then(Result::ok).ok_or_else(too_long)?;
        let stop = stop.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            if stop.ends() { Err(too_long()) } else { work() }
        });
        done.await.map_err(|error| ApiError::internal(format!("the request failed: {error}")))?
    }
}

fn too_long() -> ApiError {
    let message =
        "the request could not be prepared in time, since others are being prepared: try again later";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
}
