//! SSH engines: three ways to get a byte stream to a server's SFTP subsystem.
//!
//! An engine connects, checks the host key, logs in and opens channels; it knows nothing of SFTP. The engines `russh`
//! and `libssh2` share `ssh_config` and the files `target`, `algorithms`, `road`, `tcp`, `known_hosts`, and for the login
//! `auth`, `keys`, `identity`, `pem` and `questions`; the system's `ssh` has its own of all these.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use self::target::Target;
use super::{ConnectOptions, Prompt, SshEngine, escape};
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};

mod algorithms;
mod askpass;
mod auth;
mod authenticator;
mod cache;
mod channels;
mod filed_key;
mod host_certificate;
mod identity;
mod kept_password;
#[cfg(test)]
mod keygen_tests;
mod keys;
mod known_hosts;
mod libssh2;
mod libssh2_login;
mod openssh;
mod openssh_child;
mod openssh_dial;
mod openssh_target;
mod pem;
mod pump;
mod questions;
mod relay;
mod road;
mod russh;
mod russh_config;
mod russh_login;
mod stage;
mod target;
mod tcp;
mod terrapin;

pub use askpass::{askpass_main, use_askpass_program};
pub use cache::LoginCache;
pub(crate) use russh_config::ciphers;

#[cfg(fuzzing)]
pub(crate) mod fuzzing;

/// The most standard output that [`Session::exec`] returns.
const EXEC_OUTPUT: usize = 1 << 20;
/// How many timeouts a command may take: it may read a whole file before it says a word.
const EXEC_PATIENCE: u32 = 10;
/// An agent may ask its user to touch or confirm something.
const AGENT_PATIENCE: Duration = Duration::from_secs(120);
/// How many characters of a banner are shown.
const BANNER: usize = 8192;
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// How much of a command's standard error is kept for the error message.
const EXEC_STDERR: usize = 2048;

/// Takes what arrives on a channel. Called from the engine's own task or thread, in order; must not block.
pub trait Inbound: Send + Sync {
    /// Takes the next bytes.
    fn data(&self, bytes: &[u8]);

    /// Is told once that nothing more will come, and why.
    fn closed(&self, reason: Error);
}

/// Sends on a channel. Dropping it closes the channel.
#[async_trait]
pub trait Outbound: Send + Sync {
    /// Sends bytes in order; waits while the peer's window is full. Cancel-safe: all of them are sent or none.
    ///
    /// # Errors
    /// `ConnectionLost` once the connection or channel is gone; [`Inbound::closed`] is told why.
    async fn send(&self, bytes: Bytes) -> Result<()>;
}

/// One SSH connection, logged in. Dropping it cuts it off without blocking.
#[async_trait]
pub trait Session: Send + Sync + Debug {
    /// Starts a subsystem on a new channel.
    ///
    /// # Errors
    /// `TooManyConnections` when the server opens no further channel, `Unsupported` when it has no such subsystem
    /// (an engine that learns it only later tells [`Inbound::closed`]).
    async fn subsystem(&self, name: &str, inbound: Arc<dyn Inbound>) -> Result<Box<dyn Outbound>>;

    /// Runs a command and returns its standard output, at most 1 MiB; a status other than 0 is an error. It may take ten
    /// timeouts; who gives it less time drops the future.
    async fn exec(&self, command: &[u8]) -> Result<Vec<u8>>;

    /// Says goodbye.
    async fn close(&self);
}

/// Connects, checks the host key and logs in, with the engine that the options name.
///
/// Give the same `cache` to all connections of one endpoint: what a person was asked for is asked once. Connections may
/// be made at the same time; where somebody may have to be asked, their logins wait for the first.
///
/// # Errors
/// `ConnectionRefused`, `Timeout`, `HostKey`, `AuthFailed`, `TooManyConnections`, `Protocol`, `Unsupported`.
pub async fn connect(endpoint: &Endpoint, options: &ConnectOptions, cache: &LoginCache) -> Result<Arc<dyn Session>> {
    if options.ssh_engine == SshEngine::Openssh {
        return openssh::connect(endpoint, options, cache).await;
    }
    let target = cache.target(Target::find(endpoint, options)).await?;
    match options.ssh_engine {
        SshEngine::Libssh2 => libssh2::connect(target, options, cache).await,
        _ => Box::pin(russh::connect(target, options, cache)).await,
    }
}

/// Waits for one step of the conversation.
async fn within<T>(limit: Duration, step: &str, future: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(limit, future).await.map_err(|_| no_answer(step, limit))
}

fn no_answer(step: &str, limit: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("{step}: no answer for {} s", limit.as_secs_f32()))
}

/// Shows a server's banner, line by line harmless; once, however many connections there are.
async fn show_banner(cache: &LoginCache, prompt: &Arc<dyn Prompt>, banner: &str) {
    let all: Vec<_> = banner.trim_end().lines().map(|line| escape(line.trim_end().as_bytes())).collect();
    let all = all.join("\n");
    let text: String = all.chars().take(BANNER).collect();
    let text = if text.len() < all.len() { format!("{text} […]") } else { text };
    if text.is_empty() || !cache.is_new_banner(&text) {
        return;
    }
    let prompt = Arc::clone(prompt);
    let _ = tokio::task::spawn_blocking(move || prompt.notice(&text)).await;
}

/// Why a connection ended; the first reason stays.
#[derive(Default)]
struct Ended(Mutex<Option<(ErrorKind, String)>>);

impl Ended {
    fn set(&self, kind: ErrorKind, text: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((kind, text));
    }

    fn reason(&self) -> Error {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (kind, text) = ended.unwrap_or((ErrorKind::ConnectionLost, "the connection is closed".into()));
        Error::new(kind, text)
    }
}

/// Turns what a finished command left behind into its result.
fn exec_result(status: Option<u32>, stdout: Vec<u8>, stderr: &[u8]) -> Result<Vec<u8>> {
    match status {
        Some(0) => Ok(stdout),
        Some(127) => Err(Error::new(ErrorKind::Unsupported, "the server doesn't know this command")),
        _ => {
            let told = escape(String::from_utf8_lossy(stderr).trim().as_bytes());
            let ended = status.map_or_else(|| "without a status".into(), |status| format!("with status {status}"));
            let colon = if told.is_empty() { "" } else { ": " };
            Err(Error::new(ErrorKind::Other, format!("the command ended {ended}{colon}{told}")))
        }
    }
}

/// Adds to what is kept, up to `limit` bytes; returns whether all of it fitted.
fn keep_up_to(kept: &mut Vec<u8>, bytes: &[u8], limit: usize) -> bool {
    let room = limit.saturating_sub(kept.len()).min(bytes.len());
    kept.extend_from_slice(&bytes[..room]);
    room == bytes.len()
}
