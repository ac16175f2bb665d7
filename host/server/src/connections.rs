//! Connections: how many there may be, how long they may say nothing, and how they end.
//!
//! A connection that waits for its client costs a file descriptor, and anyone can open many. So each has a time in which its next
//! request's head must be there, and where all places are taken, the one that has been idle longest is closed for the newcomer.
//! Where all of them are at work, the newcomer gets status 503.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tower::ServiceExt;

use super::held::{Held, hold};
use super::wire::Wire;

/// File descriptors that are left to the rest of the process.
const RESERVED_FILES: u64 = 96;

/// The greatest head of a request, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// A connection that is closed may take this long to send what it has.
const LINGER: Duration = Duration::from_secs(2);

/// A connection that is closed without a request may take this long to send what is left of its last answer.
const FLUSH: Duration = Duration::from_millis(100);

/// Connections beyond the most, for as long as others close for them.
const MAX_CLOSING: usize = 32;

/// How long to wait where the system gives no connection.
const NO_FILES: Duration = Duration::from_millis(50);

const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n\
    Connection: close\r\nContent-Length: 114\r\n\r\n\
    {\"error\":{\"message\":\"all connections are in use: try again later\",\"type\":\"server_error\",\"param\":null,\"code\":null}}";

/// The connections that are open.
pub(super) struct Connections {
    most: usize,
    /// In which a request's head must have come.
    patience: Duration,
    /// What encrypts connections, where something does.
    #[cfg(feature = "tls")]
    tls: Option<tokio_rustls::TlsAcceptor>,
    open: Mutex<Open>,
    /// Told when a connection ends.
    ended: Notify,
}

#[derive(Default)]
struct Open {
    next_id: u64,
    connections: BTreeMap<u64, Arc<Connection>>,
}

struct Connection {
    /// Since when it waits for its client; `None` while a request is answered, and when it is to close.
    idle: Mutex<Option<Instant>>,
    /// Whether a request is answered.
    at_work: AtomicBool,
    close: Notify,
}

/// Its place among the connections, which it gives back.
struct Place {
    id: u64,
    connection: Arc<Connection>,
    connections: Arc<Connections>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().connections.remove(&self.id);
        self.connections.ended.notify_waiters();
    }
}

/// Marks a connection as at work.
struct Busy(Arc<Connection>);

impl Busy {
    fn new(connection: &Arc<Connection>) -> Self {
        *locked(&connection.idle) = None;
        connection.at_work.store(true, Ordering::Relaxed);
        Self(Arc::clone(connection))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.at_work.store(false, Ordering::Relaxed);
        *locked(&self.0.idle) = Some(Instant::now());
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many files and sockets this process may have open.
#[cfg(unix)]
fn most_files() -> u64 {
    use rustix::process::{Resource, getrlimit};

    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many sockets this process may have open: only memory limits them here.
#[cfg(not(unix))]
fn most_files() -> u64 {
    u64::MAX
}

impl Connections {
    /// At most `most` of them, and no more than the process may open files.
    pub(super) fn new(most: usize, patience: Duration) -> Self {
        let files = most_files();
        let room = usize::try_from(files.saturating_sub(RESERVED_FILES).max(1)).unwrap_or(usize::MAX);
        Self {
            most: most.clamp(1, room),
            patience,
            #[cfg(feature = "tls")]
            tls: None,
            open: Mutex::default(),
            ended: Notify::new(),
        }
    }

    /// The same, encrypted.
    #[cfg(feature = "tls")]
    pub(super) fn over(self, tls: Option<&super::Tls>) -> Self {
        Self { tls: tls.map(super::Tls::acceptor), ..self }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        locked(&self.open)
    }

    /// Accepts connections and has `app` answer them, for ever.
    pub(super) async fn serve(self: &Arc<Self>, listener: &TcpListener, app: &Router) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => match self.admitted().await {
                    Some(place) => {
                        tracing::debug!("{peer} connects");
                        tokio::spawn(self.clone().answer(stream, place, app.clone()));
                    }
                    None => {
                        tracing::warn!("{peer} is refused: all {} connections are in use", self.most);
                        tokio::spawn(refuse(stream));
                    }
                },
                // The client has gone again, or there are no file descriptors.
                Err(error) => {
                    tracing::warn!("a connection can't be accepted: {error}");
                    self.close_idlest(&self.open());
                    tokio::time::sleep(NO_FILES).await;
                }
            }
        }
    }

