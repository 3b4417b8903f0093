//! The `libssh2` engine: for servers that the first can't talk to. Connecting and logging in; [`super::pump`] moves bytes.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use ssh2::{ErrorCode, KeyboardInteractivePrompt, MethodType};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::algorithms::{Offer, Repertoire, Repertoires};
use super::auth::{Authenticator, Outcome, log_in};
use super::cache::LoginCache;
use super::identity::{Identity, Origin, Public};
use super::known_hosts::KnownHosts;
use super::pump::{self, Command, Line};
use super::questions::Answers;
use super::relay::{Relay, relay};
use super::road::{self, Keeper};
use super::stage::Stage;
use super::target::Target;
use super::tcp::{Socket, Watched};
use super::terrapin::{CHACHA20, is_at_risk, refusal};
use super::{AGENT_PATIENCE, EXEC_PATIENCE, GOODBYE, Inbound, Outbound, Session, show_banner, within};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{ConnectOptions, Secret, escape};

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

/// Host certificates, asked for where an authority is on file.
const CERTIFICATES: [&str; 6] = [
    "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "rsa-sha2-512-cert-v01@openssh.com",
    "rsa-sha2-256-cert-v01@openssh.com",
];

/// The pump knows better when silence is death.
const NEVER: Duration = Duration::from_secs(1 << 30);
/// How long a person may think about the server's questions.
const PATIENCE: Duration = Duration::from_secs(300);

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
    let session = stage.pass(options.timeout, shake_hands(stream, target.offer.clone(), Arc::clone(&known))).await?;
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
            host_keys.splice(..0, CERTIFICATES.map(str::to_owned));
        }
        prefer(&session, &offer, &host_keys).map_err(|e| failure(&e))?;
        session.set_tcp_stream(stream);
        session.handshake().map_err(|e| failure(&e).context("SSH handshake"))?;
        refuse_what_is_at_risk(&session)?;
        Ok(session)
    })
    .await
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Key,
    Other,
}

struct Libssh2Login {
    session: ssh2::Session,
    user: String,
    limit: Duration,
    agent: Option<PathBuf>,
    offered: Vec<String>,
    options: ConnectOptions,
    cache: LoginCache,
}

impl Libssh2Login {
    /// Makes one attempt on a blocking thread; `limit` is the most that it may take.
    async fn attempt(
        &mut self,
        attempt: Attempt,
        limit: Duration,
        call: impl FnOnce(&ssh2::Session, &str) -> Result<(), ssh2::Error> + Send + 'static,
    ) -> Result<Outcome> {
        let (session, user) = (self.session.clone(), self.user.clone());
        let result = within(limit, "login", blocking(move || Ok(call(&session, &user)))).await??;
        match result {
            Ok(()) => Ok(Outcome::Success),
            Err(error) if !is_refusal(&error) => Err(failure(&error).context("login")),
            // A key that the server didn't want can't have been a partial success. Asking again would count as a try.
            Err(error) if attempt == Attempt::Key && !is_unverified(&error) => {
                Ok(Outcome::Refused { offered: self.offered.clone(), partial: false })
            }
            Err(_) => self.ask_methods().await,
        }
    }

    /// libssh2 doesn't tell partial success; that the list of methods changed does.
    async fn ask_methods(&mut self) -> Result<Outcome> {
        let (session, user) = (self.session.clone(), self.user.clone());
        let listed = blocking(move || {
            let methods = session.auth_methods(&user).map(str::to_owned);
            Ok((methods, session.authenticated(), session.userauth_banner().ok().flatten().map(str::to_owned)))
        });
        let (methods, authenticated, banner) = within(self.limit, "login", listed).await??;
        show_banner(&self.cache, &self.options.prompt, &banner.unwrap_or_default()).await;
        if authenticated {
            return Ok(Outcome::Success);
        }
        let offered: Vec<String> =
            methods.map_err(|e| failure(&e).context("login"))?.split(',').map(str::to_owned).collect();
        let partial = !self.offered.is_empty() && self.offered != offered;
        self.offered.clone_from(&offered);
        Ok(Outcome::Refused { offered, partial })
    }
}

#[async_trait]
impl Authenticator for Libssh2Login {
    fn asks_first(&self) -> bool {
        // libssh2 takes note of the banner, and of what else there is, only then.
        true
    }

