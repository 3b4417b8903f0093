//! One client's session: the greeting, the login, the settings, and where every command goes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Site;
use super::command::{Command, Hidden, parse};
use super::control::Control;
use super::data::Plan;
use super::listing::Facts;
use crate::serve::FtpTls;
use crate::serve::gate::Verdict;
use crate::serve::root::Root;
use crate::transport::{Algorithm, RemotePath};

/// Whether the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Quit,
}

/// The state of one control connection.
#[allow(clippy::struct_excessive_bools)] // the settings of RFC 959 and 4217 are independent of each other
pub(super) struct Session {
    pub(super) site: Arc<Site>,
    pub(super) control: Control,
    pub(super) here: IpAddr,
    pub(super) peer: IpAddr,
    user: Option<Vec<u8>>,
    logged_in: bool,
    /// Tells that it has logged in.
    welcomed: CancellationToken,
    pub(super) directory: RemotePath,
    pub(super) ascii: bool,
    /// From REST, for the next transfer.
    pub(super) restart: u64,
    /// From RANG, first and last byte, for the next RETR or HASH.
    pub(super) range: Option<(u64, u64)>,
    pub(super) rename_from: Option<RemotePath>,
    pub(super) plan: Plan,
    passive_only: bool,
    protection_set_up: bool,
    pub(super) private: bool,
    pub(super) facts: Facts,
    pub(super) hash: Algorithm,
    /// A line that came during a transfer.
    pub(super) waiting: Option<Vec<u8>>,
}

/// Runs a session to its end.
pub(super) async fn run(
    site: Arc<Site>,
    stream: TcpStream,
    peer: SocketAddr,
    welcomed: CancellationToken,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let here = stream.local_addr()?.ip().to_canonical();
    let mut session = Session {
        control: Control::new(stream),
        here,
        peer: peer.ip().to_canonical(),
        user: None,
        logged_in: false,
        welcomed,
        directory: RemotePath::root(),
        ascii: true,
        restart: 0,
        range: None,
        rename_from: None,
        plan: Plan::None,
        passive_only: false,
        protection_set_up: site.mode == FtpTls::Implicit,
        private: site.mode == FtpTls::Implicit,
        facts: Facts::ALL,
        hash: Algorithm::Sha256,
        waiting: None,
        site,
    };
    if let (FtpTls::Implicit, Some(config)) = (session.site.mode, session.site.tls.clone()) {
        session.control.start_tls(config).await?;
    }
    session.control.reply(220, "haul at your service.").await?;
    let result = session.commands().await;
    session.control.close().await;
    result
}

