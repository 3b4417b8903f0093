//! Whom to reach and how: the URL, the options, and what `~/.ssh/config` has to say where they say nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::auth::local_user;
use super::config::{Agent, HostConfig, Typed, read};
use super::known_hosts::Files;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::{ConnectOptions, HostKeyPolicy};

/// What the engines that log in themselves need to know.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
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

impl Target {
    /// Puts together what is known; tells once what the configuration wants and these engines can't do.
    ///
    /// # Errors
    /// `Usage` when the user's name isn't known or the configuration can't be read; `Unsupported` for a jump or proxy.
    pub(super) async fn find(endpoint: &Endpoint, options: &ConnectOptions) -> Result<Self> {
        let (endpoint, from, prompt) = (endpoint.clone(), options.ssh_config.clone(), Arc::clone(&options.prompt));
        let options = options.clone();
        let found = spawn_blocking(move || {
            let local_user = local_user().unwrap_or_default();
            let (host, user) = (endpoint.host.as_str(), endpoint.user.as_deref());
            let config = read(Typed { host, port: endpoint.port, user, local_user: &local_user }, &from)?;
            for (what, place) in &config.lacking {
                prompt.notice(&format!("{place}: {what} is heeded by --ssh-engine openssh only"));
            }
            Self::new(config, &options)
        });
        found.await.map_err(|e| Error::new(ErrorKind::Other, "read the SSH configuration").with_source(e))?
    }

    fn new(config: HostConfig, options: &ConnectOptions) -> Result<Self> {
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
        let known_hosts = match &options.known_hosts {
            Some(file) => Files::only(file),
            None => Files::of(config.known_hosts, config.system_known_hosts),
        };
        Ok(Self {
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
