//! Errors of the APIs: a status, one sentence, and the field that it is about.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use herald::Error;

/// Why a request gets no answer.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
    /// The field that it is about.
    param: Option<String>,
    /// OpenAI's name for it, where clients look for one.
    code: Option<&'static str>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: one_line(message.into()), param: None, code: None }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The same, about this field.
    pub(super) fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub(super) fn not_found(message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn method() -> Self {
        let message =
            "this path doesn't take that method: what has a body is POSTed, and what has none is GET";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, message)
    }

    pub(super) fn media_type() -> Self {
        let message = "the request's Content-Type was expected to be application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }

    pub(super) fn encoding() -> Self {
        let message = "the request's body is compressed (Content-Encoding), where plain JSON was expected";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }

    pub(super) fn too_large(max_bytes: usize) -> Self {
        let message =
            format!("the request's body can't be read, where at most {max_bytes} bytes were expected");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// Its sentence.
    pub(super) fn into_message(self) -> String {
        self.message
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The body of an error in OpenAI's API.
    pub(super) fn json(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind(), "param": self.param, "code": self.code}})
    }

    /// The body of an error in Anthropic's API.
    pub(super) fn anthropic(&self) -> Value {
        let kind = match self.status {
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            status if status.is_server_error() => "api_error",
            _ => self.kind(),
        };
        json!({"type": "error", "error": {"type": kind, "message": self.message}})
    }

    /// The body of an error in Ollama's API.
    pub(super) fn ollama(&self) -> Value {
        json!({"error": self.message})
    }

    /// A response in the form of the API that a path belongs to.
    pub(super) fn at_path(&self, path: &str) -> Response {
        self.respond(match path {
            path if path.starts_with("/v1/messages") => self.anthropic(),
            path if path.starts_with("/api/") => self.ollama(),
            _ => self.json(),
        })
    }

    /// A response with this body.
    pub(super) fn respond(&self, body: Value) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The sentence on one line: what it quotes of a request may hold line breaks and other control characters, and it is read
/// in terminals and logs.
fn one_line(message: String) -> String {
    if !message.contains(char::is_control) {
        return message;
    }
    let mut line = String::with_capacity(message.len() + 8);
    for c in message.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let status = match error {
            Error::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
            Error::Invalid(_)
            | Error::Sampler(_)
            | Error::Chat(_)
            | Error::Constraint(_)
            | Error::ContextFull { .. } => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let code = matches!(error, Error::ContextFull { .. }).then_some("context_length_exceeded");
        Self { code, ..Self::new(status, error.to_string()) }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = self.json();
        self.respond(body)
    }
}
