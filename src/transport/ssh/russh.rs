//! The `russh` engine: memory-safe, asynchronous throughout, the default.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use russh::client::{self, DisconnectReason, Handle, Msg};
use russh::keys::{PublicKeyBase64, PublicKeyOrCertificate};
use russh::{ChannelId, ChannelMsg, ChannelWriteHalf, Disconnect, Names, cipher};
use tokio::task::spawn_blocking;

use super::auth::log_in;
use super::cache::LoginCache;
use super::known_hosts::KnownHosts;
use super::road::{self, Keeper, Tunnel};
use super::russh_config::config;
use super::russh_login::RusshLogin;
use super::stage::Stage;
use super::target::Target;
use super::tcp::{Socket, Watched};
use super::terrapin::{is_at_risk, refusal};
use super::{
    EXEC_OUTPUT, EXEC_PATIENCE, EXEC_STDERR, Ended, GOODBYE, Inbound, Outbound, Session, exec_result, keep_up_to,
    show_banner, within,
};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{ConnectOptions, HostKeyPolicy, Prompt, escape};

/// Connects and logs in.
pub(super) async fn connect(target: &Target, options: &ConnectOptions, cache: &LoginCache) -> Result<Arc<dyn Session>> {
    Ok(Arc::new(Box::pin(log_in_at(target, options, cache)).await?))
}

/// Connects and logs in.
pub(super) async fn log_in_at(target: &Target, options: &ConnectOptions, cache: &LoginCache) -> Result<RusshSession> {
    let ((host, port), files) = (target.filed_as.clone(), target.known_hosts.clone());
    let known = spawn_blocking(move || KnownHosts::read(&host, port, &files))
        .await
        .map_err(|e| Error::new(ErrorKind::Other, "read the known host keys").with_source(e))??;
    let known = Arc::new(known);

    let met = match Box::pin(meet(target, options, cache, &known, None)).await {
        Err(Rejected { at_risk: Some(cipher), error }) => {
            tracing::debug!("once more without {cipher:?}: the server has no strict key exchange");
            let again = Box::pin(meet(target, options, cache, &known, Some(cipher))).await;
            again.map_err(|other| if other.error.kind() == ErrorKind::Unsupported { error.into() } else { other })
        }
        met => met,
    };
    let Met { mut login, stage, socket, keeper } = met.map_err(|rejected| rejected.error)?;
    log_in(&mut login, target, options, cache).await.map_err(|e| stage.explain(e))?;
    stage.establish();
    let RusshLogin { handle, shared, .. } = login;
    Ok(RusshSession { handle: Arc::new(handle), shared, _socket: socket, _keeper: keeper, limit: options.timeout })
}

/// A server whose key was admitted.
struct Met {
    login: RusshLogin,
    stage: Arc<Stage>,
    socket: Socket,
    keeper: Keeper,
}

/// Why a server could not be met.
struct Rejected {
    error: Error,
    /// The cipher that the server chose, where it is not safe with this server.
    at_risk: Option<cipher::Name>,
}

impl From<Error> for Rejected {
    fn from(error: Error) -> Self {
        Self { error, at_risk: None }
    }
}

/// Connects, exchanges keys and checks the server's; `avoid` is not offered.
async fn meet(
    target: &Target,
    options: &ConnectOptions,
    cache: &LoginCache,
    known: &Arc<KnownHosts>,
    avoid: Option<cipher::Name>,
) -> Result<Met, Rejected> {
    let (stream, keeper) = road::open(target, options, cache).await?;
    let socket = Socket::of(&stream)?;
    let stage = Arc::new(Stage::default());
    let stream = Watched::new(stream, target.alive.silence, Arc::clone(&stage));

    let shared = Arc::new(Shared::default());
    let client = Client {
        known: Arc::clone(known),
        policy: target.host_key,
        prompt: Arc::clone(&options.prompt),
        cache: cache.clone(),
        shared: Arc::clone(&shared),
        stage: Arc::clone(&stage),
    };
    let mut config = config(known, target);
    if let Some(avoid) = avoid {
        config.preferred.cipher.to_mut().retain(|name| *name != avoid);
    }
    // Boxed: it is large, and so would be all that wait for it.
    let connecting = Box::pin(client::connect_stream(Arc::new(config), stream, client));
    let handshake = async { connecting.await.map_err(|Failure(error)| error.context("SSH handshake")) };
    let handle = match stage.pass(target.connect_timeout, Box::pin(handshake)).await {
        Ok(handle) => handle,
        Err(error) => return Err(Rejected { error, at_risk: shared.at_risk.get().copied() }),
    };
    let (user, agent) = (target.user.clone(), target.agent.clone());
    let login = RusshLogin { handle, shared, user, limit: options.timeout, agent, offer: target.offer.clone() };
    Ok(Met { login, stage, socket, keeper })
}

