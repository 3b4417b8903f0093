//! The `russh` engine: memory-safe, asynchronous throughout, the default.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use russh::client::{self, AuthResult, DisconnectReason, Handle, KeyboardInteractiveAuthResponse, Msg};
use russh::keys::agent::client::AgentClient;
use russh::keys::{
    Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyBase64, PublicKeyOrCertificate,
};
use russh::{ChannelId, ChannelMsg, ChannelWriteHalf, Disconnect, MethodSet, Preferred, cipher, compression};
use tokio::task::spawn_blocking;

use super::auth::{Answers, Authenticator, LoginCache, Outcome, log_in, user_name};
use super::known_hosts::KnownHosts;
use super::tcp::{self, Watched};
use super::{EXEC_OUTPUT, EXEC_STDERR, Inbound, Outbound, Session, exec_result, keep_up_to, show_banner, within};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{ConnectOptions, HostKeyPolicy, Prompt, Secret, escape};

/// Bytes that the server may send before it hears from us. russh grants more only when half of it is used up, so the
/// effective window swings between this and its half. What is really in flight, the SFTP codec decides.
const WINDOW: u32 = 16 << 20;
/// The longest packet that the server may send; OpenSSH fills 32 KiB.
const PACKET: u32 = 32 << 10;
/// Keepalives per timeout: a live server has said something well before its silence counts as death.
const KEEPALIVES: u32 = 3;
/// An agent may ask its user to touch or confirm something.
const AGENT_PATIENCE: Duration = Duration::from_secs(120);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// Connects and logs in.
pub(super) async fn connect(
    endpoint: &Endpoint,
    options: &ConnectOptions,
    cache: &LoginCache,
) -> Result<Arc<dyn Session>> {
    let user = user_name(endpoint)?;
    let (host, port) = (endpoint.host.clone(), endpoint.effective_port());
    let own = options.known_hosts.clone();
    let known = spawn_blocking(move || KnownHosts::read(&host, port, own.as_deref()))
        .await
        .map_err(|e| Error::new(ErrorKind::Other, "read the known host keys").with_source(e))??;

    let stream = tcp::connect(&endpoint.host, port, options.timeout).await?;
    let socket = stream.as_fd().try_clone_to_owned().map_err(|e| Error::io("set up the connection", e))?;
    let socket = Socket(socket);
    let armed = Arc::new(AtomicBool::new(false));
    let stream = Watched::new(stream, options.timeout, Arc::clone(&armed));

    let config = Arc::new(config(&known, options.timeout));
    let shared = Arc::new(Shared::default());
    let client = Client {
        known: Arc::new(known),
        policy: options.host_key,
        prompt: Arc::clone(&options.prompt),
        shared: Arc::clone(&shared),
    };
    let handle = shake_hands(client::connect_stream(config, stream, client), &shared, options.timeout).await?;

    let mut login =
        RusshLogin { handle, shared, user: user.clone(), limit: options.timeout, agent: options.agent.clone() };
    log_in(&mut login, &user, endpoint, options, cache).await?;
    armed.store(true, Ordering::Release);
    let RusshLogin { handle, shared, .. } = login;
    Ok(Arc::new(RusshSession { handle: Arc::new(handle), shared, _socket: socket, limit: options.timeout }))
}

/// Waits for greeting and key exchange; time during which a person looks at a fingerprint doesn't count.
async fn shake_hands(
    handshake: impl Future<Output = Result<Handle<Client>, Failure>>,
    shared: &Shared,
    limit: Duration,
) -> Result<Handle<Client>> {
    tokio::pin!(handshake);
    loop {
        match tokio::time::timeout(limit, &mut handshake).await {
            Ok(Ok(handle)) => return Ok(handle),
            Ok(Err(Failure(error))) => return Err(error.context("SSH handshake")),
            Err(_) if shared.asking.load(Ordering::Acquire) => {}
            Err(_) => {
                return Err(Error::new(ErrorKind::Timeout, "SSH handshake: the server doesn't answer"));
            }
        }
    }
}

fn config(known: &KnownHosts, timeout: Duration) -> client::Config {
    client::Config {
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        keepalive_interval: Some(timeout / KEEPALIVES),
        // `Watched` decides when silence is death: it also sees stalled writes, and slow progress doesn't deceive it.
        keepalive_max: 0,
        nodelay: true,
        preferred: Preferred {
            key: Cow::Owned(host_key_algorithms(&known.key_types())),
            cipher: Cow::Borrowed(ciphers()),
            compression: Cow::Borrowed(&[compression::NONE]),
            ..Preferred::DEFAULT
        },
        ..client::Config::default()
    }
}