    fn lacks(&self, identity: &Identity) -> Option<&'static str> {
        let (public, Origin::Agent(held)) = (identity.public.as_ref()?, &identity.origin) else { return None };
        let is_rsa = matches!(public.key_data().algorithm(), Algorithm::Rsa { .. });
        match (public, held) {
            _ if public.is_fido() => Some("a FIDO key, which needs --ssh-engine russh or openssh"),
            (Public::Certificate(_), Public::Key(_)) => {
                Some("a certificate in a file for a key of the ssh-agent needs --ssh-engine russh or openssh")
            }
            (Public::Certificate(_), _) if is_rsa => {
                Some("an RSA certificate of the ssh-agent needs --ssh-engine russh or openssh")
            }
            _ => None,
        }
    }

    async fn none(&mut self) -> Result<Outcome> {
        self.ask_methods().await
    }

    async fn refuses(&mut self, _: &Public) -> Result<Option<Outcome>> {
        // libssh2 asks only together with a signature.
        Ok(None)
    }

    async fn key(&mut self, key: &Arc<PrivateKey>, public: &Public) -> Result<Outcome> {
        let hand_over = |e| Error::new(ErrorKind::Other, "hand over the key").with_source(e);
        let text = key.to_openssh(LineEnding::LF).map_err(hand_over)?;
        let shown = match public {
            // libssh2 makes it of the private half.
            Public::Key(_) => None,
            Public::Certificate(certificate) => Some(certificate.to_openssh().map_err(hand_over)?),
        };
        self.attempt(Attempt::Key, self.limit, move |session, user| {
            session.userauth_pubkey_memory(user, shown.as_deref(), &text, None)
        })
        .await
    }

    async fn agent_key(&mut self, public: &Public, _: &Public) -> Result<Outcome> {
        let refused = Outcome::Refused { offered: self.offered.clone(), partial: false };
        let Some(socket) = self.agent.clone() else { return Ok(refused) };
        let blob = public.blob();
        self.attempt(Attempt::Key, self.limit.max(AGENT_PATIENCE), move |session, user| {
            let mut agent = session.agent()?;
            agent.set_identity_path(&socket)?;
            agent.connect()?;
            agent.list_identities()?;
            let identities = agent.identities()?;
            let identity = identities.iter().find(|identity| identity.blob() == blob);
            let gone = ErrorCode::Session(libssh2_sys::LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED);
            agent.userauth(user, identity.ok_or_else(|| ssh2::Error::new(gone, "the agent lost the key"))?)
        })
        .await
    }

    async fn password(&mut self, password: &Secret) -> Result<Outcome> {
        let password = password.clone();
        self.attempt(Attempt::Other, self.limit, move |session, user| {
            session.userauth_password(user, password.expose())
        })
        .await
    }

    async fn questions(&mut self, answers: &Arc<Answers>) -> Result<Outcome> {
        let mut asker = Asker(Arc::clone(answers));
        let limit = self.limit.max(PATIENCE);
        let outcome = self
            .attempt(Attempt::Other, limit, move |session, user| {
                session.userauth_keyboard_interactive(user, &mut asker)
            })
            .await;
        match outcome {
            // Without answers there is no more to come, and the reason is not the server's.
            Err(_) if answers.unanswered().is_some() => {
                Ok(Outcome::Refused { offered: self.offered.clone(), partial: false })
            }
            other => other,
        }
    }
}

struct Asker(Arc<Answers>);

impl KeyboardInteractivePrompt for Asker {
    fn prompt(&mut self, _: &str, instructions: &str, prompts: &[ssh2::Prompt<'_>]) -> Vec<String> {
        let questions: Vec<_> = prompts.iter().map(|prompt| (prompt.text.to_string(), prompt.echo)).collect();
        let answers = self.0.answer("", instructions, &questions).unwrap_or_default();
        answers.iter().map(|answer| answer.expose().to_owned()).collect()
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

async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(call).await.map_err(|e| Error::new(ErrorKind::Other, "SSH").with_source(e))?
}

fn is_refusal(error: &ssh2::Error) -> bool {
    error.code() == ErrorCode::Session(libssh2_sys::LIBSSH2_ERROR_AUTHENTICATION_FAILED) || is_unverified(error)
}

/// The server wanted the key, but the signature didn't let us in: wrong, or not enough alone.
fn is_unverified(error: &ssh2::Error) -> bool {
    error.code() == ErrorCode::Session(libssh2_sys::LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED)
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
