//! What is said on a control connection: lines out, several at once where that is safe, and replies in, in order.
//!
//! Greeting, TLS and login are here and not in suppaftp, which takes no 120 greeting, ends a reply at any line that
//! starts with digits, doesn't notice bytes injected before TLS starts, writes the password to its log, and has no
//! implicit TLS. Nor does it ask before it needs the answer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use zeroize::{Zeroize, Zeroizing};

use super::active::Offer;
use super::port::Way;
use super::reply::{Reply, reply_length};
use super::tls::LoginTls;
use super::trust;
use super::wire::Wire;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::dial::Route;
use crate::transport::{Secret, escape};

/// The longest reply taken; real ones, with a message of the day, have a few KiB.
const MAX_REPLY: usize = 256 * 1024;
/// Bytes read at once.
const CHUNK: usize = 4096;
/// How often a server may ask to wait (120) before it greets.
const MAX_DELAYS: usize = 16;

/// A control connection.
pub(super) struct Dialogue {
    wire: Wire,
    /// The way to the ports of data connections.
    route: Route,
    input: Vec<u8>,
    output: Zeroizing<Vec<u8>>,
    /// Whether the server takes 0xFF doubled, as Telnet has it.
    telnet: bool,
    /// What the server will say before the next reply that somebody waits for.
    ahead: VecDeque<Ahead>,
    /// The next data connection, begun as soon as it was known where that goes.
    way: Option<Way>,
    /// What the server said instead of naming a port.
    no_port: Option<Reply>,
    /// The port of ours that the next answer is about.
    offer: Option<Offer>,
    /// Since when a reply is arriving that isn't complete.
    arriving: Option<Instant>,
}

/// A reply that nobody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ahead {
    /// Where the next data connection goes.
    Port,
    /// Not needed any more.
    Nothing,
}

impl Dialogue {
    /// Starts on a connection on which nothing was said yet.
    pub(super) fn new(wire: Wire, route: Route) -> Self {
        Self {
            wire,
            route,
            input: Vec::new(),
            output: Zeroizing::default(),
            telnet: false,
            ahead: VecDeque::new(),
            way: None,
            no_port: None,
            offer: None,
            arriving: None,
        }
    }

    /// Returns the connection below.
    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Returns our own address on this connection.
    pub(super) fn here(&self) -> Result<SocketAddr> {
        self.wire.tcp().local_addr().map_err(|e| Error::io("control connection", e))
    }

    /// Takes the port that is offered with the line that goes out next.
    pub(super) fn offer(&mut self, offer: Offer) {
        self.offer = Some(offer);
    }

    /// Doubles 0xFF from now on.
    pub(super) fn speak_telnet(&mut self) {
        self.telnet = true;
    }