/// AES-GCM is by far the fastest where the processor has AES instructions, and slow elsewhere.
fn ciphers() -> &'static [cipher::Name] {
    const AES_FIRST: &[cipher::Name] = &[
        cipher::AES_128_GCM,
        cipher::AES_256_GCM,
        cipher::CHACHA20_POLY1305,
        cipher::AES_128_CTR,
        cipher::AES_256_CTR,
        cipher::AES_192_CTR,
    ];
    const CHACHA_FIRST: &[cipher::Name] = &[
        cipher::CHACHA20_POLY1305,
        cipher::AES_128_GCM,
        cipher::AES_256_GCM,
        cipher::AES_128_CTR,
        cipher::AES_256_CTR,
        cipher::AES_192_CTR,
    ];
    #[cfg(target_arch = "x86_64")]
    let fast = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let fast = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let fast = false;
    if fast { AES_FIRST } else { CHACHA_FIRST }
}

/// Puts the types on file first. RSA with SHA-1 is not offered.
fn host_key_algorithms(on_file: &[&str]) -> Vec<Algorithm> {
    let mut algorithms: Vec<_> =
        Preferred::DEFAULT.key.iter().filter(|a| !matches!(a, Algorithm::Rsa { hash: None })).cloned().collect();
    algorithms.sort_by_key(|algorithm| {
        let name = if matches!(algorithm, Algorithm::Rsa { .. }) { "ssh-rsa" } else { algorithm.as_str() };
        !on_file.contains(&name)
    });
    algorithms
}

/// What the session's task and its handles share.
#[derive(Default)]
struct Shared {
    channels: Mutex<HashMap<ChannelId, Arc<dyn Inbound>>>,
    /// Why the connection ended.
    ended: Mutex<Option<(ErrorKind, String)>>,
    /// A person is being asked about the host key.
    asking: AtomicBool,
}

impl Shared {
    fn channels(&self) -> MutexGuard<'_, HashMap<ChannelId, Arc<dyn Inbound>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_channel(&self, id: ChannelId, text: &str) {
        let inbound = self.channels().remove(&id);
        if let Some(inbound) = inbound {
            inbound.closed(Error::new(ErrorKind::ConnectionLost, text));
        }
    }

    /// Ends everything; the first reason stays.
    fn end(&self, kind: ErrorKind, text: String) {
        let (kind, text) =
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((kind, text)).clone();
        let channels = std::mem::take(&mut *self.channels());
        for inbound in channels.into_values() {
            inbound.closed(Error::new(kind, text.clone()));
        }
    }

    fn reason(&self) -> Error {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (kind, text) = ended.unwrap_or((ErrorKind::ConnectionLost, "the connection is closed".into()));
        Error::new(kind, text)
    }
}

/// The callbacks of the session's task.
struct Client {
    known: Arc<KnownHosts>,
    policy: HostKeyPolicy,
    prompt: Arc<dyn Prompt>,
    shared: Arc<Shared>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.end(ErrorKind::ConnectionLost, "the connection is closed".into());
    }
}

impl client::Handler for Client {
    type Error = Failure;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Failure> {
        if key.certificate().is_some() {
            return Err(Failure(Error::new(
                ErrorKind::HostKey,
                "the server shows a certificate that nobody asked for",
            )));
        }
        let blob = key.public_key().public_key_bytes();
        let (known, policy, prompt) = (Arc::clone(&self.known), self.policy, Arc::clone(&self.prompt));
        self.shared.asking.store(true, Ordering::Release);
        let admitted = spawn_blocking(move || known.admit(&blob, policy, &*prompt)).await;
        self.shared.asking.store(false, Ordering::Release);
        match admitted {
            Ok(admitted) => admitted.map(|()| true).map_err(Failure),
            Err(e) => Err(Failure(Error::new(ErrorKind::HostKey, "check the host key").with_source(e))),
        }
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut client::Session) -> Result<(), Failure> {
        show_banner(&self.prompt, banner).await;
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut client::Session) -> Result<(), Failure> {
        let inbound = self.shared.channels().get(&id).cloned();
        if let Some(inbound) = inbound {
            inbound.data(Bytes::copy_from_slice(data));
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut client::Session) -> Result<(), Failure> {
        self.shared.end_channel(id, "the server ended the subsystem");
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut client::Session) -> Result<(), Failure> {
        self.shared.end_channel(id, "the server closed the channel");
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Failure>) -> Result<(), Failure> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                let kind = match info.reason_code {
                    Disconnect::TooManyConnections => ErrorKind::TooManyConnections,
                    _ => ErrorKind::ConnectionLost,
                };
                let words = escape(info.message.as_bytes());
                self.shared.end(kind, format!("the server closed the connection: {words}"));
                Ok(())
            }
            DisconnectReason::Error(Failure(error)) => {
                self.shared.end(error.kind(), error.chain());
                Err(Failure(error))
            }
        }
    }
}

