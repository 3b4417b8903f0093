//! Whom to reach and how: the URL, the options, and what `~/.ssh/config` has to say where they say nothing.

use std::path::PathBuf;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::auth::local_user;
use super::known_hosts::{Files, Names};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
pub(super) use crate::transport::ssh_config::Way;
use crate::transport::ssh_config::{Agent, HostConfig, Typed, read};
use crate::transport::{ConnectOptions, HostKeyPolicy, Secret};

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
    pub(super) way: Way,
    /// How many targets lie behind this one.
    pub(super) depth: usize,
    pub(super) identities: Identities,
    /// The socket of the agent.
    pub(super) agent: Option<PathBuf>,
    /// Host and port that the host's key is filed under.
    pub(super) filed_as: (String, u16),
    pub(super) known_hosts: Files,
    pub(super) host_key: HostKeyPolicy,
    pub(super) connect_timeout: Duration,
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
}

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
            for (what, place) in &config.lacking {
                options.prompt.notice(&format!("{place}: {what} is heeded by --ssh-engine openssh only"));
            }
            let target = Self::new(host, config, &options)?;
            Ok(Self { password, depth, ..target })
        });
        found.await.map_err(|e| Error::new(ErrorKind::Other, "read the SSH configuration").with_source(e))?
    }

    fn new(name: String, config: HostConfig, options: &ConnectOptions) -> Result<Self> {
        if config.user.is_empty() {
            return Err(
                Error::new(ErrorKind::Usage, "no user name").with_hint("name the user in the URL: sftp://user@host/")
            );
        }
        let named = !options.identities.is_empty();
        let identities = match named {
            true => Identities { files: options.identities.clone(), named, only: true },
            false => Identities { files: config.identities, named, only: config.identities_only },
        };
        let filing = if config.hash_known_hosts { Names::Hashed } else { Names::Readable };
        let known_hosts = match &options.known_hosts {
            Some(file) => Files::only(file, filing),
            None => Files::of(config.known_hosts, config.system_known_hosts, filing),
        };
        Ok(Self {
            name,
            password: None,
            depth: 0,
            way: config.way,
            identities,
            known_hosts,
            agent: match config.agent {
                Agent::Usual => options.agent.clone(),
                Agent::None => None,
                Agent::At(socket) => Some(socket),
            },
            host_key: options.host_key.or(config.host_key).unwrap_or_default(),
            connect_timeout: config.connect_timeout.map_or(options.timeout, |time| time.min(options.timeout)),
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

#[cfg(test)]
mod tests {
    use super::*;

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
