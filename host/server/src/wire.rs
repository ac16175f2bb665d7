//! A connection's socket, shared by the HTTP layer and by whoever watches for the client's leaving.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt;
use rustix::net::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// How often a watched client is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// After this many looks at a half-closed connection, its client is asked for a sign of life.
const LOOKS_BEFORE_PROBE: usize = 2;

/// An interim answer, which HTTP/1.1 clients read past (RFC 9110, section 15.2). A socket that was closed as a whole answers it
/// with a reset, one that was closed for writing only doesn't.
const PROBE: &[u8] = b"HTTP/1.1 102 Processing\r\n\r\n";

/// A socket. Clones are the same one.
#[derive(Clone)]
pub(super) struct Wire {
    stream: Arc<TcpStream>,
    /// Whether what it carries is encrypted, so that nothing can be put in between.
    is_encrypted: bool,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream: Arc::new(stream), is_encrypted: false }
    }

    /// A socket whose bytes are encrypted.
    #[cfg(feature = "tls")]
    pub(super) fn encrypted(stream: TcpStream) -> Self {
        Self { stream: Arc::new(stream), is_encrypted: true }
    }

    /// Completes when the client has gone. One that has only said that it will send no more still reads its answer: whether it is
    /// one or the other shows when something is sent. `probe`: nothing of the answer was sent yet, and the client knows
    /// HTTP/1.1, so this may send an interim answer. Clients over TLS don't close one side of the socket below it to go on reading.
    pub(super) async fn gone(self, probe: bool) {
        let mut half_closed = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            let state = self.stream.ready(Interest::READABLE | Interest::WRITABLE).now_or_never();
            match state {
                None => {}
                Some(Err(_)) => return,
                Some(Ok(state)) if state.is_write_closed() => return,
                Some(Ok(state)) if state.is_read_closed() && self.is_encrypted => return,
                Some(Ok(state)) if state.is_read_closed() => half_closed += 1,
                Some(Ok(_)) => {}
            }
            if probe && half_closed == LOOKS_BEFORE_PROBE && self.stream.try_write(PROBE).is_err() {
                return;
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.stream.try_read(buffer.initialize_unfilled()) {
                Ok(n) => {
                    buffer.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_write_vectored(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(rustix::net::shutdown(&*self.stream, Shutdown::Write).map_err(io::Error::from))
    }
}
