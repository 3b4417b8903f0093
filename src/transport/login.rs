//! How to connect and log in: options, secrets, and the person who may be asked.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::dial::{AddressFamily, Proxies};
use super::ftp_options::FtpOptions;
use crate::endpoint::Scheme;

/// A password or passphrase: never shown by `Debug`, wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Returns the secret itself; for the call that sends it, and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// One user at one server, named as the user of this program names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The protocol.
    pub scheme: Scheme,
    /// Who logs in, wherever that name comes from.
    pub user: String,
    /// The host as it was typed.
    pub host: String,
    /// The port, if one was typed.
    pub port: Option<u16>,
}

/// Passwords that are kept for a login that needs one: a keyring, a `.netrc`.
///
/// Asked only when nothing else is left but to ask a person: after the URL, the options and, for SFTP, the keys.
pub trait Passwords: Send + Sync + fmt::Debug {
    /// Returns the password of this account and no other, if it is kept. May block: call it from `spawn_blocking`.
    fn password(&self, account: &Account) -> Option<Secret>;

    /// Is told the password that the server took, wherever it came from.
    fn accepted(&self, _account: &Account, _password: &Secret) {}

    /// Is told that the server refused the password that was kept.
    fn refused(&self, _account: &Account) {}
}

/// No password is kept.
#[derive(Debug, Clone, Copy)]
pub struct NoPasswords;

impl Passwords for NoPasswords {
    fn password(&self, _: &Account) -> Option<Secret> {
        None
    }
}

/// Asks the person at the terminal. Calls may block: make them from `spawn_blocking`. `None`: nobody is there.
pub trait Prompt: Send + Sync + fmt::Debug {
    /// Asks for a secret without echo.
    fn secret(&self, question: &str) -> Option<Secret>;

    /// Asks for a line with echo (keyboard-interactive).
    fn line(&self, question: &str) -> Option<String>;

    /// Asks a yes-or-no question.
    fn confirm(&self, question: &str) -> Option<bool>;

    /// Shows a warning or a server's banner; the text is already escaped.
    fn notice(&self, text: &str);

    /// Returns whether somebody could answer at all.
    fn is_anybody_there(&self) -> bool {
        true
    }
}

/// A prompt with nobody behind it.
#[derive(Debug, Clone, Copy)]
pub struct NoPrompt;

impl Prompt for NoPrompt {
    fn secret(&self, _: &str) -> Option<Secret> {
        None
    }

    fn line(&self, _: &str) -> Option<String> {
        None
    }

    fn confirm(&self, _: &str) -> Option<bool> {
        None
    }

    fn notice(&self, text: &str) {
        tracing::warn!("{text}");
    }

    fn is_anybody_there(&self) -> bool {
        false
    }
}

/// What to do about a host key that is not on file. A changed or revoked key is always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostKeyPolicy {
    /// Ask; refuse where nobody can answer.
    #[default]
    Ask,
    /// Refuse.
    Strict,
    /// Accept and write it down.
    AcceptNew,
}

/// Which SSH implementation carries SFTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SshEngine {
    /// russh: memory-safe and fastest.
    #[default]
    Russh,
    /// libssh2, for servers that the first can't talk to.
    Libssh2,
    /// The system's `ssh` program, for everything its configuration can do.
    Openssh,
}

/// Which configuration of OpenSSH is heeded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SshConfig {
    /// `~/.ssh/config` and `/etc/ssh/ssh_config`.
    #[default]
    Usual,
    /// None.
    None,
    /// This file and no other.
    File(PathBuf),
}

/// Whether an `ftp://` control connection is upgraded to TLS. `ftpes://` and `ftps://` always use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// Never.
    Off,
    /// When the server offers it.
    #[default]
    Allow,
    /// Always; fail where the server doesn't.
    Require,
}

/// How to connect and log in; the same for every connection that a transport opens.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The longest wait without progress in any phase.
    pub timeout: Duration,
    /// Through which proxies hosts are reached: control, data and SSH connections, the first of several servers on the
    /// way. By default through none: [`Proxies::from_environment`] heeds `ALL_PROXY` and `NO_PROXY`.
    pub proxies: Proxies,
    /// Which addresses are tried, those of a proxy too; `None`: what the configuration of OpenSSH says, else all.
    pub family: Option<AddressFamily>,
    /// The address of this machine that connections start from.
    pub bind: Option<IpAddr>,
    /// The password from file or environment; one in the URL comes first.
    pub password: Option<Secret>,
    /// Where else a password may be.
    pub passwords: Arc<dyn Passwords>,
    /// Whom to ask.
    pub prompt: Arc<dyn Prompt>,
    /// Which configuration of OpenSSH is heeded, where these options and the URL say nothing.
    pub ssh_config: SshConfig,
    /// SSH private keys to try, in order, and no others; empty: those of the configuration, else the usual files of
    /// `~/.ssh`.
    pub identities: Vec<PathBuf>,
    /// The socket of the ssh-agent whose keys to try as well; by default that of `SSH_AUTH_SOCK`.
    pub agent: Option<PathBuf>,
    /// The known_hosts file to read and write instead of `~/.ssh/known_hosts` (and instead of the system's).
    pub known_hosts: Option<PathBuf>,
    /// What to do about unknown host keys; `None`: what the configuration says, else [`HostKeyPolicy::Ask`].
    pub host_key: Option<HostKeyPolicy>,
    /// Which SSH implementation to use.
    pub ssh_engine: SshEngine,
    /// TLS for `ftp://`.
    pub tls: TlsMode,
    /// A PEM file of certificate authorities to trust instead of the system's.
    pub tls_ca: Option<PathBuf>,
    /// What only FTP has.
    pub ftp: FtpOptions,
    /// The most connections to open to the endpoint at once; `None`: the backend's own choice.
    pub max_connections: Option<usize>,
    /// How many connections to open right at the start, all at once: as many as the endpoint was seen to be worth.
    pub connections: usize,
    /// Leave holes for runs of zeros in files that are written on this machine.
    pub sparse: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            proxies: Proxies::default(),
            family: None,
            bind: None,
            password: None,
            passwords: Arc::new(NoPasswords),
            prompt: Arc::new(NoPrompt),
            ssh_config: SshConfig::default(),
            identities: Vec::new(),
            agent: std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from),
            known_hosts: None,
            host_key: None,
            ssh_engine: SshEngine::default(),
            tls: TlsMode::default(),
            tls_ca: None,
            ftp: FtpOptions::default(),
            max_connections: None,
            connections: 1,
            sparse: false,
        }
    }
}
