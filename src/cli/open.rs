//! Transports that outlive a command: each login is made once, however many commands of a run need it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use haul::endpoint::Endpoint;
use haul::transport::{self, ConnectOptions, Follow, RemotePath, Secret, Transport};
use haul::{Error, ErrorKind};
use tokio::sync::Mutex;

use super::settings::Set;

/// What nobody has asked for so long may be gone: servers and routers forget connections.
const IDLE: Duration = Duration::from_secs(20);

/// Transports that are logged in.
#[derive(Debug, Default)]
pub(crate) struct Open {
    // Logins are made one after the other: a second command for the same server waits for the first one's.
    held: Mutex<Vec<Held>>,
}

/// What commands must have in common to share a transport.
#[derive(Debug, PartialEq)]
pub(crate) struct Login {
    pub(crate) endpoint: Endpoint,
    /// The options that say how to connect.
    pub(crate) settings: Vec<(String, Set)>,
    pub(crate) password: Option<Secret>,
    pub(crate) sparse: bool,
}

impl Login {
    fn is_as(&self, other: &Self) -> bool {
        self.endpoint.same_login(&other.endpoint)
            && (&self.settings, &self.password, self.sparse) == (&other.settings, &other.password, other.sparse)
    }
}

#[derive(Debug)]
struct Held {
    login: Login,
    transport: Arc<dyn Transport>,
    asked: Instant,
}

impl Open {
    /// Returns a transport for a login: the one that is open, unless it doesn't answer any more, or a new one.
    ///
    /// # Errors
    /// Those of connecting.
    pub(crate) async fn transport(&self, login: Login, options: &ConnectOptions) -> Result<Arc<dyn Transport>, Error> {
        let mut held = self.held.lock().await;
        if let Some(at) = held.iter().position(|held| held.login.is_as(&login)) {
            let known = &mut held[at];
            if known.asked.elapsed() < IDLE || answers(&*known.transport).await {
                known.asked = Instant::now();
                return Ok(Arc::clone(&known.transport));
            }
            tracing::info!("{}: the connection is gone, connecting anew", login.endpoint.origin());
            held.remove(at);
        }
        let transport = transport::connect(&login.endpoint, options).await?;
        held.push(Held { login, transport: Arc::clone(&transport), asked: Instant::now() });
        Ok(transport)
    }

    /// Says goodbye to every server. One that doesn't answer changes nothing.
    pub(crate) async fn close(&self) {
        for Held { login, transport, .. } in std::mem::take(&mut *self.held.lock().await) {
            if let Err(error) = transport.close().await {
                tracing::debug!(endpoint = login.endpoint.origin(), "close: {}", error.chain());
            }
        }
    }
}

/// Returns whether somebody is at the other end: a refusal is an answer.
async fn answers(transport: &dyn Transport) -> bool {
    match transport.stat(&RemotePath::root(), Follow::Links).await {
        Ok(_) => true,
        Err(error) => !(error.kind().is_retryable() || error.kind() == ErrorKind::Cancelled),
    }
}
