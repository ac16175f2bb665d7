//! Answering a job: preparing it, its events, and the answer in an API's form, whole or streamed.

mod prepare;
mod run;
mod stream;

pub(crate) use prepare::{Ready, TokenInfo, prepare};
pub(crate) use run::{Call, Choice, Piece, Run, begin, now};

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::response::{IntoResponse, Json, Response};
use serde_json::Value;

use herald::Finish;

use crate::Shared;
use crate::error::ApiError;
use crate::job::Job;

/// A part of a streamed answer.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    /// A server-sent event.
    Data(Value),
    /// A server-sent event with a name.
    Event(&'static str, Value),
    /// The last server-sent event of OpenAI's APIs.
    End,
    /// A line of JSON.
    Line(Value),
}

/// An API's way to answer.
pub(crate) trait Format: Send + 'static {
    /// Whether a streamed answer is lines of JSON, and not server-sent events.
    const LINES: bool = false;

    /// The whole answer.
    fn whole(&mut self, run: &Run) -> Value;

    /// What comes before anything else.
    fn begin(&mut self, _run: &Run) -> Vec<Frame> {
        Vec::new()
    }

    /// More of an answer. The choice has it already.
    fn piece(&mut self, run: &Run, choice: &Choice, piece: &Piece) -> Vec<Frame>;

    /// An answer has ended.
    fn ended(&mut self, run: &Run, choice: &Choice) -> Vec<Frame>;

    /// All have.
    fn end(&mut self, run: &Run) -> Vec<Frame>;

    /// It failed on the way.
    fn failed(&mut self, error: &ApiError) -> Vec<Frame> {
        vec![Frame::Data(error.json())]
    }
}

/// Why an answer ended, for all APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The model's end, or a whole constrained answer.
    Stop,
    /// A stop text, by its index.
    StopText(usize),
    /// The token limit, or a full context.
    Length,
    /// Tools are called.
    Calls,
    Cancelled,
}

impl Reason {
    fn new(finish: &Finish, has_calls: bool) -> Self {
        match finish {
            Finish::Length | Finish::ContextFull => Self::Length,
            Finish::Cancelled => Self::Cancelled,
            _ if has_calls => Self::Calls,
            Finish::StopText(index) => Self::StopText(*index),
            Finish::EndToken(_) | Finish::Complete => Self::Stop,
        }
    }

    /// By OpenAI's names.
    pub(crate) fn openai(self) -> &'static str {
        match self {
            Self::Stop | Self::StopText(_) => "stop",
            Self::Length => "length",
            Self::Calls => "tool_calls",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Answers a job in an API's form. The `headers` say whose it is.
///
/// # Errors
/// Where it can't be begun, or, where it isn't streamed, fails.
pub(crate) async fn answer<F: Format>(
    shared: Arc<Shared>,
    headers: &HeaderMap,
    mut job: Job,
    mut format: F,
) -> Result<Response, ApiError> {
    let is_streamed = job.stream;
    if let Some(owner) = shared.guard.rules.owner(headers) {
        job.client = format!("{owner} {}", job.client);
        job.cache_key = Some(format!("{owner} {}", job.cache_key.unwrap_or_default()));
    }
    let model = shared.models.get(job.model.as_deref()).await?;
    model.writes_text()?;
    let mut run = shared.preparing.begin(&shared, model, job).await?;
    if is_streamed {
        return Ok(stream::respond(run, format));
    }
    while let Some(happened) = run.next().await {
        happened?;
    }
    run.keep_best();
    Ok(Json(format.whole(&run)).into_response())
}
