//! An SFTP server: version 3 with OpenSSH's extensions, over SSH by russh.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::PrivateKey;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelWriteHalf, MethodKind, MethodSet, Preferred, compression};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::cut::CutOnDrop;
use super::gate::{Gate, Verdict};
use super::root::Root;
use crate::error::Error;
use session::{Answer, Sftp, gather};

mod attrs;
mod handles;
mod lanes;
mod requests;
mod session;

/// Bytes that a client may send before it hears from us.
const WINDOW: u32 = 16 << 20;
/// Bytes of a packet of the channel; russh allows no more.
const PACKET: u32 = 65_535;
/// Channels of one connection.
const MAX_CHANNELS: usize = 10;
/// How often a silent client is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What all sessions of a server share.
pub(super) struct Site {
    root: Root,
    gate: Arc<Gate>,
    config: Arc<Config>,
}

impl Site {
    pub(super) fn new(root: Root, gate: Arc<Gate>, host_key: PrivateKey, idle: Duration) -> Self {
        let mut methods = MethodSet::empty();
        if gate.takes_keys() {
            methods.push(MethodKind::PublicKey);
        }
        if gate.takes_passwords() {
            methods.push(MethodKind::Password);
        }
        let config = Config {
            methods,
            // The gate makes wrong passwords wait; keys that don't fit need not.
            auth_rejection_time: Duration::ZERO,
            auth_rejection_time_initial: Some(Duration::ZERO),
            keys: vec![host_key],
            window_size: WINDOW,
            maximum_packet_size: PACKET,
            max_auth_attempts: 10,
            inactivity_timeout: Some(idle),
            keepalive_interval: Some(KEEPALIVE.min(idle / 2)),
            nodelay: true,
            preferred: Preferred {
                cipher: Cow::Borrowed(crate::transport::ssh::ciphers()),
                compression: Cow::Borrowed(&[compression::NONE]),
                ..Preferred::DEFAULT
            },
            ..Config::default()
        };
        Self { root, gate, config: Arc::new(config) }
    }
}

/// Serves one client until it leaves; cancels `logged_in` once it has logged in.
pub(super) async fn serve(site: Arc<Site>, stream: TcpStream, peer: SocketAddr, logged_in: CancellationToken) {
    // russh runs the session in a task of its own, which outlives this one unless its socket is cut.
    let Ok((stream, _cut)) = stream.set_nodelay(true).and_then(|()| CutOnDrop::new(stream)) else { return };
    let client = Client {
        site: Arc::clone(&site),
        peer,
        logged_in,
        waiting: HashMap::new(),
        running: HashMap::new(),
        ended: CancellationToken::new(),
    };
    let running = match russh::server::run_stream(Arc::clone(&site.config), stream, client).await {
        Ok(running) => running,
        Err(Failure(error)) => return tracing::debug!(%peer, error = error.chain(), "no SSH connection"),
    };
    if let Err(Failure(error)) = running.await {
        tracing::debug!(%peer, error = error.chain(), "the SSH connection ended");
    }
}

/// Why a connection ended.
struct Failure(Error);

impl From<russh::Error> for Failure {
    fn from(error: russh::Error) -> Self {
        Self(Error::new(crate::ErrorKind::ConnectionLost, "SSH").with_source(error))
    }
}

/// One client's connection.
struct Client {
    site: Arc<Site>,
    peer: SocketAddr,
    logged_in: CancellationToken,
    /// Channels on which nothing was asked for yet.
    waiting: HashMap<ChannelId, Channel<Msg>>,
    running: HashMap<ChannelId, Sftp>,
    /// Cancelled when this is dropped: answers that wait for a client who is gone would wait for ever.
    ended: CancellationToken,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

impl Handler for Client {
    type Error = Failure;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Failure> {
        if !self.site.gate.takes_passwords() {
            return Ok(Auth::reject());
        }
        match self.site.gate.judge(self.peer.ip().to_canonical(), user.as_bytes(), password.as_bytes()).await {
            Verdict::Welcome => Ok(Auth::Accept),
            // By itself russh offers a method once; people mistype.
            Verdict::Wrong => {
                let methods = Some(self.site.config.methods.clone());
                Ok(Auth::Reject { proceed_with_methods: methods, partial_success: false })
            }
            Verdict::LockedOut => Err(russh::Error::Disconnect.into()),
        }
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Failure> {
        Ok(if self.site.gate.knows_key(user.as_bytes(), offer.public_key) { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Failure> {
        Ok(if self.site.gate.knows_key(user.as_bytes(), key.public_key) { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Failure> {
        self.logged_in.cancel();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Failure> {
        // Dropping the reply refuses.
        if self.waiting.len() + self.running.len() < MAX_CHANNELS {
            self.waiting.insert(channel.id(), channel);
            reply.accept().await;
        }
        Ok(())
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Failure> {
        let Some(channel) = self.waiting.remove(&id).filter(|_| name == "sftp") else {
            return Ok(session.channel_failure(id)?);
        };
        session.channel_success(id)?;
        // What comes in is taken in `data`; nobody reads the other half.
        let (_, out) = channel.split();
        let (sftp, outgoing) = Sftp::new(self.site.root.clone());
        self.running.insert(id, sftp);
        let ended = self.ended.clone();
        tokio::spawn(async move { ended.run_until_cancelled(send(outgoing, out)).await });
        Ok(())
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Failure> {
        Ok(session.channel_failure(id)?)
    }

    async fn exec_request(&mut self, id: ChannelId, _: &[u8], session: &mut Session) -> Result<(), Failure> {
        Ok(session.channel_failure(id)?)
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Failure> {
        let Some(sftp) = self.running.get_mut(&id) else { return Ok(()) };
        if let Err(error) = sftp.feed(data).await {
            tracing::warn!(peer = %self.peer, error = error.chain(), "the SFTP session is ended");
            self.running.remove(&id);
            session.close(id)?;
        }
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Failure> {
        // The answers under way still go out; then `send` says the rest.
        self.running.remove(&id);
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Failure> {
        self.waiting.remove(&id);
        self.running.remove(&id);
        Ok(())
    }
}

/// Sends answers as the client takes them, until the session is over.
async fn send(mut outgoing: mpsc::UnboundedReceiver<Answer>, out: ChannelWriteHalf<Msg>) {
    while let Some(first) = outgoing.recv().await {
        for (bytes, permit) in gather(first, &mut outgoing) {
            if out.data_bytes(bytes).await.is_err() {
                return;
            }
            drop(permit);
        }
    }
    let _ = out.exit_status(0).await;
    let _ = out.eof().await;
    let _ = out.close().await;
}
