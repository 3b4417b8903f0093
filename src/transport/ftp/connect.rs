//! Logging in: everything that is common to the connections of one transport, and how each of them is made.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Mutex, OnceCell};
use tokio::task::spawn_blocking;

use super::connection::Connection;
use super::dialogue::Dialogue;
use super::features::Features;
use super::port::DataCommand;
use super::reply::Reply;
use super::server::{Server, explore};
use super::tls::LoginTls;
use super::trust::{Trust, Versions};
use super::wire::{Stream, Wire};
use crate::endpoint::{Endpoint, Scheme};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::dial::{Dialled, Dialler};
use crate::transport::{Account, ConnectOptions, Secret, TlsMode, TlsVersion};

const ANONYMOUS: &str = "anonymous";
/// What an anonymous user gives for a password, by custom an address.
const ANONYMOUS_PASSWORD: &str = "haul@";
/// Keeps routers from forgetting a control connection that is silent during a long transfer.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// One user at one server: how to make another connection, and what the ones before have learnt.
pub(super) struct Login {
    host: String,
    port: u16,
    user: String,
    kept_as: Account,
    options: ConnectOptions,
    dialler: Arc<Dialler>,
    security: Security,
    trust: OnceCell<Arc<Trust>>,
    /// Kept once they are known, so that the user is asked once.
    password: Mutex<Option<Secret>>,
    account: Mutex<Option<Secret>>,
    server: OnceLock<Server>,
    /// Held by the first login, so that others wait with theirs until it is known whether the password is right.
    first: Mutex<()>,
    /// It comes from a keyring or netrc.
    password_was_kept: AtomicBool,
    /// The password was refused: who logs in beside the first one doesn't send it again.
    rejected: AtomicBool,
    /// The server takes no TLS, and the user allows that.
    plain: AtomicBool,
    /// The server has agreed to TLS.
    secured: AtomicBool,
    tls12: AtomicBool,
    /// The server has no TLS 1.2 to go back to.
    tls13_stays: AtomicBool,
    /// EPSV, or EPRT, doesn't work: PASV and PORT it is.
    classic: AtomicBool,
    extended_works: AtomicBool,
    data_works: AtomicBool,
    /// It agrees to REST, and then doesn't heed it.
    ignores_rest: AtomicBool,
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

impl Login {
    /// Gathers what logging in needs; no network.
    pub(super) fn new(endpoint: &Endpoint, options: &ConnectOptions) -> Self {
        let security = match (endpoint.scheme, options.tls) {
            (Scheme::Ftps, _) => Security::Implicit,
            (Scheme::Ftpes, _) | (_, TlsMode::Require) => Security::Explicit,
            (_, TlsMode::Allow) if options.ftp.demand_tls() => Security::Explicit,
            (_, TlsMode::Allow) => Security::Offered,
            (_, TlsMode::Off) => Security::Never,
        };
        let password = match endpoint.user.as_deref() {
            // A password meant for an account elsewhere is not for everybody's.
            None | Some(ANONYMOUS) => {
                Some(endpoint.password.clone().unwrap_or_else(|| Secret::new(ANONYMOUS_PASSWORD)))
            }
            Some(_) => endpoint.password.clone().or_else(|| options.password.clone()),
        };
        let user = endpoint.user.clone().unwrap_or_else(|| ANONYMOUS.to_owned());
        let (scheme, host, port) = (endpoint.scheme, endpoint.host.clone(), endpoint.port);
        Self {
            dialler: Arc::new(Dialler::new(options).kept_alive(KEEPALIVE)),
            kept_as: Account { scheme, user: user.clone(), host: host.clone(), port },
            host,
            port: endpoint.effective_port(),
            user,
            options: options.clone(),
            security,
            trust: OnceCell::new(),
            password: Mutex::new(password),
            account: Mutex::new(options.ftp.account.clone()),
            server: OnceLock::new(),
            first: Mutex::new(()),
            password_was_kept: AtomicBool::new(false),
            rejected: AtomicBool::new(false),
            plain: AtomicBool::new(false),
            secured: AtomicBool::new(false),
            tls12: AtomicBool::new(false),
            tls13_stays: AtomicBool::new(options.ftp.tls_min == TlsVersion::Tls13),
            classic: AtomicBool::new(false),
            extended_works: AtomicBool::new(false),
            data_works: AtomicBool::new(false),
            ignores_rest: AtomicBool::new(false),
            round_trip: AtomicU64::new(u64::MAX),
        }
    }

    /// Returns whether reading and writing may start at an offset.
    pub(super) fn restarts(&self) -> bool {
        self.server().is_some_and(|server| server.restarts) && !self.ignores_rest.load(Ordering::Relaxed)
    }

    /// Notes that the server agreed to an offset, and began elsewhere: it is not asked for one again.
    pub(super) fn note_ignores_rest(&self) {
        self.ignores_rest.store(true, Ordering::Relaxed);
    }

