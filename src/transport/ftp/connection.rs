//! One control connection, logged in: commands by suppaftp's client, several at once and transfers by our own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use suppaftp::tokio::ImplAsyncFtpStream;
use suppaftp::{Encoding, FtpError};
use tokio::runtime::Handle;

use super::adopt::{Bytes, Control, Line, adopt};
use super::connect::Login;
use super::dialogue::Dialogue;
use super::port::Way;
use super::reply::Reply;
use super::tls::LoginTls;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::RemotePath;
use crate::transport::dial::Route;
use crate::transport::pool::Pooled;

/// How long a port that was asked for ahead is trusted. Servers keep it for a minute or for ever; pyftpdlib for 30 s.
const TRUST: Duration = Duration::from_secs(15);

/// One control connection and what is known about its state.
pub(super) struct Connection {
    client: ImplAsyncFtpStream<Line>,
    pub(super) control: Control,
    pub(super) tls: Option<Arc<LoginTls>>,
    /// The way to the ports of data connections.
    pub(super) route: Route,
    login: Arc<Login>,
    tls13: bool,
    pub(super) health: Health,
    /// When a port was asked for ahead.
    asked: Instant,
    /// The question for a port was sent behind a transfer that isn't over.
    pub(super) behind: bool,
}

/// Whether a connection can still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Sound,
    Broken,
    /// Broken, since the way to a port that was asked for ahead was closed: another connection can do better.
    Stale,
}

impl Connection {
    /// Takes over a connection that is logged in; the port of its first transfer may be asked for.
    pub(super) async fn new(dialogue: Dialogue, tls: Option<LoginTls>, login: Arc<Login>) -> Result<Self> {
        let route = dialogue.route().clone();
        let tls13 = dialogue.wire().is_tls13();
        let control = Control::new(dialogue);
        let client = adopt(control.clone())
            .await
            .map_err(|e| Error::new(ErrorKind::Other, "hand over the connection").with_source(e))?;
        let (tls, asked) = (tls.map(Arc::new), Instant::now());
        let health = Health::Sound;
        Ok(Self { client, control, tls, route, login, tls13, health, asked, behind: false })
    }

    /// Sends one command, whose path must hold no line break, and returns the reply, whatever it says.
    ///
    /// # Errors
    /// `InvalidPath` before anything is sent; those of a broken connection; that of a 421.
    pub(super) async fn ask(&mut self, verb: &str, path: &RemotePath) -> Result<Reply> {
        self.ask_raw(&line(verb, path)?).await
    }

    /// Sends one command line as it is.
    pub(super) async fn ask_raw(&mut self, line: &[u8]) -> Result<Reply> {
        // No code is expected, so that every reply comes back with its text.
        match self.client.custom_command(Bytes.decode(line), &[]).await {
            Ok(response) | Err(FtpError::UnexpectedResponse(response)) => {
                Reply::parse(&response.body).and_then(alive).inspect_err(|_| self.health = Health::Broken)
            }
            Err(e) => Err(self.failure(e)),
        }
    }

    /// Sends all commands in one segment and returns their replies: one round trip.
    pub(super) async fn ask_all(&mut self, lines: &[Vec<u8>]) -> Result<Vec<Reply>> {
        self.tell(lines).await?;
        let mut replies = Vec::with_capacity(lines.len());
        for _ in lines {
            replies.push(self.next_reply().await?);
        }
        Ok(replies)
    }

    /// Sends commands whose replies are taken later, in order.
    pub(super) async fn tell(&mut self, lines: &[Vec<u8>]) -> Result<()> {
        self.control.send(lines).await.inspect_err(|_| self.health = Health::Broken)
    }

    /// Returns the next reply.
    pub(super) async fn next_reply(&mut self) -> Result<Reply> {
        let reply = self.control.reply().await;
        reply.and_then(alive).inspect_err(|_| self.health = Health::Broken)
    }

    /// Asks for the port of the next transfer, without waiting for the answer.
    pub(super) async fn ask_ahead(&mut self) -> Result<()> {
        self.tell(&[self.login.port_command().into()]).await?;
        self.expect_port();
        Ok(())
    }

