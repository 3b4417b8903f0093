//! The first words on a control connection, until suppaftp takes it over: greeting, TLS, login.
//!
//! Done here and not by suppaftp, which takes no 120 greeting, ends a reply at any line that starts with digits,
//! doesn't notice bytes injected before TLS starts, writes the password to its log, and has no implicit TLS.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::reply::{Reply, reply_length};
use super::tls::LoginTls;
use super::wire::Wire;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::Secret;

/// The longest reply taken; real ones, with a message of the day, have a few KiB.
const MAX_REPLY: usize = 256 * 1024;
/// How often a server may ask to wait (120) before it greets.
const MAX_DELAYS: usize = 16;

/// A control connection whose replies we read ourselves.
pub(super) struct Dialogue {
    wire: Wire,
    buffer: Vec<u8>,
}

impl Dialogue {
    /// Starts on a connection on which nothing was said yet.
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, buffer: Vec::new() }
    }

    /// Reads the greeting and returns it.
    ///
    /// # Errors
    /// `TooManyConnections` and `Busy` for a 421, `Protocol` for what is no greeting.
    pub(super) async fn greeting(&mut self) -> Result<Reply> {
        for _ in 0..=MAX_DELAYS {
            let reply = self.reply().await?;
            match reply.code() {
                120 => tracing::debug!("greeting: {}", reply.words()),
                220 => return Ok(reply),
                400..=599 => return Err(reply.error("greeting")),
                _ => return Err(reply.error("greeting").with_kind(ErrorKind::Protocol)),
            }
        }
        Err(Error::new(ErrorKind::Protocol, "greeting: the server asks to wait again and again"))
    }

    /// Sends one command and returns the reply.
    pub(super) async fn ask(&mut self, command: &str) -> Result<Reply> {
        self.send(&[command]).await?;
        self.reply().await
    }

    /// Sends all commands at once and returns their replies: one round trip.
    pub(super) async fn ask_all(&mut self, commands: &[&str]) -> Result<Vec<Reply>> {
        self.send(commands).await?;
        let mut replies = Vec::with_capacity(commands.len());
        for _ in commands {
            replies.push(self.reply().await?);
        }
        Ok(replies)
    }

    /// Upgrades the connection after the server agreed to it.
    ///
    /// # Errors
    /// `Protocol` when it said more than that in clear: somebody may have injected it.
    pub(super) async fn start_tls(self, tls: &LoginTls) -> Result<Self> {
        let wire = self.into_wire()?;
        match wire.into_plain() {
            Some(tcp) => Ok(Self::new(tls.connect(tcp).await?)),
            None => Err(Error::new(ErrorKind::Protocol, "TLS within TLS")),
        }
    }

    /// Asks for encrypted data connections.
    ///
    /// # Errors
    /// `Tls` when refused; nothing secret was sent by then.
    pub(super) async fn protect_data(&mut self) -> Result<()> {
        for command in ["PBSZ 0", "PROT P"] {
            let reply = self.ask(command).await?;
            if !reply.is_ok() {
                return Err(reply.error(&format!("{command}, encrypted data connections")).with_kind(ErrorKind::Tls));
            }
        }
        Ok(())
    }

    /// Logs in.
    ///
    /// # Errors
    /// `AuthFailed`, `TooManyConnections`, with the server's words.
    pub(super) async fn login(&mut self, user: &str, password: &Secret) -> Result<()> {
        let mut reply = self.ask(&format!("USER {user}")).await?;
        if reply.code() == 331 {
            reply = self.ask_secret(password).await?;
        }
        match reply.code() {
            200..=299 => Ok(()),
            332 => Err(reply.error("login, an account (ACCT) is asked for").with_kind(ErrorKind::AuthFailed)),
            300..=399 => Err(reply.error("login").with_kind(ErrorKind::AuthFailed)),
            _ => {
                let error = reply.error("login");
                // Whatever a 5xx says here, it is the login that it refuses.
                match error.kind() {
                    ErrorKind::TooManyConnections | ErrorKind::Busy | ErrorKind::ConnectionLost => Err(error),
                    _ => Err(error.with_kind(ErrorKind::AuthFailed)),
                }
            }
        }
    }

    /// Returns the connection for suppaftp to go on with.
    ///
    /// # Errors
    /// `Protocol` when the server said something that nobody asked for.
    pub(super) fn into_wire(self) -> Result<Wire> {
        if !self.buffer.is_empty() {
            return Err(Error::new(ErrorKind::Protocol, "the server said more than was asked for"));
        }
        Ok(self.wire)
    }

    async fn ask_secret(&mut self, password: &Secret) -> Result<Reply> {
        let line = zeroize::Zeroizing::new(format!("PASS {}", password.expose()));
        self.ask(&line).await
    }

    async fn send(&mut self, commands: &[&str]) -> Result<()> {
        let mut lines = zeroize::Zeroizing::new(Vec::new());
        for command in commands {
            if command.contains(['\r', '\n', '\0']) {
                return Err(Error::new(ErrorKind::InvalidPath, "a line break or NUL in user or password"));
            }
            lines.extend_from_slice(command.as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
        let sent = async {
            self.wire.write_all(&lines).await?;
            self.wire.flush().await
        };
        sent.await.map_err(|e| Error::io("send a command", e))
    }

    async fn reply(&mut self) -> Result<Reply> {
        loop {
            if let Some(end) = reply_length(&self.buffer)? {
                let reply = Reply::parse(&self.buffer[..end]);
                self.buffer.drain(..end);
                return reply;
            }
            if self.buffer.len() > MAX_REPLY {
                return Err(Error::new(ErrorKind::Protocol, "the server's reply has no end"));
            }
            match self.wire.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(Error::new(ErrorKind::ConnectionLost, "the server closed the connection")),
                Ok(_) => {}
                Err(e) => return Err(Error::io("read a reply", e)),
            }
        }
    }
}
