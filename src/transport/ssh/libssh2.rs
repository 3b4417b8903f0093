//! The `libssh2` engine: for servers that the first can't talk to. Connecting and logging in; [`super::pump`] moves bytes.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ssh2::{ErrorCode, MethodType};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::algorithms::{Offer, Repertoire, Repertoires};
use super::auth::log_in;
use super::cache::LoginCache;
use super::known_hosts::KnownHosts;
use super::libssh2_login::Libssh2Login;
use super::pump::{self, Command, Line};
use super::relay::{Relay, relay};
use super::road::{self, Keeper};
use super::stage::Stage;
use super::target::Target;
use super::tcp::{Socket, Watched};
use super::terrapin::{CHACHA20, is_at_risk, refusal};
use super::{EXEC_PATIENCE, GOODBYE, Inbound, Outbound, Session, within};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{ConnectOptions, escape};

/// Host key algorithms in the order of preference. SHA-1 comes last: this engine is for old servers.
const HOST_KEYS: [&str; 7] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
    "ssh-rsa",
];

/// Host certificates, asked for where an authority is on file, and the algorithm that each is signed by.
const CERTIFICATES: [(&str, &str); 6] = [
    ("ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519"),
    ("ecdsa-sha2-nistp256-cert-v01@openssh.com", "ecdsa-sha2-nistp256"),
    ("ecdsa-sha2-nistp384-cert-v01@openssh.com", "ecdsa-sha2-nistp384"),
    ("ecdsa-sha2-nistp521-cert-v01@openssh.com", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-512"),
    ("rsa-sha2-256-cert-v01@openssh.com", "rsa-sha2-256"),
];

/// The pump knows better when silence is death.
const NEVER: Duration = Duration::from_secs(1 << 30);

/// Connects and logs in.
pub(super) async fn connect(target: &Target, options: &ConnectOptions, cache: &LoginCache) -> Result<Arc<dyn Session>> {
    let (stream, keeper) = road::open(target, options, cache).await?;
    let stage = Arc::new(Stage::default());
    let (stream, relay) = relay(Watched::new(stream, NEVER, Arc::clone(&stage)))?;
    // Should the caller give up, or wait no longer, this shuts the socket and thereby ends whatever call is blocking.
    let socket = Socket::of(&stream)?;
    let stream = stream.into_fd()?;
    let poll = stream.try_clone().map_err(|e| Error::io("set up the connection", e))?;
    let ((host, port), files) = (target.filed_as.clone(), target.known_hosts.clone());
    let known = Arc::new(blocking(move || KnownHosts::read(&host, port, &files)).await?);
    let session =
        stage.pass(target.connect_timeout, shake_hands(stream, target.offer.clone(), Arc::clone(&known))).await?;
    check_host(&session, target, options, cache, known).await?;

    let mut login = Libssh2Login {
        session,
        user: target.user.clone(),
        limit: options.timeout,
        agent: target.agent.clone(),
        offered: Vec::new(),
        options: options.clone(),
        cache: cache.clone(),
    };
    log_in(&mut login, target, options, cache).await.map_err(|e| stage.explain(e))?;
    stage.establish();
    let line = pump::start(login.session, poll, target.alive)?;
    Ok(Arc::new(Libssh2Session { line, _socket: socket, _relay: relay, _keeper: keeper, limit: options.timeout }))
}

/// Exchanges keys; ends when the socket is shut.
async fn shake_hands(stream: OwnedFd, offer: Offer, known: Arc<KnownHosts>) -> Result<ssh2::Session> {
    blocking(move || {
        let mut session = ssh2::Session::new().map_err(|e| failure(&e))?;
        let mut host_keys = offer.host_keys_for(&known.key_types());
        if known.has_authority() {
            host_keys.splice(..0, certificates_for(&offer));
        }
        prefer(&session, &offer, &host_keys).map_err(|e| failure(&e))?;
        session.set_tcp_stream(stream);
        session.handshake().map_err(|e| failure(&e).context("SSH handshake"))?;
        refuse_what_is_at_risk(&session)?;
        Ok(session)
    })
    .await
}

/// Returns the kinds of certificates to ask for: none by an algorithm that the configuration rules out.
fn certificates_for(offer: &Offer) -> Vec<String> {
    let wanted = CERTIFICATES.into_iter().filter(|(_, plain)| offer.host_keys.iter().any(|name| name == plain));
    wanted.map(|(certificate, _)| certificate.to_owned()).collect()
}

fn refuse_what_is_at_risk(session: &ssh2::Session) -> Result<()> {
    let ways = [(MethodType::CryptCs, MethodType::MacCs), (MethodType::CryptSc, MethodType::MacSc)];
    for (cipher, mac) in ways {
        let (cipher, mac) = (session.methods(cipher).unwrap_or_default(), session.methods(mac).unwrap_or_default());
        if is_at_risk(cipher, &[mac]) {
            return Err(refusal(cipher, "the engine libssh2 can't tell whether the server has strict key exchange")
                .context("SSH handshake"));
        }
    }
    Ok(())
}

/// Checks the host key; takes as long as a person takes.
async fn check_host(
    session: &ssh2::Session,
    target: &Target,
    options: &ConnectOptions,
    cache: &LoginCache,
    known: Arc<KnownHosts>,
) -> Result<()> {
    let (session, policy, prompt, cache) =
        (session.clone(), target.host_key, Arc::clone(&options.prompt), cache.clone());
    blocking(move || {
        let (key, _) = session
            .host_key()
            .ok_or_else(|| Error::new(ErrorKind::HostKey, "SSH handshake: the server showed no host key"))?;
        cache.admit(key, policy, |policy| known.admit(key, policy, &*prompt))
    })
    .await
}

/// Returns what libssh2 has; what protects nothing is left out.
///
/// # Errors
/// Those of libssh2.
pub(super) fn repertoires() -> Result<Repertoires> {
    let session = ssh2::Session::new().map_err(|e| failure(&e))?;
    let of = |kind: MethodType| -> Result<Repertoire> {
        let names = session.supported_algs(kind).map_err(|e| failure(&e))?.into_iter();
        // Two stand in the list of key exchanges without being one; libssh2 adds them by itself.
        let names =
            names.filter(|name| *name != "none" && !["ext-info-", "kex-strict-"].iter().any(|s| name.starts_with(s)));
        let all: Vec<_> = names.collect();
        Ok(Repertoire { usual: all.clone(), all })
    };
    let host_keys = Repertoire { usual: HOST_KEYS.into(), all: HOST_KEYS.into() };
    let (kex, mut ciphers, macs) = (of(MethodType::Kex)?, of(MethodType::CryptCs)?, of(MethodType::MacCs)?);
    // Without strict key exchange it can be attacked, and libssh2 doesn't tell whether that was agreed on.
    ciphers.usual.retain(|name| *name != CHACHA20);
    Ok(Repertoires { engine: "libssh2", kex, host_keys, ciphers, macs })
}

/// Tells libssh2 which algorithms to offer.
fn prefer(session: &ssh2::Session, offer: &Offer, host_keys: &[String]) -> Result<(), ssh2::Error> {
    session.method_pref(MethodType::Kex, &offer.kex.join(","))?;
    session.method_pref(MethodType::HostKey, &host_keys.join(","))?;
    for (kinds, names) in [
        ([MethodType::CryptCs, MethodType::CryptSc], &offer.ciphers),
        ([MethodType::MacCs, MethodType::MacSc], &offer.macs),
    ] {
        for kind in kinds {
            session.method_pref(kind, &names.join(","))?;
        }
    }
    match offer.rsa_signatures() {
        Some(names) if !names.is_empty() => session.method_pref(MethodType::SignAlgo, &names.join(",")),
        _ => Ok(()),
    }
}

/// A connection, logged in.
struct Libssh2Session {
    line: Line,
    _socket: Socket,
    _relay: Relay,
    _keeper: Keeper,
    limit: Duration,
}

impl fmt::Debug for Libssh2Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Libssh2Session").finish_non_exhaustive()
    }
}

