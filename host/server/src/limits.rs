//! What requests may take before they are answered: places, memory for their bodies, and time to send them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// Bodies are counted in units of this many bytes.
const UNIT: usize = 1024;

/// The most values (numbers, texts, lists, objects) in a body: parsed, each takes many times its bytes.
const MAX_VALUES: usize = 1 << 20;

/// Bounds on what clients may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once; fewer where the process may open fewer files.
    pub connections: usize,
    /// Requests with a body at once, from their heads to the last byte of their answers; more are refused with status 429.
    pub requests: usize,
    /// Bytes of all bodies together.
    pub bodies: usize,
    /// In which a connection must begin its next request and send the whole of its head.
    pub idle: Duration,
    /// In which a request's whole body must have come.
    pub body: Duration,
    /// In which a request must have been prepared: its text divided into tokens, its form compiled.
    pub preparing: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            requests: 288,
            bodies: 128 << 20,
            idle: Duration::from_secs(30),
            body: Duration::from_secs(30),
            preparing: Duration::from_secs(30),
        }
    }
}

/// The places and the memory that are left.
pub(super) struct Room {
    requests: Arc<Semaphore>,
    n_requests: u32,
    bodies: Arc<Semaphore>,
    max_body: usize,
    body_time: Duration,
}

impl Room {
    pub(super) fn new(limits: &Limits, max_body: usize) -> Self {
        let n_requests = u32::try_from(limits.requests).unwrap_or(u32::MAX).min(1 << 20);
        let bodies = limits.bodies.div_ceil(UNIT).min(Semaphore::MAX_PERMITS);
        Self {
            requests: Arc::new(Semaphore::new(n_requests as usize)),
            n_requests,
            bodies: Arc::new(Semaphore::new(bodies)),
            max_body,
            body_time: limits.body,
        }
    }

    /// A place for a request.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.requests).try_acquire_owned().map_err(|_| {
            ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!("{} requests are being answered or wait already: try again later", self.n_requests),
            )
        })
    }

    /// Waits until no request has a place.
    pub(super) async fn is_empty(&self) {
        // It is never closed.
        let _ = self.requests.acquire_many(self.n_requests).await;
    }

    /// Reads a body whole, and what it takes of the memory for bodies.
    pub(super) async fn read(&self, body: Body) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ApiError> {
        match tokio::time::timeout(self.body_time, self.read_slowly(body)).await {
            Ok(read) => read,
            Err(_) => Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                format!(
                    "the request's body has not come whole, where at most {} seconds were expected",
                    self.body_time.as_secs()
                ),
            )),
        }
    }

    async fn read_slowly(&self, mut body: Body) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ApiError> {
        let mut bytes: Vec<u8> = Vec::new();
        let mut memory: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| ApiError::invalid(format!("the request's body broke off: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            let wanted = bytes.len() + data.len();
            if wanted > self.max_body {
                return Err(ApiError::too_large(self.max_body));
            }
            let have = memory.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let more = u32::try_from(wanted.div_ceil(UNIT) - have).unwrap_or(u32::MAX);
            let more = Arc::clone(&self.bodies).try_acquire_many_owned(more).map_err(|_| no_memory())?;
            match &mut memory {
                Some(memory) => memory.merge(more),
                None => memory = Some(more),
            }
            bytes.extend_from_slice(&data);
        }
        let n_values = values(&bytes);
        if n_values > MAX_VALUES {
            return Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the request's body has {n_values} values, where at most {MAX_VALUES} were expected"),
            ));
        }
        Ok((bytes.into(), memory))
    }
}

fn no_memory() -> ApiError {
    let message = "the bodies of other requests take all the memory that there is for them: try again later";
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
}

/// How many values a JSON text has, at most: each but the first follows a comma, a colon or an opening bracket.
fn values(json: &[u8]) -> usize {
    let (mut n, mut in_text, mut escaped) = (1, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b':' | b'[' | b'{' if !in_text => n += 1,
            _ => {}
        }
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_texts() {
        assert_eq!(values(br#"{"a, [\"{": [1, 2, "x,y"], "b\\": {}}"#), 9);
        assert_eq!(values(b"7"), 1);
    }
}
