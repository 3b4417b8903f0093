//! An FTP server: RFC 959, 2228, 2389, 2428, 3659 and 4217.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::root::{Access, Root};

mod command;
mod control;
mod data;
mod files;
mod listing;
mod session;
mod time;
mod transfer;

pub(super) use time::stamp;

/// TLS on an FTP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FtpTls {
    /// None: names, passwords and files travel in the open.
    Off,
    /// For clients that ask for it.
    #[default]
    Allow,
    /// Explicit, and nothing works without it, on data connections too.
    Require,
    /// Implicit: from the first byte.
    Implicit,
}

impl Site {
    pub(super) fn new(
        root: Root,
        access: Access,
        gate: Arc<Gate>,
        tls: Option<Arc<rustls::ServerConfig>>,
        mode: FtpTls,
        idle: Duration,
    ) -> Self {
        // No tickets on data connections: a client that only uploads never reads them, and when it closes with them
        // unread its system resets the connection under its last bytes. Those of the control connection hold there too.
        let data_tls = tls.as_deref().map(|tls| {
            let mut tls = tls.clone();
            tls.send_tls13_tickets = 0;
            Arc::new(tls)
        });
        Self { root, access, gate, tls, data_tls, mode, idle }
    }
}

impl FtpTls {
    /// Returns whether clients must not log in or move data in the open.
    fn is_required(self) -> bool {
        matches!(self, Self::Require | Self::Implicit)
    }
}

/// What all sessions of a server share.
pub(super) struct Site {
    root: Root,
    access: Access,
    gate: Arc<Gate>,
    tls: Option<Arc<rustls::ServerConfig>>,
    /// The same, for data connections.
    data_tls: Option<Arc<rustls::ServerConfig>>,
    mode: FtpTls,
    idle: Duration,
}

/// Reads each line as a command, for the fuzz targets.
#[cfg(fuzzing)]
pub(crate) fn read_commands(data: &[u8]) {
    for line in data.split(|&b| b == b'\n') {
        if let Ok(command::Command::Digest(_, argument)) = command::parse(line) {
            let _ = command::split_range(&argument);
        }
    }
}

/// Serves one client until it leaves; cancels `logged_in` once it has logged in.
pub(super) async fn serve(site: Arc<Site>, stream: TcpStream, peer: SocketAddr, logged_in: CancellationToken) {
    if let Err(error) = session::run(site, stream, peer, logged_in).await {
        tracing::debug!(%peer, %error, "the FTP session ended");
    }
}

/// Tells a client that there is no place left for it.
pub(super) async fn turn_away(mut stream: TcpStream) {
    use tokio::io::AsyncWriteExt;
    let words = b"421 Too many connections, try again later.\r\n";
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(words)).await;
}
