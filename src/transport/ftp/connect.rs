//! Logging in: everything that is common to the connections of one transport, and how each of them is made.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::connection::Connection;
use super::dial::dial_host;
use super::dialogue::Dialogue;
use super::features::Features;
use super::reply::Reply;
use super::tls::{LoginTls, Trust, Versions};
use super::wire::{Stream, Wire};
use crate::endpoint::{Endpoint, Scheme};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{Account, ConnectOptions, RemotePath, Secret, TlsMode};

const ANONYMOUS: &str = "anonymous";
/// What an anonymous user gives for a password, by custom an address.
const ANONYMOUS_PASSWORD: &str = "haul@";

/// One user at one server: how to make another connection, and what the ones before have learnt.
pub(super) struct Login {
    host: String,
    port: u16,
    user: String,
    account: Account,
    options: ConnectOptions,
    security: Security,
    trust: OnceLock<Trust>,
    /// Kept once it is known, so that the user is asked once.
    password: Mutex<Option<Secret>>,
    server: OnceLock<Server>,
    /// Held by the first login, so that others wait with theirs until it is known whether the password is right.
    first: Mutex<()>,
    /// It comes from a keyring or netrc.
    password_was_kept: AtomicBool,
    /// The password was refused: who logs in beside the first one doesn't send it again.
    rejected: AtomicBool,
    /// The server takes no TLS, and the user allows that.
    plain: AtomicBool,
    tls12: AtomicBool,
    /// The server has no TLS 1.2 to go back to.
    tls13_stays: AtomicBool,
    passive: AtomicBool,
    extended_works: AtomicBool,
    data_works: AtomicBool,
    /// The shortest time in which a connection was made, in nanoseconds.
    round_trip: AtomicU64,
}

/// When a control connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Security {
    Never,
    Offered,
    Explicit,
    Implicit,
}

/// What the first connection found out about the server.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // each is an independent fact about a server
pub(super) struct Server {
    /// What it offers.
    pub(super) features: Features,
    /// Whether reading and writing may start at an offset.
    pub(super) restarts: bool,
    /// Whether it names itself a UNIX system, whose rename replaces.
    pub(super) unix: bool,
    /// The directory that the login starts in.
    pub(super) home: RemotePath,
    /// Whether it takes commands one after the other even while a transfer is under way.
    in_order: bool,
    telnet: bool,
}

impl Login {
    /// Gathers what logging in needs; no network.
    pub(super) fn new(endpoint: &Endpoint, options: &ConnectOptions) -> Self {
        let security = match (endpoint.scheme, options.tls) {
            (Scheme::Ftps, _) => Security::Implicit,
            (Scheme::Ftpes, _) | (_, TlsMode::Require) => Security::Explicit,
            (_, TlsMode::Allow) => Security::Offered,
            (_, TlsMode::Off) => Security::Never,
        };
        let password = match &endpoint.user {
            // A password meant for an account elsewhere is not for everybody's.
            None => Some(endpoint.password.clone().unwrap_or_else(|| Secret::new(ANONYMOUS_PASSWORD))),
            Some(_) => endpoint.password.clone().or_else(|| options.password.clone()),
        };
        let user = endpoint.user.clone().unwrap_or_else(|| ANONYMOUS.to_owned());
        let (scheme, host, port) = (endpoint.scheme, endpoint.host.clone(), endpoint.port);
        Self {
            account: Account { scheme, user: user.clone(), host: host.clone(), port },
            host,
            port: endpoint.effective_port(),
            user,
            options: options.clone(),
            security,
            trust: OnceLock::new(),
            password: Mutex::new(password),
            server: OnceLock::new(),
            first: Mutex::new(()),
            password_was_kept: AtomicBool::new(false),
            rejected: AtomicBool::new(false),
            plain: AtomicBool::new(false),
            tls12: AtomicBool::new(false),
            tls13_stays: AtomicBool::new(false),
            passive: AtomicBool::new(false),
            extended_works: AtomicBool::new(false),
            data_works: AtomicBool::new(false),
            round_trip: AtomicU64::new(u64::MAX),
        }
    }

