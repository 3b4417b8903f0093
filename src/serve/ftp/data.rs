//! Data connections: opened with the control connection's peer and nobody else, moved by a blocking thread.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;

/// The longest wait for the data connection to be made.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest wait for a byte to move.
pub(super) const STALL: Duration = Duration::from_secs(60);
/// Bytes moved at once.
const CHUNK: usize = 256 * 1024;

/// Where the next data connection comes from.
pub(super) enum Plan {
    /// Nothing was agreed.
    None,
    /// The client connects here.
    Passive(TcpListener),
    /// We connect there; the address is the control connection's peer.
    Active(SocketAddr),
}

impl Plan {
    /// Makes the connection, ready for blocking use.
    pub(super) async fn open(self, here: IpAddr, peer: IpAddr) -> io::Result<TcpStream> {
        let stream = match self {
            Self::None => return Err(io::Error::new(io::ErrorKind::NotConnected, "use PASV or EPSV first")),
            Self::Passive(listener) => timeout(PATIENCE, accept_from(&listener, peer)).await??,
            Self::Active(address) => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                socket.bind(SocketAddr::new(here, 0))?;
                timeout(PATIENCE, socket.connect(address)).await??
            }
        };
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(STALL))?;
        stream.set_write_timeout(Some(STALL))?;
        Ok(stream)
    }
}

/// Takes the first connection from the peer; others are closed at once.
async fn accept_from(listener: &TcpListener, peer: IpAddr) -> io::Result<tokio::net::TcpStream> {
    loop {
        let (stream, from) = listener.accept().await?;
        if from.ip().to_canonical() == peer {
            return Ok(stream);
        }
        tracing::warn!(%from, "refused a data connection from a stranger");
    }
}

/// A data connection in use.
pub(super) enum Channel {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<ServerConnection, Buffered>>),
}

impl Channel {
    /// Takes a connection; with `tls` it shakes hands first. Blocks.
    pub(super) fn new(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let Some(config) = tls else { return Ok(Self::Plain(stream)) };
        let mut connection = ServerConnection::new(config).map_err(io::Error::other)?;
        let mut socket = Buffered(BufReader::with_capacity(CHUNK, stream));
        while connection.is_handshaking() {
            let (read, _) = connection.complete_io(&mut socket)?;
            if read == 0 && connection.is_handshaking() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Self::Tls(Box::new(rustls::StreamOwned::new(connection, socket))))
    }

    /// Sends the file from where it stands, `length` bytes at most, and returns how many there were.
    pub(super) fn send_file(&mut self, file: &mut File, length: u64) -> io::Result<u64> {
        #[cfg(target_os = "linux")]
        if let Self::Plain(stream) = self {
            return send_by_kernel(stream, file, length);
        }
        self.send(&mut file.take(length))
    }

    /// Sends all there is to read and returns how many bytes that was.
    pub(super) fn send(&mut self, source: &mut impl Read) -> io::Result<u64> {
        let mut buffer = vec![0; CHUNK];
        let mut sent = 0;
        loop {
            let read = retry(|| source.read(&mut buffer))?;
            if read == 0 {
                return Ok(sent);
            }
            self.write_all(&buffer[..read])?;
            sent += read as u64;
        }
    }

    /// Writes all that comes to `sink` and returns how many bytes that was.
    pub(super) fn receive(&mut self, sink: &mut impl Write) -> io::Result<u64> {
        let mut buffer = vec![0; CHUNK];
        let mut received = 0;
        loop {
            // With TLS an end without close_notify is an error here: what came may not be all.
            let read = retry(|| self.read(&mut buffer))?;
            if read == 0 {
                return Ok(received);
            }
            sink.write_all(&buffer[..read])?;
            received += read as u64;
        }
    }

