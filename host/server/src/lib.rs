//! An HTTP server that speaks OpenAI's API over a [`Scheduler`]: completions and chat, whole or as server-sent events.
//!
//! It speaks HTTP/1.1 without TLS and asks nobody who they are: it is for this machine, or for a proxy in front of it. Web
//! pages of other origins can't use it: a request must be `application/json`, for which a browser asks first, and it isn't
//! told yes.

mod error;
mod request;
mod response;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use error::Fault;
use herald::schedule::Scheduler;

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// What the model is called in answers.
    pub model: String,
    /// The most bytes of a request's body.
    pub max_body: usize,
    /// How long answers that are under way may go on once the server is to end.
    pub grace: Duration,
}

/// What the handlers share.
struct Shared {
    scheduler: Arc<Scheduler>,
    options: ServeOptions,
}

type App = State<Arc<Shared>>;

/// A server that listens and has not begun to answer.
pub struct Server {
    listener: TcpListener,
    scheduler: Arc<Scheduler>,
    options: ServeOptions,
}

impl Server {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system's, where the address can't be had.
    pub fn bind(address: SocketAddr, scheduler: Arc<Scheduler>, options: ServeOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, scheduler, options })
    }

    /// Where it listens: the port that the system chose, where it was to choose.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests on the calling thread until `stop` comes true; then no more are taken, and those under way may go
    /// on for as long as the options allow.
    ///
    /// # Errors
    /// The system's, where the server can't begin.
    pub fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let grace = self.options.grace;
        let app = router(Arc::new(Shared { scheduler: self.scheduler, options: self.options }));
        let done = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener)?;
            let (ask, asked) = tokio::sync::oneshot::channel::<()>();
            let served = axum::serve(listener, app).with_graceful_shutdown(async {
                // An error means that the sender is gone, which is as good a reason to stop.
                let _ = asked.await;
            });
            let late = async {
                stop.await;
                let _ = ask.send(());
                tokio::time::sleep(grace).await;
            };
            tokio::select! {
                done = served => done,
                () = late => Ok(()),
            }
        });
        // Tokenizing that is under way must not hold up the end.
        runtime.shutdown_background();
        done
    }
}

const NO_PATH: &str = "there is no such path, where /v1/completions, /v1/chat/completions, /v1/models, /health, /metrics \
    or /metrics.json was expected";

fn router(shared: Arc<Shared>) -> Router {
    let limit = DefaultBodyLimit::max(shared.options.max_body);
    Router::new()
        .route("/v1/completions", post(response::completions))
        .route("/v1/chat/completions", post(response::chat))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(models_by_name))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/metrics.json", get(metrics_json))
        .fallback(|| async { Fault::not_found(NO_PATH) })
        .method_not_allowed_fallback(|| async { Fault::method() })
        .layer(limit)
        .with_state(shared)
}

fn model(shared: &Shared) -> Value {
    json!({"id": shared.options.model, "object": "model", "created": 0, "owned_by": "local"})
}

async fn models(State(shared): App) -> Json<Value> {
    Json(json!({"object": "list", "data": [model(&shared)]}))
}

async fn models_by_name(
    State(shared): App,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Result<Json<Value>, Fault> {
    if name == shared.options.model {
        return Ok(Json(model(&shared)));
    }
    let known = &shared.options.model;
    Err(Fault::not_found(&format!("there is no model {name:?}, where {known:?} was expected")))
}

async fn health(State(shared): App) -> Json<Value> {
    let (waiting, running) = shared.scheduler.load();
    Json(json!({"status": "ok", "waiting": waiting, "running": running}))
}

async fn metrics(State(shared): App) -> Response {
    let text = shared.scheduler.metrics().prometheus(shared.scheduler.engine());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn metrics_json(State(shared): App) -> Response {
    let engine = shared.scheduler.engine();
    Json(json!({
        "serving": shared.scheduler.metrics().report(),
        "process": herald::metrics::process_memory(),
        "tiers": herald::metrics::TierBytes::of(engine),
        "tier_traffic": engine.traffic().report(),
    }))
    .into_response()
}