    /// Returns who is where, with TLS or without, however the URL spelled it.
    pub(super) fn place(&self) -> String {
        format!("ftp {}@{}:{} ", self.user, self.host.to_ascii_lowercase(), self.port)
    }

    /// Connects, secures and logs in.
    ///
    /// # Errors
    /// See [`super::connect`].
    pub(super) async fn open(self: &Arc<Self>) -> Result<Connection> {
        self.check().await?;
        let mut opened = self.try_open().await;
        if opened.as_ref().is_err_and(|e| e.kind() == ErrorKind::Tls) && self.tls12.swap(false, Ordering::Relaxed) {
            self.tls13_stays.store(true, Ordering::Relaxed);
            opened = self.try_open().await;
        }
        opened.map_err(|e| e.at(format!("{}:{}", self.host, self.port)))
    }

    /// Refuses, before anybody is called, what can't be sent or makes no sense.
    async fn check(&self) -> Result<()> {
        if self.security == Security::Never && self.options.ftp.demand_tls() {
            return Err(Error::new(ErrorKind::Usage, "TLS is off, and a pin or TLS 1.3 is demanded")
                .with_hint("leave away --tls off, or else --tls-pin and --tls-min"));
        }
        if self.is_active() && self.dialler.goes_through_proxy(&self.host)? {
            return Err(Error::new(ErrorKind::Usage, "in active mode no server can connect to us through a proxy")
                .with_hint("leave away --active, or go without the proxy: --proxy none"));
        }
        one_line(&self.user, "user name")?;
        for (known, what) in [(&self.password, "password"), (&self.account, "account")] {
            known.lock().await.as_ref().map_or(Ok(()), |secret| one_line(secret.expose(), what))?;
        }
        Ok(())
    }

    /// Returns what the first connection found out; `None` before it.
    pub(super) fn server(&self) -> Option<&Server> {
        self.server.get()
    }

    /// Returns the longest wait without progress.
    pub(super) fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// Returns how data connections are asked for.
    pub(super) fn data_command(&self) -> DataCommand {
        DataCommand { active: self.options.ftp.active, classic: self.classic.load(Ordering::Relaxed) }
    }

    /// Returns whether the server connects to us for data.
    pub(super) fn is_active(&self) -> bool {
        self.options.ftp.active.is_some()
    }

