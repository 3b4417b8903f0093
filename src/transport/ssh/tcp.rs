//! A socket whose waits end.

use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::road::Road;
use super::stage::{Listener, Stage};
use crate::error::{Error, Result};

/// Bytes read ahead behind a short read: as many small packets as there may be.
const AHEAD: usize = 8 * 1024;
/// Bytes read ahead behind a long read: the length of the next packet.
const AHEAD_OF_LENGTH: usize = 16;
/// A read into this much room is a long one.
const LONG: usize = 4096;
/// Reads and writes for which the server gets its acknowledgements at once. Until a command or subsystem runs, OpenSSH's
/// server holds back what is small for as long as anything is unacknowledged.
const QUICK: u32 = 40;

/// A connection whose reads and writes fail with `TimedOut` when nothing moved for `limit`, once it is established, and
/// whose reads fail with `InvalidData` when too much comes before that.
///
/// The peer has to be made to say something now and then (keepalive), else silence is no sign of death.
///
/// A reader that asks for the four bytes of a length, then for the packet, then for the next length, would make two
/// system calls for each packet: with each packet comes the next one's length.
///
/// A reset breaks the writes first, and russh would go then. But what the peer sent before it is there to be read: writes
/// to a lost connection lead nowhere and don't fail, reads go on to the end and then say how it was lost.
#[derive(Debug)]
pub(super) struct Watched {
    stream: Road,
    limit: Duration,
    stage: Arc<Stage>,
    listener: Listener,
    read: Watch,
    write: Watch,
    /// What was read ahead: these of its bytes.
    ahead: Box<[u8; AHEAD]>,
    unread: Range<usize>,
    quick: u32,
    lost: Lost,
}

/// Whether a write has found out that the connection is lost.
#[derive(Debug)]
enum Lost {
    No,
    /// How, until a reader was told.
    Yes(Option<io::Error>),
}

#[derive(Debug)]
struct Watch {
    last: Instant,
    sleep: Pin<Box<Sleep>>,
    waiting: bool,
}

impl Watched {
    /// Wraps a stream.
    pub(super) fn new(stream: Road, limit: Duration, stage: Arc<Stage>) -> Self {
        Self {
            stream,
            limit,
            stage,
            listener: Listener::default(),
            read: Watch::new(limit),
            write: Watch::new(limit),
            ahead: Box::new([0; AHEAD]),
            unread: 0..0,
            quick: QUICK,
            lost: Lost::No,
        }
    }

    fn moved(&mut self) {
        if self.quick > 0 {
            self.quick -= 1;
            // Not every system has it, and none needs it.
            #[cfg(target_os = "linux")]
            if let Road::Tcp(tcp) = &self.stream {
                let _ = rustix::net::sockopt::set_tcp_quickack(tcp, true);
            }
        }
    }

    /// Reads what is there; the runtime believes that there may be something.
    fn read_now(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let into = buffer.initialize_unfilled();
        let room = into.len();
        let ahead = &mut self.ahead[..if room < LONG { AHEAD } else { AHEAD_OF_LENGTH }];
        let most = room + ahead.len();
        let mut slices = [IoSliceMut::new(into), IoSliceMut::new(ahead)];
        let mut read = None;
        let tried = self.stream.try_read(|| {
            let length = rustix::io::readv(&self.stream, &mut slices)?;
            read = Some(length);
            // Fewer than there was room for: there are no more now, and the runtime need not find out by trying.
            if length == 0 || length == most { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        let Some(length) = read else { return tried };
        if length == 0
            && let Lost::Yes(how) = &mut self.lost
            && let Some(how) = how.take()
        {
            return Err(how);
        }
        let in_buffer = length.min(room);
        self.listener.hear(&buffer.initialize_unfilled()[..in_buffer], &self.stage)?;
        self.listener.hear(&self.ahead[..length - in_buffer], &self.stage)?;
        buffer.advance(length.min(room));
        self.unread = 0..length.saturating_sub(room);
        Ok(())
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
    fn poll_stalled(&mut self, cx: &mut Context<'_>, limit: Duration, stage: &Stage, is_read: bool) -> Poll<()> {
        // A wait for writing starts when there is something to write; for reading, the peer always owes something.
        if !is_read && !self.waiting {
            self.last = Instant::now();
        }
        self.waiting = true;
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            if !stage.is_established() {
                self.last = Instant::now();
            } else if self.last.elapsed() >= limit {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.last + limit);
        }
    }
}

fn stalled<T>(limit: Duration) -> Poll<io::Result<T>> {
    let text = format!("no sign of life from the server for {} s", limit.as_secs_f32());
    Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.unread.is_empty() {
            let length = this.unread.len().min(buffer.remaining());
            buffer.put_slice(&this.ahead[this.unread.start..][..length]);
            this.unread.start += length;
            return Poll::Ready(Ok(()));
        }
        loop {
            match this.stream.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => {
                    ready!(this.read.poll_stalled(cx, this.limit, &this.stage, true));
                    return stalled(this.limit);
                }
            }
            match this.read_now(buffer) {
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                result => {
                    this.read.moved();
                    this.moved();
                    return Poll::Ready(result);
                }
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if matches!(this.lost, Lost::Yes(_)) {
            return Poll::Ready(Ok(bytes.len()));
        }
        match Pin::new(this.stream.writer()).poll_write(cx, bytes) {
            // Where the system ended both directions, the other one shows it, too.
            Poll::Ready(Err(e)) if matches!(this.stream, Road::Tcp(_)) => {
                this.lost = Lost::Yes(Some(e));
                Poll::Ready(Ok(bytes.len()))
            }
            Poll::Ready(result) => {
                this.write.moved();
                this.moved();
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(this.write.poll_stalled(cx, this.limit, &this.stage, false));
                stalled(this.limit)
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.writer()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.writer()).poll_shutdown(cx)
    }
}

/// A second handle of a connection's socket. Dropping it shuts the connection down, which ends every wait on it.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Takes a handle of this stream's socket.
    pub(super) fn of(stream: &Road) -> Result<Self> {
        stream.as_fd().try_clone_to_owned().map(Self).map_err(|e| Error::io("set up the connection", e))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn what_came_before_a_reset_is_read_however_the_writes_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut watched = Watched::new(Road::Tcp(stream), Duration::from_secs(30), Arc::new(Stage::default()));
        peer.write_all(&[7; 10_000]).await.unwrap();
        peer.set_zero_linger().unwrap();
        drop(peer);
        watched.write_all(b"one").await.unwrap();
        watched.write_all(b"two").await.unwrap();
        watched.flush().await.unwrap();
        let mut found = Vec::new();
        let error = watched.read_to_end(&mut found).await.unwrap_err();
        assert_eq!((found.len(), error.kind()), (10_000, io::ErrorKind::ConnectionReset));
    }
}
