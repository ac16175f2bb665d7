//! An HTTP server over [schedulers](herald::schedule::Scheduler) that speaks OpenAI's API, Anthropic's, Ollama's and llama.cpp's: a
//! request of each becomes a job, and the answer takes that API's form, whole or streamed.
//!
//! It speaks HTTP/1.1, over TLS where it has a certificate. [`Access`] says who may use it, and
//! [`Limits`] what anyone may take: connections, places, memory, time. SECURITY.md has the whole of it.

mod access;
mod answer;
mod anthropic;
mod connections;
mod conversation;
mod error;
mod fields;
mod guard;
mod held;
mod job;
mod limits;
mod llama_cpp;
mod models;
mod ollama;
mod openai;
mod page;
mod prepare;
#[cfg(feature = "tls")]
mod tls;
mod tools;
mod wire;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{MethodRouter, get, post};
use serde::Deserialize;
use serde_json::{Value, json};

pub use access::{Access, Keys, Origin};
use connections::Connections;
use error::ApiError;
use guard::Guard;
pub use limits::Limits;
use models::Facts;
pub use models::{Keep, Load, ModelSource, Models, models_of_folder};
use prepare::Preparing;
#[cfg(feature = "tls")]
pub use tls::Tls;

pub use fields::{documented as documented_fields, openapi};

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Maximum size of a request's body, in bytes.
    pub max_body: usize,
    /// How long running answers may continue after the server is told to stop.
    pub grace: Duration,
    /// Who may use it.
    pub access: Access,
    /// What anyone may take.
    pub limits: Limits,
    /// With what connections are encrypted; `None`: they aren't.
    #[cfg(feature = "tls")]
    pub tls: Option<Tls>,
    /// Whether special tokens that the texts of clients' messages spell are meant, and not plain text.
    pub trust_content: bool,
    /// How many requests run at once, for clients that ask.
    pub slots: usize,
}

