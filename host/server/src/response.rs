//! Completions and chat: the answer to a request, whole or streamed.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use futures_util::stream;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::ApiError;
use super::prepare::Events;
use super::request::{self, Chat, Completion};
use super::{App, Shared};
use herald::schedule::{Event, Request};
use herald::{Finish, Generated, NeuroEngine};

/// The two kinds of answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Completion,
    Chat,
}

/// The fields that every chunk of an answer repeats.
struct ResponseId {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
}

impl ResponseId {
    fn new(kind: Kind, shared: &Shared) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Self {
            kind,
            id: format!("{prefix}-{created}-{number}"),
            created,
            model: shared.options.model.clone(),
        }
    }

    fn with(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    /// A chunk of a stream.
    fn chunk(&self, text: &str, first: bool, finish: Option<&str>) -> Value {
        match self.kind {
            Kind::Completion => {
                let choice = json!({"index": 0, "text": text, "logprobs": null, "finish_reason": finish});
                self.with("text_completion", json!([choice]))
            }
            Kind::Chat => {
                let mut delta = json!({});
                if first {
                    delta["role"] = "assistant".into();
                }
                if !text.is_empty() || first {
                    delta["content"] = text.into();
                }
                let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
                self.with("chat.completion.chunk", json!([choice]))
            }
        }
    }

    fn whole(&self, generated: &Generated) -> Value {
        let finish = reason(&generated.finish);
        let mut answer = match self.kind {
            Kind::Completion => self.with(
                "text_completion",
                json!([{"index": 0, "text": generated.text, "logprobs": null, "finish_reason": finish}]),
            ),
            Kind::Chat => {
                let message = json!({"role": "assistant", "content": generated.text});
                let choice =
                    json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish});
                self.with("chat.completion", json!([choice]))
            }
        };
        answer["usage"] = usage(generated);
        answer
    }

    /// The chunk with the token counts, at the end of a stream.
    fn usage(&self, generated: &Generated) -> Value {
        let object = if self.kind == Kind::Chat { "chat.completion.chunk" } else { "text_completion" };
        let mut chunk = self.with(object, json!([]));
        chunk["usage"] = usage(generated);
        chunk
    }
}

fn usage(generated: &Generated) -> Value {
    let (prompt, completion) = (generated.prompt_tokens, generated.tokens.len());
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": generated.shared_tokens},
    })
}

fn reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::EndToken(_) | Finish::StopText(_) | Finish::Complete => "stop",
        Finish::Length | Finish::ContextFull => "length",
        Finish::Cancelled => "cancelled",
    }
}

pub(super) async fn completions(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body: Completion = parse(&shared, &headers, body)?;
    let (stream, usage) = (body.common.stream, body.common.wants_usage());
    let id = ResponseId::new(Kind::Completion, &shared);
    answer(shared, id, stream, usage, move |engine| body.request(engine)).await
}

pub(super) async fn chat(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let body: Chat = parse(&shared, &headers, body)?;
    let (stream, usage) = (body.common.stream, body.common.wants_usage());
    let id = ResponseId::new(Kind::Chat, &shared);
    answer(shared, id, stream, usage, move |engine| body.request(engine)).await
}

fn parse<T: DeserializeOwned>(
    shared: &Shared,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<T, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::media_type());
    }
    let body = body.map_err(|_| ApiError::too_large(shared.options.max_body))?;
    request::body(&body)
}

async fn answer(
    shared: Arc<Shared>,
    id: ResponseId,
    streamed: bool,
    usage: bool,
    request: impl FnOnce(&NeuroEngine) -> Result<Request, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let mut events = shared.preparing.submit(&shared.scheduler, request).await?;
    if streamed {
        return Ok(stream(events, id, usage));
    }
    loop {
        match events.receiver.recv().await {
            Some(Event::Token { .. }) => {}
            Some(Event::Done(answer)) => return Ok(Json(id.whole(&answer.generated)).into_response()),
            Some(Event::Failed(error)) => return Err(error.into()),
            None => return Err(ApiError::internal("the server is shutting down")),
        }
    }
}

/// The state of a stream of chunks.
struct ChunkStream {
    events: Events,
    id: ResponseId,
    usage: bool,
    first: bool,
    /// What to send before waiting for more events, last first.
    ready: Vec<String>,
    ended: bool,
}

impl ChunkStream {
    async fn next(mut self) -> Option<(Result<SseEvent, Infallible>, Self)> {
        loop {
            if let Some(data) = self.ready.pop() {
                return Some((Ok(SseEvent::default().data(data)), self));
            }
            if self.ended {
                return None;
            }
            match self.events.receiver.recv().await {
                Some(Event::Token { text, .. }) if text.is_empty() => {}
                Some(Event::Token { text, .. }) => {
                    let chunk = self.id.chunk(&text, self.first, None);
                    self.first = false;
                    self.ready.push(chunk.to_string());
                }
                Some(Event::Done(answer)) => {
                    let generated = &answer.generated;
                    self.ended = true;
                    self.ready.push("[DONE]".to_owned());
                    if self.usage {
                        self.ready.push(self.id.usage(generated).to_string());
                    }
                    let last = self.id.chunk("", self.first, Some(reason(&generated.finish)));
                    self.ready.push(last.to_string());
                }
                Some(Event::Failed(error)) => {
                    self.ended = true;
                    self.ready.push(ApiError::from(error).json().to_string());
                }
                None => {
                    self.ended = true;
                    self.ready.push(ApiError::internal("the server is shutting down").json().to_string());
                }
            }
        }
    }
}

fn stream(events: Events, id: ResponseId, usage: bool) -> Response {
    let chunks = ChunkStream { events, id, usage, first: true, ready: Vec::new(), ended: false };
    Sse::new(stream::unfold(chunks, ChunkStream::next)).keep_alive(KeepAlive::default()).into_response()
}
