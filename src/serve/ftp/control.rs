//! The control connection: lines in, replies out, TLS when asked for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The longest line: a path of the system's greatest length, each byte doubled, and a command before it.
const MAX_LINE: usize = 8 * 1024 + 512;
/// The longest wait for a client to take a reply, or to shake hands.
const PATIENCE: Duration = Duration::from_secs(30);

/// The control connection.
pub(super) struct Control {
    stream: Stream,
    buffer: BytesMut,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Between the two.
    Gone,
}

impl Control {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream: Stream::Plain(stream), buffer: BytesMut::new() }
    }

    /// Returns whether it is encrypted.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Returns whether bytes came that nobody asked for yet.
    pub(super) fn has_more(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Shakes hands as the server.
    pub(super) async fn start_tls(&mut self, config: Arc<rustls::ServerConfig>) -> io::Result<()> {
        let Stream::Plain(stream) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let stream = timeout(PATIENCE, TlsAcceptor::from(config).accept(stream)).await??;
        self.stream = Stream::Tls(Box::new(stream));
        Ok(())
    }

    /// Returns the next line without its end; `None` when the client is gone. Nothing is lost if this is dropped.
    ///
    /// # Errors
    /// `InvalidData` for a line that is too long.
    pub(super) async fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&b| b == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return Ok(Some(clean(&line[..end])));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let read = match &mut self.stream {
                Stream::Plain(stream) => stream.read_buf(&mut self.buffer).await?,
                Stream::Tls(stream) => stream.read_buf(&mut self.buffer).await?,
                Stream::Gone => 0,
            };
            if read == 0 {
                return Ok(None);
            }
        }
    }

    /// Sends a reply of one line.
    pub(super) async fn reply(&mut self, code: u16, text: impl AsRef<[u8]>) -> io::Result<()> {
        self.send(&format_reply(code, text.as_ref())).await
    }

    /// Sends a reply of several lines: `code-first`, the lines, `code last`.
    pub(super) async fn reply_lines(
        &mut self,
        code: u16,
        first: &str,
        lines: &[Vec<u8>],
        last: &str,
    ) -> io::Result<()> {
        let mut text = format!("{code}-{first}\r\n").into_bytes();
        for line in lines {
            text.push(b' ');
            put_line(&mut text, line);
        }
        text.extend(format_reply(code, last.as_bytes()));
        self.send(&text).await
    }

    /// Says goodbye to TLS and closes.
    pub(super) async fn close(mut self) {
        let _ = match &mut self.stream {
            Stream::Plain(stream) => timeout(PATIENCE, stream.shutdown()).await,
            Stream::Tls(stream) => timeout(PATIENCE, stream.shutdown()).await,
            Stream::Gone => return,
        };
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let send = async {
            match &mut self.stream {
                Stream::Plain(stream) => stream.write_all(bytes).await,
                Stream::Tls(stream) => {
                    stream.write_all(bytes).await?;
                    stream.flush().await
                }
                Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
            }
        };
        timeout(PATIENCE, send).await?
    }
}

fn format_reply(code: u16, text: &[u8]) -> Vec<u8> {
    let mut line = format!("{code} ").into_bytes();
    put_line(&mut line, text);
    line
}

/// Adds a line as TELNET carries it: 255 doubled, and no line end within.
fn put_line(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte {
            b'\r' | b'\n' | 0 => out.push(b'?'),
            0xff => out.extend([0xff, 0xff]),
            _ => out.push(byte),
        }
    }
    out.extend(b"\r\n");
}

/// Takes the CR, and what TELNET puts in: interrupt signs before a command (RFC 959, section 4.1.3), 255 doubled.
///
/// Many clients don't double; a single 255 within a name is taken as it is.
fn clean(line: &[u8]) -> Vec<u8> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let start = line.iter().position(|&b| b < 0x80).unwrap_or(line.len());
    let mut clean = Vec::with_capacity(line.len());
    let mut rest = &line[start..];
    while let Some((&byte, tail)) = rest.split_first() {
        clean.push(byte);
        rest = if byte == 0xff { tail.strip_prefix(b"\xff").unwrap_or(tail) } else { tail };
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn telnet_is_taken_off() {
        assert_eq!(clean(b"\xff\xf4\xff\xf2ABOR\r"), b"ABOR");
        assert_eq!(clean(b"\xff\xf4\xffABOR\r"), b"ABOR");
        assert_eq!(clean(b"RETR a\xff\xffb\xffc"), b"RETR a\xffb\xffc");
    }

    #[test]
    fn a_reply_is_one_line() {
        assert_eq!(format_reply(257, b"\"/a\r\n226 \xff\""), b"257 \"/a??226 \xff\xff\"\r\n");
    }

    proptest! {
        #[test]
        fn what_a_reply_carries_is_read_again(text in prop::collection::vec(1u8..=255, 0..50)) {
            prop_assume!(!text.contains(&b'\r') && !text.contains(&b'\n'));
            let line = format_reply(257, &text);
            prop_assert_eq!(&clean(&line[..line.len() - 1])[4..], &text[..]);
        }
    }
}