    /// Says that this was all. Returns the connection if the peer may still say something.
    pub(super) fn finish(mut self) -> io::Result<Option<TcpStream>> {
        self.flush()?;
        match self {
            Self::Plain(stream) => {
                stream.shutdown(Shutdown::Write)?;
                Ok(None)
            }
            Self::Tls(mut tls) => {
                tls.conn.send_close_notify();
                while tls.conn.wants_write() {
                    tls.conn.write_tls(&mut tls.sock)?;
                }
                let stream = tls.sock.0.into_inner();
                stream.shutdown(Shutdown::Write)?;
                Ok(Some(stream))
            }
        }
    }
}

impl Read for Channel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Reads in large pieces: rustls asks for 4 KiB at a time.
pub(super) struct Buffered(BufReader<TcpStream>);

impl Read for Buffered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Buffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_mut().write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// RFC 959's TYPE A on the way out: a bare LF becomes CR LF.
pub(super) struct ToNetwork<R> {
    source: io::Bytes<BufReader<R>>,
    last: u8,
    held: bool,
}

impl<R: Read> ToNetwork<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source: BufReader::with_capacity(CHUNK, source).bytes(), last: 0, held: false }
    }
}

impl<R: Read> Read for ToNetwork<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let byte = if std::mem::take(&mut self.held) {
                b'\n'
            } else {
                let Some(byte) = self.source.next().transpose()? else { break };
                self.held = byte == b'\n' && self.last != b'\r';
                if self.held { b'\r' } else { byte }
            };
            self.last = byte;
            buffer[filled] = byte;
            filled += 1;
        }
        Ok(filled)
    }
}

/// RFC 959's TYPE A on the way in: CR LF becomes LF. [`FromNetwork::end`] gives out what is held back.
pub(super) struct FromNetwork<W: Write> {
    sink: W,
    held: bool,
}

impl<W: Write> FromNetwork<W> {
    pub(super) fn new(sink: W) -> Self {
        Self { sink, held: false }
    }

    pub(super) fn end(mut self) -> io::Result<()> {
        if self.held { self.sink.write_all(b"\r") } else { Ok(()) }
    }
}

impl<W: Write> Write for FromNetwork<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut out = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            if std::mem::take(&mut self.held) && byte != b'\n' {
                out.push(b'\r');
            }
            match byte {
                b'\r' => self.held = true,
                _ => out.push(byte),
            }
        }
        self.sink.write_all(&out)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

#[cfg(target_os = "linux")]
fn send_by_kernel(stream: &TcpStream, file: &File, length: u64) -> io::Result<u64> {
    let mut sent = 0;
    while sent < length {
        let want = usize::try_from(length - sent).unwrap_or(usize::MAX).min(1 << 30);
        match retry(|| Ok(rustix::fs::sendfile(stream, file, None, want)?))? {
            0 => break,
            count => sent += count as u64,
        }
    }
    Ok(sent)
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What a blocking socket says when its timeout passes.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the data connection stalled"));
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to_network(text: &[u8], piece: usize) -> Vec<u8> {
        let mut reader = ToNetwork::new(text);
        let (mut out, mut buffer) = (Vec::new(), vec![0; piece]);
        loop {
            match reader.read(&mut buffer).unwrap() {
                0 => return out,
                read => out.extend(&buffer[..read]),
            }
        }
    }

    fn from_network(text: &[u8], piece: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = FromNetwork::new(&mut out);
        text.chunks(piece).for_each(|chunk| writer.write_all(chunk).unwrap());
        writer.end().unwrap();
        out
    }

    #[test]
    fn line_ends_are_those_of_each_side() {
        assert_eq!(to_network(b"a\nb\r\n\n", 1), b"a\r\nb\r\n\r\n");
        assert_eq!(from_network(b"a\r\nb\rc\r\r\n\r", 2), b"a\nb\rc\r\n\r");
    }

    proptest! {
        #[test]
        fn text_survives_both_ways(text in "[a\n]{0,40}", out in 1usize..9, back in 1usize..9) {
            let there = to_network(text.as_bytes(), out);
            prop_assert_eq!(from_network(&there, back), text.as_bytes());
        }
    }
}