struct RusshLogin {
    handle: Handle<Client>,
    shared: Arc<Shared>,
    user: String,
    limit: Duration,
    agent: Option<PathBuf>,
}

impl RusshLogin {
    /// russh reports a connection that ended during login as a refusal without methods.
    fn outcome(&self, result: AuthResult) -> Result<Outcome> {
        match result {
            AuthResult::Success => Ok(Outcome::Success),
            AuthResult::Failure { remaining_methods, partial_success } => {
                self.refusal(&remaining_methods, partial_success)
            }
        }
    }

    fn refusal(&self, methods: &MethodSet, partial: bool) -> Result<Outcome> {
        if methods.is_empty() && self.handle.is_closed() {
            let reason = self.shared.reason();
            return Err(Error::new(ErrorKind::AuthFailed, format!("login: {}", reason.chain()))
                .with_hint("where the server counts too many tries, name the right key with --identity"));
        }
        let offered = methods.iter().map(String::from).collect();
        Ok(Outcome::Refused { offered, partial })
    }

    /// Returns the hash to sign with: RSA keys have a choice, and SHA-1 is not one.
    async fn hash_for(&self, key: &PublicKey) -> Result<Option<HashAlg>> {
        if !matches!(key.algorithm(), Algorithm::Rsa { .. }) {
            return Ok(None);
        }
        let supported = within(self.limit, "login", self.handle.best_supported_rsa_hash()).await?;
        // Without the extension (RFC 8308) nothing is known; SHA-256 is the older of the two.
        Ok(Some(supported.map_err(failure)?.flatten().unwrap_or(HashAlg::Sha256)))
    }
}

#[async_trait]
impl Authenticator for RusshLogin {
    async fn none(&mut self) -> Result<Outcome> {
        let user = self.user.clone();
        let result = within(self.limit, "login", self.handle.authenticate_none(user)).await?.map_err(failure)?;
        self.outcome(result)
    }

    async fn refuses(&mut self, key: &PublicKey) -> Result<Option<Outcome>> {
        let hash = self.hash_for(key).await?;
        let mut signer = NeverSigns;
        let query = self.handle.authenticate_publickey_with(self.user.clone(), key.clone(), hash, &mut signer);
        match within(self.limit, "login by key", query).await? {
            Ok(result) => self.outcome(result).map(Some),
            Err(Wanted::Signature) => Ok(None),
            Err(Wanted::Nothing) => Err(self.shared.reason()),
        }
    }

    async fn key(&mut self, key: &Arc<PrivateKey>) -> Result<Outcome> {
        let hash = self.hash_for(key.public_key()).await?;
        let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
        let attempt = self.handle.authenticate_publickey(self.user.clone(), key);
        let result = within(self.limit, "login by key", attempt).await?.map_err(failure)?;
        self.outcome(result)
    }

    async fn agent_key(&mut self, key: &PublicKey) -> Result<Outcome> {
        let refused = Outcome::Refused { offered: vec!["publickey".into()], partial: false };
        let Some(socket) = &self.agent else { return Ok(refused) };
        let hash = self.hash_for(key).await?;
        let connecting = within(self.limit, "ask the ssh-agent", AgentClient::connect_uds(socket)).await?;
        let mut agent = connecting.map_err(|e| Error::new(ErrorKind::Other, "ask the ssh-agent").with_source(e))?;
        if let Some(binding) = self.handle.agent_session_binding() {
            // Keys bound to destinations need it; agents that don't know it refuse, which is fine.
            let _ = within(self.limit, "ask the ssh-agent", agent.bind_session(binding, false)).await?;
        }
        let patience = self.limit.max(AGENT_PATIENCE);
        let attempt = self.handle.authenticate_publickey_with(self.user.clone(), key.clone(), hash, &mut agent);
        match within(patience, "login by the agent's key", attempt).await? {
            Ok(result) => self.outcome(result),
            // The agent didn't sign (locked, declined): the next method can have its try.
            Err(e) => {
                tracing::debug!("the ssh-agent didn't sign: {e}");
                self.none().await
            }
        }
    }

