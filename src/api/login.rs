//! How builders connect, each login once.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Place;
use crate::transfer::{remembered_connections, usual_state_dir};
use crate::transport::{ConnectOptions, Transport, connect};

/// What all builders know about connecting.
#[derive(Debug, Clone, Default)]
pub(super) struct Login {
    pub(super) options: ConnectOptions,
    pub(super) state_dir: Option<PathBuf>,
}

/// Connections that are open, by login.
#[derive(Debug)]
pub(super) struct Connections<'a> {
    login: &'a Login,
    state_dir: &'a Path,
    open: Vec<(Endpoint, Arc<dyn Transport>)>,
}

impl Login {
    /// Returns where journals are kept: where the caller says, else where the command line keeps them.
    pub(super) fn state_dir(&self) -> Result<PathBuf> {
        match &self.state_dir {
            Some(named) => Ok(named.clone()),
            None => usual_state_dir().ok_or_else(|| {
                Error::new(ErrorKind::Usage, "found no home directory to keep journals in")
                    .with_hint("name a folder with state_dir")
            }),
        }
    }

    pub(super) fn connections<'a>(&'a self, state_dir: &'a Path) -> Connections<'a> {
        Connections { login: self, state_dir, open: Vec::new() }
    }
}

impl Connections<'_> {
    /// Reads a URL or path, and connects unless that was done.
    pub(super) async fn place(&mut self, operand: &OsStr) -> Result<Place> {
        let endpoint = Endpoint::parse(operand)?;
        if let Some((_, transport)) = self.open.iter().find(|(open, _)| open.same_login(&endpoint)) {
            return Ok(Place { transport: Arc::clone(transport), endpoint });
        }
        let connections = remembered_connections(self.state_dir, &endpoint).max(self.login.options.connections);
        let options = ConnectOptions { connections, ..self.login.options.clone() };
        let transport = connect(&endpoint, &options).await.map_err(|error| error.at(endpoint.origin()))?;
        self.open.push((endpoint.clone(), Arc::clone(&transport)));
        Ok(Place { transport, endpoint })
    }

    /// Says goodbye; what was done is done, whatever a server says to that.
    pub(super) async fn close(self) {
        for (endpoint, transport) in self.open {
            if let Err(error) = transport.close().await {
                tracing::debug!(endpoint = endpoint.origin(), "close: {}", error.chain());
            }
        }
    }
}

/// The methods by which every builder is told how to connect.
macro_rules! login_methods {
    ($($field:ident).+) => {
        /// Logs in with this password, wherever one is needed; one in a URL comes first.
        pub fn password(mut self, password: impl Into<String>) -> Self {
            self.$($field).+.options.password = Some(crate::transport::Secret::new(password));
            self
        }

        /// Tries this SSH key, and those of further calls, and no others.
        pub fn identity(mut self, file: impl Into<std::path::PathBuf>) -> Self {
            self.$($field).+.options.identities.push(file.into());
            self
        }

        /// Decides about SSH host keys that aren't known. By default they are refused, unless `~/.ssh/config` says
        /// otherwise: there is nobody to ask.
        pub fn host_key(mut self, policy: crate::transport::HostKeyPolicy) -> Self {
            self.$($field).+.options.host_key = Some(policy);
            self
        }

        /// Reads and writes known SSH host keys here instead of `~/.ssh/known_hosts`.
        pub fn known_hosts(mut self, file: impl Into<std::path::PathBuf>) -> Self {
            self.$($field).+.options.known_hosts = Some(file.into());
            self
        }

        /// Changes anything else about how to connect.
        pub fn connection(mut self, change: impl FnOnce(&mut crate::transport::ConnectOptions)) -> Self {
            change(&mut self.$($field).+.options);
            self
        }

        /// Keeps journals and what is remembered of hosts in this folder instead of `~/.local/state/haul`.
        pub fn state_dir(mut self, folder: impl Into<std::path::PathBuf>) -> Self {
            self.$($field).+.state_dir = Some(folder.into());
            self
        }
    };
}
pub(super) use login_methods;
