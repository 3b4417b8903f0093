//! Host keys, rekeying, stalls and lies of SSH servers, on the engines that log in themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod host_keys;
mod liars;
mod middle;
mod rekey;
#[path = "../sshd/mod.rs"]
#[allow(dead_code)]
mod sshd;
mod stalls;
mod stub;
mod terrapin;

use std::path::PathBuf;
use std::time::Duration;

use haul::endpoint::Endpoint;
use haul::transport::ssh::{LoginCache, connect};
use haul::transport::{ConnectOptions, HostKeyPolicy, SshConfig, SshEngine};
use haul::{Error, Result};
use sshd::Sshd;

/// The third is the system's own `ssh`.
const ENGINES: [SshEngine; 2] = [SshEngine::Russh, SshEngine::Libssh2];
/// The timeout where a server goes silent.
const LIMIT: Duration = Duration::from_secs(1);
/// Longer than anything may take that ends by a timeout of [`LIMIT`].
const HANG: Duration = Duration::from_secs(20);

/// Options that touch nothing of the user's own.
fn options(engine: SshEngine, identity: PathBuf, known_hosts: PathBuf) -> ConnectOptions {
    ConnectOptions {
        timeout: Duration::from_secs(10),
        identities: vec![identity],
        agent: None,
        ssh_config: SshConfig::None,
        known_hosts: Some(known_hosts),
        host_key: Some(HostKeyPolicy::AcceptNew),
        ssh_engine: engine,
        ..ConnectOptions::default()
    }
}

fn options_for(sshd: &Sshd, engine: SshEngine) -> ConnectOptions {
    options(engine, sshd.path("login_ed25519"), sshd.known_hosts(&[&sshd.host_key("ed25519")]))
}

fn at_port(port: u16) -> Endpoint {
    let user = std::env::var("USER").unwrap_or_else(|_| "root".into());
    Endpoint::parse(format!("sftp://{user}@127.0.0.1:{port}/")).unwrap()
}

/// Logs in and opens SFTP; returns what was wrong.
async fn try_sftp(endpoint: &Endpoint, options: &ConnectOptions) -> Result<()> {
    let trying = async {
        let transport = haul::transport::connect(endpoint, options).await?;
        transport.home().await.map(drop)
    };
    tokio::time::timeout(HANG, trying).await.expect("it hangs")
}

/// The same without SFTP.
async fn try_login(endpoint: &Endpoint, options: &ConnectOptions) -> Result<()> {
    let cache = LoginCache::default();
    tokio::time::timeout(HANG, connect(endpoint, options, &cache)).await.expect("it hangs").map(drop)
}

fn assert_harmless(error: &Error) {
    let shown = format!("{} {:?}", error.chain(), error.hint());
    assert!(!shown.contains(|c: char| c.is_control() || c == '\u{202e}'), "{shown:?}");
    assert!(shown.len() < 4096, "{} bytes of error", shown.len());
}