/// What the session's task and its handles share.
#[derive(Default)]
pub(super) struct Shared {
    channels: Mutex<HashMap<ChannelId, Arc<dyn Inbound>>>,
    ended: Ended,
    /// The cipher that is not safe with this server.
    at_risk: OnceLock<cipher::Name>,
}

impl Shared {
    fn channels(&self) -> MutexGuard<'_, HashMap<ChannelId, Arc<dyn Inbound>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_channel(&self, id: ChannelId, kind: ErrorKind, text: &str) {
        let inbound = self.channels().remove(&id);
        if let Some(inbound) = inbound {
            inbound.closed(Error::new(kind, text));
        }
    }

    /// Ends everything; the first reason stays.
    fn end(&self, kind: ErrorKind, text: String) {
        self.ended.set(kind, text);
        let channels = std::mem::take(&mut *self.channels());
        for inbound in channels.into_values() {
            inbound.closed(self.ended.reason());
        }
    }

    pub(super) fn reason(&self) -> Error {
        self.ended.reason()
    }
}

/// The callbacks of the session's task.
pub(super) struct Client {
    known: Arc<KnownHosts>,
    policy: HostKeyPolicy,
    prompt: Arc<dyn Prompt>,
    cache: LoginCache,
    shared: Arc<Shared>,
    stage: Arc<Stage>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.end(ErrorKind::ConnectionLost, "the connection is closed".into());
    }
}

impl client::Handler for Client {
    type Error = Failure;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Failure> {
        let unreadable = |e| Failure(Error::new(ErrorKind::HostKey, "read the server's certificate").with_source(e));
        let blob = match key.certificate() {
            Some(certificate) => certificate.to_bytes().map_err(unreadable)?,
            None => key.public_key().public_key_bytes(),
        };
        let (known, policy, prompt) = (Arc::clone(&self.known), self.policy, Arc::clone(&self.prompt));
        let cache = self.cache.clone();
        self.stage.ask(true);
        let admitted =
            spawn_blocking(move || cache.admit(&blob, policy, |policy| known.admit(&blob, policy, &*prompt))).await;
        self.stage.ask(false);
        match admitted {
            Ok(admitted) => admitted.map(|()| true).map_err(Failure),
            Err(e) => Err(Failure(Error::new(ErrorKind::HostKey, "check the host key").with_source(e))),
        }
    }

    async fn kex_done(&mut self, _: Option<&[u8]>, names: &Names, _: &mut client::Session) -> Result<(), Failure> {
        let (chosen, macs) = (names.cipher.as_ref(), [names.client_mac.as_ref(), names.server_mac.as_ref()]);
        if names.strict_kex() || !is_at_risk(chosen, &macs) {
            return Ok(());
        }
        let _ = self.shared.at_risk.set(names.cipher);
        Err(Failure(refusal(chosen, "the server has no strict key exchange")))
    }