    /// Notes that a data connection was made.
    pub(super) fn note_data_works(&self) {
        self.data_works.store(true, Ordering::Relaxed);
        if !self.classic.load(Ordering::Relaxed) {
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

    /// Turns to PASV (PORT in active mode) for good, unless EPSV (EPRT) has worked before; returns whether it did.
    pub(super) fn give_up_extended(&self) -> bool {
        !self.extended_works.load(Ordering::Relaxed) && !self.classic.swap(true, Ordering::Relaxed)
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
        if self.options.ftp.tls_cert.is_some() || matches!(self.security, Security::Explicit | Security::Implicit) {
            // What is wrong with the user's files is said before anybody is called, who would wait for a passphrase.
            self.trust().await?;
        }
        let Dialled { tcp, route, took } = self.dialler.dial(&self.host, self.port).await?;
        self.round_trip.fetch_min(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let mut tls = None;
        let mut dialogue = if self.security == Security::Implicit {
            let implicit = tls.insert(self.new_tls().await?);
            Dialogue::new(implicit.connect(tcp).await?, route)
        } else {
            Dialogue::new(Wire::new(Stream::Plain(tcp), timeout), route)
        };
        let greeting = dialogue.greeting().await?;
        if self.wants_upgrade() && self.agree_on_tls(&mut dialogue).await? {
            dialogue = dialogue.start_tls(tls.insert(self.new_tls().await?)).await.map_err(|e| self.explain_tls(e))?;
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
            self.secured.store(true, Ordering::Relaxed);
            return Ok(true);
        }
        if self.security == Security::Explicit || reply.code() / 100 == 4 {
            return Err(reply
                .error("the server refuses TLS")
                .with_kind(if reply.code() / 100 == 4 { ErrorKind::Busy } else { ErrorKind::Tls })
                .with_hint("nothing secret was sent; ftp:// with --tls off goes without encryption"));
        }
        // A server that has not agreed once is not asked again; one that has may not fall back.
        if self.secured.load(Ordering::Relaxed) {
            return Err(reply.error("the server refuses TLS, which it took before").with_kind(ErrorKind::Tls));
        }
        if !self.plain.swap(true, Ordering::Relaxed) {
            self.options.prompt.notice(&format!(
                "{}: the server offers no TLS: {} and files go unencrypted (--tls require insists, --tls off says nothing)",
                self.host,
                if self.user == ANONYMOUS { "names" } else { "password" },
            ));
        }
        Ok(false)
    }

    async fn new_tls(&self) -> Result<LoginTls> {
        let versions = if self.tls12_only() { Versions::Tls12 } else { Versions::All };
        LoginTls::new(self.trust().await?, versions, self.timeout())
    }

    async fn trust(&self) -> Result<Arc<Trust>> {
        let read = || async {
            let (host, options) = (self.host.clone(), self.options.clone());
            let trust = spawn_blocking(move || Trust::new(&host, &options)).await;
            trust.map_err(|e| Error::new(ErrorKind::Other, "TLS").with_source(e))?.map(Arc::new)
        };
        self.trust.get_or_try_init(read).await.cloned()
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
        let hint = "give it with --password-file or in HAUL_PASSWORD, or keep it by haul login";
        self.ask_once(&self.password, "password", hint).await
    }

    /// Returns what is said to a server that asks for an account.
    pub(super) async fn account(&self) -> Result<Secret> {
        self.ask_once(&self.account, "account", "give the account that the server asks for with --ftp-account").await
    }

    /// Returns whether the server may ask for an account (532) before it takes a file.
    pub(super) fn may_need_account(&self) -> bool {
        self.options.ftp.account.is_some()
    }

    async fn ask_once(&self, known_by: &Mutex<Option<Secret>>, what: &'static str, hint: &str) -> Result<Secret> {
        // Held while asking, so that several connections don't ask at once.
        let mut known = known_by.lock().await;
        if let Some(known) = &*known {
            return Ok(known.clone());
        }
        let question = format!("{}{} for {} at {}: ", what[..1].to_uppercase(), &what[1..], self.user, self.host);
        let (prompt, passwords) = (Arc::clone(&self.options.prompt), Arc::clone(&self.options.passwords));
        // Only passwords are kept anywhere.
        let kept_as = std::ptr::eq(known_by, &raw const self.password).then(|| self.kept_as.clone());
        let find = move || match kept_as.and_then(|account| passwords.password(&account)) {
            Some(kept) => Some((kept, true)),
            None => prompt.secret(&question).map(|answer| (answer, false)),
        };
        let none = || Error::new(ErrorKind::AuthFailed, format!("no {what} for the login")).with_hint(hint);
        let (answer, was_kept) = spawn_blocking(find).await.ok().flatten().ok_or_else(none)?;
        one_line(answer.expose(), what)?;
        if was_kept {
            self.password_was_kept.store(true, Ordering::Relaxed);
        }
        Ok(known.insert(answer).clone())
    }

    async fn log_in(&self, dialogue: &mut Dialogue, greeting: &Reply) -> Result<()> {
        let first = self.first.lock().await;
        // Only the first is held up by another.
        let _first = self.server().is_none().then_some(first);
        let password = self.password().await?;
        if self.rejected.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::AuthFailed, "login: the password was refused before"));
        }
        let logged_in = dialogue.login(&self.user, &password, async || self.account().await).await;
        let is_first = self.server().is_none();
        if logged_in.as_ref().is_err_and(|e| e.kind() == ErrorKind::AuthFailed) && is_first {
            self.rejected.store(true, Ordering::Relaxed);
            if self.password_was_kept.load(Ordering::Relaxed) {
                self.options.passwords.refused(&self.kept_as);
            }
        }
        let was_sent = logged_in?;
        if is_first && was_sent {
            self.options.passwords.accepted(&self.kept_as, &password);
        }
        self.prepare(dialogue, greeting).await
    }

    /// Sets the connection up, finds out about the server when it is the first, and asks for the first port.
    async fn prepare(&self, dialogue: &mut Dialogue, greeting: &Reply) -> Result<()> {
        let port_line = self.data_command().line(dialogue)?;
        let binary = if self.server().is_some() {
            dialogue.ask_ahead(&["TYPE I"], &port_line).await?.pop()
        } else {
            let (server, binary) = explore(dialogue, greeting, &port_line).await?;
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

/// Refuses what would be more than one line: the rest could be another command (S8).
fn one_line(text: &str, what: &str) -> Result<()> {
    match text.contains(['\r', '\n', '\0']) {
        true => Err(Error::new(ErrorKind::Usage, format!("the {what} holds a line break or NUL"))),
        false => Ok(()),
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({}@{}:{}, {:?})", self.user, self.host, self.port, self.security)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_from_the_environment_is_not_given_to_anonymous_servers() {
        let options = ConnectOptions { password: Some(Secret::new("mine")), ..ConnectOptions::default() };
        let password = |url: &str| {
            let login = Login::new(&Endpoint::parse(url).unwrap(), &options);
            login.password.try_lock().unwrap().clone().map(|secret| secret.expose().to_owned())
        };
        assert_eq!(password("ftp://h/").as_deref(), Some(ANONYMOUS_PASSWORD));
        assert_eq!(password("ftp://anonymous@h/").as_deref(), Some(ANONYMOUS_PASSWORD));
        assert_eq!(password("ftp://me@h/").as_deref(), Some("mine"));
        assert_eq!(password("ftp://me:url@h/").as_deref(), Some("url"));
    }
}
