//! A streamed answer's bytes.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use super::run::Happened;
use super::{Format, Frame, Run};

/// How often a stream that has nothing to say shows that it lives.
const ALIVE: Duration = Duration::from_secs(15);

struct Streaming<F> {
    run: Run,
    format: F,
    ready: VecDeque<Frame>,
    /// Answers whose end was not told yet.
    untold: VecDeque<usize>,
    has_begun: bool,
    has_ended: bool,
}

fn bytes(frame: &Frame) -> Bytes {
    let text = match frame {
        Frame::Data(value) => format!("data: {value}\n\n"),
        Frame::Event(name, value) => format!("event: {name}\ndata: {value}\n\n"),
        Frame::End => "data: [DONE]\n\n".to_owned(),
        Frame::Line(value) => format!("{value}\n"),
    };
    Bytes::from(text)
}

impl<F: Format> Streaming<F> {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some((Ok(bytes(&frame)), self));
            }
            if self.has_ended {
                return None;
            }
            if !self.has_begun {
                self.has_begun = true;
                self.ready.extend(self.format.begin(&self.run));
                continue;
            }
            if let Some(index) = self.untold.pop_front() {
                self.ready.extend(self.format.ended(&self.run, &self.run.choices[index]));
                continue;
            }
            let Ok(happened) = tokio::time::timeout(ALIVE, self.run.next()).await else {
                // Lines of JSON have no comments.
                if F::LINES {
                    continue;
                }
                return Some((Ok(Bytes::from_static(b": \n\n")), self));
            };
            match happened {
                Some(Ok(Happened::Piece(index, piece))) => {
                    let choice = &self.run.choices[index];
                    self.ready.extend(self.format.piece(&self.run, choice, &piece));
                    if choice.has_ended() {
                        self.untold.push_back(index);
                    }
                }
                Some(Ok(Happened::Ended(index))) => self.untold.push_back(index),
                Some(Err(error)) => {
                    self.has_ended = true;
                    self.ready.extend(self.format.failed(&error));
                }
                None => {
                    self.has_ended = true;
                    self.ready.extend(self.format.end(&self.run));
                }
            }
        }
    }
}

/// The response that streams a job's answers.
pub(super) fn respond<F: Format>(run: Run, format: F) -> Response {
    let streaming = Streaming {
        run,
        format,
        ready: VecDeque::new(),
        untold: VecDeque::new(),
        has_begun: false,
        has_ended: false,
    };
    // Compression asks again after the end.
    let body = Body::from_stream(futures_util::stream::unfold(streaming, Streaming::next).fuse());
    let kind = if F::LINES { "application/x-ndjson" } else { "text/event-stream" };
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], body).into_response()
}
