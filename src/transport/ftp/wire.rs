//! One TCP connection, plain or under TLS, on which no wait lasts longer than the timeout.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::client::TlsStream;
use tokio_util::io::poll_read_buf;

/// A control or data connection.
pub(super) struct Wire {
    stream: Stream,
    timeout: Duration,
    /// Runs while somebody waits; boxed, since most data connections never need it.
    alarm: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    /// What went wrong behind bytes that were handed over.
    put_off: Option<io::Error>,
}

/// Either kind of stream below a [`Wire`].
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<BufReader<TcpStream>>>),
}

impl Wire {
    /// Wraps a connection; `timeout` is the longest wait of a read or write for its first byte.
    pub(super) fn new(stream: Stream, timeout: Duration) -> Self {
        Self { stream, timeout, alarm: None, waiting: false, put_off: None }
    }

    /// Returns the TCP connection for a TLS handshake; `None` when there was one already.
    pub(super) fn into_plain(self) -> Option<TcpStream> {
        match self.stream {
            Stream::Plain(tcp) => Some(tcp),
            Stream::Tls(_) => None,
        }
    }

    /// Returns whether it runs under TLS.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Returns whether it runs under TLS 1.3.
    pub(super) fn is_tls13(&self) -> bool {
        match &self.stream {
            Stream::Plain(_) => false,
            Stream::Tls(tls) => tls.get_ref().1.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3),
        }
    }

    /// Reads until the buffer is full or no more is there now; waits for the first byte. An error that comes behind some
    /// bytes comes again with the next call.
    pub(super) async fn read_all_there_is(&mut self, buffer: &mut (impl BufMut + Send)) -> io::Result<usize> {
        if let Some(error) = self.put_off.take() {
            return Err(error);
        }
        let before = buffer.remaining_mut();
        poll_fn(|cx| {
            loop {
                let poll = poll_read_buf(Pin::new(&mut *self), cx, buffer);
                let so_far = before - buffer.remaining_mut();
                match poll {
                    // The end, or a full buffer.
                    Poll::Ready(Ok(0)) => return Poll::Ready(Ok(so_far)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(e)) if so_far == 0 => return Poll::Ready(Err(e)),
                    Poll::Ready(Err(e)) => {
                        self.put_off = Some(e);
                        return Poll::Ready(Ok(so_far));
                    }
                    Poll::Pending if so_far == 0 => return Poll::Pending,
                    Poll::Pending => {
                        self.waiting = false;
                        return Poll::Ready(Ok(so_far));
                    }
                }
            }
        })
        .await
    }

    /// Reads what is there already; `None` when that is nothing.
    pub(super) fn read_now(&mut self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        match self.stream.pinned().poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer) {
            Poll::Ready(result) => Some(result.map(|()| buffer.filled().len())),
            Poll::Pending => None,
        }
    }

    /// Starts the time of a wait anew, for one that was given up half-way.
    pub(super) fn wait_anew(&mut self) {
        self.waiting = false;
    }

    /// Ends a wait that lasted too long.
    fn bounded<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.waiting = false;
            return poll;
        }
        let timeout = self.timeout;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(timeout)));
        if !self.waiting {
            alarm.as_mut().reset(Instant::now() + timeout);
            self.waiting = true;
        }
        ready!(alarm.as_mut().poll(cx));
        self.waiting = false;
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer for {} seconds", timeout.as_secs_f32()),
        )))
    }
}

impl Stream {
    fn pinned(&mut self) -> Pin<&mut dyn Duplex> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp),
            Self::Tls(tls) => Pin::new(&mut **tls),
        }
    }
}

/// Both directions of a stream.
trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        let poll = wire.stream.pinned().poll_read(cx, buffer);
        wire.bounded(cx, poll)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        let poll = wire.stream.pinned().poll_write(cx, bytes);
        wire.bounded(cx, poll)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        let poll = wire.stream.pinned().poll_flush(cx);
        wire.bounded(cx, poll)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        let poll = wire.stream.pinned().poll_shutdown(cx);
        wire.bounded(cx, poll)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_tls() { "Wire(tls)" } else { "Wire(plain)" })
    }
}