    /// Connects, secures and logs in.
    ///
    /// # Errors
    /// See [`super::connect`].
    pub(super) async fn open(self: &Arc<Self>) -> Result<Connection> {
        let mut opened = self.try_open().await;
        if opened.as_ref().is_err_and(|e| e.kind() == ErrorKind::Tls) && self.tls12.swap(false, Ordering::Relaxed) {
            self.tls13_stays.store(true, Ordering::Relaxed);
            opened = self.try_open().await;
        }
        opened.map_err(|e| e.at(format!("{}:{}", self.host, self.port)))
    }

    /// Returns what the first connection found out; `None` before it.
    pub(super) fn server(&self) -> Option<&Server> {
        self.server.get()
    }

    /// Returns the longest wait without progress.
    pub(super) fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// Returns how to ask for the port of a data connection.
    pub(super) fn port_command(&self) -> &'static str {
        if self.passive.load(Ordering::Relaxed) { "PASV" } else { "EPSV" }
    }

    /// Notes that a data connection was made.
    pub(super) fn note_data_works(&self) {
        self.data_works.store(true, Ordering::Relaxed);
        if !self.passive.load(Ordering::Relaxed) {
            self.extended_works.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether data connections have been seen to work.
    pub(super) fn data_works(&self) -> bool {
        self.data_works.load(Ordering::Relaxed)
    }

    /// Returns whether the server keeps commands that come during a transfer for afterwards.
    pub(super) fn is_in_order(&self) -> bool {
        self.server().is_some_and(|server| server.in_order)
    }

    /// Returns whether the time of a file is asked for as it is opened: the listings don't have it, and it costs no trip.
    pub(super) fn tells_times(&self) -> bool {
        self.is_in_order()
            && self.server().is_some_and(|server| !server.features.machine_lists() && server.features.has("MDTM"))
    }

    /// Returns the shortest time in which the server has answered so far.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        let nanos = self.round_trip.load(Ordering::Relaxed);
        (nanos != u64::MAX).then(|| Duration::from_nanos(nanos))
    }

    /// Turns to PASV for good, unless EPSV has worked before; returns whether it did.
    pub(super) fn give_up_extended(&self) -> bool {
        !self.extended_works.load(Ordering::Relaxed) && !self.passive.swap(true, Ordering::Relaxed)
    }

    /// Returns whether new connections use TLS 1.2 only.
    pub(super) fn tls12_only(&self) -> bool {
        self.tls12.load(Ordering::Relaxed)
    }

    /// Makes new connections use TLS 1.2; returns whether that is news.
    pub(super) fn give_up_tls13(&self) -> bool {
        !self.tls13_stays.load(Ordering::Relaxed) && !self.tls12.swap(true, Ordering::Relaxed)
    }

    async fn try_open(self: &Arc<Self>) -> Result<Connection> {
        let timeout = self.timeout();
        let (tcp, took) = dial_host(&self.host, self.port, timeout).await?;
        self.round_trip.fetch_min(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let mut tls = None;
        let mut dialogue = if self.security == Security::Implicit {
            let implicit = tls.insert(self.new_tls()?);
            Dialogue::new(implicit.connect(tcp).await?)
        } else {
            Dialogue::new(Wire::new(Stream::Plain(tcp), timeout))
        };
        let greeting = dialogue.greeting().await?;
        if self.wants_upgrade() && self.agree_on_tls(&mut dialogue).await? {
            dialogue = dialogue.start_tls(tls.insert(self.new_tls()?)).await.map_err(|e| self.explain_tls(e))?;
        }
        self.log_in(&mut dialogue, &greeting).await?;
        if self.server().is_some_and(|server| server.telnet) {
            dialogue.speak_telnet();
        }
        Connection::new(dialogue, tls, Arc::clone(self)).await
    }

    fn wants_upgrade(&self) -> bool {
        match self.security {
            Security::Explicit => true,
            Security::Offered => !self.plain.load(Ordering::Relaxed),
            Security::Never | Security::Implicit => false,
        }
    }

    /// Asks the server for TLS; `false` when it has none and may go without.
    async fn agree_on_tls(&self, dialogue: &mut Dialogue) -> Result<bool> {
        let reply = dialogue.ask("AUTH TLS").await?;
        if reply.code() == 234 {
            return Ok(true);
        }
        if self.security == Security::Explicit || reply.code() / 100 == 4 {
            return Err(reply
                .error("the server refuses TLS")
                .with_kind(if reply.code() / 100 == 4 { ErrorKind::Busy } else { ErrorKind::Tls })
                .with_hint("nothing secret was sent; ftp:// with --tls off goes without encryption"));
        }
        // A server that has not agreed once is not asked again; one that has may not fall back.
        if self.trust.get().is_some() {
            return Err(reply.error("the server refuses TLS, which it took before").with_kind(ErrorKind::Tls));
        }
        self.plain.store(true, Ordering::Relaxed);
        Ok(false)
    }

    fn new_tls(&self) -> Result<LoginTls> {
        let trust = if let Some(trust) = self.trust.get() {
            trust
        } else {
            let trust = Trust::new(&self.host, self.options.tls_ca.as_deref())?;
            self.trust.get_or_init(|| trust)
        };
        let versions = if self.tls12_only() { Versions::Tls12 } else { Versions::All };
        LoginTls::new(trust, versions, self.timeout())
    }

    fn explain_tls(&self, error: Error) -> Error {
        match self.security {
            Security::Offered if error.hint().is_none() => {
                error.with_hint("--tls off goes without encryption, where that is acceptable")
            }
            _ => error,
        }
    }

    async fn password(&self) -> Result<Secret> {
        // Held while asking, so that several connections don't ask at once.
        let mut password = self.password.lock().await;
        if let Some(known) = &*password {
            return Ok(known.clone());
        }
        let (prompt, passwords) = (Arc::clone(&self.options.prompt), Arc::clone(&self.options.passwords));
        let account = self.account.clone();
        let question = format!("Password for {} at {}: ", self.user, self.host);
        let find = move || match passwords.password(&account) {
            Some(kept) => Some((kept, true)),
            None => prompt.secret(&question).map(|answer| (answer, false)),
        };
        let answer = spawn_blocking(find).await.ok().flatten();
        let (answer, was_kept) = answer.ok_or_else(|| {
            Error::new(ErrorKind::AuthFailed, "no password for the login")
                .with_hint("give it with --password-file or in HAUL_PASSWORD, or keep it by haul login")
        })?;
        self.password_was_kept.store(was_kept, Ordering::Relaxed);
        Ok(password.insert(answer).clone())
    }

    async fn log_in(&self, dialogue: &mut Dialogue, greeting: &Reply) -> Result<()> {
        let first = self.first.lock().await;
        // Only the first is held up by another.
        let _first = self.server().is_none().then_some(first);
        let password = self.password().await?;
        if self.rejected.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::AuthFailed, "login: the password was refused before"));
        }
        let logged_in = dialogue.login(&self.user, &password).await;
        let is_first = self.server().is_none();
        if logged_in.as_ref().is_err_and(|e| e.kind() == ErrorKind::AuthFailed) && is_first {
            self.rejected.store(true, Ordering::Relaxed);
            if self.password_was_kept.load(Ordering::Relaxed) {
                self.options.passwords.refused(&self.account);
            }
        }
        logged_in?;
        if is_first {
            self.options.passwords.accepted(&self.account, &password);
        }
        self.prepare(dialogue, greeting).await
    }

    /// Sets the connection up, finds out about the server when it is the first, and asks for the first port.
    async fn prepare(&self, dialogue: &mut Dialogue, greeting: &Reply) -> Result<()> {
        let binary = if self.server().is_some() {
            dialogue.ask_ahead(&["TYPE I"], self.port_command()).await?.pop()
        } else {
            let (server, binary) = explore(dialogue, greeting, self.port_command()).await?;
            let _ = self.server.set(server);
            Some(binary)
        };
        if let Some(refused) = binary.filter(|binary| !binary.is_ok()) {
            return Err(refused.error("TYPE I, binary transfers"));
        }
        let features = self.server().map(|server| &server.features);
        let facts = features.and_then(Features::facts_command);
        let utf8 = features.is_some_and(|features| features.has("UTF8"));
        // Whatever the server says to these.
        let wishes: Vec<&str> = utf8.then_some("OPTS UTF8 ON").into_iter().chain(facts.as_deref()).collect();
        dialogue.wish(&wishes).await
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({}@{}:{}, {:?})", self.user, self.host, self.port, self.security)
    }
}

