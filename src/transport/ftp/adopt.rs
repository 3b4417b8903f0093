//! The control connection in two hands: suppaftp's client asks single questions, transfers send several lines at once.

use std::future::poll_fn;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use suppaftp::tokio::{AsyncTlsConnector, ImplAsyncFtpStream, TokioTlsStream};
use suppaftp::{Encoding, FtpError, FtpResult};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::dialogue::Dialogue;
use super::reply::Reply;
use crate::error::{Error, Result};

/// What makes suppaftp believe that it negotiated `PBSZ` and `PROT` itself.
const ADOPTED: &[u8] = b"200 ok\r\n200 ok\r\n";

/// A control connection that is logged in. Who holds it asks only when nobody else does.
#[derive(Clone)]
pub(super) struct Control(Arc<Mutex<Dialogue>>);

impl Control {
    /// Wraps a connection that is logged in.
    pub(super) fn new(dialogue: Dialogue) -> Self {
        Self(Arc::new(Mutex::new(dialogue)))
    }

    /// Returns the dialogue, for what needs no waiting.
    pub(super) fn lock(&self) -> MutexGuard<'_, Dialogue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends lines in one piece.
    pub(super) async fn send(&self, lines: &[impl AsRef<[u8]>]) -> Result<()> {
        {
            let mut dialogue = self.lock();
            dialogue.wait_anew();
            for line in lines {
                dialogue.queue(line.as_ref());
            }
        }
        poll_fn(|cx| self.lock().poll_send(cx)).await.map_err(|e| Error::io("control connection", e))
    }

    /// Returns the next reply.
    pub(super) async fn reply(&self) -> Result<Reply> {
        self.lock().wait_anew();
        poll_fn(|cx| self.lock().poll_reply(cx)).await
    }

    /// Waits for the replies that were left for later.
    pub(super) async fn settled(&self) -> Result<()> {
        self.lock().wait_anew();
        poll_fn(|cx| self.lock().poll_settled(cx)).await
    }
}

/// Makes suppaftp's client of a connection that is logged in, plain or not.
///
/// That can only be made from a fresh TCP connection that greets, and is given a stream of ours only when it upgrades
/// that to TLS. So it sees a greeting and an `AUTH` over a socket pair, and its connector then hands it the real one.
pub(super) async fn adopt(control: Control) -> FtpResult<ImplAsyncFtpStream<Line>> {
    let (mut ours, theirs) = UnixStream::pair().map_err(FtpError::ConnectionError)?;
    theirs.set_nonblocking(true).map_err(FtpError::ConnectionError)?;
    let theirs = TcpStream::from_std(OwnedFd::from(theirs).into()).map_err(FtpError::ConnectionError)?;
    ours.write_all(b"220 ready\r\n").map_err(FtpError::ConnectionError)?;
    let mut client = ImplAsyncFtpStream::connect_with_stream(theirs).await?;
    client.set_encoding(Bytes).await;
    ours.write_all(b"234 go ahead\r\n").map_err(FtpError::ConnectionError)?;
    client.into_secure(Connector(control), "").await
}

/// Gives suppaftp the control connection that is there already. Data connections are not its business.
struct Connector(Control);

#[async_trait]
impl AsyncTlsConnector for Connector {
    type Stream = Line;

    async fn connect(&self, _: &str, stand_in: TcpStream) -> FtpResult<Line> {
        Ok(Line { control: self.0.clone(), stand_in, reply: ADOPTED.to_vec(), swallow: 2 })
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

/// A control connection as suppaftp sees it: each line it writes is sent whole, and each reply is that to its line.
pub(super) struct Line {
    control: Control,
    /// The socket that it must be able to name; nothing passes there.
    stand_in: TcpStream,
    /// What is left of a reply.
    reply: Vec<u8>,
    /// Lines to be kept back, whose replies were made up: `PBSZ` and `PROT`.
    swallow: usize,
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let line = self.get_mut();
        if line.reply.is_empty() {
            let reply = ready!(line.control.lock().poll_reply(cx));
            line.reply = reply.map_err(io::Error::other)?.into_raw();
        }
        let count = line.reply.len().min(buffer.remaining());
        buffer.put_slice(&line.reply[..count]);
        line.reply.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let line = self.get_mut();
        if line.swallow > 0 {
            line.swallow -= 1;
            return Poll::Ready(Ok(bytes.len()));
        }
        let mut dialogue = line.control.lock();
        dialogue.wait_anew();
        dialogue.queue(&undouble(bytes.strip_suffix(b"\r\n").unwrap_or(bytes)));
        // What can't be sent at once goes before the reply is waited for.
        match dialogue.poll_send(cx) {
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.control.lock().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl TokioTlsStream for Line {
    type InnerStream = TcpStream;

    fn tcp_stream(self) -> FtpResult<TcpStream> {
        Ok(self.stand_in)
    }

    fn get_ref(&self) -> &TcpStream {
        &self.stand_in
    }

    fn mut_ref(&mut self) -> &mut TcpStream {
        &mut self.stand_in
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Line")
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

/// Carries bytes through suppaftp's strings without loss: each byte is the character of that number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes;

impl Encoding for Bytes {
    fn decode(&self, bytes: &[u8]) -> String {
        bytes.iter().map(|&byte| char::from(byte)).collect()
    }

    fn encode(&self, text: &str) -> std::io::Result<Vec<u8>> {
        let byte = |c: char| u8::try_from(u32::from(c)).map_err(|_| std::io::ErrorKind::InvalidInput.into());
        text.chars().map(byte).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_pass_through_suppaftp_unchanged() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(Bytes.encode(&Bytes.decode(&all)).unwrap(), all);
        assert!(Bytes.encode("日").is_err());
        assert_eq!(undouble(b"a\xff\xffb"), b"a\xffb");
    }
}
