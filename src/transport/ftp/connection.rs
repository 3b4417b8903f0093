//! One control connection, logged in, in suppaftp's hands: commands, and data connections for transfers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use rustix::net::RecvFlags;
use suppaftp::tokio::{ImplAsyncFtpStream, TransferStream};
use suppaftp::types::ReplyTooLarge;
use suppaftp::{Encoding, FtpError, FtpResult, Mode, Status};

use super::adopt::{Bytes, Dialled, adopt};
use super::connect::Login;
use super::reply::Reply;
use super::tls::{LoginTls, Sessions};
use super::wire::{Transcript, Wire};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::RemotePath;
use crate::transport::pool::Pooled;

/// How often a data connection that the server can't open just now (425) is asked for again, and the first pause.
const BUSY_RETRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// One control connection and what is known about its state.
pub(super) struct Connection {
    client: ImplAsyncFtpStream<Wire>,
    login: Arc<Login>,
    transcript: Transcript,
    tls13: bool,
    sessions: Option<Arc<Sessions>>,
    broken: bool,
    dialled: Arc<Dialled>,
}

/// What a data connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transfer {
    /// `RETR` from an offset.
    Read(u64),
    /// `STOR` from an offset.
    Write(u64),
    /// `APPE`.
    Append,
    /// `MLSD`, with the path.
    MachineList,
    /// `LIST -a` of the current directory.
    ListAll,
    /// `LIST` of the current directory.
    List,
}

impl Connection {
    /// Hands a connection that is logged in to suppaftp.
    pub(super) async fn new(wire: Wire, tls: Option<LoginTls>, telnet: bool, login: Arc<Login>) -> Result<Self> {
        let transcript = Transcript::default();
        let dialled: Arc<Dialled> = Arc::default();
        let (tls13, sessions) = (wire.is_tls13(), tls.as_ref().map(LoginTls::sessions));
        let wire = wire.adopted(telnet, transcript.clone());
        let client = adopt(wire, tls, Arc::clone(&dialled), login.timeout())
            .await
            .map_err(|e| Error::new(ErrorKind::Other, "hand over the connection").with_source(e))?;
        Ok(Self { client, login, transcript, tls13, sessions, broken: false, dialled })
    }

    /// Sends one command, whose path must hold no line break, and returns the reply, whatever it says.
    ///
    /// # Errors
    /// `InvalidPath` before anything is sent; those of a broken connection; that of a 421.
    pub(super) async fn ask(&mut self, verb: &str, path: &RemotePath) -> Result<Reply> {
        check(path)?;
        self.ask_raw(&[verb.as_bytes(), b" ", path.as_bytes()].concat()).await
    }

    /// Sends one command line as it is.
    pub(super) async fn ask_raw(&mut self, line: &[u8]) -> Result<Reply> {
        // No code is expected, so that every reply comes back with its text.
        match self.client.custom_command(Bytes.decode(line), &[]).await {
            Ok(response) | Err(FtpError::UnexpectedResponse(response)) => self.received(&response.body),
            Err(e) => Err(self.failure(e)),
        }
    }

    /// Opens a data connection and starts a transfer on it.
    ///
    /// # Errors
    /// `Refused` with the reply when the server says no, so that the caller can ask why.
    pub(super) async fn transfer(
        &mut self,
        what: Transfer,
        path: &RemotePath,
    ) -> Result<TransferStream<Wire>, Refusal> {
        check(path)?;
        let mut busy = 0;
        loop {
            let extended = !self.login.passive_only();
            self.client.set_mode(if extended { Mode::ExtendedPassive } else { Mode::Passive });
            self.dialled.reached.store(false, Ordering::Relaxed);
            self.dialled.failed.store(false, Ordering::Relaxed);
            let error = match self.start(what, path).await {
                Ok(stream) => {
                    self.login.note_passive(extended);
                    return Ok(stream);
                }
                Err(error) => error,
            };
            let code = match &error {
                FtpError::UnexpectedResponse(response) => Reply::parse(&response.body).map_or(0, |reply| reply.code()),
                _ => 0,
            };
            let reached = self.dialled.reached.load(Ordering::Relaxed);
            let unreachable = self.dialled.failed.load(Ordering::Relaxed);
            if code == 425 && busy < BUSY_RETRIES {
                tokio::time::sleep(BUSY_PAUSE * 2u32.pow(busy)).await;
                busy += 1;
            } else if extended && !reached && (unreachable || code >= 500) && self.login.give_up_extended() {
                tracing::debug!("EPSV doesn't work here, going on with PASV");
            } else {
                return Err(self.refusal(error));
            }
        }
    }

    /// Makes the error of a transfer that failed at its end; what the server said counts more than how the socket broke.
    pub(super) fn transfer_failure(&mut self, error: FtpError) -> Refusal {
        let said = self.transcript.text();
        self.broken = true;
        match Reply::parse(last_reply(&said)) {
            Ok(reply) if reply.code() >= 400 => self.refused(reply),
            _ => self.refusal(error),
        }
    }

