//! What an answer holds on to until its last byte was handed over: a place in the queue, its connection's mark, its line in the log.

use std::any::Any;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::wire::Wire;

/// Things that are dropped when an answer ends, and the client's leaving, which ends it.
pub(super) struct Held {
    _things: Box<dyn Any + Send>,
    gone: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Held {
    pub(super) fn new(things: impl Send + 'static) -> Self {
        Self { _things: Box::new(things), gone: None }
    }

    /// The same, for an answer that ends when the client at this socket leaves.
    pub(super) fn watching(mut self, wire: Option<Wire>) -> Self {
        self.gone = wire.map(|wire| Box::pin(wire.gone(false)) as _);
        self
    }
}

/// Has a response hold these things until its body ends.
pub(super) fn hold(response: Response, held: Held) -> Response {
    response.map(|body| Body::new(Holding { body, held }))
}

struct Holding {
    body: Body,
    held: Held,
}

impl HttpBody for Holding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(gone) = &mut self.held.gone
            && gone.as_mut().poll(context).is_ready()
        {
            self.held.gone = None;
            return Poll::Ready(Some(Err(axum::Error::new("the client has gone"))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