#[async_trait]
impl Session for Libssh2Session {
    async fn subsystem(&self, name: &str, inbound: Arc<dyn Inbound>) -> Result<Box<dyn Outbound>> {
        let (reply, started) = oneshot::channel();
        self.line.tell(Command::Subsystem { name: name.to_owned(), inbound, reply })?;
        let started = within(self.limit, "start the subsystem", started).await?;
        let (id, queue) = started.map_err(|_| self.line.reason())??;
        Ok(Box::new(Channel { id, queue, line: self.line.clone() }))
    }

    async fn exec(&self, command: &[u8]) -> Result<Vec<u8>> {
        let command = String::from_utf8(command.to_vec())
            .map_err(|_| Error::new(ErrorKind::Unsupported, "this engine runs only commands that are UTF-8"))?;
        let (reply, ended) = oneshot::channel();
        self.line.tell(Command::Exec { command, reply })?;
        within(self.limit * EXEC_PATIENCE, "run a command", ended).await?.map_err(|_| self.line.reason())?
    }

    async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.line.tell(Command::Goodbye { reply }).is_ok() {
            let _ = tokio::time::timeout(GOODBYE, done).await;
        }
    }
}

/// The sending half of a channel.
struct Channel {
    id: u64,
    queue: mpsc::Sender<Bytes>,
    line: Line,
}

