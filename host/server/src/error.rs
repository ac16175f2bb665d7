//! Errors of the API: a status and OpenAI's JSON.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use herald::Error;

/// Why a request gets no answer.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    pub(super) fn not_found(message: &str) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: message.to_owned() }
    }

    pub(super) fn method() -> Self {
        let message = "this path doesn't take that method: completions are POSTed, everything else is GET";
        Self { status: StatusCode::METHOD_NOT_ALLOWED, message: message.to_owned() }
    }

    pub(super) fn media_type() -> Self {
        let message = "the request's Content-Type was expected to be application/json";
        Self { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, message: message.to_owned() }
    }

    pub(super) fn too_large(max_bytes: usize) -> Self {
        let message =
            format!("the request's body can't be read, where at most {max_bytes} bytes were expected");
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, message }
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message: message.into() }
    }

    /// Its sentence.
    pub(super) fn into_message(self) -> String {
        self.message
    }

    /// The body of an error in OpenAI's API.
    pub(super) fn json(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": null, "code": null}})
    }
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
        Self { status, message: error.to_string() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
