//! Reaching the server: names, addresses, and a socket whose waits end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::error::{Error, ErrorKind, Result};

/// Connects to the first address of the host that answers; each has `limit` time.
///
/// # Errors
/// `ConnectionRefused` for an unknown host or when no address answers, `Timeout`.
pub(super) async fn connect(host: &str, port: u16, limit: Duration) -> Result<TcpStream> {
    let addresses: Vec<_> = timeout(limit, lookup_host((host, port)))
        .await
        .map_err(|_| Error::new(ErrorKind::Timeout, "looking up the host took too long").at(host))?
        .map_err(|e| Error::io("look up the host", e).with_kind(ErrorKind::ConnectionRefused).at(host))?
        .collect();
    let mut failure = Error::new(ErrorKind::ConnectionRefused, "the host has no address").at(host);
    for address in addresses {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Requests are small and each waits for its answer: Nagle would only delay them.
                stream.set_nodelay(true).map_err(|e| Error::io("set up the connection", e).at(address))?;
                return Ok(stream);
            }
            Ok(Err(e)) => failure = Error::io("connect", e).at(address),
            Err(_) => failure = Error::new(ErrorKind::Timeout, "connecting took too long").at(address),
        }
    }
    Err(failure)
}

/// A stream whose reads and writes fail with `TimedOut` when nothing moved for `limit`, once it is armed.
///
/// The peer has to be made to say something now and then (keepalive), else silence is no sign of death.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    limit: Duration,
    armed: Arc<AtomicBool>,
    read: Watch,
    write: Watch,
}

#[derive(Debug)]
struct Watch {
    last: Instant,
    sleep: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<S> Watched<S> {
    /// Wraps a stream; `armed` can be set at any time.
    pub(super) fn new(stream: S, limit: Duration, armed: Arc<AtomicBool>) -> Self {
        Self { stream, limit, armed, read: Watch::new(limit), write: Watch::new(limit) }
    }
}

impl Watch {
    fn new(limit: Duration) -> Self {
        let last = Instant::now();
        Self { last, sleep: Box::pin(sleep_until(last + limit)), waiting: false }
    }

    fn moved(&mut self) {
        self.last = Instant::now();
        self.waiting = false;
    }

    /// Returns `Ready` when nothing moved for too long.
    fn poll_stalled(&mut self, cx: &mut Context<'_>, limit: Duration, armed: &AtomicBool, is_read: bool) -> Poll<()> {
        // A wait for writing starts when there is something to write; for reading, the peer always owes something.
        if !is_read && !self.waiting {
            self.last = Instant::now();
        }
        self.waiting = true;
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if !armed.load(Ordering::Acquire) {
                self.last = Instant::now();
            } else if self.last.elapsed() >= limit {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.last + limit);
        }
    }
}

fn stalled<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the server doesn't answer any more")))
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        match Pin::new(&mut this.stream).poll_read(cx, buffer) {
            Poll::Ready(result) => {
                this.read.moved();
                Poll::Ready(result)
            }
            Poll::Pending => match this.read.poll_stalled(cx, this.limit, &this.armed, true) {
                Poll::Ready(()) => stalled(),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        match Pin::new(&mut this.stream).poll_write(cx, bytes) {
            Poll::Ready(result) => {
                this.write.moved();
                Poll::Ready(result)
            }
            Poll::Pending => match this.write.poll_stalled(cx, this.limit, &this.armed, false) {
                Poll::Ready(()) => stalled(),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A second handle of a connection's socket. Dropping it shuts the connection down, which ends every wait on it.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Takes a handle of this stream's socket.
    pub(super) fn of(stream: &TcpStream) -> Result<Self> {
        stream.as_fd().try_clone_to_owned().map(Self).map_err(|e| Error::io("set up the connection", e))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}
