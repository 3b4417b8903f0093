//! TLS of FTP's connections: handshakes, and sessions that data connections resume.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::trust::{Trust, Versions};
use super::wire::{Stream, Wire, silence};
use crate::error::{Error, Result};

/// How many tickets of one login are kept.
const TICKETS: usize = 16;

/// Bytes read from the socket at once: rustls by itself takes one record, 16 KiB, with each system call.
const READ_AHEAD: usize = 64 * 1024;

/// TLS of one login: its control connection and the data connections that resume its session.
#[derive(Debug)]
pub(super) struct LoginTls {
    trust: Arc<Trust>,
    config: Arc<ClientConfig>,
    sessions: Arc<Sessions>,
    timeout: Duration,
}

impl LoginTls {
    /// Starts with no session: never those of another login, for servers bind data to control connections.
    pub(super) fn new(trust: Arc<Trust>, versions: Versions, timeout: Duration) -> Result<Self> {
        let sessions: Arc<Sessions> = Arc::default();
        let config = Arc::new(trust.config(versions, Resumption::store(Arc::clone(&sessions) as _))?);
        Ok(Self { trust, config, sessions, timeout })
    }

    /// Returns the sessions, to see how many are left.
    pub(super) fn sessions(&self) -> Arc<Sessions> {
        Arc::clone(&self.sessions)
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// `Tls` with a hint where the certificate is not trusted; `Timeout`; `ConnectionLost`.
    pub(super) async fn connect(&self, tcp: TcpStream) -> Result<Wire> {
        let tcp = BufReader::with_capacity(READ_AHEAD, tcp);
        let handshake = TlsConnector::from(Arc::clone(&self.config)).connect(self.trust.name().clone(), tcp);
        match tokio::time::timeout(self.timeout, handshake).await {
            Ok(Ok(tls)) => Ok(Wire::new(Stream::Tls(Box::new(tls)), self.timeout)),
            Ok(Err(e)) => Err(self.trust.explain(e)),
            Err(_) => Err(Error::io("TLS handshake", silence(self.timeout))),
        }
    }
}

/// The sessions of one login.
///
/// That of TLS 1.2 is resumed again and again. Tickets of TLS 1.3 can't be copied in rustls: each is good for one data
/// connection, most of which bring a new one. ProFTPD's uploads bring none, so that its two tickets are spent after two
/// uploads, and it takes no data connection that doesn't resume.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    had_tickets: bool,
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tickets: Vec<Tls13ClientSessionValue>,
}

impl Sessions {
    /// Returns whether there were tickets and none is left: a server that gives them may demand them.
    pub(super) fn are_spent(&self) -> bool {
        let kept = self.lock();
        kept.had_tickets && kept.tickets.is_empty()
    }

    /// Returns whether there were tickets and at most one is left.
    pub(super) fn are_few(&self) -> bool {
        let kept = self.lock();
        kept.had_tickets && kept.tickets.len() < 2
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.lock().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.lock().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        // The control connection's own session: servers look for that one on data connections.
        self.lock().tls12.get_or_insert(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.lock().tls12.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.lock().tls12 = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut kept = self.lock();
        kept.had_tickets = true;
        if kept.tickets.len() == TICKETS {
            kept.tickets.remove(0);
        }
        kept.tickets.push(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.lock().tickets.pop()
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.lock();
        write!(f, "Sessions({} tickets, TLS 1.2: {})", kept.tickets.len(), kept.tls12.is_some())
    }
}