    async fn password(&mut self, password: &Secret) -> Result<Outcome> {
        let attempt = self.handle.authenticate_password(self.user.clone(), password.expose());
        let result = within(self.limit, "login by password", attempt).await?.map_err(failure)?;
        self.outcome(result)
    }

    async fn questions(&mut self, answers: &Arc<Answers>) -> Result<Outcome> {
        let start = self.handle.authenticate_keyboard_interactive_start(self.user.clone(), None);
        let mut response = within(self.limit, "login", start).await?;
        loop {
            match response.map_err(|_| self.shared.reason())? {
                KeyboardInteractiveAuthResponse::Success => return Ok(Outcome::Success),
                KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success } => {
                    return self.refusal(&remaining_methods, partial_success);
                }
                KeyboardInteractiveAuthResponse::InfoRequest { name, instructions, prompts } => {
                    let answers = Arc::clone(answers);
                    let questions: Vec<_> = prompts.into_iter().map(|p| (p.prompt, p.echo)).collect();
                    let answered = spawn_blocking(move || answers.answer(&name, &instructions, &questions)).await;
                    let Some(answered) = answered.ok().flatten() else {
                        return Ok(Outcome::Refused { offered: Vec::new(), partial: false });
                    };
                    let texts = answered.iter().map(|answer| answer.expose().to_owned()).collect();
                    let next = self.handle.authenticate_keyboard_interactive_respond(texts);
                    response = within(self.limit, "login", next).await?;
                }
            }
        }
    }
}

/// Learns whether a server would take a key, without signing.
struct NeverSigns;

enum Wanted {
    Signature,
    Nothing,
}

impl From<russh::SendError> for Wanted {
    fn from(_: russh::SendError) -> Self {
        Self::Nothing
    }
}

impl russh::Signer for NeverSigns {
    type Error = Wanted;

    async fn auth_sign(
        &mut self,
        _: &russh::keys::agent::AgentIdentity,
        _: Option<HashAlg>,
        _: Vec<u8>,
    ) -> Result<Vec<u8>, Wanted> {
        Err(Wanted::Signature)
    }
}

/// A connection, logged in.
struct RusshSession {
    handle: Arc<Handle<Client>>,
    shared: Arc<Shared>,
    _socket: Socket,
    limit: Duration,
}

/// A second handle of the connection's socket: shutting it down ends the session's task, whatever it is waiting for.
struct Socket(OwnedFd);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }
}

impl fmt::Debug for RusshSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RusshSession").field("closed", &self.handle.is_closed()).finish_non_exhaustive()
    }
}

impl RusshSession {
    async fn open_channel(&self) -> Result<russh::Channel<Msg>> {
        let opened = within(self.limit, "open a channel", self.handle.channel_open_session()).await?;
        opened.map_err(|e| match e {
            russh::Error::SendError | russh::Error::Disconnect => self.shared.reason(),
            other => failure(other),
        })
    }
}

#[async_trait]
impl Session for RusshSession {
    async fn subsystem(&self, name: &str, inbound: Arc<dyn Inbound>) -> Result<Box<dyn Outbound>> {
        let (mut read, write) = self.open_channel().await?.split();
        self.shared.channels().insert(write.id(), inbound);
        let outbound =
            Channel { handle: Arc::clone(&self.handle), shared: Arc::clone(&self.shared), write: Some(write) };
        if let Some(write) = &outbound.write {
            let asked = within(self.limit, "start the subsystem", write.request_subsystem(true, name)).await?;
            asked.map_err(|_| self.shared.reason())?;
        }
        loop {
            // Later messages come by the callbacks alone: russh stops where a channel's reader doesn't read.
            match within(self.limit, "start the subsystem", read.wait()).await? {
                Some(ChannelMsg::Success) => return Ok(Box::new(outbound)),
                Some(ChannelMsg::Failure) => {
                    return Err(Error::new(ErrorKind::Unsupported, format!("the server has no {name} subsystem")));
                }
                Some(ChannelMsg::Close) | None => return Err(self.shared.reason()),
                Some(_) => {}
            }
        }
    }

