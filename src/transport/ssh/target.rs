//! Whom to reach and how: the URL, the options, and what `~/.ssh/config` has to say where they say nothing.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::algorithms::Offer;
use super::known_hosts::{Files, Names};
use super::{libssh2, russh_config};
use crate::endpoint::{Endpoint, Scheme};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::ssh_config::{Agent, HostConfig, Typed, read};
pub(super) use crate::transport::ssh_config::{Method, Way};
use crate::transport::{Account, AddressFamily, ConnectOptions, HostKeyPolicy, Secret, SshEngine, escape};

/// What the engines that log in themselves need to know.
#[derive(Debug)]
pub(super) struct Target {
    /// The host as it was typed.
    pub(super) name: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    /// The password of the URL.
    pub(super) password: Option<Secret>,
    /// Whose password may be kept somewhere.
    pub(super) account: Account,
    pub(super) way: Way,
    /// How many targets lie behind this one.
    pub(super) depth: usize,
    /// Ways to log in, in the order to try them.
    pub(super) methods: Vec<Method>,
    /// How often a person is asked for a password.
    pub(super) password_prompts: usize,
    pub(super) identities: Identities,
    pub(super) offer: Offer,
    pub(super) alive: Alive,
    /// The socket of the agent.
    pub(super) agent: Option<PathBuf>,
    /// Host and port that the host's key is filed under.
    pub(super) filed_as: (String, u16),
    pub(super) known_hosts: Files,
    pub(super) host_key: HostKeyPolicy,
    pub(super) connect_timeout: Duration,
    /// Which of the host's addresses count.
    pub(super) family: AddressFamily,
    /// The address here that connections start from.
    pub(super) bind_address: Option<IpAddr>,
}

/// Key files to try.
#[derive(Debug, Clone, Default)]
pub(super) struct Identities {
    /// In order; empty: the usual ones.
    pub(super) files: Vec<PathBuf>,
    /// The user named them for this run: one that can't be read is an error.
    pub(super) named: bool,
    /// The agent's keys count only if they are among them.
    pub(super) only: bool,
    /// Certificates for them; none: those that lie beside the keys.
    pub(super) certificates: Vec<PathBuf>,
}

/// How a server that fell silent is found out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alive {
    /// Silence after which it is asked for a sign of life.
    pub(super) interval: Duration,
    /// Silence that counts as death.
    pub(super) silence: Duration,
}

impl Alive {
    /// The timeout is the longest that we wait in any case; the configuration can only make it shorter.
    fn new(interval: Option<Duration>, count: u32, timeout: Duration) -> Self {
        let usual = timeout / KEEPALIVES;
        let Some(interval) = interval else { return Self { interval: usual, silence: timeout } };
        let silence = if count == 0 { timeout } else { interval.saturating_mul(count).min(timeout) };
        Self { interval: interval.min(usual), silence }
    }
}

/// Questions for a sign of life per timeout: a live server has said something well before its silence counts as death.
pub(super) const KEEPALIVES: u32 = 3;

/// How many servers may lie on the way.
const LONGEST_WAY: usize = 8;

/// A server, as `ProxyJump` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hop {
    user: Option<String>,
    host: String,
    port: Option<u16>,
}

impl Hop {
    /// Reads `[user@]host[:port]` or `ssh://[user@]host[:port]`.
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("ssh://").map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
        let (user, place) = match text.rsplit_once('@') {
            Some((user, place)) => (Some(Some(user.to_owned()).filter(|user| !user.is_empty())?), place),
            None => (None, text),
        };
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':')?)),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            Some(port) => Some(port.parse().ok().filter(|&port| port > 0)?),
            None => None,
        };
        let is_host = !host.is_empty() && !host.starts_with('-') && !host.contains(char::is_whitespace);
        is_host.then(|| Self { user, host: host.to_owned(), port })
    }
}