/// The state that all handlers share.
struct Shared {
    models: Arc<Models>,
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
const ROUTES: [Route; 34] = [
    Route {
        method: "POST",
        path: "/v1/chat/completions",
        about: "answer messages, whole or streamed",
        handler: || post(openai::chat::chat),
    },
    Route {
        method: "POST",
        path: "/chat/completions",
        about: "the same, by llama.cpp's name",
        handler: || post(openai::chat::chat),
    },
    Route {
        method: "POST",
        path: "/v1/completions",
        about: "continue a prompt, whole or streamed",
        handler: || post(openai::completions::completions),
    },
    Route {
        method: "POST",
        path: "/v1/responses",
        about: "answer messages, as OpenAI's newer API",
        handler: || post(openai::responses::responses),
    },
    Route {
        method: "POST",
        path: "/v1/embeddings",
        about: "the embeddings of texts",
        handler: || post(openai::embeddings::embeddings),
    },
    Route {
        method: "POST",
        path: "/v1/rerank",
        about: "sort documents by a query",
        handler: || post(openai::rerank::rerank),
    },
    Route {
        method: "POST",
        path: "/rerank",
        about: "the same, by llama.cpp's name",
        handler: || post(openai::rerank::rerank),
    },
    Route { method: "GET", path: "/v1/models", about: "the models", handler: || get(models) },
    Route { method: "GET", path: "/models", about: "the same, by llama.cpp's name", handler: || get(models) },
    Route {
        method: "GET",
        path: "/v1/models/{*name}",
        about: "the model of this name",
        handler: || get(models_by_name),
    },
    Route {
        method: "POST",
        path: "/v1/messages",
        about: "answer messages, as Anthropic's API",
        handler: || post(anthropic::create),
    },
    Route {
        method: "POST",
        path: "/v1/messages/count_tokens",
        about: "how many tokens they have",
        handler: || post(anthropic::count),
    },
    Route {
        method: "POST",
        path: "/api/chat",
        about: "answer messages, as Ollama's API",
        handler: || post(ollama::chat),
    },
    Route {
        method: "POST",
        path: "/api/generate",
        about: "answer or continue a prompt, as Ollama's",
        handler: || post(ollama::generate),
    },
    Route {
        method: "POST",
        path: "/api/embed",
        about: "the embeddings of texts, as Ollama's",
        handler: || post(ollama::embeddings),
    },
    Route {
        method: "POST",
        path: "/api/embeddings",
        about: "the same, by its former name",
        handler: || post(ollama::embeddings),
    },
    Route {
        method: "GET",
        path: "/api/tags",
        about: "the models, as Ollama's",
        handler: || get(ollama::tags),
    },
    Route { method: "GET", path: "/api/ps", about: "those that are loaded", handler: || get(ollama::ps) },
    Route {
        method: "POST",
        path: "/api/show",
        about: "what the model is, as Ollama's",
        handler: || post(ollama::show),
    },
    Route {
        method: "GET",
        path: "/api/version",
        about: "the version of Ollama whose API this is",
        handler: || get(ollama::version),
    },
    Route {
        method: "POST",
        path: "/completion",
        about: "continue a prompt, as llama.cpp's server",
        handler: || post(llama_cpp::completion),
    },
    Route {
        method: "POST",
        path: "/infill",
        about: "fill a gap in code",
        handler: || post(llama_cpp::infill),
    },
    Route {
        method: "POST",
        path: "/tokenize",
        about: "the tokens of a text",
        handler: || post(llama_cpp::tokenize),
    },
    Route {
        method: "POST",
        path: "/detokenize",
        about: "the text of tokens",
        handler: || post(llama_cpp::detokenize),
    },
    Route {
        method: "POST",
        path: "/apply-template",
        about: "the prompt of messages",
        handler: || post(llama_cpp::apply_template),
    },
    Route { method: "GET", path: "/props", about: "what the server runs", handler: || get(llama_cpp::props) },
    Route {
        method: "GET",
        path: "/lora-adapters",
        about: "the adapters that are loaded",
        handler: || get(llama_cpp::loras),
    },
    Route {
        method: "GET",
        path: "/slots",
        about: "which slots are in use",
        handler: || get(llama_cpp::slots),
    },
    Route {
        method: "GET",
        path: "/health",
        about: "whether it works; how many requests wait and run",
        handler: || get(health),
    },
    Route {
        method: "GET",
        path: "/v1/health",
        about: "the same, by llama.cpp's other name",
        handler: || get(health),
    },
    Route { method: "GET", path: "/ready", about: "whether it takes new requests", handler: || get(ready) },
    Route { method: "GET", path: "/metrics", about: "metrics for Prometheus", handler: || get(metrics) },
    Route { method: "GET", path: "/metrics.json", about: "metrics as JSON", handler: || get(metrics_json) },
    Route {
        method: "GET",
        path: "/openapi.json",
        about: "this API, described",
        handler: || get(description),
    },
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
    models: Models,
    options: ServeOptions,
}

impl Server {
    /// Binds to `address` and listens.
    ///
    /// # Errors
    /// The system's error if the address can't be bound.
    pub fn bind(address: SocketAddr, models: Models, options: ServeOptions) -> io::Result<Self> {
        Self::on(TcpListener::bind(address)?, models, options)
    }

    /// Takes a socket that somebody else opened and listens on, such as systemd. It answers once the server runs.
    ///
    /// # Errors
    /// The socket can't be used without blocking.
    pub fn on(listener: TcpListener, models: Models, options: ServeOptions) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, models, options })
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
    /// The system's error if the server can't start.
    pub fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(prepare::THREADS + models::THREADS)
            .build()?;
        let Self { listener, models, options } = self;
        let models = Arc::new(models);
        let (grace, limits) = (options.grace, options.limits.clone());
        let connections = Connections::new(limits.connections, limits.idle);
        #[cfg(feature = "tls")]
        let connections = connections.over(options.tls.as_ref());
        let connections = Arc::new(connections);
        let rules = access::Rules::new(options.access.clone(), listener.local_addr()?.ip());
        let guard = Guard::new(rules, limits::Room::new(&limits, options.max_body));
        let preparing = Preparing::new(limits.preparing);
        let routes = router(Arc::new(Shared {
            models: Arc::clone(&models),
            options,
            preparing,
            guard: Arc::clone(&guard),
        }));
        let app = guard::guarded(routes, &guard);
        let done = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let drained = async {
                stop.await;
                guard.drain();
                // Those that are still at work then are cut off.
                let _ = tokio::time::timeout(grace, guard.room.is_empty()).await;
            };
            tokio::select! {
                () = connections.serve(&listener, &app) => {}
                () = models.unload_idle() => {}
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
        .fold(page::routes(), |router, route| router.route(route.path, (route.handler)()))
        .fallback(no_such_path)
        .method_not_allowed_fallback(|uri: Uri| async move { ApiError::method().at_path(uri.path()) })
        .layer(limit)
        .with_state(shared)
}

