//! Keys, certificates and what the configuration of OpenSSH says about them, against a real OpenSSH server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "../sshd/mod.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod sshd;

#[path = "../support/mod.rs"]
mod support;

mod certificates;
mod config;
mod fido;
mod formats;
mod keys;
mod partial;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use haul::endpoint::Endpoint;
use haul::transport::ssh::{LoginCache, connect, use_askpass_program};
use haul::transport::{ConnectOptions, HostKeyPolicy, SshConfig, SshEngine};
use haul::{Error, Result};
use sshd::{Answers, Sshd, agent_with, new_key};

/// Those that log in themselves.
const OURS: [SshEngine; 2] = [SshEngine::Russh, SshEngine::Libssh2];
const ENGINES: [SshEngine; 3] = [SshEngine::Russh, SshEngine::Libssh2, SshEngine::Openssh];

/// Options that touch nothing of the user's own and name no key.
fn options(sshd: &Sshd, engine: SshEngine) -> ConnectOptions {
    use_askpass_program(env!("CARGO_BIN_EXE_haul").into());
    ConnectOptions {
        timeout: Duration::from_secs(10),
        agent: None,
        ssh_config: SshConfig::None,
        known_hosts: Some(
            sshd.known_hosts(
                &["ed25519", "ecdsa", "rsa"].map(|kind| sshd.host_key(kind)).each_ref().map(String::as_str),
            ),
        ),
        host_key: Some(HostKeyPolicy::Strict),
        ssh_engine: engine,
        ..ConnectOptions::default()
    }
}

/// The same, with this text as configuration.
fn configured(sshd: &Sshd, engine: SshEngine, text: &str) -> ConnectOptions {
    let config = sshd.path("config");
    std::fs::write(&config, text).unwrap();
    ConnectOptions { ssh_config: SshConfig::File(config), ..options(sshd, engine) }
}

async fn enter(sshd: &Sshd, options: &ConnectOptions) -> Result<()> {
    enter_at(&sshd.endpoint(), options).await
}

async fn enter_at(endpoint: &Endpoint, options: &ConnectOptions) -> Result<()> {
    let session = connect(endpoint, options, &LoginCache::default()).await?;
    session.close().await;
    Ok(())
}

fn told(error: &Error) -> String {
    format!("{} ({})", error.chain(), error.hint().unwrap_or_default())
}

fn user(sshd: &Sshd) -> String {
    sshd.endpoint().user.unwrap()
}

/// Runs a program that must succeed.
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