    /// Reads the greeting and returns it.
    ///
    /// # Errors
    /// `TooManyConnections` and `Busy` for a 421, `Protocol` for what is no greeting.
    pub(super) async fn greeting(&mut self) -> Result<Reply> {
        for _ in 0..=MAX_DELAYS {
            let reply = self.reply("greeting").await?;
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
        self.reply(verb(command)).await
    }

    /// Sends one command with a secret behind it, of which no copy is left here, and returns the reply.
    async fn ask_secretly(&mut self, command: &str, secret: &Secret, what: &str) -> Result<Reply> {
        // Neither grows: what a buffer grows out of is not wiped.
        let mut line = Zeroizing::new(String::with_capacity(command.len() + secret.expose().len()));
        line.push_str(command);
        line.push_str(secret.expose());
        let queued = std::mem::take(&mut self.output);
        self.output.reserve_exact(queued.len() + 2 * line.len() + 2);
        self.output.extend_from_slice(&queued);
        let sent = self.send(&[&line]).await;
        self.output.zeroize();
        drop(line);
        sent?;
        self.reply(what).await
    }

    /// Sends all commands at once and returns their replies: one round trip.
    pub(super) async fn ask_all(&mut self, commands: &[&str]) -> Result<Vec<Reply>> {
        self.send(commands).await?;
        let mut replies = Vec::with_capacity(commands.len());
        for command in commands {
            replies.push(self.reply(verb(command)).await?);
        }
        Ok(replies)
    }

    /// Like [`Self::ask_all`], and asks behind that for the port of the next transfer, without waiting for the answer.
    pub(super) async fn ask_ahead(&mut self, commands: &[&str], port_line: &str) -> Result<Vec<Reply>> {
        self.send(&[commands, &[port_line]].concat()).await?;
        let mut replies = Vec::with_capacity(commands.len());
        for command in commands {
            replies.push(self.reply(verb(command)).await?);
        }
        self.expect_port();
        Ok(replies)
    }

    /// Sends commands whatever the replies.
    pub(super) async fn wish(&mut self, commands: &[&str]) -> Result<()> {
        self.send(commands).await?;
        self.ahead.extend(commands.iter().map(|_| Ahead::Nothing));
        Ok(())
    }

    /// Upgrades the connection after the server agreed to it.
    ///
    /// # Errors
    /// `Protocol` when it said more than that in clear: somebody may have injected it.
    pub(super) async fn start_tls(self, tls: &LoginTls) -> Result<Self> {
        if !self.input.is_empty() {
            return Err(Error::new(ErrorKind::Protocol, "the server said more than was asked for"));
        }
        match self.wire.into_plain() {
            Some(tcp) => Ok(Self::new(tls.connect(tcp).await?, self.route)),
            None => Err(Error::new(ErrorKind::Protocol, "TLS within TLS")),
        }
    }

    /// Logs in, under TLS with encrypted data connections.
    ///
    /// # Errors
    /// `AuthFailed`, `TooManyConnections`, with the server's words; `Tls` when it refuses to encrypt: the password was
    /// not sent by then.
    pub(super) async fn login(
        &mut self,
        user: &str,
        password: &Secret,
        account: impl AsyncFnOnce() -> Result<Secret>,
    ) -> Result<bool> {
        let protect: &[&str] = if self.wire.is_tls() { &["PBSZ 0", "PROT P"] } else { &[] };
        let user = format!("USER {user}");
        self.send(&[protect, &[&user]].concat()).await?;
        for command in protect {
            let reply = self.reply(command).await?;
            if !reply.is_ok() {
                return Err(reply.error(&format!("{command}, encrypted data connections")).with_kind(ErrorKind::Tls));
            }
        }
        let mut reply = self.reply("login (USER)").await?;
        let wants_password = reply.code() == 331;
        if wants_password {
            reply = self.ask_secretly("PASS ", password, "login (PASS)").await?;
        }
        if reply.code() == 332 {
            let account = account().await.map_err(|e| e.context("login: the server asks for an account (ACCT)"))?;
            reply = self.ask_secretly("ACCT ", &account, "login (ACCT)").await?;
        }
        match reply.code() {
            200..=299 => Ok(wants_password),
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

    /// Puts a line with the others that go out next.
    pub(super) fn queue(&mut self, line: &[u8]) {
        tracing::trace!("> {}", shown(line));
        for &byte in line {
            self.output.push(byte);
            if byte == 0xff && self.telnet {
                self.output.push(byte);
            }
        }
        self.output.extend_from_slice(b"\r\n");
    }

    /// Notes that the next reply will be to the question for a port.
    pub(super) fn expect_port(&mut self) {
        (self.way, self.no_port) = (None, None);
        self.ahead.push_back(Ahead::Port);
    }

    /// Gives up the port that was asked for.
    pub(super) fn forget_port(&mut self) {
        (self.way, self.no_port, self.offer) = (None, None, None);
        self.ahead.iter_mut().for_each(|ahead| *ahead = Ahead::Nothing);
    }

    /// Takes the way to the port that was asked for, if it is known.
    pub(super) fn take_way(&mut self) -> Option<Way> {
        self.way.take()
    }

    /// Returns the way that an answer opens, if it does: see [`Way::answered`].
    pub(super) fn way_of(&mut self, reply: &Reply, ahead: bool) -> Option<Way> {
        let server = self.wire.tcp().peer_addr().ok()?;
        Way::answered(reply, self.offer.take(), server, &self.route, self.wire.timeout(), ahead)
    }

    /// Takes what the server said instead of naming a port.
    pub(super) fn take_refused_port(&mut self) -> Option<Reply> {
        self.no_port.take()
    }

    /// Takes in what arrived, without waiting; returns whether the server said nothing that it wasn't asked for.
    pub(super) fn is_in_step(&mut self) -> bool {
        loop {
            match self.take_ahead() {
                Err(_) => return false,
                Ok(true) => {}
                Ok(false) => {
                    let mut bytes = [0; CHUNK];
                    match self.wire.read_now(&mut bytes) {
                        None => return !self.ahead.is_empty() || self.input.is_empty(),
                        Some(Ok(count)) if count > 0 && !self.ahead.is_empty() && self.input.len() <= MAX_REPLY => {
                            self.input.extend_from_slice(&bytes[..count]);
                        }
                        // A goodbye (421 timeout), or the end.
                        Some(_) => return false,
                    }
                }
            }
        }
    }

    /// Sends what was queued.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let sent = ready!(Pin::new(&mut self.wire).poll_write(cx, &self.output))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.drain(..sent);
        }
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    /// Waits until every reply that nobody waits for is in.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.ahead.is_empty() {
            if !self.take_ahead()? {
                ready!(self.poll_fill(cx))?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Returns the next reply that is somebody's.
    pub(super) fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply>> {
        ready!(self.poll_settled(cx))?;
        loop {
            if let Some(reply) = self.next_reply()? {
                return Poll::Ready(Ok(reply));
            }
            ready!(self.poll_fill(cx))?;
        }
    }

    /// Starts the time of a wait anew.
    pub(super) fn wait_anew(&mut self) {
        self.wire.wait_anew();
        self.arriving = None;
    }

    async fn send(&mut self, commands: &[&str]) -> Result<()> {
        for command in commands {
            if command.contains(['\r', '\n', '\0']) {
                return Err(Error::new(ErrorKind::InvalidPath, "a line break or NUL in a command"));
            }
            self.queue(command.as_bytes());
        }
        poll_fn(|cx| self.poll_send(cx)).await.map_err(|e| Error::io("send a command", e))
    }

    async fn reply(&mut self, to: &str) -> Result<Reply> {
        poll_fn(|cx| self.poll_reply(cx)).await.map_err(|e| e.context(to))
    }

    /// Takes one reply that nobody waits for; `false` when there is none, or it isn't there yet.
    fn take_ahead(&mut self) -> Result<bool> {
        let Some(&what) = self.ahead.front() else { return Ok(false) };
        let Some(reply) = self.next_reply()? else { return Ok(false) };
        if reply.code() == 421 {
            return Err(reply.error("the server hung up"));
        }
        self.ahead.pop_front();
        if what == Ahead::Port {
            self.way = self.way_of(&reply, true);
            self.no_port = if self.way.is_none() { Some(reply) } else { None };
        }
        Ok(true)
    }

    fn next_reply(&mut self) -> Result<Option<Reply>> {
        let Some(end) = reply_length(&self.input)? else { return self.incomplete() };
        self.arriving = None;
        let reply = Reply::parse(&self.input[..end])?;
        for line in self.input[..end].split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            tracing::trace!("< {}", escape(line.trim_ascii_end()));
        }
        self.input.drain(..end);
        Ok(Some(reply))
    }

    /// Notes that a reply has begun; it may not come in drops for ever.
    fn incomplete(&mut self) -> Result<Option<Reply>> {
        if !self.input.is_empty() && self.arriving.get_or_insert_with(Instant::now).elapsed() > self.wire.timeout() {
            return Err(Error::new(ErrorKind::Timeout, "a reply comes in drops and has no end"));
        }
        Ok(None)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.input.len() > MAX_REPLY {
            return Poll::Ready(Err(Error::new(ErrorKind::Protocol, "the server's reply has no end")));
        }
        if !self.output.is_empty() {
            ready!(self.poll_send(cx)).map_err(|e| Error::io("send a command", e))?;
        }
        let mut bytes = [0; CHUNK];
        let mut buffer = ReadBuf::new(&mut bytes);
        let filled = ready!(Pin::new(&mut self.wire).poll_read(cx, &mut buffer));
        filled.map_err(unreadable)?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(Error::new(ErrorKind::ConnectionLost, "the server closed the connection")));
        }
        self.input.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

/// Returns a command as a log may show it.
fn shown(line: &[u8]) -> String {
    match line.get(..5) {
        Some(verb @ (b"PASS " | b"ACCT ")) => format!("{}***", escape(verb)),
        _ => escape(line),
    }
}

fn verb(command: &str) -> &str {
    command.split(' ').next().unwrap_or_default()
}

fn unreadable(error: io::Error) -> Error {
    if let Some(alert) = trust::alert(&error) {
        return alert;
    }
    // vsftpd says its last words, "500 OOPS", in plain text.
    let garbled = error.kind() == io::ErrorKind::InvalidData;
    let error = Error::io("read a reply", error);
    if garbled { error.with_kind(ErrorKind::ConnectionLost) } else { error }
}