async fn no_such_path(uri: Uri) -> Response {
    let paths: Vec<String> = ROUTES.iter().map(Route::shown).collect();
    let what = format!("there is no such path, where one of these was expected: {}", paths.join(", "));
    ApiError::not_found(&what).at_path(uri.path())
}

/// A request's body, where it says that it is JSON.
///
/// # Errors
/// Where it doesn't, or can't be read.
fn checked(
    shared: &Shared,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Bytes, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::media_type());
    }
    if headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(ApiError::encoding());
    }
    body.map_err(|_| ApiError::too_large(shared.options.max_body))
}

/// Reads the body of a request to a path as the server does, and forgets it: for tests of clients, and of this.
///
/// # Errors
/// The sentence that the server would answer.
pub fn check_body(path: &str, bytes: &[u8]) -> Result<(), String> {
    let read = match path {
        "/v1/completions" => openai::completions::read(bytes).map(drop),
        "/v1/responses" => openai::responses::read(bytes).map(drop),
        "/v1/rerank" => openai::rerank::check(bytes),
        "/v1/messages" => anthropic::read(bytes).map(drop),
        "/api/chat" => ollama::read_chat(bytes).map(drop),
        "/completion" => llama_cpp::read(bytes).map(drop),
        _ => openai::chat::check(bytes),
    };
    read.map_err(ApiError::into_message)
}

/// A model as OpenAI's API lists it.
fn model(name: &str, facts: &Facts) -> Value {
    json!({"id": name, "object": "model", "created": facts.modified, "owned_by": "local"})
}

async fn models(State(shared): App) -> Json<Value> {
    let mut models = Vec::new();
    for (name, facts, loaded) in shared.models.all() {
        models.push(model(name, facts));
        // What is asked for by its name is listed by it.
        for lora in loaded.iter().flat_map(|loaded| loaded.scheduler.engine().loras()) {
            let mut adapter = model(lora.name(), facts);
            adapter["parent"] = name.into();
            models.push(adapter);
        }
    }
    Json(json!({"object": "list", "data": models}))
}

async fn models_by_name(
    State(shared): App,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (name, facts, _) = shared.models.named(&name)?;
    Ok(Json(model(name, facts)))
}

async fn description() -> Json<Value> {
    Json(openapi())
}

/// Status 500 where no request can be answered any more, so that whoever watches over the server starts it anew.
async fn health(State(shared): App) -> Response {
    let (waiting, running) = shared.models.load();
    let (code, status) = match shared.models.are_alive() {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::INTERNAL_SERVER_ERROR, "the scheduler has ended"),
    };
    (code, Json(json!({"status": status, "waiting": waiting, "running": running}))).into_response()
}

/// Status 503 where no new requests are taken, so that whoever distributes them goes elsewhere.
async fn ready(State(shared): App) -> Response {
    let (code, status) = match (shared.models.are_alive(), shared.guard.is_draining()) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "the scheduler has ended"),
        (true, true) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        (true, false) => (StatusCode::OK, "ready"),
    };
    (code, Json(json!({"status": status}))).into_response()
}

/// Of which of the models something is asked, in a URL.
#[derive(Deserialize)]
struct OfModel {
    model: Option<String>,
}

async fn metrics(State(shared): App, Query(of): Query<OfModel>) -> Result<Response, ApiError> {
    let text = match shared.models.watched(of.model.as_deref())? {
        Some(model) => model.scheduler.metrics().prometheus(model.scheduler.engine()),
        // Nothing, in that format.
        None => "# EOF\n".to_owned(),
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

async fn metrics_json(State(shared): App, Query(of): Query<OfModel>) -> Result<Json<Value>, ApiError> {
    let Some(model) = shared.models.watched(of.model.as_deref())? else { return Ok(Json(json!({}))) };
    let engine = model.scheduler.engine();
    Ok(Json(herald::metrics::json(engine, Some(model.scheduler.metrics()))))
}
