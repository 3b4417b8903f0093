//! One TCP connection, plain or under TLS, on which no wait lasts longer than the timeout.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use suppaftp::FtpResult;
use suppaftp::tokio::TokioTlsStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::client::TlsStream;

/// The end of what the server said is kept, up to this.
const TRANSCRIPT: usize = 4096;
/// What makes suppaftp believe that it negotiated `PBSZ` and `PROT` itself; see [`Wire::adopted`].
const ADOPTED: &[u8] = b"200 ok\r\n200 ok\r\n";

/// A control or data connection. suppaftp takes it for its TLS stream, whether it is encrypted or not.
pub(super) struct Wire {
    stream: Stream,
    timeout: Duration,
    /// Runs while somebody waits; boxed, since most data connections never need it.
    alarm: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    control: Option<Box<Control>>,
}

/// Either kind of stream below a [`Wire`].
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What only a control connection needs.
struct Control {
    /// Replies to hand over before anything is read, and the number of command lines to swallow for them.
    canned: &'static [u8],
    swallow: usize,
    /// Whether the server takes 0xFF doubled, as Telnet has it. Else suppaftp's doubling is undone.
    telnet: bool,
    /// The rest of a line on its way out, undoubled.
    line: Vec<u8>,
    transcript: Transcript,
}

/// The end of what the server said since the last command: suppaftp drops the words of successful replies.
#[derive(Clone, Default)]
pub(super) struct Transcript(Arc<Mutex<Vec<u8>>>);

impl Transcript {
    /// Returns what the server said since the last command, at most 4 KiB.
    pub(super) fn text(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, bytes: &[u8]) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(bytes);
        let surplus = text.len().saturating_sub(TRANSCRIPT);
        text.drain(..surplus);
    }

    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Wire {
    /// Wraps a connection; `timeout` is the longest wait of a read or write for its first byte.
    pub(super) fn new(stream: Stream, timeout: Duration) -> Self {
        Self { stream, timeout, alarm: None, waiting: false, control: None }
    }

    /// Makes this a control connection that has greeted and logged in already, for suppaftp to take over. That always
    /// asks for `PBSZ` and `PROT` first: these two lines are swallowed and answered from here.
    pub(super) fn adopted(mut self, telnet: bool, transcript: Transcript) -> Self {
        let control = Control { canned: ADOPTED, swallow: 2, telnet, line: Vec::new(), transcript };
        self.control = Some(Box::new(control));
        self
    }

    /// Returns the TCP connection below.
    pub(super) fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Returns the TCP connection for a TLS handshake; `None` when there was one already.
    pub(super) fn into_plain(self) -> Option<TcpStream> {
        match self.stream {
            Stream::Plain(tcp) => Some(tcp),
            Stream::Tls(_) => None,
        }
    }

    /// Returns whether the connection runs under TLS 1.3.
    pub(super) fn is_tls13(&self) -> bool {
        match &self.stream {
            Stream::Plain(_) => false,
            Stream::Tls(tls) => tls.get_ref().1.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3),
        }
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
        if let Some(control) = wire.control.as_deref_mut().filter(|control| !control.canned.is_empty()) {
            let (now, later) = control.canned.split_at(control.canned.len().min(buffer.remaining()));
            buffer.put_slice(now);
            control.canned = later;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let poll = wire.stream.pinned().poll_read(cx, buffer);
        if let Some(control) = &wire.control {
            control.transcript.add(&buffer.filled()[before..]);
        }
        wire.bounded(cx, poll)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        let poll = match wire.control.as_deref_mut() {
            None => wire.stream.pinned().poll_write(cx, bytes),
            Some(control) => control.poll_write_line(&mut wire.stream, cx, bytes),
        };
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

impl Control {
    /// Sends a command line whole, since a part of a line can't be mapped back to a part of what suppaftp gave.
    fn poll_write_line(&mut self, stream: &mut Stream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.swallow > 0 {
            self.swallow -= 1;
            return Poll::Ready(Ok(bytes.len()));
        }
        if self.line.is_empty() {
            self.transcript.clear();
            self.line = if self.telnet { bytes.to_vec() } else { undouble(bytes) };
        }
        while !self.line.is_empty() {
            let sent = ready!(stream.pinned().poll_write(cx, &self.line))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.line.drain(..sent);
        }
        Poll::Ready(Ok(bytes.len()))
    }
}

/// Undoes the Telnet doubling of 0xFF, which suppaftp always does: vsftpd, Pure-FTPd and pyftpdlib take every byte
/// literally, only ProFTPD undoubles.
fn undouble(bytes: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(&byte) = rest.next() {
        line.push(byte);
        if byte == 0xff {
            rest.next();
        }
    }
    line
}

impl TokioTlsStream for Wire {
    type InnerStream = TcpStream;

    fn tcp_stream(self) -> FtpResult<TcpStream> {
        match self.stream {
            Stream::Plain(tcp) => Ok(tcp),
            Stream::Tls(tls) => Ok(tls.into_inner().0),
        }
    }

    fn get_ref(&self) -> &TcpStream {
        self.tcp()
    }

    fn mut_ref(&mut self) -> &mut TcpStream {
        match &mut self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_mut().0,
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.stream {
            Stream::Plain(_) => "plain",
            Stream::Tls(_) => "tls",
        };
        write!(f, "Wire({kind})")
    }
}