impl Target {
    /// Puts together what is known; tells once what the configuration wants and these engines can't do.
    ///
    /// # Errors
    /// `Usage` when the user's name isn't known or the configuration can't be read.
    pub(super) async fn find(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Self> {
        let Endpoint { user, host, port, password, .. } = endpoint.clone();
        Self::look_up(Hop { user, host, port }, password, options, 0).await
    }

    /// The same for a server on the way, as `ProxyJump` names it.
    ///
    /// # Errors
    /// The same, and `Usage` for what names no server and for a way without an end.
    pub(super) async fn of_hop(text: &str, options: &ConnectOptions, depth: usize) -> Result<Self> {
        if depth > LONGEST_WAY {
            return Err(Error::new(ErrorKind::Usage, "ProxyJump leads through more and more servers").at(text));
        }
        let hop = Hop::parse(text)
            .ok_or_else(|| Error::new(ErrorKind::Usage, "ProxyJump wants [user@]host[:port]").at(text))?;
        Self::look_up(hop, None, options, depth).await
    }

    async fn look_up(hop: Hop, password: Option<Secret>, options: &ConnectOptions, depth: usize) -> Result<Self> {
        let options = options.clone();
        let found = spawn_blocking(move || {
            let local_user = local_user().unwrap_or_default();
            let Hop { user, host, port } = hop;
            let typed = Typed { host: &host, port, user: user.as_deref(), local_user: &local_user };
            let config = read(typed, &options.ssh_config)?;
            for (what, place) in &config.slips {
                options.prompt.notice(&format!("{place}: there is no keyword \"{}\"", escape(what.as_bytes())));
            }
            for (what, place) in &config.lacking {
                if what == "RevokedHostKeys" {
                    // Going on could mean to trust one of them.
                    return Err(Error::new(ErrorKind::Usage, "RevokedHostKeys can't be read by this engine")
                        .at(place)
                        .with_hint("use --ssh-engine openssh, or mark the keys @revoked in known_hosts"));
                }
                options.prompt.notice(&format!("{place}: {what} is heeded by --ssh-engine openssh only"));
            }
            // Whatever the last server is reached by, those on the way are by russh.
            let has = match options.ssh_engine {
                SshEngine::Libssh2 if depth == 0 => libssh2::repertoires()?,
                _ => russh_config::repertoires(),
            };
            let offer = Offer::new(&config.algorithms, &has, &*options.prompt)?;
            let target = Self::new(host, port, config, offer, &options)?;
            Ok(Self { password, depth, ..target })
        });
        found.await.map_err(|e| Error::new(ErrorKind::Other, "read the SSH configuration").with_source(e))?
    }

    fn new(
        name: String,
        typed_port: Option<u16>,
        config: HostConfig,
        offer: Offer,
        options: &ConnectOptions,
    ) -> Result<Self> {
        if config.user.is_empty() {
            return Err(
                Error::new(ErrorKind::Usage, "no user name").with_hint("name the user in the URL: sftp://user@host/")
            );
        }
        let named = !options.identities.is_empty();
        let certificates = config.certificates;
        let identities = match named {
            true => Identities { files: options.identities.clone(), named, only: true, certificates },
            false => Identities { files: config.identities, named, only: config.identities_only, certificates },
        };
        let filing = if config.hash_known_hosts { Names::Hashed } else { Names::Readable };
        let known_hosts = match &options.known_hosts {
            Some(file) => Files::only(file, filing),
            None => Files::of(config.known_hosts, config.system_known_hosts, filing),
        };
        let bind_address = match (options.bind, config.bind_address) {
            (None, Some(text)) => Some(text.parse().map_err(|_| {
                Error::new(ErrorKind::Usage, format!("BindAddress is no address but {text:?}"))
                    .at(&name)
                    .with_hint("--ssh-engine openssh takes names as well")
            })?),
            (given, _) => given,
        };
        let (user, host) = (config.user.clone(), name.clone());
        Ok(Self {
            name,
            account: Account { scheme: Scheme::Sftp, user, host, port: typed_port },
            password: None,
            depth: 0,
            way: config.way,
            methods: config.methods,
            password_prompts: config.password_prompts,
            identities,
            offer,
            alive: Alive::new(config.alive_interval, config.alive_count, options.timeout),
            known_hosts,
            agent: match config.agent {
                Agent::Usual => options.agent.clone(),
                Agent::None => None,
                Agent::At(socket) => Some(socket),
            },
            host_key: options.host_key.or(config.host_key).unwrap_or_default(),
            connect_timeout: config.connect_timeout.map_or(options.timeout, |time| time.min(options.timeout)),
            family: options.family.unwrap_or(config.family),
            bind_address,
            filed_as: match config.alias {
                Some(alias) => (alias, 22),
                None => (config.host.clone(), config.port),
            },
            host: config.host,
            port: config.port,
            user: config.user,
        })
    }
}

/// Returns the name of the user here.
fn local_user() -> Option<String> {
    let mut from_environment = ["USER", "LOGNAME"].iter().filter_map(|name| std::env::var(name).ok());
    from_environment.find(|user| !user.is_empty()).or_else(account_name)
}

/// Looks the effective user up in the password file.
fn account_name() -> Option<String> {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_is_never_awaited_longer_than_the_timeout() {
        let of = |interval: Option<u64>, count| {
            let alive = Alive::new(interval.map(Duration::from_secs), count, Duration::from_secs(30));
            (alive.interval.as_secs(), alive.silence.as_secs())
        };
        assert_eq!(of(None, 3), (10, 30));
        assert_eq!(of(Some(5), 3), (5, 15));
        assert_eq!(of(Some(60), 3), (10, 30));
        assert_eq!(of(Some(5), 0), (5, 30));
    }

    #[test]
    fn reads_what_a_jump_names() {
        let hop =
            |user: Option<&str>, host: &str, port| Some(Hop { user: user.map(str::to_owned), host: host.into(), port });
        for (text, expected) in [
            ("gate", hop(None, "gate", None)),
            ("me@gate:2222", hop(Some("me"), "gate", Some(2222))),
            ("a@b@gate", hop(Some("a@b"), "gate", None)),
            ("ssh://me@gate:22/", hop(Some("me"), "gate", Some(22))),
            ("[::1]:2200", hop(None, "::1", Some(2200))),
            ("[::1]", hop(None, "::1", None)),
            ("", None),
            ("@gate", None),
            ("gate:", None),
            ("gate:0", None),
            ("gate:x", None),
            ("-oProxyCommand=x", None),
            ("a b", None),
        ] {
            assert_eq!(Hop::parse(text), expected, "{text}");
        }
    }
}