    async fn auth_banner(&mut self, banner: &str, _: &mut client::Session) -> Result<(), Failure> {
        show_banner(&self.cache, &self.prompt, banner).await;
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut client::Session) -> Result<(), Failure> {
        let inbound = self.shared.channels().get(&id).cloned();
        if let Some(inbound) = inbound {
            inbound.data(data);
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut client::Session) -> Result<(), Failure> {
        self.shared.end_channel(id, ErrorKind::ConnectionLost, "the server ended the subsystem");
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut client::Session) -> Result<(), Failure> {
        self.shared.end_channel(id, ErrorKind::ConnectionLost, "the server closed the channel");
        Ok(())
    }

    async fn channel_failure(&mut self, id: ChannelId, _: &mut client::Session) -> Result<(), Failure> {
        // Commands hear of it themselves; a channel of ours has asked for nothing but its subsystem.
        self.shared.end_channel(id, ErrorKind::Unsupported, "the server has no such subsystem");
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Failure>) -> Result<(), Failure> {
        match reason {
            DisconnectReason::ReceivedDisconnect(info) => {
                let kind = match info.reason_code {
                    Disconnect::TooManyConnections => ErrorKind::TooManyConnections,
                    _ => ErrorKind::ConnectionLost,
                };
                let words = escape(&info.message.as_bytes()[..info.message.len().min(EXEC_STDERR)]);
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

/// A connection, logged in.
pub(super) struct RusshSession {
    handle: Arc<Handle<Client>>,
    shared: Arc<Shared>,
    _socket: Socket,
    _keeper: Keeper,
    limit: Duration,
}

impl fmt::Debug for RusshSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RusshSession").field("closed", &self.handle.is_closed()).finish_non_exhaustive()
    }
}

impl RusshSession {
    /// Opens a stream to a host that the server reaches.
    ///
    /// # Errors
    /// `ConnectionRefused` when it doesn't reach it or lets nobody through.
    pub(super) async fn tunnel(&self, host: &str, port: u16) -> Result<Box<dyn Tunnel>> {
        let opening = self.handle.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0);
        let opened = within(self.limit, "open a way through", opening).await?;
        let channel = opened.map_err(|e| match e {
            russh::Error::ChannelOpenFailure(why) => Error::new(
                ErrorKind::ConnectionRefused,
                format!("it doesn't let us through to {host}:{port} ({why:?})"),
            ),
            other => failure(other),
        })?;
        Ok(Box::new(channel.into_stream()))
    }

    async fn open_channel(&self) -> Result<russh::Channel<Msg>> {
        let opened = within(self.limit, "open a channel", self.handle.channel_open_session()).await?;
        opened.map_err(|e| match e {
            russh::Error::SendError | russh::Error::Disconnect => self.shared.reason().context("open a channel"),
            other => failure(other),
        })
    }
}

#[async_trait]
impl Session for RusshSession {
    async fn subsystem(&self, name: &str, inbound: Arc<dyn Inbound>) -> Result<Box<dyn Outbound>> {
        // Nobody reads the channel's own messages: they come by the callbacks, and russh stops where a reader doesn't
        // read.
        let (_, write) = self.open_channel().await?.split();
        self.shared.channels().insert(write.id(), inbound);
        // What is sent next need not wait for the answer: a refusal ends the channel.
        let asked = within(self.limit, "start the subsystem", write.request_subsystem(true, name)).await?;
        asked.map_err(|_| self.shared.reason())?;
        Ok(Box::new(Channel { handle: Arc::clone(&self.handle), shared: Arc::clone(&self.shared), write: Some(write) }))
    }

    async fn exec(&self, command: &[u8]) -> Result<Vec<u8>> {
        let channel = self.open_channel().await?;
        let (command, limit, shared) = (command.to_vec(), self.limit, Arc::clone(&self.shared));
        // In its own task: a caller who stops waiting must not leave a reader that doesn't read.
        let running = tokio::spawn(async move {
            let result = within(limit * EXEC_PATIENCE, "run a command", run_command(channel, command)).await?;
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
async fn run_command(channel: russh::Channel<Msg>, command: Vec<u8>) -> Option<Result<Vec<u8>>> {
    let (mut read, write) = channel.split();
    write.exec(true, command).await.ok()?;
    // A forced command (internal-sftp) would wait for input for ever.
    write.eof().await.ok()?;
    let (mut stdout, mut stderr, mut status) = (Vec::new(), Vec::new(), None);
    let result = loop {
        match read.wait().await {
            Some(ChannelMsg::Data { data }) => {
                if !keep_up_to(&mut stdout, &data, EXEC_OUTPUT) {
                    break Err(Error::new(ErrorKind::Other, "the command says more than 1 MiB"));
                }
            }
            Some(ChannelMsg::ExtendedData { data, .. }) => {
                keep_up_to(&mut stderr, &data, EXEC_STDERR);
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => status = Some(exit_status),
            Some(ChannelMsg::Failure) => {
                break Err(Error::new(ErrorKind::Unsupported, "the server runs no commands"));
            }
            Some(ChannelMsg::Close) => break exec_result(status, stdout, &stderr),
            None => return None,
            Some(_) => {}
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
pub(super) struct Failure(Error);

impl From<russh::Error> for Failure {
    fn from(error: russh::Error) -> Self {
        Self(failure(error))
    }
}

/// The map from russh's errors to kinds.
pub(super) fn failure(error: russh::Error) -> Error {
    use russh::Error as E;
    let text = escape(error.to_string().as_bytes());
    match error {
        E::IO(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            Error::new(ErrorKind::ConnectionLost, "the server closed the connection")
        }
        E::IO(e) => Error::io("connection", e),
        E::Version => Error::new(ErrorKind::Protocol, "the server's banner is not one of SSH 2"),
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
        E::NoAuthMethod => Error::new(ErrorKind::AuthFailed, "the server offers no way to log in"),
        E::UnknownKey | E::WrongServerSig => Error::new(ErrorKind::HostKey, text),
        _ => Error::new(ErrorKind::Protocol, text),
    }
}