    async fn exec(&self, command: &[u8]) -> Result<Vec<u8>> {
        let channel = self.open_channel().await?;
        let (command, limit, shared) = (command.to_vec(), self.limit, Arc::clone(&self.shared));
        // In its own task: a caller who stops waiting must not leave a reader that doesn't read.
        let running = tokio::spawn(async move {
            let result = run_command(channel, command, limit).await;
            result.unwrap_or_else(|| Err(shared.reason()))
        });
        running.await.map_err(|e| Error::new(ErrorKind::Other, "run a command").with_source(e))?
    }

    async fn close(&self) {
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "");
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

/// Returns `None` when the connection ended.
async fn run_command(channel: russh::Channel<Msg>, command: Vec<u8>, limit: Duration) -> Option<Result<Vec<u8>>> {
    let (mut read, write) = channel.split();
    write.exec(true, command).await.ok()?;
    let (mut stdout, mut stderr, mut status) = (Vec::new(), Vec::new(), None);
    let result = loop {
        match within(limit, "run a command", read.wait()).await {
            Err(error) => break Err(error),
            Ok(Some(ChannelMsg::Data { data })) => {
                if !keep_up_to(&mut stdout, &data, EXEC_OUTPUT) {
                    break Err(Error::new(ErrorKind::Other, "the command says more than 1 MiB"));
                }
            }
            Ok(Some(ChannelMsg::ExtendedData { data, .. })) => {
                keep_up_to(&mut stderr, &data, EXEC_STDERR);
            }
            Ok(Some(ChannelMsg::ExitStatus { exit_status })) => status = Some(exit_status),
            Ok(Some(ChannelMsg::Failure)) => {
                break Err(Error::new(ErrorKind::Unsupported, "the server runs no commands"));
            }
            Ok(Some(ChannelMsg::Close)) => break exec_result(status, stdout, &stderr),
            Ok(None) => return None,
            Ok(Some(_)) => {}
        }
    };
    let _ = write.close().await;
    Some(result)
}

/// The sending half of a channel.
struct Channel {
    handle: Arc<Handle<Client>>,
    shared: Arc<Shared>,
    write: Option<ChannelWriteHalf<Msg>>,
}

#[async_trait]
impl Outbound for Channel {
    async fn send(&self, bytes: Bytes) -> Result<()> {
        let Some(write) = &self.write else { return Err(self.shared.reason()) };
        if !self.shared.channels().contains_key(&write.id()) {
            return Err(self.shared.reason());
        }
        // One message whatever its length: the session's task cuts it into packets and stops taking more while the
        // peer's window is full.
        self.handle.data(write.id(), bytes).await.map_err(|_| self.shared.reason())
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let Some(write) = self.write.take() else { return };
        self.shared.channels().remove(&write.id());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { write.close().await });
        }
    }
}

/// An error of ours in the place of russh's.
#[derive(Debug)]
struct Failure(Error);

impl From<russh::Error> for Failure {
    fn from(error: russh::Error) -> Self {
        Self(failure(error))
    }
}

/// The map from russh's errors to kinds.
fn failure(error: russh::Error) -> Error {
    use russh::Error as E;
    let text = escape(error.to_string().as_bytes());
    match error {
        E::IO(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            Error::new(ErrorKind::ConnectionLost, "the server closed the connection")
        }
        E::IO(e) => Error::io("connection", e),
        E::HUP | E::Disconnect | E::SendError | E::RecvError => {
            Error::new(ErrorKind::ConnectionLost, "the server closed the connection")
        }
        E::KeepaliveTimeout | E::InactivityTimeout | E::ConnectionTimeout | E::Elapsed(_) => {
            Error::new(ErrorKind::Timeout, text)
        }
        E::NoCommonAlgo { kind, theirs, .. } => {
            let theirs = escape(theirs.join(", ").as_bytes());
            Error::new(ErrorKind::Unsupported, format!("no common algorithm ({kind:?}); the server offers {theirs}"))
                .with_hint("try --ssh-engine libssh2 or --ssh-engine openssh")
        }
        E::ChannelOpenFailure(why) => {
            Error::new(ErrorKind::TooManyConnections, format!("the server opens no further channel ({why:?})"))
        }
        E::UnknownKey | E::WrongServerSig => Error::new(ErrorKind::HostKey, text),
        _ => Error::new(ErrorKind::Protocol, text),
    }
}
