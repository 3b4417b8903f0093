//! Embedded servers for one folder: FTP, FTPS and SFTP, for demos, tests and one-off sharing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::transport::Secret;

mod cut;
mod digest;
mod ftp;
mod gate;
mod identity;
mod limit;
mod long_name;
mod places;
mod root;
mod sftp;

pub use ftp::FtpTls;
#[cfg(fuzzing)]
pub(crate) use ftp::read_commands as read_ftp_commands;
pub use identity::{Identity, TlsVersions, random_password};
pub use root::Access;

use gate::Gate;
use limit::Limit;
use places::{Place, Places};
use root::Root;

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// SFTP over SSH.
    Sftp,
    /// FTP, with or without TLS.
    Ftp(FtpTls),
}

/// What to serve, where, and to whom.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to speak.
    pub protocol: Protocol,
    /// The folder; nothing outside of it can be reached.
    pub root: PathBuf,
    /// Where host key or certificate are kept, in `serve/`, and made if they aren't there.
    pub state: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The one user's name.
    pub user: String,
    /// Their password; `None`: none is accepted.
    pub password: Option<Secret>,
    /// For SFTP: a file of public keys that may log in.
    pub authorized_keys: Option<PathBuf>,
    /// Whether clients may change anything.
    pub access: Access,
    /// Which TLS versions FTP speaks.
    pub tls_versions: TlsVersions,
    /// Clients served at once; more are turned away. One address gets three quarters of that at most, those who have
    /// not logged in yet get half, and of these a quarter of the whole for one address: who waits longest makes room.
    pub max_sessions: usize,
    /// How long a client may take from connecting until it has logged in.
    pub login_timeout: Duration,
    /// The most bytes that a file may have after what clients write; `None`: no limit. The number of files isn't limited.
    pub max_size: Option<u64>,
    /// How long a client may stay silent.
    pub idle_timeout: Duration,
}

impl Options {
    /// Serves `root` to the user `haul` on a free loopback port, for reading and writing, with no way in yet.
    pub fn new(protocol: Protocol, root: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self {
            protocol,
            root: root.into(),
            state: state.into(),
            listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
            user: "haul".into(),
            password: None,
            authorized_keys: None,
            access: Access::default(),
            tls_versions: TlsVersions::default(),
            max_sessions: 128,
            login_timeout: Duration::from_secs(60),
            max_size: None,
            idle_timeout: Duration::from_secs(600),
        }
    }
}

/// A running server. Dropped, it stops in the background; [`Server::stop`] waits until it has.
#[derive(Debug)]
pub struct Server {
    protocol: Protocol,
    address: SocketAddr,
    user: String,
    identity: Identity,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Starts a server; it accepts connections when this returns.
///
/// # Errors
/// When the folder or the port can't be opened, key files are no good, or nobody could log in.
pub async fn start(options: Options) -> Result<Server> {
    let root = Root::open(&options.root, options.access, Limit::new(options.max_size))
        .map_err(|e| Error::io("open the folder to serve", e).at(options.root.display()))?;
    let keys = match (&options.authorized_keys, options.protocol) {
        (Some(path), Protocol::Sftp) => gate::read_authorized_keys(path)?,
        (Some(_), Protocol::Ftp(_)) => return Err(Error::new(ErrorKind::Usage, "FTP knows no public keys")),
        (None, _) => Vec::new(),
    };
    if keys.is_empty() && options.password.as_ref().is_none_or(|p| p.expose().is_empty()) {
        return Err(Error::new(ErrorKind::Usage, "neither a password nor a key would let anybody in"));
    }
    let gate = Arc::new(Gate::new(options.user.clone(), options.password.clone(), keys));
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|e| Error::io("listen", e).at(options.listen).with_hint("port 0 takes a free one"))?;
    let address = listener.local_addr().map_err(|e| Error::io("listen", e))?;
    let (service, identity) = Service::new(&options, root, gate, reachable(address.ip()))?;
    let stop = CancellationToken::new();
    let places = Places::new(options.max_sessions);
    let task = tokio::spawn(accept(listener, service, places, options.login_timeout, stop.clone()));
    Ok(Server { protocol: options.protocol, address, user: options.user, identity, stop, task })
}