/// Returns what the server can do, and its reply to TYPE I.
async fn explore(dialogue: &mut Dialogue, greeting: &Reply, port_command: &str) -> Result<(Server, Reply)> {
    let replies = dialogue.ask_ahead(&["FEAT", "SITE HELP", "SYST", "PWD", "TYPE I"], port_command).await?;
    let Ok([feat, site, syst, pwd, binary]) = <[Reply; 5]>::try_from(replies) else {
        return Err(Error::new(ErrorKind::Protocol, "replies are missing"));
    };
    let features = Features::new(&feat, &site);
    // Servers without FEAT may still do it; the probe is undone at once.
    let restarts = features.restarts() || {
        let probe = dialogue.ask_all(&["REST 1", "REST 0"]).await?;
        probe.iter().all(|reply| reply.code() == 350)
    };
    let home = match pwd.code() {
        257 => RemotePath::root().resolve(quoted(pwd.first_text()))?,
        _ => RemotePath::root(),
    };
    let unix = syst.words().to_ascii_uppercase().contains("UNIX");
    let (in_order, telnet) = (features.keeps_order(greeting), features.takes_telnet(greeting));
    Ok((Server { features, restarts, unix, home, in_order, telnet }, binary))
}

/// Reads the path out of a 257: in quotes, with quotes inside doubled (RFC 959, appendix II).
fn quoted(text: &[u8]) -> Vec<u8> {
    let Some(start) = text.iter().position(|&b| b == b'"') else {
        return text.split(|&b| b == b' ').next().unwrap_or_default().to_vec();
    };
    let mut path = Vec::new();
    let mut rest = text[start + 1..].iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte == b'"' && rest.next_if_eq(&b'"').is_none() {
            break;
        }
        path.push(byte);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_working_directory() {
        assert_eq!(quoted(b"\"/a b\" is the current directory"), b"/a b");
        assert_eq!(quoted(b"\"/say \"\"hi\"\"\" is it"), b"/say \"hi\"");
        assert_eq!(quoted(b"/plain is it"), b"/plain");
    }

    #[test]
    fn a_password_from_the_environment_is_not_given_to_anonymous_servers() {
        let options = ConnectOptions { password: Some(Secret::new("mine")), ..ConnectOptions::default() };
        let password = |url: &str| {
            let login = Login::new(&Endpoint::parse(url).unwrap(), &options);
            login.password.try_lock().unwrap().clone().map(|secret| secret.expose().to_owned())
        };
        assert_eq!(password("ftp://h/").as_deref(), Some(ANONYMOUS_PASSWORD));
        assert_eq!(password("ftp://me@h/").as_deref(), Some("mine"));
        assert_eq!(password("ftp://me:url@h/").as_deref(), Some("url"));
    }
}
