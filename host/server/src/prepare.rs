//! Preparing requests: rendering templates, dividing texts into tokens, compiling forms.
//!
//! This takes processor time before a request has a slot, so it must not take it from those that have one. Few requests are
//! prepared at once, on threads of their own; forms, which may take long, have threads apart from texts. Whoever waits too long
//! is told so, and whoever hangs up ends the work.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use herald::Stop;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Shared;
use crate::answer::{self, Ready, Run, prepare};
use crate::error::ApiError;
use crate::job::Job;
use crate::models::Model;

/// Texts that are prepared at once.
const TEXTS: usize = 2;

/// Forms that are compiled at once.
const FORMS: usize = 2;

/// Requests for embeddings that are computed at once.
const EMBEDDINGS: usize = 1;

/// Threads for all work of this kind.
pub(super) const THREADS: usize = TEXTS + FORMS + EMBEDDINGS;

/// Places for requests that are being prepared.
pub(super) struct Preparing {
    texts: Arc<Semaphore>,
    forms: Arc<Semaphore>,
    embeddings: Arc<Semaphore>,
    time: Duration,
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
        let places = |count| Arc::new(Semaphore::new(count));
        Self { texts: places(TEXTS), forms: places(FORMS), embeddings: places(EMBEDDINGS), time }
    }

    /// Makes a job's prompts ready, and gives it to the scheduler.
    ///
    /// # Errors
    /// Where it can't be served, or not in time.
    pub(super) async fn begin(
        &self,
        shared: &Arc<Shared>,
        model: Arc<Model>,
        job: Job,
    ) -> Result<Run, ApiError> {
        let deadline = Instant::now() + self.time;
        let ends = EndsWithMe(Stop::default());
        let stop = ends.0.until(Some(deadline));
        let (of_text, trusts) = (Arc::clone(&model), shared.options.trust_content);
        let text = move || prepare(&of_text, &job, trusts).map(|ready| (job, ready));
        let (job, ready) = self.run(&self.texts, &stop, deadline, text).await?;
        let place = if ready.iter().any(Ready::has_form) { &self.forms } else { &self.texts };
        let until = stop.clone();
        self.run(place, &stop, deadline, move || answer::begin(&model, job, ready, &until)).await
    }

    /// Short work of the tokenizer's or the template's.
    ///
    /// # Errors
    /// The work's, and where there is no place for it in time.
    pub(super) async fn text<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let deadline = Instant::now() + self.time;
        let ends = EndsWithMe(Stop::default());
        self.run(&self.texts, &ends.0.until(Some(deadline)), deadline, work).await
    }

    /// Embeddings, which are computed apart from the scheduler.
    ///
    /// # Errors
    /// The work's, and where there is no place for it in time.
    pub(super) async fn embedding<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let deadline = Instant::now() + self.time;
        let ends = EndsWithMe(Stop::default());
        self.run(&self.embeddings, &ends.0.until(Some(deadline)), deadline, work).await
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

/// Nobody waits that long.
pub(super) fn too_long() -> ApiError {
    let message =
        "the request could not be prepared in time, since others are being prepared: try again later";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
}