impl Server {
    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how clients recognise it.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Returns the URL of the served folder, with the user and without the password.
    pub fn url(&self) -> String {
        let scheme = match self.protocol {
            Protocol::Sftp => "sftp",
            Protocol::Ftp(FtpTls::Off | FtpTls::Allow) => "ftp",
            Protocol::Ftp(FtpTls::Require) => "ftpes",
            Protocol::Ftp(FtpTls::Implicit) => "ftps",
        };
        let user = percent_encoding::utf8_percent_encode(&self.user, percent_encoding::NON_ALPHANUMERIC);
        format!("{scheme}://{user}@{}/", SocketAddr::new(reachable(self.address.ip()), self.address.port()))
    }

    /// Stops accepting, ends every session, and returns when that is done.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What is done with a connection.
#[derive(Clone)]
enum Service {
    Ftp(Arc<ftp::Site>),
    Sftp(Arc<sftp::Site>),
}

impl Service {
    fn new(options: &Options, root: Root, gate: Arc<Gate>, address: IpAddr) -> Result<(Self, Identity)> {
        match options.protocol {
            Protocol::Sftp => {
                let (key, identity) = identity::host_key(&options.state)?;
                Ok((Self::Sftp(Arc::new(sftp::Site::new(root, gate, key, options.idle_timeout))), identity))
            }
            Protocol::Ftp(mode) => {
                let (tls, identity) = if mode == FtpTls::Off {
                    (None, Identity::None)
                } else {
                    let (config, identity) = identity::tls(&options.state, address, options.tls_versions)?;
                    (Some(config), identity)
                };
                let (access, idle) = (options.access, options.idle_timeout);
                Ok((Self::Ftp(Arc::new(ftp::Site::new(root, access, gate, tls, mode, idle))), identity))
            }
        }
    }

    /// Serves a client; it has `patience` to log in, and its place at the door only as long as nobody else needs it.
    async fn serve(self, stream: TcpStream, peer: SocketAddr, place: Place, patience: Duration) {
        let logged_in = CancellationToken::new();
        let told = logged_in.clone();
        let serving = async {
            match self {
                Self::Ftp(site) => ftp::serve(site, stream, peer, told).await,
                Self::Sftp(site) => sftp::serve(site, stream, peer, told).await,
            }
        };
        tokio::pin!(serving);
        // Dropped, a session's connections are cut.
        tokio::select! {
            () = &mut serving => return,
            () = logged_in.cancelled() => {}
            () = place.is_needed() => return tracing::info!(%peer, "sent away before its login: others come"),
            () = tokio::time::sleep(patience) => return tracing::info!(%peer, "no login in time"),
        }
        if place.enter() {
            serving.await;
        }
    }

    async fn turn_away(self, stream: TcpStream) {
        match self {
            Self::Ftp(_) => ftp::turn_away(stream).await,
            // SSH has no words for it before the key exchange; sshd just closes, too.
            Self::Sftp(_) => drop(stream),
        }
    }
}

async fn accept(
    listener: TcpListener,
    service: Service,
    places: Arc<Places>,
    patience: Duration,
    stop: CancellationToken,
) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = sessions.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match places.take(peer.ip()) {
                    Some(place) => {
                        tracing::info!(%peer, "connected");
                        sessions.spawn(service.clone().serve(stream, peer, place, patience));
                    }
                    None => service.clone().turn_away(stream).await,
                },
                // Out of file descriptors, most likely: some will come back.
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    sessions.shutdown().await;
}

/// Returns an address to connect to: that of this machine where all its addresses are listened on.
fn reachable(address: IpAddr) -> IpAddr {
    if !address.is_unspecified() {
        return address;
    }
    // Connecting a UDP socket sends nothing; it shows which address would be used to reach the outside.
    let outside = if address.is_ipv4() { "192.0.2.1:9" } else { "[2001:db8::1]:9" };
    let guess = std::net::UdpSocket::bind(SocketAddr::new(address, 0))
        .and_then(|socket| socket.connect(outside).and_then(|()| socket.local_addr()));
    match (guess, address) {
        (Ok(guess), _) => guess.ip(),
        (Err(_), IpAddr::V4(_)) => Ipv4Addr::LOCALHOST.into(),
        (Err(_), IpAddr::V6(_)) => std::net::Ipv6Addr::LOCALHOST.into(),
    }
}
