//! What every request passes before a handler sees it, and every answer after.
//!
//! In order: an id and a line in the log; the client's leaving, which cancels the work; names and keys ([`access`](super::access));
//! a place, the body's memory and its time ([`limits`](super::limits)).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Version};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::compression::CompressionLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};

use super::access::Rules;
use super::error::ApiError;
use super::held::{Held, hold};
use super::limits::Room;
use super::wire::Wire;

/// What stands between the sockets and the handlers.
pub(super) struct Guard {
    pub(super) rules: Rules,
    pub(super) room: Room,
    /// Whether the server is about to end, and takes no new work.
    draining: AtomicBool,
}

impl Guard {
    pub(super) fn new(rules: Rules, room: Room) -> Arc<Self> {
        Arc::new(Self { rules, room, draining: AtomicBool::new(false) })
    }

    /// Takes no new work from now on.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// The routes behind a guard.
///
/// # Errors
/// As [`Rules::cors`].
pub(super) fn guarded(routes: Router, guard: &Arc<Guard>) -> Router {
    let layer = |router: Router| router.layer(from_fn_with_state(Arc::clone(guard), admit));
    let mut router = layer(routes.layer(CompressionLayer::new()));
    if let Some(cors) = guard.rules.cors() {
        // Outside of the keys: a browser asks first, and without one.
        router = router.layer(cors);
    }
    router
        .layer(from_fn_with_state(Arc::clone(guard), check_names))
        .layer(axum::middleware::from_fn(watch))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
}

async fn check_names(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.rules.check_names(&request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.at_path(request.uri().path()),
    }
}

/// Lets in who has a key, and gives whoever brings work a place, before any of it is read.
async fn admit(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let admitted = async {
        guard.rules.check_key(&request)?;
        if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok((request, None));
        }
        if guard.is_draining() {
            let message = "the server is shutting down, and takes no new requests";
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
        }
        let place = guard.room.place()?;
        let (parts, body) = request.into_parts();
        let (body, memory) = guard.room.read(body).await?;
        Ok((Request::from_parts(parts, Body::from(body)), Some((place, memory))))
    };
    match admitted.await {
        Err(error) => error.at_path(&path),
        Ok((request, None)) => next.run(request).await,
        Ok((request, Some((place, memory)))) => {
            let response = next.run(request).await;
            // Its text lives on as tokens.
            drop(memory);
            hold(response, Held::new(place))
        }
    }
}

/// A request's line in the log, written when the answer has ended.
struct Line {
    method: Method,
    path: String,
    id: String,
    status: Option<StatusCode>,
    start: Instant,
}

impl Drop for Line {
    fn drop(&mut self) {
        let Self { method, path, id, status, start } = self;
        let status = status.map_or("left".to_owned(), |status| status.as_u16().to_string());
        tracing::info!("{method} {path} {status} {:.3} s {id}", start.elapsed().as_secs_f64());
    }
}

/// Writes the log, and ends the work for a client that leaves.
async fn watch(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>();
    let id = id.and_then(|id| id.header_value().to_str().ok()).unwrap_or_default().to_owned();
    let mut line = Line {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        id,
        status: None,
        start: Instant::now(),
    };
    let wire = request.extensions().get::<Wire>().cloned();
    let probe = request.version() == Version::HTTP_11;
    let gone = async {
        match wire.clone() {
            Some(wire) => wire.gone(probe).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        response = next.run(request) => {
            line.status = Some(response.status());
            hold(response, Held::new(line).watching(wire))
        }
        // Nobody reads this one.
        () = gone => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}