    /// Returns what the server said at the end of the last transfer.
    pub(super) fn last_words(&self) -> String {
        Reply::parse(&self.transcript.text()).map(|reply| reply.words()).unwrap_or_default()
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

    async fn start(&mut self, what: Transfer, path: &RemotePath) -> FtpResult<TransferStream<Wire>> {
        let name = Bytes.decode(path.as_bytes());
        let offset = match what {
            Transfer::Read(offset) | Transfer::Write(offset) => offset,
            _ => 0,
        };
        self.client.resume_transfer(usize::try_from(offset).map_err(too_far)?).await?;
        let begun = [Status::AboutToSend, Status::AlreadyOpen];
        let listing = match what {
            Transfer::Read(_) => return self.client.retr_as_stream(name).await,
            Transfer::Write(_) => return self.client.put_with_stream(name).await,
            Transfer::Append => return self.client.append_with_stream(name).await,
            Transfer::MachineList => format!("MLSD {name}"),
            Transfer::ListAll => "LIST -a".to_owned(),
            Transfer::List => "LIST".to_owned(),
        };
        Ok(self.client.custom_data_command(listing, &begun).await?.1)
    }

    fn is_spent(&self) -> bool {
        self.tls13 && self.sessions.as_ref().is_some_and(|sessions| sessions.are_spent())
    }

    fn received(&mut self, raw: &[u8]) -> Result<Reply> {
        let reply = Reply::parse(raw).inspect_err(|_| self.broken = true)?;
        if reply.code() == 421 {
            self.broken = true;
            return Err(reply.error("the server hung up"));
        }
        Ok(reply)
    }

    fn refusal(&mut self, error: FtpError) -> Refusal {
        match error {
            FtpError::UnexpectedResponse(response) => match self.received(&response.body) {
                Ok(reply) => self.refused(reply),
                Err(e) => Refusal::Failed(e),
            },
            FtpError::SecureError(text) => {
                self.broken = true;
                let error = Error::new(ErrorKind::Tls, format!("TLS on the data connection: {text}"));
                Refusal::Failed(self.without_tls13(error))
            }
            other => Refusal::Failed(self.failure(other)),
        }
    }

    fn refused(&mut self, reply: Reply) -> Refusal {
        match reply.code() {
            // The server demands a resumed session and doesn't take ours for one.
            // ProFTPD says no more than that it was "unable to build data connection".
            425 | 426 | 435 | 522 if mentions_tls(&reply) || (self.tls13 && reply.code() == 425) => {
                let error = reply.error("TLS on the data connection").with_kind(ErrorKind::Tls);
                Refusal::Failed(self.without_tls13(error))
            }
            _ => Refusal::Said(reply),
        }
    }

    /// Makes new connections use TLS 1.2 when this one has 1.3; then a fresh attempt can succeed.
    fn without_tls13(&mut self, error: Error) -> Error {
        self.broken = true;
        if !self.tls13 || !self.login.give_up_tls13() {
            return error;
        }
        tracing::debug!("{error}: going on with TLS 1.2");
        error.with_kind(ErrorKind::ConnectionLost)
    }

    fn failure(&mut self, error: FtpError) -> Error {
        let unreachable = self.dialled.failed.swap(false, Ordering::Relaxed);
        self.broken |= !unreachable;
        match error {
            FtpError::ConnectionError(e)
                if e.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<ReplyTooLarge>) =>
            {
                Error::new(ErrorKind::Protocol, "the server's reply has no end")
            }
            FtpError::ConnectionError(e) if unreachable => Error::io("open a data connection", e),
            FtpError::ConnectionError(e) => Error::io("control connection", e),
            FtpError::SecureError(text) => Error::new(ErrorKind::Tls, text),
            other => Error::new(ErrorKind::Protocol, "control connection").with_source(other),
        }
    }
}

impl Pooled for Connection {
    fn is_usable(&self) -> bool {
        let outdated = self.tls13 && self.login.tls12_only();
        if self.broken || outdated || self.is_spent() {
            return false;
        }
        // Bytes that wait while nothing was asked are a goodbye (421 timeout) or the end.
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let socket = self.client.get_ref().now_or_never();
        socket.is_some_and(|tcp| rustix::net::recv(&*tcp, &mut [0u8; 1], peek) == Err(rustix::io::Errno::AGAIN))
    }
}

/// Why a transfer didn't start or didn't end well.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The server said no, and the connection can still be used.
    Said(Reply),
    /// Something broke.
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Refuses a path that can't be sent on one line (S8).
pub(super) fn check(path: &RemotePath) -> Result<()> {
    if path.as_bytes().iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        return Err(Error::new(ErrorKind::InvalidPath, "FTP has no way to name a path with a line break").at(path));
    }
    Ok(())
}

fn too_far(_: std::num::TryFromIntError) -> FtpError {
    FtpError::ConnectionError(std::io::Error::new(
        std::io::ErrorKind::Unsupported,
        "an offset that this machine can't count to",
    ))
}

fn mentions_tls(reply: &Reply) -> bool {
    let words = reply.words().to_ascii_lowercase();
    ["ssl", "tls", "session reuse"].iter().any(|word| words.contains(word))
}

/// Cuts off a 150 in front of the reply that ended the transfer.
fn last_reply(said: &[u8]) -> &[u8] {
    let mut rest = said;
    while let Ok(Some(end)) = super::reply::reply_length(rest) {
        if end == rest.len() {
            break;
        }
        rest = &rest[end..];
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reply_is_the_verdict() {
        assert_eq!(last_reply(b"150 here\r\n226-a\r\n226 b\r\n"), b"226-a\r\n226 b\r\n");
        assert_eq!(last_reply(b"426 cut\r\n"), b"426 cut\r\n");
        assert_eq!(last_reply(b"150 here\r\n45"), b"45");
    }
}