    /// A place for a new connection, once enough of those that were closed for others have ended.
    async fn admitted(self: &Arc<Self>) -> Option<Place> {
        let until = tokio::time::Instant::now() + 2 * FLUSH;
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            let is_closing = self.open().connections.len() >= self.most + MAX_CLOSING;
            if !is_closing {
                return self.admit();
            }
            tokio::time::timeout_at(until, ended).await.ok()?;
        }
    }

    /// A place for a new connection. Where all are taken, that of the one that has been idle longest.
    fn admit(self: &Arc<Self>) -> Option<Place> {
        let mut open = self.open();
        let n = open.connections.len();
        if n >= self.most && (n >= self.most + MAX_CLOSING || !self.close_idlest(&open)) {
            return None;
        }
        let id = open.next_id;
        open.next_id += 1;
        let connection = Arc::new(Connection {
            idle: Mutex::new(Some(Instant::now())),
            at_work: AtomicBool::new(false),
            close: Notify::new(),
        });
        open.connections.insert(id, Arc::clone(&connection));
        Some(Place { id, connection, connections: Arc::clone(self) })
    }

    /// Closes the connection that has been idle longest. Returns whether there was one.
    fn close_idlest(&self, open: &Open) -> bool {
        let idle = |connection: &Arc<Connection>| *locked(&connection.idle);
        let idlest = open.connections.values().filter_map(|connection| Some((idle(connection)?, connection)));
        let Some((_, idlest)) = idlest.min_by_key(|(since, _)| *since) else { return false };
        // It isn't chosen again while it closes.
        *locked(&idlest.idle) = None;
        idlest.close.notify_one();
        true
    }

    /// Answers a connection's requests, one after another.
    async fn answer(self: Arc<Self>, stream: TcpStream, place: Place, app: Router) {
        // Tokens are small, and shouldn't wait for each other.
        let _ = stream.set_nodelay(true);
        #[cfg(feature = "tls")]
        if let Some(acceptor) = &self.tls {
            let wire = Wire::encrypted(stream);
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(self.patience, acceptor.accept(wire.clone())) => shaken,
                () = place.connection.close.notified() => return,
            };
            return match shaken {
                Ok(Ok(stream)) => self.answer_over(stream, wire, place, app).await,
                Ok(Err(error)) => tracing::debug!("a connection's handshake failed: {error}"),
                Err(_) => tracing::debug!("a connection's handshake took too long"),
            };
        }
        let wire = Wire::new(stream);
        self.answer_over(wire.clone(), wire, place, app).await;
    }

    /// The same over a stream, whose socket is the wire.
    async fn answer_over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        socket: Wire,
        place: Place,
        app: Router,
    ) {
        let connection = Arc::clone(&place.connection);
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let busy = Busy::new(&connection);
            let mut request: Request = request.map(Body::new);
            request.extensions_mut().insert(socket.clone());
            let app = app.clone();
            async move { app.oneshot(request).await.map(|response| hold(response, Held::new(busy))) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.patience)
            .half_close(true)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(served);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = place.connection.close.notified() => {
                served.as_mut().graceful_shutdown();
                if place.connection.at_work.load(Ordering::Relaxed) {
                    served.await
                } else {
                    // A head that never comes whole isn't waited for, only what is left of an answer.
                    tokio::time::timeout(FLUSH, served).await.unwrap_or(Ok(()))
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!("a connection ended: {error}");
        }
    }

    /// Closes every connection, once its answer is done, and waits for them for a moment.
    pub(super) async fn close(&self) {
        let all_ended = async {
            loop {
                let ended = self.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                let open: Vec<_> = self.open().connections.values().cloned().collect();
                if open.is_empty() {
                    return;
                }
                open.iter().for_each(|connection| connection.close.notify_one());
                ended.await;
            }
        };
        let _ = tokio::time::timeout(LINGER, all_ended).await;
    }
}

/// Says that there is no room, as far as the socket takes it at once.
async fn refuse(stream: TcpStream) {
    if stream.try_write(REFUSAL).is_err() {
        return;
    }
    let _ = rustix::net::shutdown(&stream, rustix::net::Shutdown::Write);
    // What the client has sent is read: a socket that is closed before would reset the connection, and the answer with it.
    let read = async {
        let mut bytes = [0; 4096];
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut bytes) {
                Ok(0) => return,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    };
    let _ = tokio::time::timeout(NO_FILES, read).await;
}