impl Session {
    async fn commands(&mut self) -> io::Result<()> {
        loop {
            let line = match self.waiting.take() {
                Some(line) => line,
                None => match timeout(self.site.idle, self.control.next_line()).await {
                    Ok(Ok(Some(line))) => line,
                    Ok(Ok(None)) => return Ok(()),
                    Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                        return self.control.reply(500, "The line is too long. Goodbye.").await;
                    }
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return self.control.reply(421, "Nothing heard for too long. Goodbye.").await,
                },
            };
            let flow = match parse(&line) {
                Ok(command) => self.obey(command).await?,
                Err((code, text)) => self.answer(code, text).await?,
            };
            if flow == Flow::Quit {
                return Ok(());
            }
        }
    }

    /// Sends a reply; the session goes on.
    pub(super) async fn answer(&mut self, code: u16, text: impl AsRef<[u8]>) -> io::Result<Flow> {
        self.control.reply(code, text).await.map(|()| Flow::Continue)
    }

    /// Runs a call that blocks.
    pub(super) async fn block<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Root) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let root = self.site.root.clone();
        spawn_blocking(move || call(&root)).await.map_err(io::Error::other)?
    }

    /// Follows a path from the working directory.
    pub(super) fn resolve(&self, path: &[u8]) -> RemotePath {
        // Only a NUL is refused there, and the parser took care of that.
        self.directory.resolve(path).unwrap_or_else(|_| RemotePath::root())
    }

    async fn obey(&mut self, command: Command) -> io::Result<Flow> {
        match command {
            Command::Quit => return self.answer(221, "Goodbye.").await.map(|_| Flow::Quit),
            Command::User(name) => return self.user(name).await,
            Command::Pass(password) => return self.pass(password).await,
            Command::AuthTls => return self.auth_tls().await,
            Command::Features => return self.features().await,
            Command::ProtectionBuffer => return self.protection_buffer().await,
            Command::Protection { private } => return self.protection(private).await,
            Command::ClearControl => return self.answer(533, "The control connection stays encrypted.").await,
            Command::Noop => return self.answer(200, "Still here.").await,
            Command::System => return self.answer(215, "UNIX Type: L8").await,
            Command::Account => return self.answer(202, "No account is needed.").await,
            Command::Help => return self.help().await,
            Command::Options(argument) => return self.options(&argument).await,
            _ if !self.logged_in => return self.answer(530, "Log in with USER and PASS.").await,
            _ => {}
        }
        // RNFR holds for the very next command only.
        let rename_from = self.rename_from.take();
        match command {
            Command::Type { ascii } => {
                self.ascii = ascii;
                self.answer(200, if ascii { "Type A it is." } else { "Type I it is." }).await
            }
            Command::Fixed(text) => self.answer(200, text).await,
            Command::Passive | Command::ExtendedPassive if self.site.mode.is_required() && !self.private => {
                self.answer(521, "Data connections must be private: PROT P.").await
            }
            Command::Passive => self.passive().await,
            Command::ExtendedPassive => self.extended_passive().await,
            Command::ExtendedPassiveOnly => {
                self.passive_only = true;
                self.answer(200, "EPSV it will be.").await
            }
            Command::Active(address) => self.active(address).await,
            Command::Restart(offset) => {
                self.restart = offset;
                self.answer(350, format!("The next transfer starts at {offset}.")).await
            }
            Command::Range(first, last) => {
                self.range = Some((first, last)).filter(|_| first <= last);
                self.answer(350, "So be the range.").await
            }
            Command::Abort => self.answer(226, "There is nothing to abort.").await,
            Command::Status => self.status().await,
            Command::Allocate => self.answer(202, "No need for that.").await,
            Command::SiteHelp => self.answer(214, "CHMOD UTIME HELP").await,
            Command::RenameTo(path) => self.rename_to(rename_from, &path).await,
            other => self.files(other).await,
        }
    }

    async fn user(&mut self, name: Vec<u8>) -> io::Result<Flow> {
        if self.site.mode.is_required() && !self.control.is_tls() {
            return self.answer(530, "Use AUTH TLS first.").await;
        }
        self.logged_in = false;
        self.user = Some(name);
        self.answer(331, "Now the password.").await
    }

    async fn pass(&mut self, password: Hidden) -> io::Result<Flow> {
        let Some(user) = self.user.take() else { return self.answer(503, "USER comes first.").await };
        match self.site.gate.judge(self.peer, &user, &password.0).await {
            Verdict::Welcome => {
                self.logged_in = true;
                self.welcomed.cancel();
                self.answer(230, "Welcome.").await
            }
            Verdict::Wrong => self.answer(530, "Wrong user or password.").await,
            Verdict::LockedOut => {
                self.answer(421, "Too many wrong passwords, try again later.").await.map(|_| Flow::Quit)
            }
        }
    }

    async fn auth_tls(&mut self) -> io::Result<Flow> {
        let Some(config) = self.site.tls.clone() else { return self.answer(502, "TLS is off.").await };
        if self.control.is_tls() {
            return self.answer(503, "This is TLS already.").await;
        }
        // Whatever came in the open behind AUTH TLS would be taken for what came encrypted.
        if self.control.has_more() {
            return self.answer(503, "Bytes came before TLS began. Goodbye.").await.map(|_| Flow::Quit);
        }
        self.answer(234, "Go ahead.").await?;
        self.control.start_tls(config).await?;
        // RFC 4217, section 4.3: what was known of the user is forgotten.
        (self.user, self.logged_in, self.private, self.protection_set_up) = (None, false, false, false);
        Ok(Flow::Continue)
    }

    async fn protection_buffer(&mut self) -> io::Result<Flow> {
        if !self.control.is_tls() {
            return self.answer(503, "AUTH comes first.").await;
        }
        self.protection_set_up = true;
        self.answer(200, "PBSZ=0").await
    }

    async fn protection(&mut self, private: bool) -> io::Result<Flow> {
        if !self.control.is_tls() || !self.protection_set_up {
            return self.answer(503, "AUTH and PBSZ come first.").await;
        }
        if !private && self.site.mode.is_required() {
            return self.answer(534, "Data connections must be private.").await;
        }
        self.private = private;
        self.answer(200, if private { "Private it is." } else { "Clear it is." }).await
    }

    async fn features(&mut self) -> io::Result<Flow> {
        let hashes = [Algorithm::Sha256, Algorithm::Sha512, Algorithm::Sha1, Algorithm::Md5, Algorithm::Crc32];
        let hashes: Vec<_> =
            hashes.map(|a| format!("{}{}", a.name().to_uppercase(), if a == self.hash { "*" } else { "" })).into();
        let mut lines: Vec<String> = [
            "EPRT",
            "EPSV",
            "MDTM",
            "MFMT",
            "PASV",
            "REST STREAM",
            "RANG STREAM",
            "SIZE",
            "TVFS",
            "UTF8",
            "XCRC",
            "XMD5",
            "XSHA1",
            "XSHA256",
            "XSHA512",
            "SITE CHMOD",
            "SITE UTIME",
        ]
        .map(String::from)
        .into();
        lines.push(format!("MLST {}", self.facts.feature()));
        lines.push(format!("HASH {}", hashes.join(";")));
        if self.site.tls.is_some() {
            lines.extend(["AUTH TLS", "PBSZ", "PROT"].map(String::from));
        }
        let lines: Vec<_> = lines.into_iter().map(String::into_bytes).collect();
        self.control.reply_lines(211, "What there is:", &lines, "End").await.map(|()| Flow::Continue)
    }

    async fn help(&mut self) -> io::Result<Flow> {
        let lines = [
            "USER PASS ACCT QUIT NOOP SYST FEAT OPTS HELP STAT AUTH PBSZ PROT",
            "PWD CWD CDUP MKD RMD DELE RNFR RNTO SIZE MDTM MFMT SITE HASH XCRC XMD5 XSHA1 XSHA256 XSHA512",
            "TYPE MODE STRU PASV EPSV PORT EPRT REST RANG ALLO RETR STOR APPE ABOR LIST NLST MLSD MLST",
        ]
        .map(|line| line.as_bytes().to_vec());
        self.control.reply_lines(214, "The commands:", &lines, "End").await.map(|()| Flow::Continue)
    }

    async fn options(&mut self, argument: &[u8]) -> io::Result<Flow> {
        let text = String::from_utf8_lossy(argument).to_uppercase();
        let mut words = text.split_whitespace();
        match (words.next(), words.next()) {
            // Names are bytes: whatever encoding the client has in mind comes back as it was sent.
            (Some("UTF8"), None | Some("ON" | "OFF")) => self.answer(200, "Names are bytes here.").await,
            (Some("MLST"), wanted) => {
                self.facts = Facts::parse(wanted.unwrap_or_default().as_bytes());
                self.answer(200, format!("MLST OPTS {}", self.facts.names())).await
            }
            (Some("HASH"), None) => self.answer(200, self.hash.name().to_uppercase()).await,
            (Some("HASH"), Some(name)) => {
                let found = crate::serve::digest::ALGORITHMS.into_iter().find(|a| a.name().eq_ignore_ascii_case(name));
                let Some(hash) = found else { return self.answer(504, "No such algorithm.").await };
                self.hash = hash;
                self.answer(200, hash.name().to_uppercase()).await
            }
            _ => self.answer(501, "No such option.").await,
        }
    }

    async fn status(&mut self) -> io::Result<Flow> {
        let lines = [
            format!("Directory \"{}\"", self.directory),
            format!("Type {}, structure F, mode S", if self.ascii { "A" } else { "I" }),
            format!("Control connection {}", if self.control.is_tls() { "encrypted" } else { "in the open" }),
            format!("Data connections {}", if self.private { "encrypted" } else { "in the open" }),
        ]
        .map(String::into_bytes);
        self.control.reply_lines(211, "How things stand:", &lines, "End").await.map(|()| Flow::Continue)
    }

    async fn passive(&mut self) -> io::Result<Flow> {
        if self.passive_only {
            return self.answer(503, "After EPSV ALL there is only EPSV.").await;
        }
        let IpAddr::V4(here) = self.here else { return self.answer(425, "Use EPSV over IPv6.").await };
        let port = match self.listen().await {
            Ok(port) => port,
            Err(error) => return self.answer(425, format!("No port: {error}.")).await,
        };
        let [a, b, c, d] = here.octets();
        let [high, low] = port.to_be_bytes();
        self.answer(227, format!("Entering Passive Mode ({a},{b},{c},{d},{high},{low}).")).await
    }

    async fn extended_passive(&mut self) -> io::Result<Flow> {
        match self.listen().await {
            Ok(port) => self.answer(229, format!("Entering Extended Passive Mode (|||{port}|)")).await,
            Err(error) => self.answer(425, format!("No port: {error}.")).await,
        }
    }

    async fn listen(&mut self) -> io::Result<u16> {
        let listener = TcpListener::bind(SocketAddr::new(self.here, 0)).await?;
        let port = listener.local_addr()?.port();
        self.plan = Plan::Passive(listener);
        Ok(port)
    }

    async fn active(&mut self, address: SocketAddr) -> io::Result<Flow> {
        if self.passive_only {
            return self.answer(503, "After EPSV ALL there is only EPSV.").await;
        }
        if self.site.mode.is_required() && !self.private {
            return self.answer(521, "Data connections must be private: PROT P.").await;
        }
        // Anything else would let a client make this server knock at others' doors (RFC 2577).
        if address.ip().to_canonical() != self.peer || address.port() < 1024 {
            return self.answer(504, "Only your own address, and no port below 1024.").await;
        }
        self.plan = Plan::Active(address);
        self.answer(200, "So be it.").await
    }
}
