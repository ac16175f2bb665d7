//! An HTTP server with OpenAI's API over a [`Scheduler`]: completions and chat, whole or as server-sent events.
//!
//! It speaks HTTP/1.1 without TLS: keep it on this machine, or put a proxy in front. [`Access`] says who may use it, and
//! [`Limits`] what anyone may take: connections, places, memory, time. SECURITY.md has the whole of it.

mod access;
mod connections;
mod error;
mod guard;
mod held;
mod limits;
mod prepare;
mod request;
mod response;
mod wire;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{MethodRouter, get, post};
use serde_json::{Value, json};

pub use access::{Access, Keys};
use connections::Connections;
use error::ApiError;
use guard::Guard;
use herald::schedule::Scheduler;
pub use limits::Limits;
use prepare::Preparing;
pub use request::check_body;

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The model's name in answers.
    pub model: String,
    /// Maximum size of a request's body, in bytes.
    pub max_body: usize,
    /// How long running answers may continue after the server is told to stop.
    pub grace: Duration,
    /// Who may use it.
    pub access: Access,
    /// What anyone may take.
    pub limits: Limits,
}

/// The state that all handlers share.
struct Shared {
    scheduler: Arc<Scheduler>,
    options: ServeOptions,
    preparing: Preparing,
    guard: Arc<Guard>,
}

type App = State<Arc<Shared>>;

/// A path of the API.
struct Route {
    method: &'static str,
    /// The path, in axum's syntax.
    path: &'static str,
    /// What it answers, in a few words.
    about: &'static str,
    handler: fn() -> MethodRouter<Arc<Shared>>,
}

/// Every path that the server answers. The router, the sentence for unknown paths and [`endpoints`] come from this table.
const ROUTES: [Route; 8] = [
    Route {
        method: "POST",
        path: "/v1/chat/completions",
        about: "answer messages, whole or streamed",
        handler: || post(response::chat),
    },
    Route {
        method: "POST",
        path: "/v1/completions",
        about: "continue a prompt, whole or streamed",
        handler: || post(response::completions),
    },
    Route { method: "GET", path: "/v1/models", about: "the models: one", handler: || get(models) },
    Route {
        method: "GET",
        path: "/v1/models/{*name}",
        about: "the model of this name",
        handler: || get(models_by_name),
    },
    Route {
        method: "GET",
        path: "/health",
        about: "whether it works; how many requests wait and run",
        handler: || get(health),
    },
    Route { method: "GET", path: "/ready", about: "whether it takes new requests", handler: || get(ready) },
    Route { method: "GET", path: "/metrics", about: "metrics for Prometheus", handler: || get(metrics) },
    Route { method: "GET", path: "/metrics.json", about: "metrics as JSON", handler: || get(metrics_json) },
];

impl Route {
    /// The path as a reader writes it: `/v1/models/NAME`.
    fn shown(&self) -> String {
        self.path.replace("{*name}", "NAME")
    }
}

/// An endpoint of the API, for help texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The HTTP method.
    pub method: &'static str,
    /// The path; a part in capitals stands for a value.
    pub path: String,
    /// What it answers, in a few words.
    pub about: &'static str,
}

/// The endpoints that every [`Server`] has.
pub fn endpoints() -> impl Iterator<Item = Endpoint> {
    ROUTES.iter().map(|route| Endpoint { method: route.method, path: route.shown(), about: route.about })
}

/// A server that listens, but doesn't answer yet.
pub struct Server {
    listener: TcpListener,
    scheduler: Arc<Scheduler>,
    options: ServeOptions,
}

impl Server {
    /// Binds to `address` and listens.
    ///
    /// # Errors
    /// The system's error if the address can't be bound.
    pub fn bind(address: SocketAddr, scheduler: Arc<Scheduler>, options: ServeOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, scheduler, options })
    }

    /// The address it listens on, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// The system's error.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers requests on the calling thread until `stop` completes. It then takes no more, answers `/ready` with status 503, and
    /// lets running ones continue for [`ServeOptions::grace`].
    ///
    /// # Errors
    /// The system's error if the server can't start, or where an origin of [`Access::origins`] is none.
    pub fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(prepare::THREADS)
            .build()?;
        let Self { listener, scheduler, options } = self;
        let (grace, limits) = (options.grace, options.limits.clone());
        let rules = access::Rules::new(options.access.clone(), listener.local_addr()?.ip());
        let guard = Guard::new(rules, limits::Room::new(&limits, options.max_body));
        let preparing = Preparing::new(limits.preparing);
        let routes = router(Arc::new(Shared { scheduler, options, preparing, guard: Arc::clone(&guard) }));
        let app = guard::guarded(routes, &guard)
            .map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
        let done = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let connections = Connections::new(limits.connections, limits.idle);
            let drained = async {
                stop.await;
                guard.drain();
                // Those that are still at work then are cut off.
                let _ = tokio::time::timeout(grace, guard.room.is_empty()).await;
            };
            tokio::select! {
                () = connections.serve(&listener, &app) => {}
                () = drained => {}
            }
            drop(listener);
            connections.close().await;
            Ok(())
        });
        // Don't wait for tokenizing in the background.
        runtime.shutdown_background();
        done
    }
}

fn router(shared: Arc<Shared>) -> Router {
    let limit = DefaultBodyLimit::max(shared.options.max_body);
    ROUTES
        .iter()
        .fold(Router::new(), |router, route| router.route(route.path, (route.handler)()))
        .fallback(no_such_path)
        .method_not_allowed_fallback(|| async { ApiError::method() })
        .layer(limit)
        .with_state(shared)
}

async fn no_such_path() -> ApiError {
    let paths: Vec<String> = ROUTES.iter().map(Route::shown).collect();
    ApiError::not_found(&format!(
        "there is no such path, where one of these was expected: {}",
        paths.join(", ")
    ))
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
) -> Result<Json<Value>, ApiError> {
    if name == shared.options.model {
        return Ok(Json(model(&shared)));
    }
    let known = &shared.options.model;
    Err(ApiError::not_found(&format!("there is no model {name:?}, where {known:?} was expected")))
}

/// Status 500 where no request can be answered any more, so that whoever watches over the server starts it anew.
async fn health(State(shared): App) -> Response {
    let (waiting, running) = shared.scheduler.load();
    let (code, status) = match shared.scheduler.is_alive() {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::INTERNAL_SERVER_ERROR, "the scheduler has ended"),
    };
    (code, Json(json!({"status": status, "waiting": waiting, "running": running}))).into_response()
}

/// Status 503 where no new requests are taken, so that whoever distributes them goes elsewhere.
async fn ready(State(shared): App) -> Response {
    let (code, status) = match (shared.scheduler.is_alive(), shared.guard.is_draining()) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "the scheduler has ended"),
        (true, true) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (true, false) => (StatusCode::OK, "ready"),
    };
    (code, Json(json!({"status": status}))).into_response()
}

async fn metrics(State(shared): App) -> Response {
    let text = shared.scheduler.metrics().prometheus(shared.scheduler.engine());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn metrics_json(State(shared): App) -> Response {
    let engine = shared.scheduler.engine();
    Json(herald::metrics::json(engine, Some(shared.scheduler.metrics()))).into_response()
}