    /// Notes that the question for a port is what the server answers next.
    pub(super) fn expect_port(&mut self) {
        self.control.lock().expect_port();
        self.asked = Instant::now();
    }

    /// Takes in what the server has to say about the port that was asked for ahead.
    ///
    /// # Errors
    /// When the server ended the connection over that: vsftpd does when it finds no free port.
    pub(super) async fn settle(&mut self) -> Result<()> {
        let settled = self.control.settled().await;
        let refused = self.control.lock().take_refused_port().filter(|reply| reply.code() >= 500);
        let outcome = match refused {
            _ if settled.is_err() => settled,
            Some(reply) if !self.login.give_up_extended() => Err(reply.error("passive mode")),
            _ => Ok(()),
        };
        outcome.inspect_err(|_| self.health = Health::Broken)
    }

    /// Takes the way to the next data connection that was asked for ahead; `None` where that must be asked for now.
    pub(super) async fn take_way(&mut self) -> Result<Option<Way>> {
        if self.asked.elapsed() > TRUST {
            self.control.lock().forget_port();
        }
        self.settle().await?;
        Ok(self.control.lock().take_way())
    }

    /// Notes after a transfer when no session is left for another one: then TLS 1.2, where one is enough, serves better.
    pub(super) fn note_sessions(&self) {
        if self.is_spent() && self.login.give_up_tls13() {
            tracing::debug!("uploads use up the sessions of TLS 1.3 here: going on with TLS 1.2");
        }
    }

    /// Says goodbye, briefly.
    pub(super) async fn quit(mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.client.quit()).await;
    }

    /// Returns what is common to all connections of the transport.
    pub(super) fn login(&self) -> &Arc<Login> {
        &self.login
    }

    /// Returns whether the control connection is under TLS 1.3.
    pub(super) fn is_tls13(&self) -> bool {
        self.tls13
    }

    /// Returns whether a handshake that leads to nothing could be one too many: then it waits until the server agrees to
    /// the transfer.
    pub(super) fn is_short_of_sessions(&self) -> bool {
        self.tls13 && self.tls.as_ref().is_some_and(|tls| tls.sessions().are_few())
    }

    fn is_spent(&self) -> bool {
        self.tls13 && self.tls.as_ref().is_some_and(|tls| tls.sessions().are_spent())
    }

    fn failure(&mut self, error: FtpError) -> Error {
        self.health = Health::Broken;
        match error {
            // Ours, on its way through suppaftp.
            FtpError::ConnectionError(e)
                if e.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Error>) =>
            {
                match e.into_inner().map(<dyn std::error::Error + Send + Sync>::downcast::<Error>) {
                    Some(Ok(ours)) => *ours,
                    _ => ErrorKind::ConnectionLost.into(),
                }
            }
            FtpError::ConnectionError(e) => Error::io("control connection", e),
            other => Error::new(ErrorKind::Protocol, "control connection").with_source(other),
        }
    }
}

impl Pooled for Connection {
    fn is_usable(&mut self) -> bool {
        let outdated = self.tls13 && self.login.tls12_only();
        self.health == Health::Sound
            && !self.behind
            && !outdated
            && !self.is_spent()
            && self.control.lock().is_in_step()
    }

    fn part(self) {
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(self.quit());
        }
    }
}

fn alive(reply: Reply) -> Result<Reply> {
    if reply.code() == 421 { Err(reply.error("the server hung up")) } else { Ok(reply) }
}

/// Makes a command line.
///
/// # Errors
/// `InvalidPath` for a path that can't be sent on one line (S8).
pub(super) fn line(verb: &str, path: &RemotePath) -> Result<Vec<u8>> {
    if path.as_bytes().iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return Err(Error::new(ErrorKind::InvalidPath, "FTP has no way to name a path with a line break").at(path));
    }
    Ok([verb.as_bytes(), b" ", path.as_bytes()].concat())
}

/// Refuses a path that can't be sent on one line.
pub(super) fn check(path: &RemotePath) -> Result<()> {
    line("", path).map(|_| ())
}
