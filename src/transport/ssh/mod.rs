//! SSH engines: three ways to get a byte stream to a server's SFTP subsystem.
//!
//! An engine connects, checks the host key, logs in and opens channels; it knows nothing of SFTP.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{ConnectOptions, SshEngine};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};

/// Takes what arrives on a channel. Called from the engine's own task or thread, in order; must not block.
pub trait Inbound: Send + Sync {
    /// Takes the next bytes.
    fn data(&self, bytes: Bytes);

    /// Is told once that nothing more will come, and why.
    fn closed(&self, reason: Error);
}

/// Sends on a channel.
#[async_trait]
pub trait Outbound: Send + Sync {
    /// Sends bytes in order; waits while the peer's window is full. Cancel-safe: all of them are sent or none.
    async fn send(&self, bytes: Bytes) -> Result<()>;
}

/// One SSH connection, logged in. Dropping it closes it without blocking.
#[async_trait]
pub trait Session: Send + Sync + Debug {
    /// Starts a subsystem on a new channel.
    async fn subsystem(&self, name: &str, inbound: Arc<dyn Inbound>) -> Result<Box<dyn Outbound>>;

    /// Runs a command and returns its standard output, at most 1 MiB; a status other than 0 is an error.
    async fn exec(&self, command: &[u8]) -> Result<Vec<u8>>;

    /// Says goodbye.
    async fn close(&self);
}

/// Connects, checks the host key and logs in, with the engine that the options name.
///
/// # Errors
/// `ConnectionRefused`, `Timeout`, `HostKey`, `AuthFailed`, `Protocol`, `Unsupported`.
pub async fn connect(_endpoint: &Endpoint, options: &ConnectOptions) -> Result<Arc<dyn Session>> {
    match options.ssh_engine {
        SshEngine::Russh | SshEngine::Libssh2 | SshEngine::Openssh => {
            Err(Error::new(ErrorKind::Unsupported, "not built yet"))
        }
    }
}