#[async_trait]
impl Outbound for Channel {
    async fn send(&self, bytes: Bytes) -> Result<()> {
        self.queue.send(bytes).await.map_err(|_| self.line.reason())?;
        self.line.wake();
        Ok(())
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let _ = self.line.tell(Command::CloseChannel { id: self.id });
    }
}

pub(super) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(call).await.map_err(|e| Error::new(ErrorKind::Other, "SSH").with_source(e))?
}

/// The map from libssh2's errors to kinds.
pub(super) fn failure(error: &ssh2::Error) -> Error {
    use libssh2_sys as raw;
    let text = escape(error.message().as_bytes());
    let ErrorCode::Session(code) = error.code() else { return Error::new(ErrorKind::Protocol, text) };
    match code {
        raw::LIBSSH2_ERROR_TIMEOUT => Error::new(ErrorKind::Timeout, "the server doesn't answer"),
        raw::LIBSSH2_ERROR_SOCKET_DISCONNECT
        | raw::LIBSSH2_ERROR_SOCKET_RECV
        | raw::LIBSSH2_ERROR_SOCKET_SEND
        | raw::LIBSSH2_ERROR_BANNER_RECV => {
            Error::new(ErrorKind::ConnectionLost, format!("the connection broke ({text})"))
        }
        raw::LIBSSH2_ERROR_AUTHENTICATION_FAILED | raw::LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED => {
            Error::new(ErrorKind::AuthFailed, text)
        }
        raw::LIBSSH2_ERROR_KEX_FAILURE | raw::LIBSSH2_ERROR_KEY_EXCHANGE_FAILURE => {
            Error::new(ErrorKind::Unsupported, text).with_hint("try --ssh-engine russh or --ssh-engine openssh")
        }
        raw::LIBSSH2_ERROR_HOSTKEY_INIT | raw::LIBSSH2_ERROR_HOSTKEY_SIGN => Error::new(ErrorKind::HostKey, text),
        raw::LIBSSH2_ERROR_CHANNEL_FAILURE => {
            Error::new(ErrorKind::TooManyConnections, format!("the server opens no further channel ({text})"))
        }
        raw::LIBSSH2_ERROR_CHANNEL_REQUEST_DENIED => {
            Error::new(ErrorKind::Unsupported, "the server has no such subsystem or runs no commands")
        }
        _ => Error::new(ErrorKind::Protocol, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_certificate_by_an_algorithm_that_is_ruled_out() {
        let offer = |names: &[&str]| {
            let mut offer = Offer::default();
            offer.host_keys = names.iter().map(|&name| name.into()).collect();
            offer
        };
        assert_eq!(certificates_for(&offer(&["ssh-ed25519"])), ["ssh-ed25519-cert-v01@openssh.com"]);
        assert_eq!(certificates_for(&offer(&HOST_KEYS)).len(), CERTIFICATES.len());
        assert!(certificates_for(&offer(&["ssh-rsa"])).is_empty());
    }
}
