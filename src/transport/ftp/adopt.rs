//! Handing a connection over to suppaftp, and the streams and bytes that it then asks for.

use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use suppaftp::tokio::{AsyncTlsConnector, ImplAsyncFtpStream};
use suppaftp::{Encoding, FtpError, FtpResult};
use tokio::net::TcpStream;

use super::dial::dial;
use super::tls::LoginTls;
use super::wire::{Stream, Wire};
use crate::error::ErrorKind;

/// What became of the last attempt to open a data connection.
#[derive(Default)]
pub(super) struct Dialled {
    /// It was opened.
    pub(super) reached: AtomicBool,
    /// Nobody answered.
    pub(super) failed: AtomicBool,
}

/// Hands a connection that is logged in, plain or not, to suppaftp's client.
///
/// That can only be made from a fresh TCP connection that greets, and is given a stream of ours only when it upgrades
/// that to TLS. So it sees a greeting and an `AUTH` over a socket pair, and its connector then hands it the real one.
pub(super) async fn adopt(
    control: Wire,
    tls: Option<LoginTls>,
    dialled: Arc<Dialled>,
    timeout: Duration,
) -> FtpResult<ImplAsyncFtpStream<Wire>> {
    let (mut ours, theirs) = UnixStream::pair().map_err(FtpError::ConnectionError)?;
    theirs.set_nonblocking(true).map_err(FtpError::ConnectionError)?;
    let theirs = TcpStream::from_std(OwnedFd::from(theirs).into()).map_err(FtpError::ConnectionError)?;
    ours.write_all(b"220 ready\r\n").map_err(FtpError::ConnectionError)?;
    let mut client = ImplAsyncFtpStream::connect_with_stream(theirs).await?.passive_stream_builder(move |address| {
        let dialled = Arc::clone(&dialled);
        Box::pin(async move { open_data(address, &dialled, timeout).await })
    });
    client.set_encoding(Bytes).await;
    // The address of a 227 is never used, only its port.
    client.set_passive_nat_workaround(true);
    ours.write_all(b"234 go ahead\r\n").map_err(FtpError::ConnectionError)?;
    let connector = Connector { control: Mutex::new(Some(control)), tls, timeout };
    client.into_secure(connector, "").await
}

async fn open_data(address: SocketAddr, dialled: &Dialled, timeout: Duration) -> FtpResult<TcpStream> {
    let result = dial(address, timeout).await;
    let noted = if result.is_ok() { &dialled.reached } else { &dialled.failed };
    noted.store(true, Ordering::Relaxed);
    result.map_err(FtpError::ConnectionError)
}

/// Gives suppaftp its streams: first the control connection that is there already, then data connections.
struct Connector {
    control: Mutex<Option<Wire>>,
    tls: Option<LoginTls>,
    timeout: Duration,
}

#[async_trait]
impl AsyncTlsConnector for Connector {
    type Stream = Wire;

    async fn connect(&self, _: &str, tcp: TcpStream) -> FtpResult<Wire> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (control, &self.tls) {
            (Some(control), _) => Ok(control),
            (None, None) => Ok(Wire::new(Stream::Plain(tcp), self.timeout)),
            (None, Some(tls)) => tls.connect(tcp).await.map_err(|e| match e.kind() {
                ErrorKind::Timeout => FtpError::ConnectionError(std::io::ErrorKind::TimedOut.into()),
                _ => FtpError::SecureError(e.chain()),
            }),
        }
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
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
    }
}
